"""A second, plain implementation of the pruning methods, to compare perplexities with (see agreement.py)."""
