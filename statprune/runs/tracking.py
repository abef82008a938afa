"""Weights & Biases behind one small interface; the run's files never depend on it."""

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from statprune.config.naming import pattern_tag
from statprune.config.schema import RunConfig

log = logging.getLogger(__name__)


class Tracker:
    """One W&B run; whatever W&B fails with is a warning, once, and the run goes on without it.

    Args:
        config: the run's.
        folder: holds the W&B run's files, below ``wandb``.
        active: False in processes that another one speaks for.
    """

    def __init__(self, config: RunConfig, folder: Path, active: bool = True):
        self._run: Any = None
        self._warned = False
        self._artifacts = config.tracking.artifacts
        self._id = run_id(config)
        if active and config.tracking.mode != "disabled":
            self._try(lambda: self._start(config, folder), "be started")

    def log_block(self, block: int, means: dict[str, float]) -> None:
        """A block's numbers, means over its layers."""
        if self._run is not None:
            values = {"block": block} | {f"block/{key}": value for key, value in means.items()}
            self._try(lambda: self._run.log(values), "take a block's numbers")

    def finish(
        self, summary: dict[str, Any], layers: list[dict[str, Any]], files: dict[str, Path], failed: bool = False
    ) -> None:
        """Write summary, table of layers and artifacts, and end the W&B run.

        Args:
            summary: final numbers.
            layers: one report per layer.
            files: files and folders by the kind of artifact; those that were asked for are uploaded.
            failed: the run did not come to its end.
        """
        if self._run is None:
            return
        self._try(lambda: self._run.summary.update(summary), "take the summary")
        if layers:
            self._try(lambda: self._log_table(layers), "take the table of layers")
        for kind, path in files.items():
            if kind in self._artifacts:
                self._try(functools.partial(self._log_artifact, kind, path), f"take the {kind}")
        self._try(lambda: self._run.finish(exit_code=int(failed)), "be finished")

    def _start(self, config: RunConfig, folder: Path) -> None:
        import wandb

        options, agent = config.tracking, "WANDB_SWEEP_ID" in os.environ
        self._run = wandb.init(
            mode="online" if options.mode == "online" else "offline",
            project=options.project,
            entity=options.entity,
            group=options.group or config.settings.name,
            job_type=options.job_type,
            name=folder.name,
            tags=[tag[:64] for tag in _tags(config)],
            notes=options.notes,
            dir=folder.absolute(),  # its process may be one that another program started, elsewhere
            config=config.resolved() | {"config_hash": config.hash()},
            # a sweep's agent has chosen the id; otherwise running again goes on with the same W&B run
            id=None if agent else self._id,
            resume=None if agent or options.mode != "online" else "allow",
            reinit="finish_previous",
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric("block")
        self._run.define_metric("block/*", step_metric="block")

    def _log_table(self, layers: list[dict[str, Any]]) -> None:
        import wandb

        columns: list[str | int] = list(dict.fromkeys(key for layer in layers for key in layer))
        rows = [[layer.get(str(column)) for column in columns] for layer in layers]
        self._run.log({"layers": wandb.Table(columns=columns, data=rows)})

    def _log_artifact(self, kind: str, path: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"{kind}-{self._id}", type=kind)
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
        self._run.log_artifact(artifact)

    def _try(self, act: Callable[[], Any], what: str) -> None:
        try:
            act()
        except Exception as error:  # any of W&B's own errors, or its process being gone
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            (log.debug if self._warned else log.warning)(
                "W&B could not %s (%s); the run's files are written all the same", what, reason
            )
            self._warned = True


def run_id(config: RunConfig) -> str:
    """W&B's id of this run: the same for the same configuration under the same name."""
    return hashlib.sha256(f"{config.settings.name}/{config.hash()}".encode()).hexdigest()[:16]


def _tags(config: RunConfig) -> list[str]:
    model = Path(config.model.path).name
    tags = [config.method, pattern_tag(config.resolved()["sparsity"], config.method), model, *config.tracking.tags]
    return list(dict.fromkeys(tag for tag in tags if tag))
