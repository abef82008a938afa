"""The files that an lm-eval task of the user's is read from: its YAMLs, its code, and the documents they name."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from statprune.system.contents import files_at

YAMLS, CODE = (".yaml", ".yml"), ".py"
NAMING = ("dataset_path", "dataset_kwargs", "include")  # keys of a YAML whose texts may name files


class _Loader(yaml.SafeLoader):
    """Reads a YAML's own tags, such as ``!function``, as the text behind them."""


class _Code(str):
    """The text behind a tag."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: _Code(getattr(node, "value", "")))


def task_files(name: str) -> dict[str, Path]:
    """The local files that tasks are read from, by name.

    Args:
        name: a task's YAML, or a folder of them.
    """
    place = Path(name).expanduser()
    if place.is_file():
        found, folder = {place.name: place}, place.parent
    else:
        found, folder = {key: file for key, file in files_at(name).items() if file.suffix in (*YAMLS, CODE)}, place
    waiting = [file for file in found.values() if file.suffix in YAMLS]
    while waiting:
        for file in _named_in(waiting.pop()):
            own = file.resolve()
            key = str(own.relative_to(folder.resolve())) if own.is_relative_to(folder.resolve()) else str(own)
            if key not in found:
                found[key] = file
                waiting += [file] if file.suffix in YAMLS else []
    return found


def _named_in(file: Path) -> Iterator[Path]:
    """Files that a YAML names: documents, code and YAMLs that it includes."""
    try:
        described = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError):  # loading the task says what is wrong with it
        return
    if not isinstance(described, dict):
        return
    for text in _texts({key: described[key] for key in NAMING if key in described}):
        for place in (Path(text), file.parent / text):
            yield from files_at(str(place)).values()
    for text in _texts(described):
        code = file.parent / f"{text.partition('.')[0]}{CODE}"
        if isinstance(text, _Code) and code.is_file():
            yield code


def _texts(value: object) -> Iterator[str]:
    """Every text in nested values that can be the name of a file."""
    if isinstance(value, str) and 0 < len(value) < 1000 and value not in (".", "..") and "\n" not in value:
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
