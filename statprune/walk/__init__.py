"""From a model to its decoder blocks and their matrices, and through the blocks with windows of tokens."""

from statprune.walk.discover import find_blocks

__all__ = ["find_blocks"]
