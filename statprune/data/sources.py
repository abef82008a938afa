"""Text sources: the bundled documentation, a text file, WikiText-2 and C4; each with two splits."""

import pydoc_data.topics
import re
from collections.abc import Sequence
from pathlib import Path

from statprune.errors import DataError, first_line
from statprune.system.hub import hub_access

SOURCES = ("bundled", "text", "wikitext2", "c4")
HUB_NAMES = {"wikitext2": "Salesforce/wikitext", "c4": "allenai/c4"}
HUB_FILES = {
    ("wikitext2", "calibration"): "wikitext-2-raw-v1/train-00000-of-00001.parquet",
    ("wikitext2", "evaluation"): "wikitext-2-raw-v1/test-00000-of-00001.parquet",
    ("c4", "calibration"): "en/c4-train.00000-of-01024.json.gz",
    ("c4", "evaluation"): "en/c4-validation.00000-of-00008.json.gz",
}
C4_EVALUATION_DOCUMENTS = 1100  # as in Wanda's loader


def read_text(source: str, split: str, path: str | None = None) -> str:
    """The text of one source.

    Args:
        source: bundled, text, wikitext2 or c4.
        split: calibration or evaluation.
        path: the file for ``text``; for wikitext2 and c4 an optional local copy of the hub's dataset folder.

    Raises:
        DataError: the source can't be read or is empty.
    """
    if source == "bundled":
        return bundled_text(split)
    if source == "text":
        return _file_text(path, split)
    if source == "wikitext2":
        return "\n\n".join(documents(source, split, path))
    return " ".join(documents(source, split, path)[:C4_EVALUATION_DOCUMENTS])


def documents(source: str, split: str, path: str | None = None) -> Sequence[str]:
    """The documents of one split of wikitext2 or c4, from the file that Wanda's loader takes.

    Args:
        source: wikitext2 or c4.
        split: calibration or evaluation.
        path: a local copy of the hub's dataset folder; None: the hub or its cache.

    Raises:
        DataError: neither the hub, nor its local cache, nor ``path`` has the file.
    """
    import datasets

    file = HUB_FILES[source, split]
    problem = path_problem(source, split, path)
    if problem:
        raise DataError(problem)
    if path is not None:
        kind = "parquet" if file.endswith(".parquet") else "json"
        own = Path(path).expanduser() / file
        try:
            texts: Sequence[str] = datasets.load_dataset(kind, data_files=str(own), split="train")["text"]
            return texts
        except Exception as error:  # each reader has its own errors for a damaged file or a missing column
            reason = first_line(error)
            raise DataError(
                f"{own} can't be read ({type(error).__name__}: {reason}); {split}.path needs an undamaged copy of the "
                f"hub's folder {HUB_NAMES[source]}"
            ) from error
    with hub_access() as online:
        try:
            texts = datasets.load_dataset(HUB_NAMES[source], data_files={split: file}, split=split)["text"]
            return texts
        except Exception as error:  # as above
            reason = first_line(error) if online else "no network, and not in the local cache"
            raise DataError(
                f"the {split} dataset {HUB_NAMES[source]} can't be loaded ({reason}); connect to the network, or give "
                f"a local copy of its folder with {split}.path="
            ) from error


def path_problem(source: str, split: str, path: str | None) -> str | None:
    """What is wrong with the file or folder of a source, in one sentence, or None; reads nothing."""
    if source == "text":
        if path is None:
            return f"{split}.path is not set, and the source text needs it; give {split}.path=/path/to/file.txt"
        if not Path(path).expanduser().is_file():
            return f"{split}.path={path} is no file; give the UTF-8 text file to read"
    elif source in HUB_NAMES and path is not None:
        file = HUB_FILES[source, split]
        if not (Path(path).expanduser() / file).is_file():
            return f"{split}.path={path} has no {file}; give a copy of the hub's folder {HUB_NAMES[source]}, or no path"
    return None


def source_problem(source: str, split: str, path: str | None) -> str | None:
    """As ``path_problem``, but also reads a text file."""
    problem = path_problem(source, split, path)
    if problem is None and source == "text":
        try:
            read_text(source, split, path)
        except DataError as error:
            problem = str(error)
    return problem


def bundled_text(split: str) -> str:
    """The topics of ``bundled_topics`` as one text."""
    return "\n\n".join(bundled_topics(split))


def bundled_topics(split: str) -> list[str]:
    """The Python documentation topics of this CPython, longest first, without repeated paragraphs.

    Topics contain each other's sections: a paragraph counts once, in the longest topic that has it, so that no
    paragraph is in both splits. Every fifth topic is for evaluation.

    Args:
        split: calibration or evaluation.
    """
    seen: set[str] = set()
    topics = pydoc_data.topics.topics
    texts = []
    for name in sorted(topics, key=lambda key: (-len(topics[key]), key)):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                paragraphs.append(paragraph)
        text = "\n\n".join(paragraphs)
        if len(text) >= 500:
            texts.append(text)
    is_evaluation = split == "evaluation"
    return [text for index, text in enumerate(texts) if (index % 5 == 3) is is_evaluation]


def _file_text(path: str | None, split: str) -> str:
    problem = path_problem("text", split, path)
    if path is None or problem:
        raise DataError(str(problem))
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{split}.path={path} can't be read ({reason}); give a UTF-8 text file") from error
    if not text.strip():
        raise DataError(f"{split}.path={path} is empty; give a file with text")
    return text
