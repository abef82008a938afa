"""One job: skipped where it is finished, its folder locked while it goes on, every end turned into an `Outcome`."""

import logging
import math
import sys
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from statprune.config.checks import parse_config
from statprune.config.schema import RunConfig
from statprune.errors import ConfigError, Interrupted, KeptModelError, StatpruneError, first_line
from statprune.runs.earlier_run import EarlierRun, model_problem
from statprune.runs.ledger import JobNote, JobState
from statprune.runs.leftovers import tidy
from statprune.runs.pipeline import run
from statprune.runs.place import place_of
from statprune.runs.pushing import check_target, note_on_model
from statprune.runs.record import RunRecord
from statprune.runs.summary import accuracy_line, shown
from statprune.runs.tracking import note_on_skipped
from statprune.runs.verdict import Complete, Refused, Run, Skip, Verdict, verdict_on, with_whole_model
from statprune.runs.wording import fidelity_shown
from statprune.runs.workbench import Workbench
from statprune.system.devices import choose_device
from statprune.system.disk import disk_problem
from statprune.system.distributed import all_arrive, gathered, lost_process, rank, size, start
from statprune.system.lock import locked
from statprune.system.memory import memory_problem
from statprune.system.plugin_files import use_plugin_files

log = logging.getLogger(__name__)
PATIENCE = 60.0  # seconds that a failed process waits for the other processes to fail as well


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        folder: of the run; an older name than the one it was started for, where that holds this very run.
        state: finished, skipped (it was finished before) or failed.
        reasons: one sentence for each thing that is wrong.
        record: of the run, where it is finished, now or before.
    """

    folder: Path
    state: JobState
    reasons: list[str] = field(default_factory=list)
    record: RunRecord | None = None

    @property
    def metric(self) -> float | None:
        """Pruned perplexity on the first evaluation dataset, or else the zero-shot error; a sweeper minimises it.

        A perplexity that is not finite, which a file holds as null, is the worst there is.
        """
        if self.record is None:
            return None
        for perplexity in self.record.perplexity.values():
            value = perplexity.pruned
            return value if value is not None and math.isfinite(value) else math.inf
        accuracy = self.record.zero_shot.mean.pruned if self.record.zero_shot is not None else None
        return None if accuracy is None else 1 - accuracy

    @property
    def note(self) -> JobNote:
        """What the process that started the sweep is told."""
        is_accuracy = self.record is not None and not self.record.perplexity
        measured = "zero-shot error" if is_accuracy else "perplexity"
        return JobNote(str(self.folder), self.state, self.reasons, self.metric, measured)

    @property
    def line(self) -> str:
        """What people read while a sweep goes on."""
        text = f"{self.folder}: {self.state.value}"
        if self.record is not None:
            for source, perplexity in self.record.perplexity.items():
                text += f", perplexity on {source} {shown(perplexity.dense)}"
                text += f" dense, {shown(perplexity.pruned)} pruned" if self.record.is_pruned else ""
            for source, fidelity in (self.record.fidelity or {}).items():
                divergence, agreement = fidelity_shown(fidelity)
                text += f", on {source} KL {divergence} nats per token from dense and top-1 agreement {agreement}"
            if self.record.zero_shot is not None:
                text += ", " + accuracy_line(self.record.zero_shot, self.record.is_pruned)
            text += f", sparsity {self.record.sparsity.achieved:.4f}"
        return "; ".join([text, *self.reasons])


def carry_out(composed: DictConfig, folder: Path, bench: Workbench, others_follow: bool) -> Outcome:
    """Do one job.

    In several processes, one that fails alone tells why and exits, which ends them all: the other processes would wait
    for it in the middle of the job.

    Args:
        composed: its configuration.
        folder: of the run.
        bench: what jobs of this process share.
        others_follow: whether this process has other jobs to do; if so, an error that no user can cause is printed
            with its traceback instead of raised.
    """
    outcome = _caught(composed, folder, bench, others_follow)
    if not all_arrive(PATIENCE if outcome.state is JobState.FAILED else None):
        for reason in outcome.reasons:
            print(f"statprune: process {rank()} of {size()}: {reason}", file=sys.stderr, flush=True)
        raise SystemExit(1)
    return outcome


def _caught(composed: DictConfig, folder: Path, bench: Workbench, others_follow: bool) -> Outcome:
    try:
        raw = OmegaConf.to_container(composed, resolve=True)
        use_plugin_files([composed.plugins] if isinstance(composed.plugins, str) else composed.plugins)
        config = parse_config(raw)  # type: ignore[arg-type]  # a dictionary with strings as keys
        return _locked_run(config, composed, folder, bench)
    except Interrupted as error:  # of another kind than what fails a job alone
        raise KeyboardInterrupt(error.signal, str(error)) from error
    except ConfigError as error:
        return Outcome(folder, JobState.FAILED, error.problems)
    except StatpruneError as error:
        return Outcome(folder, JobState.FAILED, [str(error)])
    except Exception as error:
        refused = disk_problem(error, str(folder)) or lost_process(error) or _memory_problem(error)
        if refused is not None:
            return Outcome(folder, JobState.FAILED, [refused])
        if not others_follow:
            raise
        traceback.print_exc()
        reason = f"{type(error).__name__}: {first_line(error)} (its traceback is above)"
        return Outcome(folder, JobState.FAILED, [reason])


def _memory_problem(error: Exception) -> str | None:
    """That the GPU's memory or the machine's was too small, in one sentence, or None."""
    problem = memory_problem(error)
    return f"{problem}; lower the batch sizes, or choose offload=cpu or disk" if problem is not None else None


def _locked_run(config: RunConfig, composed: DictConfig, folder: Path, bench: Workbench) -> Outcome:
    if size() > 1:
        start(choose_device(config.settings.device))
    folder = place_of(config, folder)
    with ExitStack() as lock:
        # the first process looks at the folder and decides for all; what the other processes contribute is not read
        verdict = gathered(_locked_verdict(config, folder, lock) if rank() == 0 else Run())[0]
        if isinstance(verdict, Run | Complete):
            check_target(config)  # before anything is written or computed
        match verdict:
            case Refused(reason):
                return Outcome(folder, JobState.FAILED, [reason])
            case Skip(record):
                log.info("%s is finished already; rerun=true runs it again%s", folder, _told(config, folder, record))
                return Outcome(folder, JobState.SKIPPED, record=record if rank() == 0 else None)
            case Complete(record):
                try:
                    return Outcome(folder, JobState.FINISHED, record=run(config, folder, bench, record))
                except KeptModelError as error:
                    because = f"{error}: the model is pruned again"
                return _from_the_start(config, composed, folder, bench, because)
            case Run(because):
                return _from_the_start(config, composed, folder, bench, because)


def _from_the_start(
    config: RunConfig, composed: DictConfig, folder: Path, bench: Workbench, because: str | None
) -> Outcome:
    if because is not None:
        log.info(because)
    if rank() == 0:
        _write_hydra_files(composed, folder)
    record = run(config, folder, bench, earlier=EarlierRun(config, folder))
    return Outcome(folder, JobState.FINISHED, record=record)


def _locked_verdict(config: RunConfig, folder: Path, lock: ExitStack) -> Verdict:
    """The verdict; the folder is locked, and stays so, unless nothing is written to it."""
    try:
        verdict = verdict_on(config, folder)
        if isinstance(verdict, Run | Complete):
            lock.enter_context(locked(folder))
            # another process may have held it until now
            verdict = with_whole_model(verdict_on(config, folder), folder)
        if not isinstance(verdict, Run | Complete | Refused):
            tidy(folder)
        if isinstance(verdict, Run | Complete) and (reason := model_problem(config, folder)):
            return Refused(reason)
    except StatpruneError as error:
        return Refused(str(error))
    return verdict


def _told(config: RunConfig, folder: Path, record: RunRecord) -> str:
    """What a skipped run lacks, and what it means for Weights & Biases, to end a sentence with."""
    quantized = record.quantization.dense.fidelity if record.quantization is not None else None
    lacks = config.measures_fidelity and (quantized if config.is_dense else record.fidelity) is None
    notes = ["it was made without fidelity" if lacks else None, note_on_model(config, folder, record)]
    notes.append(note_on_skipped(config, folder))
    return "".join(f"; {note}" for note in notes if note)


def _write_hydra_files(composed: DictConfig, folder: Path) -> None:
    """Write ``.hydra``'s files; Hydra itself would do so before anyone knows whether the folder holds another run."""
    own = folder / ".hydra"
    own.mkdir(exist_ok=True)
    OmegaConf.save(composed, own / "config.yaml")
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        OmegaConf.save(OmegaConf.create({"hydra": hydra}), own / "hydra.yaml")
        OmegaConf.save(hydra.overrides.task, own / "overrides.yaml")
