"""Changed keys in words: in the names of runs' folders, and at the head of a sweep's table."""

import glob
import re
from collections.abc import Collection, Mapping, Sequence

MOST_WORDS, MOST_CHARACTERS, LONGEST_NAME = 3, 24, 180
# keys that the other parts of a name tell already
TOLD = ("model.path", "calibration.source", "method.name", "compensation.name")
PRUNING = ("method.", "compensation.", "sparsity.")  # groups whose keys are shown before others


def with_words(name: str, changes: Mapping[str, object], keys: Collection[str], hashed: str) -> str:
    """A run's name with what was changed: ``name_alpha=0.25_1a2b3c4d``.

    Up to three values are shown, those of the pruning first, then in the order of their full keys, where that does not
    make the name too long for a file system. Numbers, truth values and short texts are shown; the hash is over all.

    Args:
        name: what a person asks for first.
        changes: values by full key.
        keys: all keys of the configuration: ``epsilon`` alone does not say whose, where two keys end so.
        hashed: the hash of the changes.
    """
    labels = short_names(changes, keys)
    in_order = sorted(changes, key=lambda key: (not key.startswith(PRUNING), key))
    shown = [(key, _shown(changes[key])) for key in in_order if key not in TOLD]
    words = [f"{labels[key]}={value}" for key, value in shown if value][:MOST_WORDS]
    while words and len("_".join([name, *words, hashed])) > LONGEST_NAME:
        words.pop()
    return "_".join([name, *words, hashed])


def name_patterns(name: str) -> list[str]:
    """What the folder of the same run may be called by another version of statprune, as patterns of ``Path.glob``.

    Names had no words once, and which ones they have depends on the keys there are.

    Args:
        name: of a run's folder.

    Returns:
        Nothing where the name has no hash, and so no words.
    """
    parts = re.fullmatch(r"(.*_s\d+)(?:_[\w.]+=.*)?_([0-9a-f]{8})", name)
    if parts is None:
        return []
    begin, hashed = glob.escape(parts[1]), parts[2]
    return [f"{begin}_{hashed}", f"{begin}_*=*_{hashed}"]


def short_names(keys: Collection[str], among: Collection[str]) -> dict[str, str]:
    """The last part of each key; the whole key where another one ends alike. A choice has its group's name.

    Args:
        keys: to be shown.
        among: keys that they must not be taken for.
    """
    ends = [_choice(key).rpartition(".")[2] for key in {*keys, *among}]
    last = {key: _choice(key).rpartition(".")[2] for key in keys}
    return {key: end if ends.count(end) == 1 else _choice(key) for key, end in last.items()}


def swept_values(jobs: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """What the overrides of jobs differ in.

    Args:
        jobs: the overrides of each; the last of a key counts.

    Returns:
        By key, in the order in which they are first given, a value for each job; empty where a job does not give it.
    """
    given = [dict(map(key_and_value, overrides)) for overrides in jobs]
    values = {key: [own.get(key, "") for own in given] for own in given for key in own}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def key_and_value(override: str) -> tuple[str, str]:
    """The key that an override sets, and the value without the quotes around it."""
    key, _, value = override.partition("=")
    quoted = re.fullmatch(r"(['\"])(.*)\1", value)
    return key.lstrip("+"), quoted[2] if quoted else value


def _choice(key: str) -> str:
    return key.removesuffix(".name")


def _shown(value: object) -> str:
    """A scalar in the letters that every file system takes; empty where it is none or too long."""
    if not isinstance(value, bool | int | float | str):
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = re.sub(r"[^A-Za-z0-9.+-]", "-", text)
    return text if len(text) <= MOST_CHARACTERS else ""
