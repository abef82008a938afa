"""Runs that read different contents under one path, which their configurations do not show."""

from collections.abc import Mapping, Sequence

from statprune.runs.inputs import TASKS, InputIdentity
from statprune.runs.record import RunRecord


def other_contents(names: Sequence[str], records: Sequence[RunRecord]) -> list[str]:
    """A sentence for each path under which some runs read something else than the first run that read it.

    Records of older versions, which do not say what was read, count as equal.

    Args:
        names: what the runs are called.
        records: of these runs.
    """
    first: dict[tuple[str, str], tuple[str, InputIdentity]] = {}
    others: dict[tuple[str, str], dict[str, str]] = {}  # by path: what differs, by the run's name
    for name, record in zip(names, records, strict=True):
        for key, own in record.inputs.items():
            path = _place(record, key)
            _, before = first.setdefault(path, (name, own))
            if what := _difference(before, own):
                others.setdefault(path, {})[name] = what
    return [_sentence(path, first[path][0], differing) for path, differing in others.items()]


def _sentence(path: tuple[str, str], first: str, differing: Mapping[str, str]) -> str:
    what = "; ".join(dict.fromkeys(differing.values()))
    key, place = path
    return f"{key}={place} held something else for {', '.join(differing)} than for {first} ({what})"


def _place(record: RunRecord, key: str) -> tuple[str, str]:
    """The key and what it named: the absolute path where there is one; a task whichever its number is."""
    if key.startswith(TASKS):
        return TASKS.removesuffix("."), record.paths.get(key, key)
    value: object = record.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return key, record.paths.get(key, str(value))


def _difference(before: InputIdentity, own: InputIdentity) -> str | None:
    """What is not the same, in words; hashes over other parts of a file can't be compared."""
    if before.commit != own.commit:
        return "another commit"
    files = [
        name
        for name in sorted(before.files.keys() | own.files.keys())
        if (one := before.files.get(name)) is None
        or (other := own.files.get(name)) is None
        or one.size != other.size
        or (one.is_whole == other.is_whole and one.sha256 != other.sha256)
    ]
    return ", ".join(files) or None
