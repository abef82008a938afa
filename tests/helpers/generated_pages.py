"""The parts of docs/ that are made from code and from recorded tables: ``make pages`` writes them, tests compare."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas

from benchmarks import layer_errors, measure, memory, phases, quantization
from benchmarks.independent import agreement
from statprune.cli.record_page import record_page
from statprune.cli.reference_page import keys_table, reference_page
from statprune.config.reference import ALLOCATION, Reference
from tests.helpers.pages import DOCS, ROOT

RESULTS = DOCS / "results" / "comparison.md"
DATA = DOCS / "results" / "data"
FRONT = DATA / "front.csv"
MARKED = re.compile(r"<!-- (options|results): (.+?) -->\n(?:.*?\n)??<!-- end -->\n", re.DOTALL)
SETTING = "SmolLM2-135M, bundled text, 16×128, seed 0"
GROUPS = {"allocation": ALLOCATION}
PATTERNS = ("50%", "2:4")
PERPLEXITY = "Every mask with every correction"  # titles of the comparison's sections
KL = f"{PERPLEXITY} (kl of the same runs)"
CHOICES = {  # as they are shown: mask and correction there; method and statistics in front.csv
    "CVR + energy (the paper's)": ("CVR", "energy", "cvr + energy", "gram"),
    "Wanda": ("Wanda", "none", "wanda", "gram"),
    "SparseGPT": ("SparseGPT", "none", "sparsegpt", "gram"),
    "ALPS": ("ALPS", "none", "alps", "gram"),
    "Wanda, then least squares": ("Wanda", "least squares", "wanda + least_squares", "gram"),
    "`best_first_order`": ("ADMM, sampled rows", "none", "admm", "rows"),
    "`best`": ("ADMM", "none", "admm", "gram"),
}


def generated_pages() -> Iterator[tuple[Path, str]]:
    """Every page that is made, or that has parts which are, with the text that it should have."""
    reference = Reference()
    own = [
        replace(group, choices=tuple(choice for choice in group.choices if not choice.origin))
        for group in reference.groups
    ]
    yield DOCS / "reference" / "options.md", reference_page(reference.keys, own)
    yield DOCS / "reference" / "record.md", record_page()
    for path in sorted(DOCS.rglob("*.md")):
        if MARKED.search(text := path.read_text(encoding="utf-8")):
            yield path, filled(text)


def filled(text: str) -> str:
    """A page with its marked parts made anew."""
    return MARKED.sub(lambda part: f"<!-- {part[1]}: {part[2]} -->\n{_made(part[1], part[2])}<!-- end -->\n", text)


def described_choices(text: str) -> set[str]:
    """The choices, GROUP=CHOICE, whose options a page has."""
    return {choice for kind, names in MARKED.findall(text) if kind == "options" for choice in names.split(", ")}


def _made(kind: str, name: str) -> str:
    if kind == "options":
        return "".join(options_table(*choice.split("=")) for choice in name.split(", "))
    what, _, column = name.partition(" ")
    made: dict[str, Callable[[], str]] = {
        "choices": choices_table,
        "seconds": seconds_table,
        "mask": lambda: mask_table(column.split("; ")),
        "correction": lambda: correction_table(column),
        "agreement": lambda: agreement.table(_result(agreement.RESULTS)),
        "reference": reference_table,
        "wikitext2": wikitext2_table,
        "variants": lambda: agreement.variants_table(_result(agreement.RESULTS)),
        "errors": lambda: layer_errors.table(column, _result(layer_errors.RESULT)),
        "memory": memory.table,
        "phases": lambda: phases.table(_result(phases.RESULT)),
        "gpu": gpu_table,
        "tried": lambda: quantization.tried_table(_result(quantization.RESULT)),
        "quantised": lambda: quantization.perplexities_table(_result(quantization.RESULT)),
    }
    return f"\n{made[what]()}\n"


def _result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def options_table(group: str, name: str) -> str:
    """The options of a choice, with the defaults that a job then has; of a variant, what it changes."""
    own = next(choice for choice in _reference().group(GROUPS.get(group, group)).choices if choice.name == name)
    if own.based_on:
        changed = ", ".join(f"`{key.assignment}`" for key in own.sets)
        return f"\n`{group}={name}` is `{own.based_on}` with {changed}.\n\n"
    keys = [key for key in _keys(group, name) if not key.name.endswith(".name")]
    return f"\n{keys_table(keys)}\n" if keys else ""


def _keys(group: str, name: str) -> tuple:
    if group in GROUPS:  # which are keys of another group
        return _reference().group(GROUPS[group]).choice(name).sets
    return _reference().section(group, name)


@cache
def _reference() -> Reference:
    return Reference()


def mask_table(masks: list[str]) -> str:
    """What masks come to with every correction."""
    tables = recorded_tables()
    corrections = list(tables["50%"][masks[0]])
    rows = [
        (f"{pattern}, {mask}" if len(masks) > 1 else pattern, *(tables[pattern][mask][own] for own in corrections))
        for pattern in PATTERNS
        for mask in masks
    ]
    title = f"Perplexity of {SETTING} (dense {dense()}), by compensation:"
    return f"{title}\n\n{_table(('pattern', *corrections), rows)}"


def correction_table(correction: str) -> str:
    """What a correction does to every mask."""
    tables = recorded_tables()
    masks = list(tables["50%"])
    rows = [
        (f"{pattern}, {own}", *(tables[pattern][mask][own] for mask in masks))
        for pattern in PATTERNS
        for own in ("none", correction)
    ]
    return f"Perplexity of {SETTING} (dense {dense()}), by mask:\n\n{_table(('pattern', *masks), rows)}"


def choices_table() -> str:
    """What people choose from, by quality and time."""
    runs = pandas.read_csv(FRONT)
    rows = []
    for shown, (mask, correction, method, statistics) in CHOICES.items():
        quality = [
            recorded_tables(title)[pattern][mask][correction] for pattern in PATTERNS for title in (PERPLEXITY, KL)
        ]
        seconds = runs[(runs["method"] == method) & (runs["method.statistics"].fillna("gram") == statistics)]
        rows.append((shown, *quality[:2], *(f"{own:.0f}" for own in seconds["seconds of pruning"]), *quality[2:]))
    return _table(("", "50%", "KL", "seconds", "2:4", "KL"), rows)


def seconds_table() -> str:
    """Every run of the front, the fastest first."""
    runs = pandas.read_csv(FRONT).sort_values("seconds of pruning")
    rows = [
        (
            run["method"] + (", sampled rows" if run["method.statistics"] == "rows" else ""),
            f"{run['seconds of pruning']:.1f}",
            f"{run['perplexity bundled']:.2f}",
            f"{run['KL bundled']:.4f}",
        )
        for _, run in runs.iterrows()
    ]
    return _table(("", "seconds", "perplexity", "KL"), rows)


def reference_table() -> str:
    """Perplexities beside those of a plain implementation, of which only the numbers are known."""
    ours = pandas.read_csv(DATA / "agreement.csv").set_index("row")["mean"]
    theirs = pandas.read_csv(DATA / "reference.csv").set_index("row")["perplexity"]
    assert list(ours.index) == list(theirs.index)
    rows = [
        (row, f"{own:.4f}", f"{theirs[row]:.4f}", agreement.difference(own, theirs[row])) for row, own in ours.items()
    ]
    return _table(("", "statprune", "reference", "difference"), rows)


def wikitext2_table() -> str:
    """The comparison's best methods on another text, patterns side by side."""
    data = pandas.read_csv(DATA / "wikitext2.csv")
    values = data.set_index(["section", "row"])["mean"]
    rows = [(row, *(f"{values[pattern, row]:.2f}" for pattern in PATTERNS)) for row in dict.fromkeys(data["row"])]
    return _table(("", *PATTERNS), rows)


def gpu_table() -> str:
    """Seconds of methods on a GPU beside a plain forward, from what the prepared check has written."""
    result = _result(measure.RESULTS / "gpu" / "speed.json")
    rows = []
    for row in result["rows"]:
        seconds = (row["seconds"], row["over_one_forward"], row["over_two_forwards"])
        seconds += (row["phases"]["observe"], row["phases"]["solve"])
        name = f"{row['method'].replace('+energy', ' + energy')}, `{row['propagation']}`"
        peak = f"{row['peak_gib']:.1f} ({row['predicted_gib']:.1f})"
        rows.append((name, *(f"{own:.2f}" for own in seconds), peak))
    titles = ("seconds", "over one forward", "over two", "observe", "solve", "peak (predicted), GiB")
    return _table(("method, propagation", *titles), rows)


@cache
def recorded_tables(title: str = PERPLEXITY) -> dict[str, dict[str, dict[str, str]]]:
    """The comparison's values as they are printed, by pattern, mask and correction.

    Args:
        title: of their section.
    """
    section = RESULTS.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    tables = {}
    for pattern, body in re.findall(r"^\*\*(.+?)\*\*\n\n((?:\|.*\n)+)", section, re.MULTILINE):
        titles, _, *rows = [cells(line) for line in body.splitlines()]
        tables[pattern] = {row[0]: dict(zip(titles[1:], row[1:], strict=True)) for row in rows}
    return tables


def dense() -> str:
    """The dense model's perplexity there, as it is printed."""
    match = re.search(r"dense perplexity (\d+\.\d+)", RESULTS.read_text(encoding="utf-8"))
    assert match is not None
    return match[1]


def marked_cells(line: str) -> list[str]:
    """The cells of a table's line as they are written."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def cells(line: str) -> list[str]:
    """The cells of a table's line without their marks: the best, the second, not apart from the reference."""
    return [re.sub(r"\*\*|</?u>|≈", "", cell).strip() for cell in marked_cells(line)]


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [titles, ("---",) * len(titles), *rows])


if __name__ == "__main__":
    for file, made in list(generated_pages()):
        if not file.exists() or file.read_text(encoding="utf-8") != made:
            file.write_text(made, encoding="utf-8")
            print(f"{file.relative_to(ROOT)} is made anew")
