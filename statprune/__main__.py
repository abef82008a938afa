"""``python -m statprune``."""

from statprune.cli import cli

cli()
