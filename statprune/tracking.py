"""Weights & Biases behind one small interface; the run's files never depend on it."""

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Tracker:
    """One W&B run in offline mode, or nothing where tracking is disabled or W&B fails to start."""

    def __init__(self, mode: str, project: str, folder: Path, config: dict[str, Any]):
        self._run: Any = None
        if mode == "disabled":
            return
        try:
            import wandb

            self._run = wandb.init(
                mode="offline",
                project=project,
                group=config["name"],
                dir=folder,
                config=config,
                reinit="finish_previous",
                settings=wandb.Settings(silent=True),
            )
            self._run.define_metric("block")
            self._run.define_metric("block/*", step_metric="block")
        except Exception as error:  # whatever W&B fails with, the run goes on without it
            log.warning("W&B could not be started (%s); the run's files are written all the same", error)

    def log_block(self, block: int, means: dict[str, float]) -> None:
        """A block's numbers, means over its layers."""
        if self._run is not None:
            self._run.log({"block": block} | {f"block/{key}": value for key, value in means.items()})

    def finish(self, summary: dict[str, Any], failed: bool = False) -> None:
        """Write the summary and end the W&B run."""
        if self._run is not None:
            self._run.summary.update(summary)
            self._run.finish(exit_code=int(failed))
