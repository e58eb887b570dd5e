"""Breadth-first search over events and choices: the first life found that breaks a rule is a shortest one."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from quiesce.explore.memo import Leaf, Memo
from quiesce.explore.model import Model, Outcome, Step
from quiesce.kernel.kernel import Finding
from quiesce.rules import Invariant
from quiesce.world.hashing import stable_hash

ROOT = -1
MOST_KNOWN = 4096
"""How many outcomes one transition keeps an answer for."""
UNKNOWN = 1 << 30


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a search ends at the latest."""

    depth: int = 8
    """Events in a life."""
    states: int = 2_000_000
    seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule with a shortest life that leads to it."""

    finding: Finding
    steps: tuple[Step, ...]
    states: int
    """States known when it was found."""
    seconds: float


@dataclass(slots=True)
class Result:
    """What a search found and how far it went."""

    violations: dict[str, Violation] = field(default_factory=dict)
    """Rule to the shortest life that breaks it."""
    states: int = 0
    transitions: int = 0
    bad: int = 0
    """States in which, or on entering which, a watched rule was broken."""
    depth: int = 0
    """Events in the longest life looked at."""
    bound: str = ""
    """What ended the search; ``exhausted`` when there was nothing left to look at."""
    seconds: float = 0.0
    runs: int = 0
    """How often model code had to be run; the other transitions reused such a run."""
    taken: Counter[str] = field(default_factory=Counter)
    """How often each event took place."""
    waits: dict[str, str] = field(default_factory=dict)
    """Events that were found blocked, and for what they waited."""
    said: set[str] = field(default_factory=set)
    """Every message that was printed in some life."""


class Search:
    """One search; ``run`` may be called again to go on after it was interrupted or bounded."""

    def __init__(
        self,
        model: Model,
        watched: Callable[[str], bool],
        invariants: Sequence[Invariant] = (),
        bounds: Bounds = Bounds(),
        *,
        first_only: bool = False,
        progress: Callable[[Result], None] | None = None,
    ) -> None:
        self.model = model
        self.watched = watched
        self.bounds = bounds
        self.first_only = first_only
        self.progress = progress
        self.result = Result()
        self.invariants = [Memo(model.world, partial(_findings, rule, model)) for rule in invariants]
        self._events = Reuse(model.memos)
        self._checks = Reuse(self.invariants)
        self.seen = {model.world.fingerprint}
        self.parents = array("q", [ROOT])
        self.depths = array("H", [0])
        self.numbers = array("H", [0])
        self.leaves: list[Leaf | None] = [None]
        self.next = 0
        self.bad: set[int] = set()
        """Fingerprints of states in which, or on a way into which, a watched rule is broken."""
        self._path = [0]
        self._overwritten: list[tuple[Any, ...]] = [()]
        self._begin = 0.0
        self._shortest = UNKNOWN

    def run(self) -> Result:
        """Search until a bound or the end; an interrupt from the keyboard keeps what is known."""
        self.start_clock()
        try:
            self.result.bound = self._loop()
        except KeyboardInterrupt:
            self.result.bound = "interrupted"
        self.go_to(0)
        return self.sum_up()

    def start_clock(self) -> None:
        """Count seconds on from those the search has taken already."""
        self._begin = time.monotonic() - self.result.seconds

    def _loop(self) -> str:
        while self.next < len(self.parents):
            depth = self.depths[self.next]
            if self.first_only and self._shortest <= depth:
                return "first violation"
            self.look_at(self.next)
            self.next += 1
            spent = self.spent(self.next)
            if spent:
                return spent
        if self.first_only and self.result.violations:
            return "first violation"
        cut = self.depths[-1] == self.bounds.depth and self._deepest_has_events()
        return f"depth {self.bounds.depth}" if cut else "exhausted"

    def look_at(self, node: int) -> None:
        """Check a state, and take every event in it that the bounds allow."""
        leaf = self.leaves[node]
        if leaf is not None and leaf.result.crashed:
            return
        checks = self._check_state(node)
        depth = self.depths[node]
        if depth < self.bounds.depth and not (self.first_only and self._shortest <= depth + 1):
            known = len(self.parents)
            row = self._expand(node)
            if len(self.parents) > known:
                self._checks.keep(node, checks)
                self._events.keep(node, row)

    def spent(self, done: int) -> str:
        """Return the bound that has been reached, if any; shows progress now and then."""
        if len(self.parents) > self.bounds.states:
            return f"{self.bounds.states} states"
        if done % 1024 == 0:
            result = self.result
            result.seconds = time.monotonic() - self._begin
            if result.seconds > self.bounds.seconds:
                return f"{self.bounds.seconds:g} s"
            if self.progress is not None:
                result.states, result.depth = len(self.parents), self.depths[-1]
                self.progress(result)
        return ""

    def _deepest_has_events(self) -> bool:
        """Whether anything could still happen after the longest lives, so that depth really was the bound."""
        for node in range(len(self.parents) - 1, -1, -1):
            if self.depths[node] < self.bounds.depth:
                return False
            if self.has_events(node):
                return True
        return False

    def has_events(self, node: int) -> bool:
        """Whether anything can happen in a state."""
        leaf = self.leaves[node]
        if leaf is not None and leaf.result.crashed:
            return False
        self.go_to(node)
        return any(leaf.result.enabled for memo in self.model.memos for leaf in memo.outcomes())

    def _expand(self, node: int) -> Row:
        self.go_to(node)
        world = self.model.world
        here = world.fingerprint
        row = self._events.row(self.parents[node], self.leaves[node], partial(self.go_to, node))
        for number, outcomes in enumerate(row):
            for leaf in outcomes.leaves:
                leaf.hits += 1
                outcome: Outcome = leaf.result
                if outcome.enabled:
                    self.result.transitions += 1
                    there = here ^ (world.mix_of(leaf.delta) if leaf.delta.blind else leaf.delta.mix)
                    if outcome.crashed:
                        there ^= hash_of_crash(outcome)
                    self.arrive(there, node, number, leaf)
                    if outcome.outputs:
                        self.check_outputs(there, node, number, leaf)
        return row

    def arrive(self, fingerprint: int, parent: int, number: int, leaf: Leaf) -> bool:
        """A transition led to a state; returns whether that was not known before."""
        if fingerprint in self.seen:
            return False
        self.seen.add(fingerprint)
        self.enter(parent, number, leaf)
        return True

    def enter(self, parent: int, number: int, leaf: Leaf) -> int:
        """Add a state to the tree; returns its number."""
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.numbers.append(number)
        self.leaves.append(leaf)
        return len(self.parents) - 1

    def check_outputs(self, fingerprint: int, node: int, number: int, leaf: Leaf) -> None:
        """Note which watched rules a transition from ``node`` broke on the way to the state with the fingerprint."""
        for finding in leaf.result.findings:
            if self.watched(finding.rule):
                self.bad.add(fingerprint)
                self._violate(finding, self.depths[node] + 1, lambda: (*self.steps(node), self._step(number, leaf)))

    def _check_state(self, node: int) -> Row:
        """Check the invariants. Most states look to all of them as the state before did, and are not even gone to."""
        row = self._checks.row(self.parents[node], self.leaves[node], partial(self.go_to, node))
        for outcomes in row:
            for found in outcomes.leaves:
                for finding in found.result:
                    if self.watched(finding.rule):
                        self.go_to(node)
                        self.bad.add(self.model.world.fingerprint)
                        self._violate(finding, self.depths[node], lambda: self.steps(node))
        return row

    def _violate(self, finding: Finding, length: int, steps: Callable[[], tuple[Step, ...]]) -> None:
        known = self.result.violations.get(finding.rule)
        if known is not None and len(known.steps) <= length:
            return
        seconds = time.monotonic() - self._begin
        self.result.violations[finding.rule] = Violation(finding, steps(), len(self.parents), seconds)
        self._shortest = min(self._shortest, length)

    def steps(self, node: int) -> tuple[Step, ...]:
        """Return the life that led to a state."""
        steps = []
        while node != 0:
            leaf = self.leaves[node]
            assert leaf is not None
            steps.append(self._step(self.numbers[node], leaf))
            node = self.parents[node]
        return tuple(reversed(steps))

    def _step(self, number: int, leaf: Leaf) -> Step:
        return Step(self.model.searched[number].text, tuple((what, str(option)) for what, option in leaf.choices))

    def go_to(self, node: int) -> None:
        """Bring the world into the state of ``node`` by way of the last common ancestor."""
        world, path = self.model.world, self._path
        way = []
        at = node
        while self.depths[at] >= len(path) or path[self.depths[at]] != at:
            way.append(at)
            at = self.parents[at]
        while len(path) - 1 > self.depths[at]:
            leaf = self.leaves[path.pop()]
            assert leaf is not None
            world.revert(leaf.delta, self._overwritten.pop())
        for step in reversed(way):
            leaf = self.leaves[step]
            assert leaf is not None
            self._overwritten.append(world.apply(leaf.delta))
            path.append(step)

    def sum_up(self) -> Result:
        """Bring the counts of the result up to date."""
        result = self.result
        result.seconds = time.monotonic() - self._begin
        result.states = len(self.parents)
        result.depth = max(self.depths)
        result.bad = len(self.bad)
        result.runs = sum(memo.runs for memo in self.model.memos)
        result.taken.clear()
        for number, memo in enumerate(self.model.memos):
            for leaf in memo.leaves():
                self._count(self.model.searched[number].text, leaf)
        return result

    def _count(self, text: str, leaf: Leaf) -> None:
        outcome: Outcome = leaf.result
        if not leaf.hits:
            return
        if outcome.enabled:
            self.result.taken[text] += leaf.hits
        elif outcome.waits:
            self.result.waits[text] = outcome.waits
        self.result.said.update(item.text for item in outcome.outputs if not isinstance(item, Finding))


@dataclass(eq=False, slots=True)
class Outcomes:
    """What a memo gave in some states: a leaf for every alternative."""

    leaves: tuple[Leaf, ...]
    reads: int
    """The cells that decided so, as a bit mask."""


Row: TypeAlias = tuple[Outcomes, ...]
"""What several memos gave in one state."""


class Reuse:
    """What memos gave in the states whose successors are still to come.

    A transition that writes none of the cells that decided about a memo's outcomes leaves those as they were in the
    state before; then the memo is not walked through again.
    """

    def __init__(self, memos: Sequence[Memo]) -> None:
        self.memos = memos
        self._kept: dict[int, Row] = {}
        self._rows: dict[Row, Row] = {}
        self._oldest = 0
        self._known: list[dict[tuple[Leaf, ...], Outcomes]] = [{} for _ in memos]
        self._stays: dict[Leaf, _Stays] = {}

    def keep(self, node: int, row: Row) -> None:
        """Keep the row of a state for those that follow it; equal rows, of which there are many, are kept once."""
        self._kept[node] = self._rows.setdefault(row, row)

    def row(self, parent: int, leaf: Leaf | None, arrive: Callable[[], None]) -> Row:
        """Return the row of the state to which ``leaf`` leads from ``parent``; ``arrive`` brings the world there and is
        called only if a look at the state is needed.
        """
        before = self._before(parent)
        if before is None or leaf is None:
            arrive()
            return tuple([self._look(number) for number in range(len(self.memos))])
        stays = self._stays_over(leaf)
        changed = [number for number, outcomes in enumerate(before) if not stays(outcomes)]
        if not changed:
            return before
        arrive()
        after = list(before)
        for number in changed:
            after[number] = self._look(number)
        return tuple(after)

    def _before(self, parent: int) -> Row | None:
        # States are looked at in the order of their parents, so that what lies before the parent is not needed again.
        while self._oldest < parent:
            self._kept.pop(self._oldest, None)
            self._oldest += 1
        return self._kept.get(parent)

    def _look(self, number: int) -> Outcomes:
        leaves = tuple(self.memos[number].outcomes())
        known = self._known[number].get(leaves)
        if known is None:
            reads = 0
            for leaf in leaves:
                reads |= leaf.reads
            known = self._known[number][leaves] = Outcomes(leaves, reads)
        return known

    def _stays_over(self, leaf: Leaf) -> Callable[[Outcomes], bool]:
        """Return a function that says whether the transition ``leaf`` leaves outcomes as they are."""
        known = self._stays.get(leaf)
        if known is None:
            known = self._stays[leaf] = _Stays(leaf.writes())
        return known.__getitem__


class _Stays(dict[Outcomes, bool]):
    """For one transition, which outcomes it leaves as they are; worked out when it is asked for."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    def __missing__(self, outcomes: Outcomes) -> bool:
        if len(self) >= MOST_KNOWN:
            self.clear()
        stays = self[outcomes] = not outcomes.reads & self.writes
        return stays


def _findings(rule: Invariant, model: Model) -> tuple[Finding, ...]:
    return tuple(rule.check(model.kernel))


def hash_of_crash(outcome: Outcome) -> int:
    """Return what tells states apart that only differ in how the kernel died."""
    return stable_hash(b"crash", outcome.findings[-1].rule)
