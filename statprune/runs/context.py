"""What all stages of one run share."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

import torch

from statprune.config.schema import RunConfig
from statprune.config.sections import Offload
from statprune.errors import Interrupted, ModelError, first_line, interruption
from statprune.model.saved import SavedModel
from statprune.pruning.report import MatrixReport
from statprune.runs.finals import Number, finals
from statprune.runs.inputs import Inputs
from statprune.runs.record import RunRecord
from statprune.runs.store import (
    CHECKPOINT,
    MASKS,
    MODEL,
    REPORTS,
    UNSAVED,
    append_reports,
    discard_unsaved,
    remove_leftovers,
    write_reports,
)
from statprune.runs.tracking import Tracker
from statprune.runs.workbench import Workbench
from statprune.system import stop_request
from statprune.system.devices import choose_device
from statprune.system.disk import is_disk_error
from statprune.system.distributed import gathered, rank, start

log = logging.getLogger(__name__)


@dataclass
class RunContext:
    """One run while it goes on.

    Attributes:
        config: what to do.
        folder: of the run.
        device: to compute on.
        bench: what runs of this process share.
        tracker: Weights & Biases.
        cleanup: what is done when the run ends, however it ends.
        inputs: what is read.
        seconds: by phase, so far.
        reports: of the matrices pruned so far.
        lacks_reports: some could not be written, and wait here.
        save_problem: why the model or its masks could not be saved, raised once the rest is written; None: they could.
        saved: what was written of the model; None: nothing.
        record: set when the run is finished.
        resumed_blocks: how many blocks an earlier attempt pruned.
        replaced: bytes of an earlier run's models, which are removed before anything is pruned.
        should_stop: the signal that asked the run to stop; None: it goes on.
    """

    config: RunConfig
    folder: Path
    device: torch.device
    bench: Workbench
    tracker: Tracker
    cleanup: ExitStack
    inputs: Inputs = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reports: list[MatrixReport] = field(default_factory=list)
    lacks_reports: bool = False
    save_problem: ModelError | None = None
    saved: SavedModel | None = None
    record: RunRecord | None = None
    resumed_blocks: int = 0
    replaced: int = 0
    should_stop: Callable[[], int | None] = stop_request.requested

    def stop_if_asked(self) -> None:
        """End the run between two stages where a signal asked any of its processes to.

        Raises:
            Interrupted: one did.
        """
        asked = [number for number in gathered(self.should_stop()) if number is not None]
        if asked:
            raise Interrupted(asked[0])

    def add_reports(self, reports: Sequence[MatrixReport]) -> None:
        """Add the reports of a pruned block to those of the run; a full disk is no reason to stop pruning."""
        self.reports.extend(reports)
        if self.lacks_reports:
            return
        try:
            append_reports(self.folder, reports)
        except OSError as error:
            if not is_disk_error(error):
                raise
            self.lacks_reports = True
            log.warning(
                "reports can't be added to %s (%s): pruning goes on, and they are written at its end",
                self.folder / REPORTS,
                first_line(error),
            )

    def complete_reports(self) -> None:
        """Write the reports that wait, if any do.

        Raises:
            OSError: they can't be written.
        """
        if self.lacks_reports:
            write_reports(self.folder, self.reports)
            self.lacks_reports = False

    @property
    def room(self) -> int:
        """Bytes that the run may fill on the disk of its folder.

        Where pruned blocks are on disk, those that an earlier attempt kept are taken up as they are, or removed.
        """
        own = self.replaced
        if self.config.settings.offload is Offload.disk:
            own += sum(path.stat().st_size for path in (self.folder / CHECKPOINT).glob("*.safetensors"))
        else:  # given up where another model would find no room beside it
            links = (self.folder / CHECKPOINT).glob("block-*.saved-*.safetensors")
            own += sum({path.stat().st_ino: path.stat().st_size for path in links}.values())
        return shutil.disk_usage(self.folder).free + own

    @property
    def saves_model(self) -> bool:
        """Whether this process saves the model for good."""
        return self.config.settings.saves_model and rank() == 0

    @property
    def writes_model(self) -> bool:
        """Whether this process writes the model: to save it, or so that an evaluation that fails can go on from it."""
        return self.saves_model or (rank() == 0 and bool(self.config.evaluation.tasks) and not self.config.is_dense)

    @property
    def model_folder(self) -> Path:
        """Where this process writes the dense model: for good, or until it is evaluated and compressed."""
        is_kept = self.saves_model and not self.config.settings.compresses_model
        return self.folder / (MODEL if is_kept else UNSAVED)


@contextmanager
def started(config: RunConfig, folder: Path, bench: Workbench | None) -> Iterator[RunContext]:
    """Begin a run, and end it: clean up, and tell Weights & Biases how it ended.

    Args:
        config: what to do.
        folder: of the run; it is made.
        bench: what runs of this process share; None: nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = choose_device(config.settings.device)
    start(device)
    remove_leftovers(folder)
    bench = bench or Workbench(holds_model=False)
    bench.begin()
    tracker = Tracker(config, folder, active=rank() == 0)
    context: RunContext | None = None
    try:
        with ExitStack() as cleanup:
            context = RunContext(config, folder, device, bench, tracker, cleanup)
            cleanup.callback(discard_unsaved, folder)
            yield context
    except BaseException as error:
        with stop_request.cleaning_up():  # a second signal must not leave W&B with a run that looks finished
            number = interruption(error)
            if number is not None:
                log.info("the run was interrupted by %s", Signals(number).name)
            else:  # other runs of this process may follow
                bench.after_a_failure()
            told: dict[str, Number] = {} if number is None else {"interrupted": True}
            tracker.finish(told, context.reports if context else [], {}, 1 if number is None else 128 + number)
        raise
    summary = finals(context.record) if context.record is not None else {}
    summary["interrupted"] = False  # an attempt before may have been
    tracker.finish(summary, context.reports, {"masks": folder / MASKS, "model": folder / MODEL})
