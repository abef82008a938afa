"""Names in the files of lm-eval's own tasks, read as text: its index of them takes a quarter of a minute to build."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# "task: NAME" on a line of its own; tags in lists are left out
DEFINED = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:[ \t]*[\"']?([\w.-]+)[\"', \t\r]*$", re.MULTILINE)
NO_YAML = (".py", ".pyc", ".md")  # any other file may be what a YAML includes


def lm_eval_mentions(names: Iterable[str]) -> bool:
    """Whether a file of lm-eval's tasks mentions one of the names anywhere: where none does, it knows none of them."""
    wanted = [name.encode() for name in names]
    return bool(wanted) and any(name in text for _, text in _texts() for name in wanted)


def names_of_lm_eval() -> list[str]:
    """Most tasks, groups and tags that lm-eval's YAMLs define, among which to look for one that was meant."""
    found = {name for path, text in _texts() if path.suffix == ".yaml" for name in DEFINED.findall(text)}
    return sorted(name.decode() for name in found)


def _texts() -> Iterator[tuple[Path, bytes]]:
    from lm_eval.tasks import manager

    for path in Path(manager.__file__).parent.rglob("*"):
        if path.suffix not in NO_YAML and path.is_file():
            yield path, path.read_bytes()
