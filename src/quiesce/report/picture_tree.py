"""The tree that pictures show, with what is alike and of little interest put together and counted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import ceil

from quiesce.report.picture_facts import NO_GROUP, Group, Part, Picture
from quiesce.snapshot.bdf import Bdf

_UNCORE = (0x05, 0x08, 0x11, 0x13)
_LEAST = {"vf": 2, "port": 2, "uncore": 4, "same": 8}
"""How many alike there must be before they are put together."""
_ROUNDS = 4
ROOT_BUS, CONTINUED = "root bus", "continued"
"""The words of a root, and of one whose first children are in another piece."""


@dataclass(slots=True)
class Node:
    """One place in a picture: a root bus (no parts), a function, or several that are alike."""

    parts: tuple[Part, ...]
    title: str
    """The address; the first and last one of several; segment and number of a bus."""
    words: str
    children: list[Node] = field(default_factory=list)

    @property
    def groups(self) -> tuple[str, ...]:
        """The keys of the groups of its parts, each once."""
        return tuple(dict.fromkeys(part.group for part in self.parts))

    @property
    def acs(self) -> str:
        """How its parts are isolated: a key of ``ACS_WORDS``, ``mixed``, or empty."""
        words = {part.acs for part in self.parts}
        return words.pop() if len(words) == 1 else "mixed" if words else ""

    @property
    def unit(self) -> str | None:
        """The IOMMU unit that covers its parts; of several the first's."""
        return self.parts[0].unit if self.parts else None


def build(picture: Picture, collapse: bool = True) -> list[Node]:
    """Return one tree for each root bus; every function is in exactly one node."""
    children: dict[str | None, list[Part]] = {}
    for part in picture.parts.values():
        children.setdefault(part.parent, []).append(part)
    roots = []
    for (bus, misplaced), parts in groupby(children.get(None, []), key=lambda part: (part.bdf[:-5], part.misplaced)):
        words = "it is not known behind which bridge" if misplaced else ROOT_BUS
        roots.append(Node((), bus, words))
        _fill(roots[-1], list(parts), children, picture.groups, collapse)
    return roots


def walk(roots: Sequence[Node]) -> Iterator[tuple[Node, Node | None]]:
    """Yield every node and its parent, parents first."""
    rest: list[tuple[Node, Node | None]] = [(root, None) for root in reversed(roots)]
    while rest:
        node, parent = rest.pop()
        yield node, parent
        rest.extend((child, node) for child in reversed(node.children))


def _fill(
    root: Node,
    parts: list[Part],
    children: Mapping[str | None, list[Part]],
    groups: Mapping[str, Group],
    collapse: bool,
) -> None:
    rest = [(root, parts)]
    while rest:
        node, below = rest.pop()
        leaves = {part.bdf for part in below if part.bdf not in children}
        for run in _runs(below, leaves, groups) if collapse else [(part,) for part in below]:
            child = _node(run)
            node.children.append(child)
            if len(run) == 1 and run[0].bdf in children:
                rest.append((child, children[run[0].bdf]))


def _node(run: tuple[Part, ...]) -> Node:
    first = run[0]
    if len(run) == 1:
        return Node(run, first.bdf, part_words(first))
    return Node(run, f"{first.bdf}..{_tail(first.bdf, run[-1].bdf)}", run_words(run))


def _tail(first: str, last: str) -> str:
    """Return the part of an address that differs from the first one of its run: bus or slot."""
    return last[-4:] if last[:-5] == first[:-5] else Bdf.parse(last).short


def part_words(part: Part) -> str:
    """Return what a function is, in a line."""
    words = part.kind if part.bridge else part.what
    words += f" -> {part.buses}" if part.buses else ""
    words += f", ids below become {Bdf.parse(part.takes_over).short}" if part.takes_over else ""
    if part.sends_as and not part.bridge:
        words += f", sends as {' '.join(item[5:] if ':' in item else item for item in part.sends_as)}"
    rest = [part.name or part.ids, f"({part.driver})" if part.driver and part.driver != "pcieport" else ""]
    return "  ".join([words, *(text for text in rest if text)])


def run_words(run: Sequence[Part]) -> str:
    """Return what functions of a run are, in a line."""
    first = run[0]
    if first.virtual:
        return f"{len(run)} VFs"
    if first.bridge:
        kind, of, rest = first.kind.partition(" of ")
        return f"{len(run)} empty {kind}s{of}{rest}"
    kinds = list(dict.fromkeys(part.what for part in run))
    return f"{len(run)} functions: {', '.join(kinds[:3])}{', ...' if len(kinds) > 3 else ''}"


# -- what is alike -----------------------------------------------------------------------------------------------


def _runs(parts: list[Part], leaves: set[str], groups: Mapping[str, Group]) -> list[tuple[Part, ...]]:
    """Split siblings into runs that may be shown as one, and single functions.

    A run hides nothing: either all of it is in one group, or each of its groups lies wholly within it.
    """
    keys: list[Hashable] = [_alike(part, leaves) for part in parts]
    for _ in range(_ROUNDS):
        runs = _consecutive(parts, keys)
        bad = {part.bdf for run in runs if len(run) > 1 for part in _offenders(run, groups)}
        if not bad:
            return runs
        keys = [part.bdf if part.bdf in bad else key for part, key in zip(parts, keys, strict=True)]
    return [(part,) for part in parts]


def _consecutive(parts: list[Part], keys: list[Hashable]) -> list[tuple[Part, ...]]:
    found: list[tuple[Part, ...]] = []
    for key, pairs in groupby(zip(keys, parts, strict=True), key=lambda pair: pair[0]):
        run = tuple(part for _, part in pairs)
        least = _LEAST[key[0]] if isinstance(key, tuple) else len(run) + 1
        found += [run] if len(run) >= least else [(part,) for part in run]
    return found


def _alike(part: Part, leaves: set[str]) -> Hashable:
    """Return a tuple that functions have in common which may be shown as one; the address when there is none."""
    if part.bdf not in leaves:
        return part.bdf
    if part.virtual:
        return "vf", part.unit, part.driver
    if part.bridge:
        if part.buses == "?":
            return part.bdf
        return "port", part.kind, part.acs, part.unit, part.takes_over != ""
    if part.class_code >> 16 in _UNCORE and part.class_code >> 8 != 0x0806:
        return "uncore", part.unit, part.group == NO_GROUP
    return "same", part.ids, part.class_code, part.unit, part.group == NO_GROUP


def _offenders(run: tuple[Part, ...], groups: Mapping[str, Group]) -> list[Part]:
    counts: dict[str, int] = {}
    for part in run:
        counts[part.group] = counts.get(part.group, 0) + 1
    if len(counts) == 1:
        return []
    whole = {key for key, count in counts.items() if key == NO_GROUP or len(groups[key].members) == count}
    return [part for part in run if part.group not in whole]


def group_words(node: Node) -> str:
    """Return the groups of a node, ranges for numbers in a row: ``3``, ``30-38,40``, ``-`` for none."""
    numbers = sorted(int(key) for key in node.groups if key.isdecimal())
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = [f"{first}-{last}" if last > first else str(first) for first, last in spans]
    return ",".join([*words, *(key for key in node.groups if not key.isdecimal())])


def common_unit(root: Node) -> str | None:
    """Return the IOMMU unit that covers most functions of a tree."""
    counts: dict[str | None, int] = {}
    for node, _ in walk([root]):
        for part in node.parts:
            counts[part.unit] = counts.get(part.unit, 0) + 1
    return max(counts, key=lambda unit: counts[unit]) if counts else None


def split(root: Node, most: int) -> list[Node]:
    """Cut a tree below its root into about equal ones of at most ``most`` leaves, for pages; never inside what hangs
    below one of its children, and not between neighbours of one group unless that makes a piece twice as long.
    """
    leaves = [sum(1 for node, _ in walk([child]) if not node.children) for child in root.children]
    goal = sum(leaves) / max(ceil(sum(leaves) / most), 1)
    pieces, size = [replace(root, children=[])], 0
    for number, child in enumerate(root.children):
        before = set(root.children[number - 1].groups) - {NO_GROUP} if number else set[str]()
        wanted = most if before.isdisjoint(child.groups) else 2 * most
        if size and (size + leaves[number] > wanted or (size >= goal and wanted == most)):
            pieces.append(replace(root, words=CONTINUED, children=[]))
            size = 0
        pieces[-1].children.append(child)
        size += leaves[number]
    return pieces
