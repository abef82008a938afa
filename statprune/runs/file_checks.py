"""What verify looks for in the files of a run and of its saved model, without opening the model: bytes and the card."""

import re
from collections.abc import Iterator

from statprune.model.compressed import is_compressed
from statprune.model.model_files import CONFIGURATION, model_files
from statprune.model.saved import shards_of
from statprune.runs import own_model
from statprune.runs.checksums import damage
from statprune.runs.model_card import CardSources, model_card
from statprune.runs.saved_run import Finding, SavedRun
from statprune.runs.store import MODEL, RECORD, REPORTS, WINDOWS, damaged_files
from statprune.runs.wording import counted

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def file_findings(run: SavedRun) -> Iterator[Finding]:
    """Check the files beside the record, those of the model, and its card."""
    yield _beside(run)
    yield _shards(run)
    yield _small_files(run)
    yield _card(run)


def _beside(run: SavedRun) -> Finding:
    problems = damaged_files(run.folder, run.record)
    if problems:
        return Finding("record", False, f"of the files beside the record {'; '.join(problems)}")
    names = [RECORD, *(name for name in (REPORTS, WINDOWS) if name in run.record.files)]
    listed = f"{', '.join(names[:-1])} and {names[-1]} are" if names[1:] else f"{RECORD} is"
    return Finding("record", True, f"{listed} whole")


def _shards(run: SavedRun) -> Finding:
    expected = run.record.saved.shards if run.record.saved is not None else {}
    if not expected:
        return Finding("checksums", None, "the record has no checksums of the model's files: an older version wrote it")
    problems = damage(run.model, expected)
    if is_compressed(run.model) != (run.record.saved is not None and run.record.saved.compressed is not None):
        problems.append("the model was saved in another form")
    more = [path.name for path in shards_of(run.model) if path.name not in expected]
    problems += [f"{name} is not of the run" for name in more]
    return _as_written("checksums", problems, counted(len(expected), "file of weights is", "files of weights are"))


def _small_files(run: SavedRun) -> Finding:
    """The configuration, the tokenizer and whatever else decides what the weights make; the card may be edited."""
    written = own_model.written_files(run.folder, MODEL)
    if not written:
        return Finding("files", None, f"{own_model.MARKER}, the list of the model's files, is missing or of an old run")
    shards = run.record.saved.shards if run.record.saved is not None else {}
    expected = {name: sha for name, sha in written.items() if name not in shards and name != own_model.CARD}
    problems = damage(run.model, expected)
    others = [name for name in model_files(str(run.model)) if name.endswith(CONFIGURATION) and name not in written]
    problems += [f"{name} is not of the run" for name in others]
    what = counted(len(expected), "other file of the model is", "other files of the model are")
    return _as_written("files", problems, what)


def _as_written(check: str, problems: list[str], what: str) -> Finding:
    return Finding(check, False, "; ".join(problems)) if problems else Finding(check, True, f"{what} as written")


def _card(run: SavedRun) -> Finding:
    """The numbers in the card's tables against the record; a card without a table of ours says nothing."""
    try:
        text = (run.model / own_model.CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Finding("card", None, f"the model has no {own_model.CARD}")
    own = _rows(text)
    expected = _rows(model_card(run.record, CardSources(reports=run.reports)))
    told = [(name, row) for name, rows in expected.items() for row in rows if name in own]
    wrong = [name for name, row in told if not any(_agree(row, other) for other in own[name])]
    if wrong:
        shown = "; ".join(f"{name}: {expected[name][0]}" for name in wrong[:2])
        return Finding("card", False, f"{own_model.CARD} has other numbers than the record, which says {shown}")
    if not told:
        return Finding("card", None, f"{own_model.CARD} has no table that the run wrote")
    return Finding("card", True, f"{own_model.CARD} has the record's numbers")


def _rows(text: str) -> dict[str, list[str]]:
    """Rows of a card's tables that hold numbers, by their first cell."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, _, rest = line.removeprefix("| ").partition(" | ")
            if NUMBER.search(rest):
                rows.setdefault(name, []).append(rest.removesuffix("|").strip())
    return rows


def _agree(expected: str, own: str) -> bool:
    """Whether two rows have the same numbers, to the digits of the shorter; another wording is no other number."""
    pairs = NUMBER.findall(expected), NUMBER.findall(own)
    return len(pairs[0]) != len(pairs[1]) or all(map(_same_number, *pairs))


def _same_number(one: str, other: str) -> bool:
    digits = min(len(number.partition(".")[2]) for number in (one, other))
    return abs(float(one) - float(other)) <= 10**-digits / 2
