"""Where the boxes of a tree go: from left to right by depth, a first child beside its parent, the others below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """Half of its height."""
        return self.y + self.height / 2

    def grown(self, by: float) -> Box:
        """Return a box that is larger on each side."""
        return Box(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)


def tidy(
    parents: Sequence[int | None], sizes: Sequence[tuple[float, float]], gap: float, column_gap: float
) -> list[Box]:
    """Place boxes that do not overlap; ``parents`` holds the number of each one's parent, which comes before it, and
    the descendants of each one follow it without others in between (a walk through the tree).
    """
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent is None else depths[parent] + 1)
    columns = _columns(depths, sizes, column_gap)
    boxes: list[Box] = []
    below = 0.0
    for number, (parent, (width, height)) in enumerate(zip(parents, sizes, strict=True)):
        beside = parent is not None and parent == number - 1
        top = boxes[number - 1].y if beside else below + (gap if boxes else 0)
        boxes.append(Box(columns[depths[number]], top, width, height))
        below = max(below, top + height)
    return boxes


def _columns(depths: Sequence[int], sizes: Sequence[tuple[float, float]], gap: float) -> list[float]:
    """Return where each column begins: each is as wide as its widest box."""
    widest = [0.0] * (max(depths, default=-1) + 1)
    for depth, (width, _) in zip(depths, sizes, strict=True):
        widest[depth] = max(widest[depth], width)
    starts, at = [], 0.0
    for width in widest:
        starts.append(at)
        at += width + gap
    return starts
