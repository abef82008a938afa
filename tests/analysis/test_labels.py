"""Texts beside points cover no other text and no point; one that is far, or nearer to another, is joined to its own."""

import itertools

import numpy
import pytest

from statprune.analysis.drawing import empty_figure
from statprune.analysis.labels import NEAR, place_labels
from tests.helpers.pictures import drawn_texts


@pytest.fixture
def axes():
    """Axes whose layout is final."""
    figure = empty_figure((5, 4))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return axes


def crowd(count):
    """Points with texts, all in the middle of the axes."""
    draw = numpy.random.default_rng(0)
    return [(5 + x, 5 + y, f"series {number}") for number, (x, y) in enumerate(draw.normal(0, 0.3, (count, 2)))]


def boxes(axes):
    """Where the texts are drawn, in pixels."""
    written = {text.get_text() for text in axes.texts}
    return [box for text, box in drawn_texts(axes.get_figure()) if text in written]


def distance(text):
    """How many points a text is from its point."""
    return numpy.hypot(*text.get_position())


def test_a_lone_text_stands_right_beside_its_point(axes):
    place_labels(axes, [(5, 5, "alone")])
    (text,) = axes.texts
    assert text.get_text() == "alone" and text.xy == (5, 5)
    assert text.get_position() == (8, 0) and text.get_horizontalalignment() == "left"


def test_a_text_at_the_right_edge_stands_left_of_its_point(axes):
    place_labels(axes, [(9.9, 5, "at the edge")])
    (box,) = boxes(axes)
    assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1


def test_texts_of_crowded_points_do_not_overlap(axes):
    place_labels(axes, crowd(8))
    drawn = boxes(axes)
    assert len(drawn) == 8
    assert not any(first.overlaps(second) for first, second in itertools.combinations(drawn, 2))


def test_texts_cover_no_point(axes):
    points = crowd(8)
    place_labels(axes, points)
    drawn = boxes(axes)
    assert len(drawn) == 8
    for box, (x, y, _) in itertools.product(drawn, points):
        assert not box.contains(*axes.transData.transform((x, y)))


def test_texts_avoid_lines(axes):
    axes.plot([5.2, 5.2], [0, 10])
    place_labels(axes, [(5, 5, "beside a line")])
    (box,) = boxes(axes)
    assert box.x1 < axes.transData.transform((5.2, 5))[0]


def joined(axes):
    """By text, whether a line joins it to its point."""
    return {text.get_text(): text.arrow_patch.get_visible() for text in axes.texts}


def test_far_texts_are_joined_to_their_points(axes):
    place_labels(axes, crowd(8))
    assert len(axes.texts) == 8 and any(distance(text) > NEAR for text in axes.texts)
    assert all(joined(axes)[text.get_text()] for text in axes.texts if distance(text) > NEAR)


def test_texts_of_points_that_stand_apart_are_not_joined(axes):
    place_labels(axes, [(2, 2, "one"), (5, 8, "two"), (8, 2, "three")])
    assert joined(axes) == {"one": False, "two": False, "three": False}


def test_a_text_that_could_be_another_points_is_joined_to_its_own(axes):
    place_labels(axes, crowd(8))
    texts = {text.get_text(): text for text in axes.texts}
    drawn = dict(zip((text.get_text() for text in axes.texts), boxes(axes), strict=True))

    def pixels(text, x, y):
        point, box = axes.transData.transform((x, y)), drawn[text]
        return numpy.hypot(*numpy.maximum(0, numpy.maximum(box.min - point, point - box.max)))

    points = {text: (x, y) for x, y, text in crowd(8)}
    unclear = [
        text
        for text in texts
        if min(pixels(text, *point) for other, point in points.items() if other != text) < pixels(text, *points[text])
    ]
    assert unclear and all(joined(axes)[text] for text in unclear)
