"""The bundled task for lm-evaluation-harness: its documents are true, balanced, and the same every time."""

import random
import re
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy
import pytest
from lm_eval.tasks import TaskManager

from statprune.data.sources import bundled_text, bundled_topics

FOLDER = Path(__file__).parents[2] / "experiments" / "tasks"


def builder():
    """The module as the harness loads it, from its file."""
    spec = spec_from_file_location("bundled_task", FOLDER / "bundled.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(text: str) -> str:
    """Text on one line, without bullets and without spaces where a line breaks after a hyphen."""
    text = re.sub(r"^\s*\* ", "", text, flags=re.MULTILINE)
    return " ".join(re.sub(r"(?<=\w-)\n\s*(?=\w)", "", text).split())


@pytest.fixture(scope="module")
def rows():
    return builder().documents(version=1.0, pretrained="a model's argument")["test"].to_list()


@pytest.fixture(scope="module")
def topics():
    return [plain(topic) for topic in bundled_topics("evaluation")]


def right_and_wrong(row) -> tuple[str, list[str]]:
    choices = list(row["choices"])
    return choices.pop(row["answer"]), choices


def test_two_builds_are_equal_and_leave_the_global_random_state(rows):
    before, numpy_before = random.getstate(), numpy.random.get_state()[1].tolist()
    assert builder().documents()["test"].to_list() == rows and 150 <= len(rows) <= 200
    assert random.getstate() == before and numpy.random.get_state()[1].tolist() == numpy_before


def test_the_right_choice_follows_and_the_others_are_from_three_other_topics(rows, topics):
    for row in rows:
        right, wrong = right_and_wrong(row)
        assert len(set(row["choices"])) == 4
        own = [number for number, topic in enumerate(topics) if f"{row['context']} {right}" in topic]
        assert own and not any(words in topics[own[0]] for words in wrong)
        homes = [{number for number, topic in enumerate(topics) if words in topic} for words in wrong]
        assert all(homes) and len(set.union(*homes)) >= 3


def test_no_passage_is_right_twice_and_none_is_from_the_calibration_part(rows):
    rights = [right_and_wrong(row)[0] for row in rows]
    assert len(set(rights)) == len(rights)
    calibration = plain(bundled_text("calibration"))
    assert not any(f"{row['context']} {right}" in calibration for row, right in zip(rows, rights, strict=True))


def test_neither_place_nor_length_nor_format_tells_the_answer(rows):
    places = Counter(row["answer"] for row in rows)
    noise = 3 * (len(rows) * 0.25 * 0.75) ** 0.5
    assert all(abs(places[place] - len(rows) / 4) < noise for place in range(4))
    for row in rows:
        assert len({len(choice) for choice in row["choices"]}) == 1
        for text in (row["context"], *row["choices"]):
            # a text may start with an operator or a dash of its sentence; the topics' bullets are all asterisks
            assert text == " ".join(text.split()) and not re.search(r"::=|>>>|^\* |\|", text)


def test_the_harness_loads_it_and_joins_context_and_choice_to_the_true_text(rows, topics):
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata={"pretrained": "a model"})
    loaded = manager.load(["bundled"])
    task = loaded["tasks"]["bundled"]
    documents = list(task.test_docs())
    assert documents == rows
    for row in documents:
        context, gold = task.doc_to_text(row), task.doc_to_target(row)
        requests = task.construct_requests(row, context, metadata=("bundled", 0, 1))
        texts = ["".join(request.args) for request in requests if request.args[0]]
        assert gold == row["answer"]
        assert [any(text in topic for topic in topics) for text in texts] == [place == gold for place in range(4)]
