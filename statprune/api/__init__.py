"""The Python interface for notebooks and other tools: prune, evaluate, save and statistics.

``statprune`` names what is public; each module here has one of its functions. What they have in common: arguments
(names, numbers and objects become what the packages below take), tokens (windows of tokens), progress.
"""

__all__: list[str] = []
