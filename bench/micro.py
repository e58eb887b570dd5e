"""What one event costs the engine: comparing what a run read, applying and taking back what it wrote.

The search pays, for every event in every state, one look-up in the tree of known runs; for every new state, one
apply and one revert. These are the ways to do it that were weighed, on synthetic worlds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

from quiesce.world import Delta, Field, Recording, State, World

CELLS = 2_000
READS = (30, 60, 120)
WRITES = (10, 30)
BRANCHES = (1, 3, 10)


def cost(code: Callable[[], object], count: int = 2_000, rounds: int = 25) -> float:
    """Return the nanoseconds of one call, the least of many rounds, less the cost of an empty call."""
    return max(0.0, _least(code, count, rounds) - _least(_nothing, count, rounds))


def _nothing() -> None:
    pass


def _least(code: Callable[[], object], count: int, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        for _ in range(count):
            code()
        best = min(best, (time.perf_counter_ns() - begin) / count)
    return best


def values(world: World) -> list[Any]:
    """Return cell values of the kinds and in the mix that a model has."""
    handles = [Plain.get(world, f"plain/{number}") for number in range(20)]
    kinds: list[Callable[[int], Any]] = [
        lambda at: at,
        lambda at: at % 2 == 0,
        lambda at: f"state-{at % 7}",
        lambda at: handles[at % 20],
        lambda at: (handles[at % 20], ("name", at)),
    ]
    return [kinds[at % 5](at) for at in range(CELLS)]


class Plain(State):
    """An object that is always there."""

    value: Field[int] = Field(0)


class Mortal(State):
    """An object that comes and goes."""

    mortal = True
    value: Field[int] = Field(0)


def tree_of(cells: list[Any], reads: list[int], branches: int) -> Any:
    """Return a tree of known runs: a prefix to compare, then a branch on one cell, ``branches`` times."""
    node: Any = "leaf"
    size = len(reads) // branches
    for at in reversed(range(branches)):
        part = reads[at * size : (at + 1) * size]
        get = itemgetter(*part[:-1]) if len(part) > 1 else None
        node = (get, get(cells) if get else None, part[-1], {cells[part[-1]]: node})
    return node


def walk(node: Any, cells: list[Any]) -> Any:
    """Return the leaf that the present state leads to, or None."""
    while node.__class__ is tuple:
        get, expect, branch, children = node
        if get is not None and get(cells) != expect:
            return None
        node = children.get(cells[branch])
    return node


def ways_to_look_up(cells: list[Any], picked: list[int], written: list[int]) -> dict[str, Callable[[], object]]:
    """Return the ways to find out whether a run that read the ``picked`` cells would be the same again."""
    trees = {f"prefix and branch, {branches} nodes": tree_of(cells, picked, branches) for branches in BRANCHES}
    trees["one branch for each cell"] = tree_of(cells, picked, len(picked))
    ways: dict[str, Callable[[], object]] = {name: partial(walk, tree, cells) for name, tree in trees.items()}
    get = itemgetter(*picked)
    table = {get(cells): "leaf"}
    ways["dict of whole signatures"] = lambda: table.get(get(cells))
    reads = sum(1 << cell for cell in picked)
    writes = sum(1 << cell for cell in written) & ~reads
    ways["inherited: reads & writes == 0"] = lambda: not reads & writes
    return ways


def measure_look_up(cells: list[Any], say: Callable[[str], None]) -> dict[str, float]:
    """Measure one look-up by the number of cells that the run read."""
    result = {}
    chooser = random.Random(1)
    for reads in READS:
        picked, written = sorted(chooser.sample(range(CELLS), reads)), chooser.sample(range(CELLS), 10)
        for name, code in ways_to_look_up(cells, picked, written).items():
            result[f"{reads} reads, {name}"] = spent = cost(code)
            say(f"{reads:>4} reads   {name:<34}{spent:>9.0f} ns")
    return {name: round(spent) for name, spent in result.items()}


def measure_effect(say: Callable[[str], None]) -> dict[str, float]:
    """Measure putting an effect into force and taking it back, by the number of cells it writes."""
    result = {}
    world = World()
    plain = [Plain.get(world, f"plain/{number}") for number in range(CELLS)]
    chooser = random.Random(2)
    for writes in WRITES:
        picked = [plain[at].first + 1 for at in chooser.sample(range(CELLS), writes)]
        delta = Delta(tuple((cell, 0) for cell in picked), tuple((cell, 1) for cell in picked), 0x1234_5678_9ABC_DEF1)
        result[f"{writes} writes, apply"] = cost(partial(world.apply, delta))
        result[f"{writes} writes, revert"] = cost(partial(world.revert, delta))
        result[f"{writes} writes, written and undone"] = cost(partial(_write, world, picked), 200)
    seen = {chooser.getrandbits(64) for _ in range(200_000)}
    here, mix = chooser.getrandbits(64), chooser.getrandbits(64)
    result["fingerprint of the next state, and whether it is known"] = cost(lambda: here ^ mix in seen)
    for name, spent in result.items():
        say(f"{name:<58}{spent:>9.0f} ns")
    return {name: round(spent) for name, spent in result.items()}


def _write(world: World, cells: list[int]) -> None:
    mark = world.mark()
    for cell in cells:
        world.write(cell, 1)
    world.undo(mark)
    world.drop_undone()


def measure_fields(say: Callable[[str], None]) -> dict[str, float]:
    """Measure what model code pays for one field, the first time in a run and again."""
    world = World()
    plain, mortal = Plain.get(world, "plain/0"), Mortal.new(world, "mortal/0")
    result = {"read, nothing recorded": cost(lambda: plain.value)}
    world.recording = Recording()
    result["read again while recorded"] = cost(lambda: plain.value)
    result["read again while recorded, of a mortal"] = cost(lambda: mortal.value)
    world.recording = None
    many = [Plain.get(world, f"plain/{number}") for number in range(100)]
    result["first read while recorded"] = cost(lambda: _record(world, many), 50) / 100
    for name, spent in result.items():
        say(f"{name:<58}{spent:>9.0f} ns")
    return {name: round(spent) for name, spent in result.items()}


def _record(world: World, objects: list[Plain]) -> None:
    world.recording = Recording()
    for item in objects:
        item.value  # noqa: B018 - reading is what is measured
    world.recording = None


def measure_micro(say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure all of it."""
    say("")
    say("what one event costs the engine")
    cells = values(World())
    return {
        "look_up_ns": measure_look_up(cells, say),
        "effect_ns": measure_effect(say),
        "field_ns": measure_fields(say),
    }


if __name__ == "__main__":
    measure_micro()
