"""Which model folder a run wrote itself, and may therefore remove: a user's own files are never touched.

A marker in the run's folder lists what was written, file by file, so that neither a model that was copied there, nor a
file that was changed or added since, is taken for the run's own. It holds no path: a run that is moved keeps its model.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from statprune.errors import StatpruneError
from statprune.model.foreign import COMPRESSED
from statprune.model.location import SAVED_MODEL
from statprune.runs.card_parts import SIGNATURE
from statprune.runs.record import RunRecord
from statprune.system.files import sha256_of, write_json

MARKER = ".saves-model"  # of a run's folder; versions before this one left it empty
CARD = "README.md"
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class FileMark:
    """One file as it was written.

    Attributes:
        size: in bytes.
        modified: when, in nanoseconds; where it is the same, the file is not read.
        sha256: of its content.
    """

    size: int
    modified: int
    sha256: str


@dataclass(frozen=True)
class ModelMark:
    """A model folder of this run.

    Attributes:
        folder: device and inode of the folder while it is being written.
        files: by path within it, once it is complete.
    """

    folder: str
    files: dict[str, FileMark] | None = None


def begin(run: Path, name: str) -> Path:
    """Make the folder ``name`` of a run as one that the run writes.

    Raises:
        StatpruneError: something else is there.
    """
    folder, marks = run / name, _marks(run)
    if (folder.exists() or folder.is_symlink()) and not owns(run, name, None):
        raise StatpruneError(f"{folder} {foreign(run, name)}; move it away, or give another hydra.run.dir")
    folder.mkdir(exist_ok=True)
    _write(run, marks | {name: ModelMark(_identity(folder))})
    return folder


def complete(run: Path, name: str, hashes: Mapping[str, str]) -> None:
    """List the files of a model folder that is complete.

    Args:
        run: its folder.
        name: of the model's folder.
        hashes: sha256 of files that need not be read again.
    """
    folder, before = run / name, _marks(run)
    known = dict(hashes)
    if name in before:  # what has not changed since need not be read again either
        marked = before[name].files or {}
        known |= {file: mark.sha256 for file, mark in marked.items() if _is_same_time(folder / file, mark)}
    files = {}
    for file in _files(folder):
        stat = (folder / file).stat()
        files[file] = FileMark(stat.st_size, stat.st_mtime_ns, known.get(file) or sha256_of(folder / file))
    _write(run, before | {name: ModelMark(_identity(folder), files)})


def renamed(run: Path, name: str, to: str) -> Path:
    """Rename a model folder of the run's; returns the new one."""
    marks = _marks(run)
    if name in marks:
        _write(run, {to if key == name else key: mark for key, mark in marks.items() if key != to})
    return (run / name).rename(run / to)


def owns(run: Path, name: str, record: RunRecord | None) -> bool:
    """Whether everything in the folder ``name`` was written by the run, and is as it was.

    Args:
        run: its folder.
        name: of the model's folder.
        record: the run's; it tells of models that versions without lists of files wrote.
    """
    folder = run / name
    if folder.is_symlink() or run.is_symlink() or not folder.is_dir():
        return False
    mark = _marks(run).get(name)
    if mark is None:  # an empty folder: its marker found no room
        return _is_recorded(folder, record) or _is_empty(folder)
    return _is_intact(folder, mark)


def was_written(run: Path, name: str, record: RunRecord | None) -> bool:
    """Whether the run wrote a model into the folder ``name``, whatever has become of it."""
    mark, is_there = _marks(run).get(name), (run / name / "config.json").exists()
    return is_there and (_is_recorded(run / name, record) if mark is None else mark.files is not None)


def written_files(run: Path, name: str) -> dict[str, str]:
    """SHA-256 of each file of the model in the folder ``name`` as the run wrote it; none where there is no list."""
    return {file: mark.sha256 for file, mark in _lasting(_marks(run).get(name)).items()}


def lost(run: Path, name: str, record: RunRecord) -> list[str]:
    """What is wrong with a model that a finished run saved, half a sentence for each file; nothing: it can be used.

    Files of weights, and what says how they are compressed, are read where they have another size or time than when
    they were written; others, such as the card, may be edited, and only have to be there.

    Args:
        run: its folder.
        name: of the model's folder.
        record: the run's; it names the files of weights where there is no list of files.
    """
    folder, mark = run / name, _marks(run).get(name)
    if mark is None or mark.files is None:
        shards = record.saved.shards if record.saved is not None else {}
        return [f"{name}/{file} is missing" for file in shards if not (folder / file).is_file()]
    problems = []
    for file, own in _lasting(mark).items():
        path = folder / file
        if not path.is_file():
            problems += [f"{name}/{file} is missing"] if file != CARD else []
        elif (path.suffix == WEIGHTS or file == COMPRESSED) and not _is_same(path, own):
            problems.append(f"{name}/{file} is not what the run wrote")
    return problems


def foreign(run: Path, name: str) -> str:
    """Why the run does not own the folder ``name``: the middle of a sentence."""
    folder = run / name
    for link in (run, folder):
        if link.is_symlink():
            return f"is reached through the symbolic link {link}"
    mark = _marks(run).get(name)
    if not folder.is_dir() or mark is None or mark.files is None:
        return "was not written by this run"
    others = ", ".join(_others(folder, mark.files)[:3])
    return f"holds files that were added or changed since this run wrote it ({others})"


def remove(run: Path, name: str, record: RunRecord | None) -> None:
    """Remove the folder ``name`` if the run owns it."""
    is_unmarked = name not in _marks(run)
    if not owns(run, name, record) or (is_unmarked and _is_empty(run / name)):  # whoever made that one may want it
        return
    shutil.rmtree(run / name, ignore_errors=True)
    marks = _marks(run)
    if marks.pop(name, None) is not None or not marks:
        with suppress(OSError):  # a full disk: the marker then tells of a folder that is not there
            _write(run, marks)


def _lasting(mark: ModelMark | None) -> dict[str, FileMark]:
    """Files that stay; those with a dot are of a model whose blocks are on disk, and go when it is closed."""
    files = (mark.files if mark is not None else None) or {}
    return {file: own for file, own in files.items() if not file.startswith(".")}


def _is_intact(folder: Path, mark: ModelMark) -> bool:
    if mark.files is None:
        return mark.folder == _identity(folder)
    return not _others(folder, mark.files)


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _others(folder: Path, marked: Mapping[str, FileMark]) -> list[str]:
    """Files that the run did not write as they are.

    One that it keeps to evaluate it, and that nobody was promised, may have been damaged: there the names count. So
    they do of weights that were cut off: nobody can use them.
    """
    may_be_damaged = folder.name != SAVED_MODEL
    others = []
    for file in _files(folder):
        path, mark = folder / file, marked.get(file)
        is_ours = mark is not None and (may_be_damaged or _is_same(path, mark) or _is_cut_off(path, mark))
        if is_ours and not path.is_symlink():
            continue
        if mark is None and file == CARD and _has_signature(path):  # the run was killed before it had listed its card
            continue
        others.append(file)
    return others


def _has_signature(path: Path) -> bool:
    try:
        return SIGNATURE in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _is_recorded(folder: Path, record: RunRecord | None) -> bool:
    """Whether a version without lists of files wrote the model, as its card and the run's record say."""
    if record is None or folder.is_symlink():
        return False
    if folder.name != SAVED_MODEL:
        return record.pending is not None and record.pending.model == folder.name
    card = folder / CARD
    return _has_signature(card) and f"config {record.config_hash}" in card.read_text(encoding="utf-8")


def _is_same_time(path: Path, mark: FileMark) -> bool:
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns) == (mark.size, mark.modified)


def _is_same(path: Path, mark: FileMark) -> bool:
    """Whether a file is as it was written; one that was copied has another time and is read."""
    return _is_same_time(path, mark) or (path.stat().st_size == mark.size and sha256_of(path) == mark.sha256)


def _is_cut_off(path: Path, mark: FileMark) -> bool:
    """Whether a file of weights is shorter than it was written, and not a whole file of fewer weights."""
    if path.suffix != WEIGHTS or path.stat().st_size >= mark.size:
        return False
    try:
        with safe_open(path, "pt"):
            return False
    except SafetensorError:
        return True


def _files(folder: Path) -> list[str]:
    """What is not a folder, by path within the folder; links are not followed."""
    paths = folder.rglob("*")
    return sorted(str(path.relative_to(folder)) for path in paths if path.is_symlink() or not path.is_dir())


def _identity(folder: Path) -> str:
    stat = folder.stat()
    return f"{stat.st_dev}:{stat.st_ino}"


def _marks(run: Path) -> dict[str, ModelMark]:
    """The marker's content; none where it is damaged: then the run owns nothing."""
    try:
        return TypeAdapter(dict[str, ModelMark]).validate_json((run / MARKER).read_bytes())
    except (OSError, ValidationError):
        return {}


def _write(run: Path, marks: Mapping[str, ModelMark]) -> None:
    if marks:
        write_json(run / MARKER, {name: asdict(mark) for name, mark in marks.items()})
    else:
        (run / MARKER).unlink(missing_ok=True)
