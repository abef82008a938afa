"""Look at a figure as a reader does: what is written in it, and whether it can be read."""

import itertools

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Everything written in a figure, with its box in pixels."""
    seen: list[tuple[str, Bbox]] = []
    draw = Text.draw

    def record(self, renderer):
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            seen.append((self.get_text(), Text.get_window_extent(self, renderer)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.canvas.draw()
        seen.clear()  # the first drawing settles the layout
        figure.canvas.draw()
    return seen


def assert_readable(figure: Figure, has_legend: bool = True, has_categories: bool = False) -> None:
    """Axes are labelled, the legend is there, and texts lie inside and apart.

    Args:
        figure: is drawn.
        has_legend: whether it has one.
        has_categories: its vertical axis shows names, and needs no label.
    """
    assert all(axes.get_xlabel() for axes in figure.axes)
    if not has_categories:
        assert figure.axes[0].get_ylabel() and all(axes.get_ylabel() or axes.get_title() for axes in figure.axes)
    assert bool(figure.legends) == has_legend
    texts = drawn_texts(figure)
    for text, box in texts:
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text
    for (first, box), (second, other) in itertools.combinations(texts, 2):
        assert not box.padded(-0.5).overlaps(other.padded(-0.5)), f"{first!r} overlaps {second!r}"
    for legend in figure.legends:
        for axes in figure.axes:
            assert not legend.get_window_extent().overlaps(axes.bbox)


def legend_names(figure: Figure) -> list[str]:
    """What the figure's legend names."""
    return [text.get_text() for text in figure.legends[0].get_texts()]
