"""Reuse of runs: a tree of what a piece of model code read and chose, with its effect at the leaves.

Model code depends on nothing but what it reads through the world and what it chooses. So if all cells that one run
read hold the same values again, the run would do the same again, and its effect can be applied without running it.
``Memo.outcomes`` gives the effects of all alternatives of one piece of code in the present state, running the code
only for what it has not seen. docs/architecture.md tells the idea in full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

from quiesce.world import Choice, Delta, Read, Recording, World


class NonDeterminism(RuntimeError):
    """Model code did something else although it read the same values: it looked at state outside the world."""


@dataclass(eq=False, slots=True)
class Leaf:
    """The end of a run: what it changed and what it gave back."""

    picks: tuple[int, ...]
    choices: tuple[tuple[str, Any], ...]
    """What was asked and what was taken, for every choice that did not take the ordinary course."""
    delta: Delta
    result: Any
    reads: int = 0
    """The cells that decide whether a walk through the tree ends here, as a bit mask."""
    hits: int = 0

    def writes(self) -> int:
        """Return the cells that the run changes or overwrites, as a bit mask."""
        return mask_of(cell for cell, _ in (*self.delta.before, *self.delta.blind))


def mask_of(cells: Iterable[int]) -> int:
    """Return a number with one bit set for each cell."""
    numbers = list(cells)
    mask = bytearray(max(numbers, default=0) // 8 + 1)
    for number in numbers:
        mask[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(mask, "little")


class _Reads:
    """Cells that always held ``expect`` when the code came here, then one that told the ways apart."""

    __slots__ = ("branch", "cells", "children", "expect", "get")

    def __init__(self, prefix: Sequence[Read], branch: int) -> None:
        self.branch = branch
        self.children: dict[Any, _Node] = {}
        self.set_prefix(prefix)

    def set_prefix(self, prefix: Sequence[Read]) -> None:
        self.cells = tuple(read.cell for read in prefix)
        values = tuple(read.value for read in prefix)
        self.get: Callable[[list[Any]], Any] | None = itemgetter(*self.cells) if self.cells else None
        self.expect: Any = values if len(values) != 1 else values[0]

    def prefix(self) -> list[Read]:
        values = self.expect if len(self.cells) != 1 else (self.expect,)
        return [Read(cell, value) for cell, value in zip(self.cells, values, strict=True)]


class _Chooses:
    """The code asked for a choice here."""

    __slots__ = ("children", "options", "what")

    def __init__(self, choice: Choice) -> None:
        self.what = choice.what
        self.options = choice.options
        self.children: list[_Node | None] = [None] * len(choice.options)


_Node: TypeAlias = "_Reads | _Chooses | Leaf"


class Memo:
    """All that is known of one piece of model code, ``run``."""

    def __init__(self, world: World, run: Callable[[], Any]) -> None:
        self.world = world
        self.run = run
        self.root: _Node | None = None
        self.runs = 0
        """How often the code itself had to be run."""

    def outcomes(self) -> list[Leaf]:
        """Return one leaf for every alternative in the present state, in the order of the choices."""
        cells = self.world.cells
        found: list[Leaf] = []
        todo: list[tuple[_Node | None, tuple[int, ...]]] = [(self.root, ())]
        while todo:
            node, picks = todo.pop()
            while True:
                kind = node.__class__
                if kind is _Reads:
                    if node.get is None or node.get(cells) == node.expect:  # type: ignore[union-attr]
                        child = node.children.get(cells[node.branch])  # type: ignore[union-attr]
                        if child is not None:
                            node = child
                            continue
                elif kind is Leaf:
                    found.append(node)  # type: ignore[arg-type]
                    break
                elif kind is _Chooses:
                    children = node.children  # type: ignore[union-attr]
                    for pick in range(len(children) - 1, 0, -1):
                        todo.append((children[pick], (*picks, pick)))
                    picks = (*picks, 0)
                    node = children[0]
                    if node is not None:
                        continue
                self._learn(picks)
                node = self._descend(picks)
        return found

    def leaves(self) -> Iterator[Leaf]:
        """Yield everything known."""
        todo: list[_Node | None] = [self.root]
        while todo:
            node = todo.pop()
            if isinstance(node, Leaf):
                yield node
            elif isinstance(node, _Reads):
                todo.extend(reversed(node.children.values()))
            elif node is not None:
                todo.extend(reversed(node.children))

    def _descend(self, picks: tuple[int, ...]) -> _Node:
        """Walk from the root along ``picks`` to the first choice beyond them or to a leaf."""
        cells = self.world.cells
        node, left = self.root, list(picks)
        while True:
            if isinstance(node, _Reads):
                node = node.children[cells[node.branch]]
            elif isinstance(node, _Chooses) and left:
                node = node.children[left.pop(0)]
            else:
                assert node is not None
                return node

    def _learn(self, picks: tuple[int, ...]) -> None:
        """Run the code with ``picks`` and enter what it did."""
        self.runs += 1
        world = self.world
        mark = world.mark()
        recording = Recording(forced=picks, start=mark)
        world.recording = recording
        try:
            result = self.run()
            delta = world.delta(mark, recording.blind)
        finally:
            world.recording = None
            world.undo(mark)
            world.drop_undone()
        steps = recording.steps
        choices = [step for step in steps if isinstance(step, Choice)]
        taken = _taken(choices)
        reads = mask_of(step.cell for step in steps if isinstance(step, Read))
        leaf = Leaf(tuple(c.pick for c in choices), taken, delta, result, reads)
        self.root = _insert(self.root, steps, leaf)


def occurrence(what: str, number: int) -> str:
    """Return how a step names the question ``what`` when a run asks it for the ``number``th time, counted from 1."""
    return what if number == 1 else f"{what} ({number})"


def _taken(choices: Sequence[Choice]) -> tuple[tuple[str, Any], ...]:
    """Return what did not take the ordinary course; a question that is asked again gets a number."""
    asked: Counter[str] = Counter()
    taken = []
    for choice in choices:
        asked[choice.what] += 1
        if choice.pick:
            taken.append((occurrence(choice.what, asked[choice.what]), choice.options[choice.pick]))
    return tuple(taken)


def _insert(root: _Node | None, steps: list[Read | Choice], leaf: Leaf) -> _Node:
    """Return ``root`` with the run ``steps`` entered below it."""
    node, at = root, 0
    hang: Callable[[_Node], None] | None = None
    while node is not None:
        if at == len(steps) or isinstance(node, Leaf):
            raise NonDeterminism(_mismatch(steps, at, "the run ended" if at == len(steps) else "it went on"))
        if isinstance(node, _Chooses):
            hang, node, at = _follow_choice(node, steps, at)
            continue
        offset = _first_difference(node, steps, at)
        if offset < len(node.cells):
            _split(node, offset, steps, at + offset, leaf)
            return root  # type: ignore[return-value]
        at += offset
        value = _expect_read(steps, at, node.branch).value
        hang, node, at = partial(node.children.__setitem__, value), node.children.get(value), at + 1
    rest = _chain(steps, at, leaf)
    if hang is None or root is None:
        return rest
    hang(rest)
    return root


def _follow_choice(
    node: _Chooses, steps: list[Read | Choice], at: int
) -> tuple[Callable[[_Node], None], _Node | None, int]:
    """Return how to hang something below the pick that a run made, what hangs there, and the next step."""
    step = steps[at]
    if not isinstance(step, Choice) or (step.what, step.options) != (node.what, node.options):
        raise NonDeterminism(_mismatch(steps, at, f"it chose {node.what!r} before"))
    return partial(node.children.__setitem__, step.pick), node.children[step.pick], at + 1


def _first_difference(node: _Reads, steps: list[Read | Choice], at: int) -> int:
    """Return the number of the first prefix cell in which the run differs, or how many there are."""
    for offset, known in enumerate(node.prefix()):
        if _expect_read(steps, at + offset, known.cell).value != known.value:
            return offset
    return len(node.cells)


def _split(node: _Reads, offset: int, steps: list[Read | Choice], at: int, leaf: Leaf) -> None:
    """Divide ``node`` at the prefix cell number ``offset``, in which the new run differs."""
    prefix = node.prefix()
    lower = _Reads(prefix[offset + 1 :], node.branch)
    lower.children = node.children
    node.set_prefix(prefix[:offset])
    node.branch = prefix[offset].cell
    step = _expect_read(steps, at, node.branch)
    node.children = {prefix[offset].value: lower, step.value: _chain(steps, at + 1, leaf)}


def _chain(steps: list[Read | Choice], at: int, leaf: Leaf) -> _Node:
    """Return nodes for the end of a run, ``steps[at:]``, that nothing is known of yet."""
    rest: _Node = leaf
    reads: list[Read] = []
    for step in reversed(steps[at:]):
        if isinstance(step, Read):
            reads.append(step)
            continue
        chooses = _Chooses(step)
        chooses.children[step.pick] = _before(reads, rest)
        rest, reads = chooses, []
    return _before(reads, rest)


def _before(reads: list[Read], rest: _Node) -> _Node:
    """Return what comes before ``rest``: the reads, given last first."""
    if not reads:
        return rest
    node = _Reads(reads[:0:-1], reads[0].cell)
    node.children[reads[0].value] = rest
    return node


def _expect_read(steps: list[Read | Choice], at: int, cell: int) -> Read:
    step = steps[at] if at < len(steps) else None
    if not isinstance(step, Read) or step.cell != cell:
        raise NonDeterminism(_mismatch(steps, at, f"it read cell {cell} before"))
    return step


def _mismatch(steps: list[Read | Choice], at: int, before: str) -> str:
    now = steps[at] if at < len(steps) else "the end"
    return (
        f"after the same {at} reads and choices the model went another way: {before}, now {now}. "
        "Usual cause: model code that keeps state outside the world, or iterates over a Python set"
    )
