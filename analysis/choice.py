"""What a trial of candidates and whole runs of the best two say about which to use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from statprune.analysis.compare import Measured, compare
from statprune.errors import StatpruneError
from statprune.runs.record import CALIBRATION_PASS, PRUNING_PHASES, RunRecord
from statprune.runs.store import read_record


@dataclass(frozen=True)
class TriedCandidate:
    """A candidate after the trial.

    Attributes:
        label: what it is called.
        overrides: of a run with it.
        error: geometric mean of the relative output errors on unseen windows; None: it was not tried to the end.
        seconds: predicted for pruning the whole model; None: unknown.
        remark: why it is out, in words; None: it is in.
    """

    label: str
    overrides: tuple[str, ...]
    error: float | None
    seconds: float | None
    remark: str | None


@dataclass(frozen=True)
class WholeRun:
    """A candidate that was run whole.

    Attributes:
        label: what it is called.
        folder: of its run.
        seconds: of observing, solving and propagating; None: it used another run's calibration pass.
        perplexity: by dataset; intervals are of the difference in mean loss to the first.
    """

    label: str
    folder: Path
    seconds: float | None
    perplexity: dict[str, Measured]


@dataclass(frozen=True)
class Choice:
    """Which candidate to use, and why.

    Attributes:
        candidates: all of them, the best first.
        blocks: numbers of the blocks that they were tried on.
        spent: seconds of the trial.
        runs: of the best two; fewer where the budget had no room for them.
        chosen: label of the one to use.
        reason: a sentence.
    """

    candidates: list[TriedCandidate]
    blocks: tuple[int, ...]
    spent: float
    runs: list[WholeRun]
    chosen: str
    reason: str


def choice_between(
    candidates: Sequence[TriedCandidate], folders: dict[str, Path], blocks: tuple[int, ...], spent: float
) -> Choice:
    """Choose by whole runs where there are two, and else by the errors of single matrices.

    Args:
        candidates: the best first.
        folders: of finished runs by label, two at most.
        blocks: that the candidates were tried on.
        spent: seconds of the trial.

    Raises:
        StatpruneError: no candidate can be used, or a run left no record.
    """
    usable = [each for each in candidates if each.remark is None]
    if not usable:
        raise StatpruneError("no candidate can be used; give more minutes, fewer windows, or candidates of your own")
    runs = _runs(folders)
    if len(runs) < 2:
        chosen, reason = usable[0].label, "its layers' errors are the least; no two whole runs were compared"
    else:
        chosen, reason = _better(runs)
    return Choice(list(candidates), blocks, spent, runs, chosen, reason)


def _runs(folders: dict[str, Path]) -> list[WholeRun]:
    if not folders:
        return []
    compared = compare(list(folders.values())) if len(folders) > 1 else None
    runs = []
    for number, (label, folder) in enumerate(folders.items()):
        record = read_record(folder)
        if record is None:
            raise StatpruneError(f"{folder} holds no result.json; start the command again")
        perplexity = {
            name: compared.perplexity[name][number] if compared else Measured(own.dense, own.pruned)
            for name, own in record.perplexity.items()
        }
        runs.append(WholeRun(label, folder, _pruning_seconds(record), perplexity))
    return runs


def _pruning_seconds(record: RunRecord) -> float | None:
    """What candidates are compared by: not reading the text, which the first of two runs does for both."""
    if CALIBRATION_PASS in record.reused:
        return None
    return sum(record.seconds.get(phase, 0.0) for phase in PRUNING_PHASES)


def _better(runs: Sequence[WholeRun]) -> tuple[str, str]:
    """The better of two whole runs, and why: by the first dataset's windows, and by seconds where these do not tell."""
    first, second = runs
    dataset = next(iter(second.perplexity), None)
    interval = second.perplexity[dataset].interval if dataset is not None else None
    if interval is not None and interval.is_apart:
        better, other = (second, first) if interval.difference < 0 else (first, second)
        return better.label, (
            f"its perplexity on {dataset} is lower than that of {other.label}: the mean loss differs by "
            f"{abs(interval.difference):.4f}, and the 95% interval over the windows does not reach 0"
        )
    if first.seconds is None or second.seconds is None:
        return first.label, (
            f"the evaluation does not tell it from {second.label}, and its layers' errors are less; their seconds "
            "can't be compared, since one used the other's calibration pass"
        )
    faster, slower = (first, second) if first.seconds <= second.seconds else (second, first)
    return faster.label, (
        f"the evaluation does not tell it from {slower.label}, and pruning took {faster.seconds:.1f} s in place of "
        f"{slower.seconds:.1f} s"
    )
