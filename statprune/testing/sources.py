"""Check of text sources."""

import re
from collections.abc import Sequence

from statprune.data.sources import CALIBRATION, EVALUATION, PathUse, Source
from statprune.testing.rules import called, fail, require

LEAST_PARAGRAPH = 80  # characters; shorter ones, such as headings, may be in both parts


def check_source(
    source: Source | type[Source], calibration_path: str | None = None, evaluation_path: str | None = None
) -> None:
    """Check a source: both parts have text and nothing in common, and are the same each time.

    ``problem`` has to accept the given paths, and to refuse a path where none is read, or none where one is needed.

    Args:
        source: the class, or an instance.
        calibration_path: as ``calibration.path``.
        evaluation_path: as ``evaluation.path``.

    Raises:
        AssertionError: with a sentence about the first rule that is broken.
    """
    cls = source if isinstance(source, type) else type(source)
    if not issubclass(cls, Source):
        fail(f"check_source was given {cls.__name__}; give a subclass of statprune.Source")
    own = called(f"{cls.__name__}(), without arguments,", cls)
    paths = {CALIBRATION: calibration_path, EVALUATION: evaluation_path}
    parts = {}
    for part, path in paths.items():
        _check_problem(own, part, path)
        parts[part] = _documents(own, part, path)
        again = _documents(called(f"{cls.__name__}(), without arguments,", cls), part, path)
        require(
            parts[part] == again, f"{_call(own, part)} has other documents when it is called again; fix their order"
        )
        _check_text(own, part, path, parts[part])
    _check_disjoint(cls.__name__, parts[CALIBRATION], parts[EVALUATION])


def _call(source: Source, part: str) -> str:
    return f"{type(source).__name__}.documents({part!r}, …)"


def _check_problem(source: Source, part: str, path: str | None) -> None:
    name = f"{type(source).__name__}.problem"
    require(isinstance(source.path_use, PathUse), f"{type(source).__name__}.path_use is no statprune.PathUse")
    problem = called(name, lambda: source.problem(part, path))
    require(problem is None, f"{name} refuses {part}.path={path}: {problem}")
    refused = {PathUse.none: "/a/path", PathUse.required: None}
    if source.path_use in refused:
        wrong = refused[source.path_use]
        problem = called(name, lambda: source.problem(part, wrong))
        what = "a path, which the source does not read" if wrong else "no path, which the source needs"
        require(isinstance(problem, str) and bool(problem), f"{name} accepts {what}; return a sentence that says so")


def _documents(source: Source, part: str, path: str | None) -> list[str]:
    what = _call(source, part)
    documents = called(what, lambda: source.documents(part, path))
    if isinstance(documents, str):
        fail(f"{what} is a single text; return a list of texts")
    found = called(what, lambda: list(documents))
    require(all(isinstance(text, str) for text in found), f"{what} has a document that is no text")
    require(any(text.strip() for text in found), f"{what} has no text")
    return found


def _check_text(source: Source, part: str, path: str | None, documents: Sequence[str]) -> None:
    """One text of the part, which windows are cut from."""
    what = f"{type(source).__name__}.text({part!r}, …)"
    text = called(what, lambda: source.text(part, path))
    require(isinstance(text, str) and bool(text.strip()), f"{what} has no text")
    require(documents[0].strip() in text, f"{what} lacks the first document")


def _check_disjoint(name: str, calibration: Sequence[str], evaluation: Sequence[str]) -> None:
    common = {text.strip() for text in calibration if text.strip()} & {text.strip() for text in evaluation}
    require(not any(len(text) >= LEAST_PARAGRAPH for text in common), _shared(name, "document", common))
    paragraphs = _paragraphs(calibration) & _paragraphs(evaluation)
    require(not paragraphs, _shared(name, "paragraph", paragraphs))
    both = [{" ".join(text.split()) for text in part if text.strip()} for part in (calibration, evaluation)]
    require(both[0] != both[1], f"{name} has the same documents in both parts; give each part its own")


def _shared(name: str, what: str, common: set[str]) -> str:
    shown = sorted(common, key=lambda text: (-len(text), text))[0][:60] if common else ""
    return (
        f"{name} has {len(common)} {what}s in both parts, such as {shown!r}; a model would be evaluated on what it was "
        "calibrated on: leave them out of one part"
    )


def _paragraphs(documents: Sequence[str]) -> set[str]:
    texts = (" ".join(paragraph.split()) for text in documents for paragraph in re.split(r"\n\s*\n", text))
    return {text for text in texts if len(text) >= LEAST_PARAGRAPH}
