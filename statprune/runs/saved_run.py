"""A finished run with its saved model, as what looks at it again needs it; and what a check of it found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from statprune.config.checks import parse_config
from statprune.config.schema import RunConfig
from statprune.errors import DamagedError, StatpruneError
from statprune.pruning.report import MatrixReport
from statprune.runs.checksums import damage
from statprune.runs.record import RunRecord
from statprune.runs.store import MODEL, RECORD, REPORTS, read_record, read_reports
from statprune.system.plugin_files import use_plugin_files


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in a word or two.
        is_right: None where it could not be checked.
        sentence: what was found.
    """

    check: str
    is_right: bool | None
    sentence: str


@dataclass(frozen=True)
class SavedRun:
    """A finished run with its saved model.

    Attributes:
        folder: of the run.
        record: of the run.
        config: of the run.
        reports: of its matrices, as blocks.jsonl has them; none where nothing was pruned.
        reports_problem: why blocks.jsonl can't be believed, in half a sentence; None: it can.
    """

    folder: Path
    record: RunRecord
    config: RunConfig
    reports: Sequence[MatrixReport]
    reports_problem: str | None = None

    @property
    def model(self) -> Path:
        """Folder of the saved model."""
        return self.folder / MODEL

    @property
    def source(self) -> str:
        """The dense model that was pruned, as an absolute path where it is a local one."""
        return self.record.paths.get("model.path", self.config.model.path)

    @property
    def by_place(self) -> Mapping[tuple[int, str], MatrixReport]:
        """Reports by the number of the block and the matrix's name within it."""
        return {(report.block, report.name): report for report in self.reports}


def saved_run(folder: Path) -> SavedRun:
    """The run whose folder, or whose model's folder, this is.

    Raises:
        StatpruneError: there is none, or it saved no model.
    """
    own = folder if (folder / RECORD).exists() else folder.absolute().parent
    record = read_record(own)
    if record is None:
        raise StatpruneError(f"{folder} holds no {RECORD}; give the folder of a run with save_model=true or compressed")
    if not record.is_finished:
        raise StatpruneError(f"{own} holds a run that is not finished; give its command again first")
    if not (own / MODEL).is_dir():
        raise StatpruneError(f"{own} holds no folder {MODEL}; run again with save_model=true rerun=true")
    use_plugin_files(record.config.get("plugins", []))
    reports, problem = _reports(own, record) if record.is_pruned else ([], None)
    return SavedRun(own, record, parse_config(record.config), reports, problem)


def _reports(folder: Path, record: RunRecord) -> tuple[Sequence[MatrixReport], str | None]:
    """The reports, or none and why; a report that was changed or lost would speak against an intact model."""
    try:
        reports = read_reports(folder)
    except FileNotFoundError:
        return [], f"{REPORTS} is missing"
    except (OSError, DamagedError):
        return [], f"{REPORTS} can't be read"
    problems = damage(folder, {name: own for name, own in record.files.items() if name == REPORTS})
    if problems:
        return [], problems[0]
    return (reports, None) if reports else ([], f"{REPORTS} has no line")
