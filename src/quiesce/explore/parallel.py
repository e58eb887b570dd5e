"""One search over several processes: each owns the states whose fingerprint falls to it, and looks at those alone.

All processes take one layer of depth at a time. A transition into a state of another's is sent there as the life that
leads to it, and entered there if it is new. So the states, their number and the depth at which each is found are the
same as in one process; among equally short lives that break a rule the first in order of their text is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeAlias

from quiesce.explore.memo import Leaf
from quiesce.explore.search import Result, Search, Violation

Path: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]
"""A life: event number and picks of each step."""
Arrival: TypeAlias = tuple[int, Path]
"""Fingerprint of a state and a life that leads there."""


class Shard(Search):
    """The part of a search that one process does."""

    number: int
    count: int

    def share(self, number: int, count: int) -> None:
        """Become process ``number`` of ``count``."""
        self.number, self.count = number, count
        self.layer = [0] if self.model.world.fingerprint % count == number else []
        self.coming: list[int] = []
        self.deepest: list[int] = []
        self.outbox: list[list[Arrival]] = [[] for _ in range(count)]
        self.sent: set[int] = set()
        self.owned = len(self.layer)
        self.ghosts: dict[tuple[int, int, tuple[int, ...]], int] = {}
        self.start_clock()

    def arrive(self, fingerprint: int, parent: int, number: int, leaf: Leaf) -> bool:
        """Keep a state of one's own; send one of another's there, once."""
        owner = fingerprint % self.count
        if owner == self.number:
            new = super().arrive(fingerprint, parent, number, leaf)
            if new:
                self._own(len(self.parents) - 1)
            return new
        if fingerprint not in self.sent:
            self.sent.add(fingerprint)
            self.outbox[owner].append((fingerprint, (*self._life(parent), (number, leaf.picks))))
        return False

    def _own(self, node: int) -> None:
        self.coming.append(node)
        self.owned += 1

    def _life(self, node: int) -> Path:
        steps = []
        while node != 0:
            leaf = self.leaves[node]
            assert leaf is not None
            steps.append((self.numbers[node], leaf.picks))
            node = self.parents[node]
        return tuple(reversed(steps))

    def take_layer(self) -> tuple[list[list[Arrival]], str]:
        """Look at every state of the present layer; returns what goes to the others, and a bound that was reached."""
        self.outbox = [[] for _ in range(self.count)]
        self.deepest = self.layer or self.deepest
        for done, node in enumerate(self.layer, start=1):
            self.look_at(node)
            spent = self.spent(done)
            if spent:
                return self.outbox, spent
        return self.outbox, ""

    def receive(self, arrivals: list[Arrival]) -> int:
        """Enter the states that the others found; returns how many states the next layer has here."""
        for fingerprint, life in sorted(arrivals):
            if fingerprint not in self.seen:
                self.seen.add(fingerprint)
                node = self._follow(life)
                self._own(node)
        self.layer, self.coming = self.coming, []
        return len(self.layer)

    def _follow(self, life: Path) -> int:
        """Return the node at the end of a life, made with all that lead there where they are not known here."""
        node = 0
        for number, picks in life:
            key = (node, number, picks)
            if key not in self.ghosts:
                self.go_to(node)
                leaf = next(leaf for leaf in self.model.memos[number].outcomes() if leaf.picks == picks)
                self.ghosts[key] = self.enter(node, number, leaf)
            node = self.ghosts[key]
        return node

    def close(self, last: str) -> tuple[Result, set[int]]:
        """Return the part of the result that is found here, and the states in which a watched rule is broken."""
        if not last:
            deepest = [node for node in self.deepest if self.depths[node] == self.bounds.depth]
            self.result.bound = "depth" if any(self.has_events(node) for node in deepest) else ""
        self.go_to(0)
        result = self.sum_up()
        result.states = self.owned
        return result, self.bad


@dataclass
class _Worker:
    connection: Connection
    arrivals: list[Arrival] = field(default_factory=list)


def _work(make: Callable[[], Search], number: int, count: int, connection: Connection) -> None:
    """Body of a process: take a layer, give away, receive, until told to stop."""
    search = make()
    search.__class__ = Shard
    assert isinstance(search, Shard)
    search.share(number, count)
    try:
        while True:
            order, value = connection.recv()
            if order == "layer":
                connection.send(search.take_layer())
            elif order == "receive":
                connection.send((search.receive(value), search._shortest))
            else:
                connection.send(search.close(value))
                return
    except (KeyboardInterrupt, EOFError):
        return


def search_in_parallel(make: Callable[[], Search], jobs: int, depth: int, *, first_only: bool = False) -> Result:
    """Search with ``jobs`` processes; ``make`` builds the search in each of them and must be picklable."""
    context = get_context("spawn")
    workers, processes = [], []
    for number in range(jobs):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(make, number, jobs, theirs), daemon=True)
        process.start()
        theirs.close()
        workers.append(_Worker(ours))
        processes.append(process)
    try:
        last = _layers(workers, depth, first_only)
        for worker in workers:
            worker.connection.send(("close", last))
        return _merge([worker.connection.recv() for worker in workers], last, depth)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _layers(workers: list[_Worker], depth: int, first_only: bool) -> str:
    """Run layer after layer; returns the bound that ended it, empty when nothing was left."""
    for at in range(depth + 1):
        for worker in workers:
            worker.connection.send(("layer", None))
        answers = [worker.connection.recv() for worker in workers]
        for number, worker in enumerate(workers):
            worker.arrivals = [arrival for outbox, _ in answers for arrival in outbox[number]]
            worker.connection.send(("receive", worker.arrivals))
        counts = [worker.connection.recv() for worker in workers]
        spent = next((bound for _, bound in answers if bound), "")
        if spent:
            return spent
        if first_only and min(shortest for _, shortest in counts) <= at + 1:
            return "first violation"
        if not any(layer for layer, _ in counts):
            return ""
    return ""


def _merge(answers: list[tuple[Result, set[int]]], last: str, depth: int) -> Result:
    total = Result(bad=len(set().union(*(bad for _, bad in answers))))
    parts = [part for part, _ in answers]
    for part in parts:
        total.states += part.states
        total.transitions += part.transitions
        total.runs += part.runs
        total.depth = max(total.depth, part.depth)
        total.seconds = max(total.seconds, part.seconds)
        total.taken.update(part.taken)
        total.waits.update(part.waits)
        total.said |= part.said
        for rule, violation in part.violations.items():
            known = total.violations.get(rule)
            total.violations[rule] = violation if known is None else min(known, violation, key=_order)
    cut = any(part.bound == "depth" for part in parts)
    total.bound = last or (f"depth {depth}" if cut else "exhausted")
    return total


def _order(violation: Violation) -> tuple[int, str]:
    return len(violation.steps), repr(violation.steps)
