"""What is run to answer a question: tables of the paper and ours, studies, W&B sweeps, tasks; reproduce runs tables."""

__all__ = ["reproduce"]
