"""The bundled task for lm-evaluation-harness: its documents are true, balanced, and the same every time."""

import random
import re
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy
import pytest
from lm_eval.tasks import TaskManager

from statprune.data.bundled import bundled_topics

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


def test_two_builds_are_equal(rows):
    assert builder().documents()["test"].to_list() == rows


def test_there_are_enough_documents_and_not_too_many(rows):
    assert 150 <= len(rows) <= 200


def test_building_leaves_the_global_random_state():
    before, numpy_before = random.getstate(), numpy.random.get_state()[1].tolist()
    builder().documents()
    assert random.getstate() == before and numpy.random.get_state()[1].tolist() == numpy_before


def test_the_four_choices_differ(rows):
    assert all(len(set(row["choices"])) == len(row["choices"]) == 4 for row in rows)


def test_only_the_right_choice_is_from_the_topic_in_which_it_follows(rows, topics):
    for row in rows:
        right, wrong = right_and_wrong(row)
        own = [number for number, topic in enumerate(topics) if f"{row['context']} {right}" in topic]
        assert own and not any(words in topics[own[0]] for words in wrong)


def test_the_wrong_choices_are_from_three_topics(rows, topics):
    for row in rows:
        _, wrong = right_and_wrong(row)
        homes = [{number for number, topic in enumerate(topics) if words in topic} for words in wrong]
        assert all(homes) and len(set.union(*homes)) >= 3


def test_no_passage_is_right_twice(rows):
    rights = [right_and_wrong(row)[0] for row in rows]
    assert len(set(rights)) == len(rights)


def test_no_passage_is_from_the_calibration_part(rows):
    calibration = plain("\n\n".join(bundled_topics("calibration")))
    assert not any(f"{row['context']} {right_and_wrong(row)[0]}" in calibration for row in rows)


def test_the_place_does_not_tell_the_answer(rows):
    places = Counter(row["answer"] for row in rows)
    noise = 3 * (len(rows) * 0.25 * 0.75) ** 0.5
    assert all(abs(places[place] - len(rows) / 4) < noise for place in range(4))


def test_the_length_does_not_tell_the_answer(rows):
    assert all(len({len(choice) for choice in row["choices"]}) == 1 for row in rows)


def test_the_format_does_not_tell_the_answer(rows):
    for row in rows:
        for text in (row["context"], *row["choices"]):
            # a text may start with an operator or a dash of its sentence; the topics' bullets are all asterisks
            assert text == " ".join(text.split()) and not re.search(r"::=|>>>|^\* |\|", text)


@pytest.fixture(scope="module")
def task():
    """The task as the harness loads it."""
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata={"pretrained": "a model"})
    return manager.load(["bundled"])["tasks"]["bundled"]


def test_the_harness_loads_the_documents(task, rows):
    assert list(task.test_docs()) == rows


def test_the_harness_takes_the_right_choice_for_the_answer(task, rows):
    assert [task.doc_to_target(row) for row in task.test_docs()] == [row["answer"] for row in rows]


def test_the_harness_joins_only_the_right_choice_to_the_true_text(task, topics):
    for row in task.test_docs():
        requests = task.construct_requests(row, task.doc_to_text(row), metadata=("bundled", 0, 1))
        texts = ["".join(request.args) for request in requests if request.args[0]]
        is_true = [any(text in topic for topic in topics) for text in texts]
        assert is_true == [place == row["answer"] for place in range(4)]
