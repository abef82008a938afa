"""One HTML page about an experiment's folder, which opens from disk.

python -m statprune.analysis.report outputs/NAME [report.html]
"""

import argparse
import base64
import json
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from omegaconf import OmegaConf
from statprune.analysis import figures
from statprune.analysis.collect import collect
from statprune.analysis.series import PRUNING, name_series, varied_keys

from statprune.errors import StatpruneError
from statprune.runs.store import read_record

log = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Cell:
    """What a table shows.

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
        data: the PNG's bytes in base64.
    """

    caption: str
    data: str


def report(folder: Path, output: Path) -> None:
    """Write one self-contained page about all finished runs below a folder.

    Args:
        folder: of an experiment, such as ``outputs/NAME``.
        output: the page; its folder is made if it is missing.

    Raises:
        StatpruneError: there is no record below the folder.
    """
    collected = collect(folder)
    left_out = collected.skipped + unfinished(folder)
    if collected.frame.empty:
        why = f": {left_out[0]}" if left_out else "; give the folder of an experiment, such as outputs/default"
        raise StatpruneError(f"{folder} holds no finished run{why}")
    frame = collected.frame
    records = {path: read_record(Path(path)) or {} for path in dict.fromkeys(frame.folder)}
    pictures, problems = draw_all(frame)
    columns, rows = runs_table(frame, folder)
    # autoescape: names, configurations and messages are others' text
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    html = page.render(
        title=folder.resolve().name,
        summary=summary(frame, left_out),
        left_out=left_out + problems,
        columns=columns,
        rows=rows,
        figures=pictures,
        configurations=[(short(path, folder), OmegaConf.to_yaml(record["config"])) for path, record in records.items()],
        environments=environments(records),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(html, encoding="utf-8")


def unfinished(folder: Path) -> list[str]:
    """A sentence for each run that was started and has no record."""
    started = sorted(path.parent for path in folder.rglob(".hydra") if not (path.parent / "result.json").exists())
    return [f"{path} has no result.json: the run failed, was cut off or still goes on" for path in started]


def short(path: str, folder: Path) -> str:
    """A run's folder as seen from the experiment's; its own name where it is that."""
    name = Path(path).relative_to(folder).as_posix()
    return folder.resolve().name if name == "." else name


def summary(frame: pd.DataFrame, left_out: list[str]) -> list[tuple[str, str]]:
    """Name and value of what the page begins with."""
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
    columns += ["sparsity achieved", "seconds of pruning", "peak host memory (GiB)", "model", "date (UTC)"]
    rows = []
    for path, group in frame.groupby("folder", sort=False):
        run = group.iloc[0]
        values = {(row.metric, row.on): row for row in group.itertuples()}
        row = [Cell(short(str(path), folder)), Cell(run.label), pattern_cell(run.pattern), cell(run.seed)]
        row += [cell(run[key]) for key in varied]
        row += [cell(getattr(values.get((metric, on)), side, None), "{:.4f}") for metric, on, side in sides]
        row.append(cell(run.achieved, "{:.4f}"))
        pruning = [run.get(key) for key in PRUNING]
        row.append(cell(None if any(map(is_missing, pruning)) else sum(pruning), "{:.1f}"))
        row.append(cell(run.get("memory.peak_host_bytes", float("nan")) / 2**30, "{:.2f}"))
        row.append(Cell(run.model))
        row.append(cell(None if is_missing(run.date) else run.date[:16].replace("T", " ")))
        rows.append(row)
    return columns, rows


def pattern_cell(pattern: str) -> Cell:
    """A pattern; a plain ratio is sorted by its value."""
    try:
        return Cell(pattern, float(pattern))
    except ValueError:
        return Cell(pattern)


def cell(value: Any, form: str = "{:.12g}") -> Cell:
    """A value as a cell: numbers in the given form, nothing where there is none."""
    if is_missing(value):
        return Cell("")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(form.format(value), float(value))
    if hasattr(value, "item"):  # of NumPy
        return cell(value.item(), form)
    return Cell(str(value))


def is_missing(value: Any) -> bool:
    """None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def environments(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The distinct environments, each with its runs' number and its entries, packages among them."""
    runs: dict[str, int] = defaultdict(int)
    for record in records.values():
        runs[json.dumps(record["environment"], sort_keys=True)] += 1
    result = []
    for text, count in runs.items():
        entries = json.loads(text)
        packages = entries.pop("packages", {})
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        items = [(name.replace("_", " "), "unknown" if value is None else value) for name, value in entries.items()]
        result.append({"runs": f"{count} run{'s' * (count > 1)}", "entries": [*items, ("packages", versions)]})
    return result


def draw_all(frame: pd.DataFrame) -> tuple[list[Picture], list[str]]:
    """Every figure that the runs support, model by model, and a sentence for each figure and run that is missing."""
    pictures: list[Picture] = []
    problems: list[str] = []
    if "on" not in frame:
        return pictures, problems
    with tempfile.TemporaryDirectory() as temporary:
        perplexities = frame[frame.metric == "perplexity"]
        for row in perplexities[perplexities.pruned.isna()].itertuples():
            problems.append(f"{row.folder} is not in the figures: its perplexity on {row.on} is not finite")
        for (model, on), rows in perplexities.groupby(["model", "on"], sort=False):
            for what, draw in wanted(rows, str(on), Path(temporary)):
                try:
                    data = base64.b64encode(draw()[0].read_bytes()).decode()
                    pictures.append(Picture(f"{model}: {what}", data))
                except StatpruneError as error:
                    problems.append(f"no figure of {what} for {model}: {error}")
    return pictures, problems


def wanted(rows: pd.DataFrame, on: str, folder: Path) -> list[tuple[str, Callable[[], list[Path]]]]:
    """What can be drawn of one model's perplexities on one dataset: captions and the functions that draw."""
    pruned = rows[rows.method != "dense"]
    result: list[tuple[str, Callable[[], list[Path]]]] = []
    if pruned.empty:
        return result
    if pruned.achieved.round(4).nunique() > 1:
        what = f"perplexity on {on} against sparsity"
        result.append((what, lambda: figures.sparsity_curves(rows, folder, on)))
    for key in varied_keys(rows):
        what = f"perplexity on {on} against {key}"
        result.append((what, lambda key=key: figures.sensitivity(rows, key, folder, on)))  # type: ignore[misc]
    if pruned.groupby("pattern").label.nunique().max() > 1:
        what = f"perplexity on {on} against seconds of pruning"
        result.append((what, lambda: figures.pareto(rows, folder, on)))
    pattern, runs = profiled(pruned)
    what = f"relative output error by block, sparsity {pattern}, seed {pruned.seed.min()}"
    result.append((what, lambda: figures.error_profiles(runs, folder)))
    return result


def profiled(pruned: pd.DataFrame) -> tuple[str, dict[str, Path]]:
    """The pattern that most kinds of runs have, and a run of each kind: of the first seed, by name."""
    first = pruned[(pruned.seed == pruned.seed.min()) & (pruned.layers > 0)]
    first = pruned if first.empty else first
    pattern = first.groupby("pattern", sort=False).label.nunique().idxmax()
    same = first[first.pattern == pattern]
    runs = dict(zip(name_series(same, same.pattern), map(Path, same.folder), strict=True))
    return str(pattern), runs


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m statprune.analysis.report", description="one HTML page about an experiment"
    )
    parser.add_argument("folder", type=Path, help="of an experiment, such as outputs/NAME")
    parser.add_argument("output", type=Path, nargs="?", help="the page; FOLDER/report.html if not given")
    options = parser.parse_args(arguments)
    output = options.output or options.folder / "report.html"
    try:
        report(options.folder, output)
    except (StatpruneError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
