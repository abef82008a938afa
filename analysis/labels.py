"""Texts beside points that do not overlap; a text that could be another point's is joined to its own by a line."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Bbox, TransformedBbox

LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 3}
Offset = tuple[float, float]  # points
NEAR = 16  # points: a text farther from its point is joined to it by a line
CLEARLY = 1.5  # so many times as far as its own point any other has to be for a text to need no line


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's text beside it, where it covers no other text, no point, no line and no axis.

    Where there is no such place, the text goes where it covers least.

    Args:
        axes: its layout must be final.
        points: x, y, text.
    """
    centres = axes.transData.transform([(x, y) for x, y, _ in points])
    markers = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in centres]
    drawn = (line.get_transform().transform_path(line.get_path()) for line in axes.get_lines())
    scene = _Scene(axes.bbox, markers, [path for path in drawn if len(path) > 1])
    figure = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr]
    pixels = renderer.points_to_pixels(1)
    for (x, y, text), centre in zip(points, centres, strict=True):
        label = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", fontsize="small", va="center", arrowprops=LEADER
        )
        size = Text.get_window_extent(label, renderer).size  # without the leader
        places = [(offset, _box(centre + np.multiply(offset, pixels), size, _side(offset))) for offset in _offsets()]
        leaders = [_leader(centre, box) if scene.needs_leader(centre, offset, box) else None for offset, box in places]
        # of equally good places the nearest
        badness = [scene.badness(centre, box, leader) for (_, box), leader in zip(places, leaders, strict=True)]
        best = int(np.argmin(badness))
        (offset, box), leader = places[best], leaders[best]
        label.set(position=offset, horizontalalignment=_side(offset))
        label.arrow_patch.set_visible(leader is not None)  # type: ignore[union-attr]
        scene.add(box, leader)


@dataclass
class _Scene:
    """What is in the axes already, in pixels."""

    frame: Bbox | TransformedBbox
    markers: list[Bbox]
    lines: list[Path]
    texts: list[Bbox] = field(default_factory=list)

    def needs_leader(self, centre: np.ndarray, offset: Offset, box: Bbox) -> bool:
        """Whether a text there is far from its point, or so near to another that it could be that one's."""
        others = [_distance(_middle(marker), box) for marker in self.markers if not marker.contains(*centre)]
        return math.hypot(*offset) > NEAR or min(others, default=math.inf) < CLEARLY * _distance(centre, box)

    def badness(self, centre: np.ndarray, box: Bbox, leader: Path | None) -> int:
        """How bad a place for a text is: leaving the axes or covering a text or point is worse than crossing lines."""
        common = Bbox.intersection(box, self.frame)
        is_inside = common is not None and np.allclose(common.bounds, box.bounds)
        covers = not is_inside or any(map(box.overlaps, [*self.texts, *self.markers]))
        crossed = sum(line.intersects_bbox(box, False) for line in self.lines)
        if leader is not None:
            others = [marker for marker in self.markers if not marker.contains(*centre)]
            crossed += 1 + sum(leader.intersects_bbox(other, False) for other in [*self.texts, *others])
            crossed += sum(leader.intersects_path(line, False) for line in self.lines)
        return 100 * covers + crossed

    def add(self, box: Bbox, leader: Path | None) -> None:
        self.texts.append(box)
        if leader is not None:
            self.lines.append(leader)


def _side(offset: Offset) -> str:
    """Which side of the text faces its point."""
    return "center" if offset[0] == 0 else "left" if offset[0] > 0 else "right"


def _box(anchor: np.ndarray, size: Sequence[float], side: str) -> Bbox:
    """The box of a text of that size whose side's middle is at the anchor, with a margin; all in pixels."""
    (x, y), (width, height) = anchor, size
    left = {"left": x, "center": x - width / 2, "right": x - width}[side]
    return Bbox.from_bounds(left, y - height / 2, width, height).padded(6, 2)


def _leader(centre: np.ndarray, box: Bbox) -> Path:
    """The line from just outside of a point, which may lie on other lines, to its text."""
    way = _middle(box) - centre
    return Path(np.array([centre + way * min(1, 6 / max(np.hypot(*way), 1)), centre + way]))


def _middle(box: Bbox) -> np.ndarray:
    return np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])


def _distance(point: np.ndarray, box: Bbox) -> float:
    """Pixels from a point to the nearest one of a box."""
    return float(np.hypot(*np.maximum(0, np.maximum(box.min - point, point - box.max))))


def _offsets() -> Iterator[Offset]:
    """Offsets in points, nearest first; of equally near ones first those beside the point, then above and below."""
    for distance in range(8, 160, 8):
        for x, y in ((1, 0), (-1, 0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1)):
            yield x * distance, y * distance
