"""Weights & Biases behind one small interface; the run's files never depend on it."""

import hashlib
import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.config.naming import pattern_tag
from statprune.config.schema import RunConfig
from statprune.model.location import model_name
from statprune.pruning.report import MatrixReport
from statprune.runs.agent import AGENT
from statprune.system.files import finite

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)


class Tracker:
    """One W&B run; whatever W&B fails with is a warning, once, and the run goes on without it.

    Args:
        config: the run's.
        folder: holds the W&B run's files, below ``wandb``.
        active: False in processes that another one speaks for.
    """

    def __init__(self, config: RunConfig, folder: Path, active: bool = True):
        self._run: Run | None = None
        self._has_warned = False
        self._artifacts = config.tracking.artifacts
        self._id = run_id(config)
        if active and config.tracking.mode != "disabled":
            self._try(lambda: self._start(config, folder), "be started")

    def log_block(self, block: int, means: Mapping[str, float]) -> None:
        """Log a block's numbers, means over its matrices."""
        if (run := self._run) is not None:
            values = {"block": block} | {f"block/{key}": value for key, value in means.items()}
            self._try(lambda: run.log(values), "take a block's numbers")

    def finish(
        self,
        summary: Mapping[str, float | int | None],
        reports: Sequence[MatrixReport],
        files: Mapping[str, Path],
        exit_code: int = 0,
    ) -> None:
        """Write summary, table of matrices and artifacts, and end the W&B run.

        Args:
            summary: final numbers.
            reports: one per pruned matrix.
            files: files and folders by the kind of artifact; those that were asked for are uploaded.
            exit_code: of the run, as a shell names it; 0: it came to its end.
        """
        if (run := self._run) is None:
            return
        self._try(lambda: run.summary.update(dict(summary)), "take the summary")
        if reports:
            self._try(lambda: self._log_table(run, reports), "take the table of layers")
        for kind in self._artifacts:
            if kind in files:
                self._try(_Upload(run, f"{kind}-{self._id}", kind, files[kind]), f"take the {kind}")
        self._try(lambda: run.finish(exit_code=exit_code), "be finished")

    def _start(self, config: RunConfig, folder: Path) -> None:
        import wandb

        options, is_agent = config.tracking, AGENT in os.environ
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
            id=None if is_agent else self._id,
            resume=None if is_agent or options.mode != "online" else "allow",
            reinit="finish_previous",
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric("block")
        self._run.define_metric("block/*", step_metric="block")

    def _log_table(self, run: "Run", reports: Sequence[MatrixReport]) -> None:
        import wandb

        rows = [report.to_json() for report in reports]
        columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
        data = [[finite(row.get(str(column))) for column in columns] for row in rows]
        run.log({"layers": wandb.Table(columns=columns, data=data)})

    def _try(self, act: Callable[[], object], what: str) -> None:
        try:
            act()
        except Exception as error:  # any of W&B's own errors, or its process being gone
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            (log.debug if self._has_warned else log.warning)(
                "W&B could not %s (%s); the run's files are written all the same", what, reason
            )
            self._has_warned = True


class _Upload:
    """One artifact that W&B is to take."""

    def __init__(self, run: "Run", name: str, kind: str, path: Path):
        self._run, self._name, self._kind, self._path = run, name, kind, path

    def __call__(self) -> None:
        import wandb

        artifact = wandb.Artifact(self._name, type=self._kind)
        (artifact.add_dir if self._path.is_dir() else artifact.add_file)(str(self._path))
        self._run.log_artifact(artifact)


def note_on_skipped(config: RunConfig, folder: Path) -> str | None:
    """What W&B has of a finished run that is not run again, and how it gets the rest; None where it is not asked for.

    Args:
        config: the run's.
        folder: of the run.
    """
    if config.tracking.mode == "disabled":
        return None
    files = folder / "wandb"
    if any(files.glob("offline-run-*")):
        return (
            f"W&B gets nothing new: send what the run wrote with `wandb sync {shlex.quote(str(files))}/offline-run-*`"
        )
    if any(files.glob("run-*")):
        return "W&B gets nothing new: the run was sent when it ran"
    return "W&B gets nothing: the run was made without it, and only rerun=true tells it"


def run_id(config: RunConfig) -> str:
    """W&B's id of a run: the same for the same configuration under the same name."""
    return hashlib.sha256(f"{config.settings.name}/{config.hash()}".encode()).hexdigest()[:16]


def _tags(config: RunConfig) -> list[str]:
    pattern = pattern_tag(config.resolved()["sparsity"], config.method_name)
    tags = [config.method_name, pattern, model_name(config.model.path), *config.tracking.tags]
    return list(dict.fromkeys(tag for tag in tags if tag))
