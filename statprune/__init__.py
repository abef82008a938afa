"""statprune: one-shot post-training pruning of large language models with statistical correction."""
