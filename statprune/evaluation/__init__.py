"""What a model is worth: perplexity, fidelity, and zero-shot accuracy with lm-eval's own harness."""

from statprune.evaluation.fidelity import WindowFidelity, window_fidelity
from statprune.evaluation.perplexity import perplexity, window_losses

__all__ = ["WindowFidelity", "perplexity", "window_fidelity", "window_losses"]
