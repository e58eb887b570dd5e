"""Deltas: the net effect of a run, applied without running."""

from __future__ import annotations

import pytest
from hypothesis import given
from worldgen import Node, content, fingerprint_from_scratch, programs, run

from quiesce.world import World


@given(programs, programs)
def test_apply_is_the_same_as_running_and_revert_the_same_as_undo(before, after):
    world = World()
    run(world, before)
    mark, old, old_print = world.mark(), content(world), world.fingerprint
    run(world, after)
    new, new_print = content(world), world.fingerprint
    delta = world.delta(mark)
    world.undo(mark)
    world.apply(delta)
    assert (content(world), world.fingerprint) == (new, new_print)
    assert world.fingerprint == fingerprint_from_scratch(world)
    world.revert(delta)
    assert (content(world), world.fingerprint, world.mark()) == (old, old_print, mark)


@given(programs, programs)
def test_a_delta_holds_only_what_changed_net(before, after):
    world = World()
    run(world, before)
    mark, cells = world.mark(), list(world.cells)
    run(world, after)
    old = cells + [world.default_of(cell) for cell in range(len(cells), len(world.cells))]
    delta = world.delta(mark)
    changed = {cell for cell, value in enumerate(world.cells) if value != old[cell]}
    assert {cell for cell, _ in delta.before} == changed
    assert dict(delta.before) == {cell: old[cell] for cell in changed}
    assert dict(delta.after) == {cell: world.cells[cell] for cell in changed}


@given(programs, programs, programs)
def test_deltas_stack(first, second, third):
    world = World()
    deltas, prints = [], [world.fingerprint]
    for program in (first, second, third):
        mark = world.mark()
        run(world, program)
        deltas.append(world.delta(mark))
        prints.append(world.fingerprint)
    world.undo(0)
    for delta, fingerprint in zip(deltas, prints[1:], strict=True):
        world.apply(delta)
        assert world.fingerprint == fingerprint
    for delta, fingerprint in zip(reversed(deltas), reversed(prints[:-1]), strict=True):
        world.revert(delta)
        assert world.fingerprint == fingerprint


def test_no_change_is_an_empty_delta():
    world = World()
    node = Node.get(world, "node/a")
    node.count, node.count = 8, 3
    delta = world.delta(0)
    assert (delta.before, delta.after, delta.mix) == ((), (), 0)


def test_undo_across_an_apply_is_refused():
    world = World()
    node = Node.get(world, "node/a")
    node.count = 1
    mark = world.mark()
    node.count = 2
    delta = world.delta(mark)
    world.undo(mark)
    world.apply(delta)
    with pytest.raises(RuntimeError, match=r"node/a\.count: undo across an apply"):
        world.undo(0)
