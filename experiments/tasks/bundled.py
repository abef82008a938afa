"""Documents of the task ``bundled``: which of four continuations follows a piece of the Python documentation?"""

import random
import re
from typing import Any, NamedTuple

import datasets

from statprune.data.bundled import bundled_topics

SEED = 0
DOCUMENTS = 200  # at most
CHOICES = 4
CONTEXT_CHARACTERS = (60, 120)  # at least, at most
CHOICE_CHARACTERS = 40  # at least: the word that reaches them is the last
NOT_PROSE = re.compile(r"::=|>>>|--|==| = |# |[|\\]")


class Cut(NamedTuple):
    """A place between two words of prose: the topic's number and the text on both sides."""

    topic: int
    before: str
    after: str


def documents(**_: Any) -> dict[str, datasets.Dataset]:
    """The split ``test``: up to 200 rows of ``context``, ``choices`` (four strings) and ``answer`` (0 to 3).

    Source: the prose in the evaluation part of the bundled text, so rows differ between versions of Python. The four
    choices of a row have the same number of characters and come from four topics. The harness passes the task's
    metadata and the model's arguments as keywords; rows depend on neither.
    """
    generator = random.Random(SEED)
    texts = [prose(topic) for topic in bundled_topics("evaluation")]
    cuts = [cut for topic, runs in enumerate(texts) for run in runs for cut in cuts_of(topic, run)]
    rights = [right for topic, runs in enumerate(texts) for run in runs for right in disjoint_cuts(topic, run)]
    rows: list[dict[str, Any]] = []
    used: set[str] = set()
    for cut in generator.sample(rights, len(rights)):
        right = first_words(cut.after)
        wrong = distractors(len(right), " ".join(texts[cut.topic]), cut.topic, generator.sample(cuts, len(cuts)))
        if len(wrong) == CHOICES - 1 and len(rows) < DOCUMENTS and right not in used:  # sentences recur in a topic
            used.add(right)
            answer = generator.randrange(CHOICES)
            choices = [*wrong[:answer], right, *wrong[answer:]]
            rows.append({"context": last_words(cut.before), "choices": choices, "answer": answer})
    return {"test": datasets.Dataset.from_list(rows)}


def prose(topic: str) -> list[str]:
    """The runs of adjacent paragraphs and list items that are prose, each as one line without bullets."""
    runs: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", topic):
        for item in re.split(r"^\s*\* ", paragraph, flags=re.MULTILINE):
            line = " ".join(re.sub(r"(?<=\w-)\n\s*(?=\w)", "", item).split())  # lines also break after hyphens
            if is_prose(line):
                runs[-1].append(line)
            elif line:
                runs.append([])
    return [" ".join(run) for run in runs if run]


def is_prose(line: str) -> bool:
    """Whether a line is sentences: no heading, footnote, grammar, table or code."""
    letters = sum(character.isalpha() or character.isspace() for character in line)
    sentences = re.match(r'[A-Z"*]', line) and line.endswith((".", ",", ":", ";", ")"))
    return bool(sentences) and len(line) >= 60 and letters >= 0.88 * len(line) and not NOT_PROSE.search(line)


def cuts_of(topic: int, run: str) -> list[Cut]:
    """All cuts of a run with enough text on both sides."""
    spaces = [match.start() for match in re.finditer(" ", run)]
    cuts = [Cut(topic, run[:space], run[space + 1 :]) for space in spaces]
    return [cut for cut in cuts if len(cut.before) >= CONTEXT_CHARACTERS[0] and len(cut.after) >= CHOICE_CHARACTERS]


def disjoint_cuts(topic: int, run: str) -> list[Cut]:
    """Cuts whose first words share no word: no passage is right twice."""
    chosen: list[Cut] = []
    for cut in cuts_of(topic, run):
        if not chosen or len(cut.before) > len(chosen[-1].before) + len(first_words(chosen[-1].after)):
            chosen.append(cut)
    return chosen


def first_words(text: str) -> str:
    """Whole words from the start, to at least ``CHOICE_CHARACTERS``."""
    return text[: (text + " ").find(" ", CHOICE_CHARACTERS)]


def last_words(text: str) -> str:
    """Whole words to the end, of at most the larger of ``CONTEXT_CHARACTERS``."""
    limit = CONTEXT_CHARACTERS[1]
    return text if len(text) <= limit else text[text.find(" ", len(text) - limit - 1) + 1 :]


def distractors(characters: int, own: str, topic: int, cuts: list[Cut]) -> list[str]:
    """The first words of three cuts from other topics, of exactly so many characters and not in the own topic."""
    found: dict[int, str] = {}
    for cut in cuts:
        words, end = cut.after[:characters], cut.after[characters : characters + 1]
        whole = len(words) == characters and end in ("", " ") and not words.endswith(" ")
        if whole and cut.topic != topic and words not in own:
            found.setdefault(cut.topic, words)
    return list(found.values())[: CHOICES - 1]
