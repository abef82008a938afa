"""The command ``statprune``. This file and ``main`` import nothing slow, so that typing errors are answered at once."""

from statprune.cli.main import main

__all__ = ["main"]
