"""``python -m statprune``."""

from statprune.main import cli

cli()
