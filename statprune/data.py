"""Text sources: what calibration and evaluation read."""

import pydoc_data.topics
import re
from pathlib import Path
from typing import Any

from statprune.errors import DataError

SOURCES = ("bundled", "text", "wikitext2", "c4")
C4_FILES = {
    "train": "en/c4-train.00000-of-01024.json.gz",
    "validation": "en/c4-validation.00000-of-00008.json.gz",
}


def read_text(source: str, part: str, path: str | None = None) -> str:
    """The text of one source.

    Args:
        source: bundled, text, wikitext2 or c4.
        part: calibration or evaluation.
        path: the file for ``text``; for wikitext2 and c4 an optional local copy of the hub's dataset folder.

    Raises:
        DataError: the source can't be read or is empty.
    """
    if source == "bundled":
        return bundled_text(part)
    if source == "text":
        return _file_text(path, part)
    if source == "wikitext2":
        split = "train" if part == "calibration" else "test"
        rows = _dataset(path or "Salesforce/wikitext", part, name="wikitext-2-raw-v1", split=split)
        return "\n\n".join(rows["text"])
    return " ".join(c4_documents("validation", part, path)[:1100])


def c4_documents(split: str, part: str, path: str | None = None) -> Any:
    """C4's documents of one split's first shard, as Wanda's loader takes them."""
    return _dataset(path or "allenai/c4", part, data_files={split: C4_FILES[split]}, split=split)["text"]


def bundled_text(part: str) -> str:
    """The Python documentation topics of this CPython, without repeats, split by topic.

    Topics contain each other's sections: a paragraph counts once, in the longest topic that has it, so that no
    paragraph is in both parts. Every fifth topic is for evaluation.
    """
    seen: set[str] = set()
    parts: dict[str, list[str]] = {"calibration": [], "evaluation": []}
    topics = pydoc_data.topics.topics
    kept = []
    for name in sorted(topics, key=lambda key: (-len(topics[key]), key)):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                paragraphs.append(paragraph)
        text = "\n\n".join(paragraphs)
        if len(text) >= 500:
            kept.append(text)
    for index, text in enumerate(kept):
        parts["evaluation" if index % 5 == 3 else "calibration"].append(text)
    return "\n\n".join(parts[part])


def _file_text(path: str | None, part: str) -> str:
    if path is None:
        raise DataError(f"{part}.path is not set; give the UTF-8 text file to read, {part}.path=/path/to/file.txt")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{part}.path={path!r} can't be read ({reason}); give a UTF-8 text file") from error
    if not text.strip():
        raise DataError(f"{part}.path={path!r} is empty; give a file with text")
    return text


def _dataset(path: str, part: str, **options: Any) -> Any:
    import datasets

    try:
        return datasets.load_dataset(path, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"the {part} dataset {path!r} can't be loaded ({reason}); check the network, or give a local copy of "
            f"its folder with {part}.path="
        ) from error
