"""What a model is worth: perplexity, and zero-shot accuracy with lm-eval's own harness."""

from statprune.evaluation.perplexity import perplexity, window_losses

__all__ = ["perplexity", "window_losses"]
