"""The topology as a tree of text: one line for each function or run of functions, with its address."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from quiesce.report.picture_facts import ACS_WORDS, NO_GROUP, Picture
from quiesce.report.picture_tree import Node, build, common_unit, group_words, walk

WIDTH = 100
_DEEPEST = 36
"""So many columns of branches are shown; what is deeper says how deep it is."""
_BOX = ("├─ ", "└─ ", "│  ", "   ")
_ASCII = ("|- ", "`- ", "|  ", "   ")
_COLOURS = (36, 33, 35, 32, 34, 31, 96, 93, 95, 92, 94, 91)
_REPLACED = str.maketrans({"\ufffd": "?", "…": "~"})


def text(picture: Picture, *, ascii_only: bool = False, colour: bool = False, collapse: bool = True) -> str:
    """Return the picture as text of at most 100 columns."""
    lines = list(_lines(picture, _ASCII if ascii_only else _BOX, colour, collapse))
    joined = "\n".join(lines)
    return joined.translate(_REPLACED).encode("ascii", "replace").decode() if ascii_only else joined


def _lines(picture: Picture, marks: tuple[str, str, str, str], colour: bool, collapse: bool) -> Iterator[str]:
    head = f"# {picture.name}  {picture.kernel}  IOMMU {picture.iommu}  {picture.counts}"
    yield from textwrap.wrap(head, WIDTH, subsequent_indent="#   ")
    roots = build(picture, collapse)
    rows = [row for root in roots for row in _rows(root, marks)]
    width = max((len(branch) + len(node.title) for branch, node, _ in rows), default=0)
    numbers = max((len(group_words(node)) for _, node, _ in rows), default=0)
    for branch, node, unit in rows:
        yield _line(picture, branch, node, unit, (width, min(numbers, 11)), colour)
    yield from _legend(picture, {node.acs for _, node, _ in rows})


def _rows(root: Node, marks: tuple[str, str, str, str]) -> Iterator[tuple[str, Node, str]]:
    """Yield branches, node, and the IOMMU unit to name, for the lines of one tree."""
    unit = common_unit(root)
    middle, last, through, empty = marks
    before: dict[int, tuple[str, int]] = {id(root): ("", 0)}
    yield "", root, _unit_words(unit) if unit else ""
    for node, parent in walk([root]):
        if parent is None:
            continue
        stem, depth = before[id(parent)]
        end = parent.children[-1] is node
        before[id(node)] = (stem + (empty if end else through), depth + 1)
        deep = len(stem) > _DEEPEST
        branch = f"{depth + 1:>{_DEEPEST - 1}}: " if deep else stem + (last if end else middle)
        yield branch, node, "" if node.unit == unit else _unit_words(node.unit)


def _unit_words(unit: str | None) -> str:
    return "" if unit is None else f"[{unit or 'no IOMMU'}]"


def _line(picture: Picture, branch: str, node: Node, unit: str, widths: tuple[int, int], colour: bool) -> str:
    address = f"{branch}{node.title:<{widths[0] - len(branch)}}"
    groups = group_words(node)
    column = f"{groups:>{widths[1]}}"
    rest = "  ".join(part for part in (unit, node.words) if part)
    line = f"{address}  {column}  {node.acs:<8}  {rest}"
    line = _cut(line, WIDTH).rstrip()
    number = _colour_of(picture, node)
    if not colour or number is None:
        return line
    start = len(address) + 2
    paint = f"\033[{_COLOURS[number % len(_COLOURS)]}m"
    return f"{line[:start]}{paint}{line[start : start + len(column)]}\033[0m{line[start + len(column) :]}"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _colour_of(picture: Picture, node: Node) -> int | None:
    keys = node.groups
    return picture.groups[keys[0]].colour if len(keys) == 1 and keys[0] != NO_GROUP else None


def _legend(picture: Picture, used: set[str]) -> Iterator[str]:
    for name, words in picture.units.items():
        yield from _wrapped(name, words)
    for word in ACS_WORDS:
        if word in used:
            yield from _wrapped(word, ACS_WORDS[word])
    for key, group in picture.groups.items():
        if group.undecided:
            yield from _wrapped(key, f"{len(group.members)} functions from {group.members[0]}: {group.why_in_short()}")
    for note in picture.notes:
        yield from textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="      ")


def _wrapped(name: str, words: str) -> list[str]:
    return textwrap.wrap(f"{name + ':':<10}{words}", WIDTH, subsequent_indent=" " * 10)
