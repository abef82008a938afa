"""One job of a sweep, or a single run: skipped where it is finished, locked while it goes on, and never half told."""

import json
import logging
import math
import shutil
import sys
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from statprune.config.naming import differing_keys
from statprune.config.schema import RunConfig, parse_config
from statprune.errors import ConfigError, StatpruneError, first_line
from statprune.runs.ledger import FAILED, FINISHED, RUNNING, SKIPPED
from statprune.runs.pipeline import choose_device, complete, run
from statprune.runs.record import shown
from statprune.runs.resume import can_resume
from statprune.runs.store import MODEL, read_record
from statprune.runs.summary import accuracy_line
from statprune.runs.workbench import Workbench
from statprune.system.distributed import gathered, rank, size, start, together
from statprune.system.lock import locked

log = logging.getLogger(__name__)
SAVES = ".saves-model"  # beside a model that a run wrote, or began to
PATIENCE = 60.0  # seconds that a process which failed waits for the others to have failed, too
COMPLETING = "completing"  # what the first process tells the others: a pending run is completed


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        folder: of the run.
        state: finished, skipped (it was finished before) or failed.
        reasons: one sentence for each thing that is wrong.
        record: of a finished run.
    """

    folder: Path
    state: str
    reasons: list[str] = field(default_factory=list)
    record: dict[str, Any] | None = None

    @property
    def metric(self) -> float | None:
        """Pruned perplexity on the first evaluation dataset, or else the zero-shot error; a sweeper minimises it.

        A perplexity that is not finite, which a record holds as null, is the worst there is.
        """
        metrics = self.record["metrics"] if self.record else {"perplexity": {}}
        for values in metrics["perplexity"].values():
            value = values["pruned"]
            return float(value) if value is not None and math.isfinite(value) else math.inf
        accuracy = metrics["zero_shot"]["mean"]["pruned"] if metrics.get("zero_shot") else None
        return None if accuracy is None else 1 - accuracy


def carry_out(composed: DictConfig, folder: Path, bench: Workbench, others_follow: bool) -> Outcome:
    """Do one job.

    Among several processes, one that fails alone tells why and ends, and with it all: the others wait for it in the
    middle of the job.

    Args:
        composed: its configuration.
        folder: of the run.
        bench: what jobs of this process share.
        others_follow: an error that is no user's is told with its traceback, and not raised.
    """
    outcome = _outcome(composed, folder, bench, others_follow)
    if not together(PATIENCE if outcome.state == FAILED else None):
        for reason in outcome.reasons:
            print(f"statprune: process {rank()} of {size()}: {reason}", file=sys.stderr, flush=True)
        raise SystemExit(1)
    return outcome


def _outcome(composed: DictConfig, folder: Path, bench: Workbench, others_follow: bool) -> Outcome:
    try:
        raw: Any = OmegaConf.to_container(composed, resolve=True)
        config = parse_config(raw)
        return _carry_out(config, composed, folder, bench)
    except ConfigError as error:
        return Outcome(folder, FAILED, error.problems)
    except StatpruneError as error:
        return Outcome(folder, FAILED, [str(error)])
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        advice = "lower the batch sizes, or choose offload=cpu or disk"
        return Outcome(folder, FAILED, [f"the GPU's memory is too small ({reason}); {advice}"])
    except Exception as error:
        if not others_follow:
            raise
        traceback.print_exc()
        reason = first_line(error)
        return Outcome(folder, FAILED, [f"{type(error).__name__}: {reason} (its traceback is above)"])


def _carry_out(config: RunConfig, composed: DictConfig, folder: Path, bench: Workbench) -> Outcome:
    if size() > 1:  # the first process alone knows the folder; the others do as it does
        start(choose_device(config.settings.device))
    if rank() > 0:
        return _follow(config, folder, bench)
    with ExitStack() as held:
        try:
            done = finished_record(config, folder)
            if _is_open(done):
                held.enter_context(locked(folder))
                done = finished_record(config, folder)  # another process may have held it until now
            if _is_open(done):
                _check_model(config, folder)
        except StatpruneError as error:
            gathered(str(error))
            raise
        gathered(RUNNING if done is None else COMPLETING if _is_open(done) else SKIPPED)
        if not _is_open(done):
            log.info("%s is finished already; rerun=true runs it again", folder)
            return Outcome(folder, SKIPPED, record=done)
        if done is None:
            (folder / "result.json").unlink(missing_ok=True)
            _remove_model(config, folder)
        if config.settings.save_model:
            (folder / SAVES).touch()
        if done is not None:
            return Outcome(folder, FINISHED, record=complete(config, folder, done))
        _keep_configuration(composed, folder)
        return Outcome(folder, FINISHED, record=run(config, folder, bench))


def _is_open(record: dict[str, Any] | None) -> bool:
    """Whether a run is still to be done, or to be completed."""
    return record is None or "pending" in record


def _follow(config: RunConfig, folder: Path, bench: Workbench) -> Outcome:
    answer = gathered(None)[0]
    if answer == SKIPPED:
        return Outcome(folder, SKIPPED)
    if answer == COMPLETING:
        return Outcome(folder, FINISHED, record=complete(config, folder, None))
    if answer != RUNNING:
        return Outcome(folder, FAILED, [answer])
    return Outcome(folder, FINISHED, record=run(config, folder, bench))


def finished_record(config: RunConfig, folder: Path) -> dict[str, Any] | None:
    """The record of this very run, if the folder holds it; None where it has to be run.

    A pending record lacks the zero-shot accuracies of a pruned model that is in the folder.

    Raises:
        StatpruneError: the folder holds another run's record, or a damaged one.
    """
    record = None if config.settings.rerun else read_record(folder)
    if record is None:
        return None
    if record["config_hash"] != config.hash():
        before, now = record["config"], config.resolved()
        keys = ", ".join(differing_keys(before, now)) or "none that this version knows"
        raise StatpruneError(
            f"{folder} holds a run with another configuration (differing keys: {keys}); "
            "give another name, or rerun=true to replace it"
        )
    if "pending" in record:
        if can_resume(record, folder):
            return record
        log.info("%s was not evaluated to its end, and its pruned model is not there: it is run again", folder)
        return None
    if config.settings.save_model and not (folder / MODEL / "config.json").exists():
        log.info("%s is finished, but its model was not saved: it is run again", folder)
        return None
    return record


def _check_model(config: RunConfig, folder: Path) -> None:
    """Raise StatpruneError where a model is to be saved and something else is in its place."""
    model = folder / MODEL
    if config.settings.save_model and model.exists() and not _owns_model(folder):
        raise StatpruneError(f"{model} is not a run's own, and save_model=true would write there; give another folder")


def _owns_model(folder: Path) -> bool:
    """Whether a run of this folder wrote its model, or began to."""
    card = folder / MODEL / "README.md"
    return (folder / SAVES).exists() or (card.exists() and "by statprune" in card.read_text(encoding="utf-8"))


def _remove_model(config: RunConfig, folder: Path) -> None:
    """Remove what an earlier run saved: beside another record it would pass for that one's model."""
    model = folder / MODEL
    is_input = Path(config.model.path).expanduser().resolve().is_relative_to(model.resolve())
    if _owns_model(folder) and not is_input:
        shutil.rmtree(model, ignore_errors=True)
        (folder / SAVES).unlink(missing_ok=True)


def _keep_configuration(composed: DictConfig, folder: Path) -> None:
    """The files that Hydra keeps in ``.hydra``, which it would write before anyone knew whether the run is another."""
    kept = folder / ".hydra"
    kept.mkdir(exist_ok=True)
    OmegaConf.save(composed, kept / "config.yaml")
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        OmegaConf.save(OmegaConf.create({"hydra": hydra}), kept / "hydra.yaml")
        OmegaConf.save(hydra.overrides.task, kept / "overrides.yaml")


def to_json(outcome: Outcome) -> str:
    """The outcome as one line, for the process that started the sweep."""
    values = {"folder": str(outcome.folder), "state": outcome.state, "reasons": outcome.reasons}
    of_accuracy = outcome.record is not None and not outcome.record["metrics"]["perplexity"]
    return json.dumps(values | {"metric": outcome.metric, "of": "zero-shot error" if of_accuracy else "perplexity"})


def print_line(outcome: Outcome) -> None:
    """The outcome as people read it while a sweep goes on."""
    text = f"{outcome.folder}: {outcome.state}"
    if outcome.record is not None:
        for source, values in outcome.record["metrics"]["perplexity"].items():
            text += f", perplexity on {source} {shown(values['dense'])} dense, {shown(values['pruned'])} pruned"
        if zero_shot := outcome.record["metrics"].get("zero_shot"):
            text += ", " + accuracy_line(zero_shot)
        text += f", sparsity {outcome.record['sparsity']['achieved']:.4f}"
    print("; ".join([text, *outcome.reasons]), flush=True)
