"""``wandb agent``: starts a command for each run of a W&B sweep, and chooses the run's id."""

AGENT = "WANDB_SWEEP_ID"  # in the environment of what an agent starts
