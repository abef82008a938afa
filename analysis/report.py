"""One HTML page about an experiment's folder, which opens from disk."""

import base64
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from statprune.analysis import figures
from statprune.analysis.collect import collect
from statprune.analysis.contents import other_contents
from statprune.analysis.drawing import png, save
from statprune.analysis.series import PRUNING, name_series, varied_keys
from statprune.errors import StatpruneError
from statprune.runs.record import RunRecord
from statprune.runs.store import RECORD, read_record

log = logging.getLogger(__name__)
BESIDE = {"kl": "KL", "top1": "top-1", "flips": "flips"}  # columns of ``collect``
TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Cell:
    """A cell of the page's table.

    Attributes:
        text: as a person reads it.
        number: what the column is sorted by; None: by the text.
    """

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Picture:
    """A figure for the page.

    Attributes:
        caption: what it shows.
        name: of its files.
        figure: itself.
    """

    caption: str
    name: str
    figure: Figure

    @property
    def data(self) -> str:
        """The PNG's bytes in base64."""
        return base64.b64encode(png(self.figure)).decode()


def report(folder: Path, output: Path, figure_folder: Path | None = None, csv: Path | None = None) -> None:
    """Write one self-contained page about all finished runs below a folder.

    Args:
        folder: of an experiment, such as ``outputs/NAME``.
        output: the page; its folder is made if it is missing.
        figure_folder: for the page's figures as files, PNG and PDF; None: they are in the page alone.
        csv: for the page's table as a file, with the commit and the machine of every run; None: none is written.

    Raises:
        StatpruneError: there is no record below the folder.
    """
    collected = collect(folder)
    left_out = collected.skipped + unfinished(folder)
    if collected.frame.empty:
        why = f": {left_out[0]}" if left_out else "; give the folder of an experiment, such as outputs/default"
        raise StatpruneError(f"{folder} holds no finished run{why}")
    frame = collected.frame
    records = {path: record for path in dict.fromkeys(frame.folder) if (record := read_record(Path(path))) is not None}
    pictures, problems = draw_all(frame)
    columns, rows = runs_table(frame, folder)
    # autoescape: names, configurations and messages are text that others wrote
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        title=folder.resolve().name,
        summary=summary(frame, left_out),
        left_out=left_out + problems,
        contents=other_contents([short(path, folder) for path in records], list(records.values())),
        columns=columns,
        rows=rows,
        figures=pictures,
        configurations=[(short(path, folder), OmegaConf.to_yaml(record.config)) for path, record in records.items()],
        environments=environments(records.values()),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(html, encoding="utf-8")
    if figure_folder is not None:
        for picture in pictures:
            save(picture.figure, figure_folder, picture.name)
    if csv is not None:
        _write_csv(csv, columns, rows, [records[path] for path in dict.fromkeys(frame.folder)])


def _write_csv(path: Path, columns: list[str], rows: list[list[Cell]], records: list[RunRecord]) -> None:
    """The page's table, with what made each run: commit, device and threads."""
    table = pd.DataFrame([[cell.text for cell in row] for row in rows], columns=columns)
    environments = [record.environment for record in records]
    table["commit"] = [made.commit for made in environments]
    table["device"] = [made.device for made in environments]
    table["threads"] = [made.threads for made in environments]
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def unfinished(folder: Path) -> list[str]:
    """A sentence for each run that was started and has no record."""
    started = sorted(path.parent for path in folder.rglob(".hydra") if not (path.parent / RECORD).exists())
    return [f"{path} has no result.json: the run failed, was cut off or still goes on" for path in started]


def short(path: str, folder: Path) -> str:
    """A run's folder as seen from the experiment's; its own name where it is that."""
    name = Path(path).relative_to(folder).as_posix()
    return folder.resolve().name if name == "." else name


def summary(frame: pd.DataFrame, left_out: list[str]) -> list[tuple[str, str]]:
    """Names and values at the top of the page."""
    runs = frame.drop_duplicates("folder")
    days = sorted({date[:10] for date in runs.date.dropna()})
    measured = frame[frame.metric.notna()]
    numbers = sorted({f"{metric} ({on})" for metric, on in zip(measured.metric, measured.get("on", []), strict=True)})
    return [
        ("runs", f"{len(runs)} finished, {len(left_out)} left out"),
        ("models", ", ".join(sorted(set(runs.model)))),
        ("methods", ", ".join(sorted(set(runs.label)))),
        ("patterns", ", ".join(sorted(set(runs.pattern)))),
        ("seeds", ", ".join(map(str, sorted(set(runs.seed))))),
        ("measured", ", ".join(numbers) or "nothing"),
        ("dates", f"{' to '.join(dict.fromkeys((days[0], days[-1])))} (UTC)" if days else "not recorded"),
    ]


def runs_table(frame: pd.DataFrame, folder: Path) -> tuple[list[str], list[list[Cell]]]:
    """Column names and a row of cells for each run: what it was, what it measured, what it took."""
    frame = frame.assign(on=frame.get("on"))
    measured = frame[frame.metric.notna()]
    numbers = list(dict.fromkeys(zip(measured.metric, measured["on"], strict=True)))
    varied = varied_keys(frame)
    sides = [(metric, on, side) for metric, on in numbers for side in ("dense", "pruned")]
    columns = ["run", "method", "pattern", "seed", *varied]
    columns += [f"{metric} {on}{' (dense)' if side == 'dense' else ''}" for metric, on, side in sides]
    beside = _beside(measured)
    columns += [f"{BESIDE[key]} {on}" for _, on, key in beside]
    columns += ["sparsity achieved", "seconds of pruning", "peak host memory (GiB)", "model", "date (UTC)"]
    rows = []
    for path, group in frame.groupby("folder", sort=False):
        run = group.iloc[0]
        values = {(row.metric, row.on): row for row in group.itertuples()}
        row = [Cell(short(str(path), folder)), Cell(run.label), pattern_cell(run.pattern), cell(run.seed)]
        row += [cell(run[key]) for key in varied]
        row += [cell(getattr(values.get((metric, on)), side, None), "{:.4f}") for metric, on, side in sides]
        row += [cell(getattr(values.get((metric, on)), key, None), "{:.4f}") for metric, on, key in beside]
        rows.append(row + _cost_cells(run))
    return columns, rows


def _beside(measured: pd.DataFrame) -> list[tuple[object, object, str]]:
    """Metric, what it is on, and column of the numbers that compare the pruned model with the dense one."""
    found = []
    for key in BESIDE:
        rows = measured[measured[key].notna()] if key in measured else measured.iloc[:0]
        rows = rows[rows.metric.isin(("perplexity", "accuracy"))]  # of tasks, their mean alone: columns are dear
        found += [(metric, on, key) for metric, on in dict.fromkeys(zip(rows.metric, rows["on"], strict=True))]
    return found


def _cost_cells(run: pd.Series) -> list[Cell]:
    """The last columns: achieved sparsity, seconds, memory, model and date."""
    seconds = [run.get(key) for key in PRUNING]
    return [
        cell(run.achieved, "{:.4f}"),
        cell(None if any(map(is_missing, seconds)) else sum(seconds), "{:.1f}"),
        cell(run.get("memory.peak_host_bytes", float("nan")) / 2**30, "{:.2f}"),
        Cell(run.model),
        cell(None if is_missing(run.date) else run.date[:16].replace("T", " ")),
    ]


def pattern_cell(pattern: str) -> Cell:
    """A pattern as a cell; a plain ratio is sorted by its value."""
    try:
        return Cell(pattern, float(pattern))
    except ValueError:
        return Cell(pattern)


def cell(value: object, form: str = "{:.12g}") -> Cell:
    """A value as a cell: numbers in a form, nothing where there is no value."""
    if is_missing(value):
        return Cell("")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(form.format(value), float(value))
    if isinstance(value, np.generic):
        return cell(value.item(), form)
    return Cell(str(value))


def is_missing(value: object) -> bool:
    """Whether the value is None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


@dataclass(frozen=True)
class EnvironmentSummary:
    """An environment that runs were made in.

    Attributes:
        runs: how many, in words.
        entries: names and values.
    """

    runs: str
    entries: list[tuple[str, object]]


def environments(records: Iterable[RunRecord]) -> list[EnvironmentSummary]:
    """The distinct environments of the runs, with the versions of their packages on one line."""
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        counts[json.dumps(asdict(record.environment), sort_keys=True)] += 1
    result = []
    for text, count in counts.items():
        values = json.loads(text)
        versions = ", ".join(f"{name} {version}" for name, version in values.pop("packages").items() if version)
        entries = [(name.replace("_", " "), "unknown" if value is None else value) for name, value in values.items()]
        result.append(EnvironmentSummary(f"{count} run{'s' * (count > 1)}", [*entries, ("packages", versions)]))
    return result


def draw_all(frame: pd.DataFrame) -> tuple[list[Picture], list[str]]:
    """Every figure that the runs support, model by model, and a sentence for each figure and run that is missing."""
    pictures: list[Picture] = []
    problems: list[str] = []
    if "on" not in frame:
        return pictures, problems
    perplexities = frame[frame.metric == "perplexity"]
    for row in perplexities[perplexities.pruned.isna()].itertuples():
        problems.append(f"{row.folder} is not in the figures: its perplexity on {row.on} is not finite")
    groups = list(perplexities.groupby(["model", "on"], sort=False))
    for (model, on), rows in groups:
        of_what = f"{model}_{on}_" if len(groups) > 1 else ""
        for drawing in drawings(rows, str(on)):
            try:
                pictures.append(Picture(f"{model}: {drawing.caption}", of_what + drawing.name, drawing.draw()))
            except StatpruneError as error:
                problems.append(f"no figure of {drawing.caption} for {model}: {error}")
    return pictures, problems


@dataclass(frozen=True)
class Drawing:
    """A figure that runs support.

    Attributes:
        caption: what it shows.
        name: of its files, among one model's on one dataset.
        draw: makes it. Raises StatpruneError where the runs do not support it after all.
    """

    caption: str
    name: str
    draw: Callable[[], Figure]


def drawings(rows: pd.DataFrame, on: str) -> list[Drawing]:
    """What can be drawn of one model's perplexities on one dataset."""
    pruned = rows[rows.method != "dense"]
    result: list[Drawing] = []
    if pruned.empty:
        return result
    what = f"perplexity on {on} against"
    if pruned.achieved.round(4).nunique() > 1 or pruned.pattern.nunique() > 1:
        result.append(Drawing(f"{what} sparsity", "sparsity", lambda: figures.draw_sparsity(rows, on)))
    result += [_sensitivity_drawing(rows, key, on) for key in varied_keys(rows)]
    if pruned.groupby("pattern").label.nunique().max() > 1:
        result.append(Drawing(f"{what} seconds of pruning", "pareto", lambda: figures.draw_pareto(rows, on)))
    result += [_profile_drawing(pattern, same) for pattern, same in pruned.groupby("pattern")]
    return result


def _profile_drawing(pattern: object, pruned: pd.DataFrame) -> Drawing:
    seed, runs = profiled(pruned)
    common = f"sparsity {pattern}, seed {seed}"
    title = f"{pruned.model.iloc[0]}, {common}"
    return Drawing(
        f"relative output error by block, {common}",
        f"errors_{pattern}",
        lambda: figures.draw_errors({label: figures.errors(path) for label, path in runs.items()}, title),
    )


def _sensitivity_drawing(rows: pd.DataFrame, key: str, on: str) -> Drawing:
    caption = f"perplexity on {on} against {key}"
    return Drawing(caption, f"sensitivity_{key}", lambda: figures.draw_sensitivity(rows, key, on))


def profiled(pruned: pd.DataFrame) -> tuple[int, dict[str, Path]]:
    """The first seed of a pattern's runs, and a run of each series with that seed, by name."""
    reported = pruned[pruned.layers > 0]
    reported = pruned if reported.empty else reported
    seed = int(reported.seed.min())
    first = reported[reported.seed == seed]
    return seed, dict(zip(name_series(first, first.pattern), map(Path, first.folder), strict=True))
