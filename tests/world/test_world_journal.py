"""Undo, redo, diff and fingerprint of the world."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worldgen import NODES, Node, Thing, content, fingerprint_from_scratch, portable, programs, rebuild, run

from quiesce.world import World


@given(programs, programs)
def test_undo_gives_back_state_and_fingerprint(before, after):
    world = World()
    run(world, before)
    state, fingerprint, mark = content(world), world.fingerprint, world.mark()
    run(world, after)
    world.undo(mark)
    assert (content(world), world.fingerprint, world.mark()) == (state, fingerprint, mark)
    world.undo(0)
    assert (content(world), world.fingerprint) == ({}, 0)


@given(programs, programs, st.lists(st.integers(0, 30), max_size=3))
def test_redo_restores_exactly(before, after, stops):
    world = World()
    run(world, before)
    begin = world.mark()
    run(world, after)
    state, fingerprint, writes = content(world), world.fingerprint, world.writes(0)
    for stop in sorted({min(begin + stop, world.mark()) for stop in stops} | {begin}, reverse=True):
        world.undo(stop)
    world.redo()
    assert (content(world), world.fingerprint, world.writes(0)) == (state, fingerprint, writes)


@given(programs)
def test_the_fingerprint_depends_on_the_state_alone(program):
    world = World()
    run(world, program)
    assert world.fingerprint == fingerprint_from_scratch(world)


@given(programs, st.lists(st.integers(), max_size=40))
def test_equal_states_by_other_routes_have_equal_fingerprints(program, order):
    world = World()
    run(world, program)
    other = rebuild(world, order)
    assert portable(content(other)) == portable(content(world))
    assert other.fingerprint == world.fingerprint


@given(programs, programs)
def test_states_are_equal_exactly_if_fingerprints_are(one, other):
    first, second = World(), World()
    run(first, one)
    run(second, other)
    same = portable(content(first)) == portable(content(second))
    assert (first.fingerprint == second.fingerprint) == same


def test_many_different_states_all_differ():
    world = World()
    things = [Thing.get(world, f"thing/{n}") for n in range(3)]
    node = Node.get(world, "node/a")
    seen = set()
    for number in range(20_000):
        world.undo(0)
        node.count = number % 100
        node.peer = things[number // 100 % 3]
        node.pair = (number // 300, number % 7)
        node.flag = number % 2 == 0
        seen.add(world.fingerprint)
    assert len(seen) == 20_000


def test_the_same_value_in_two_cells_does_not_cancel_out():
    world = World()
    for name in NODES:
        Node.get(world, f"node/{name}").count = 9
    assert world.fingerprint != 0
    node = Node.get(world, "node/a")
    node.pair, node.table = (1,), ((1, 1),)
    before = world.fingerprint
    node.pair, node.table = (), ()
    assert world.fingerprint != before


def test_an_object_made_and_deleted_leaves_no_trace():
    world = World()
    thing = Thing.fresh(world, "thing", size=5)
    thing.marks.add("x")
    assert world.fingerprint != 0
    thing.delete()
    assert (world.fingerprint, content(world)) == (0, {})


def test_writing_the_same_value_is_no_change():
    world = World()
    node = Node.get(world, "node/a")
    node.count = 3
    assert world.mark() == 0


def test_a_write_ends_what_redo_could_bring_back():
    world = World()
    node = Node.get(world, "node/a")
    node.count = 7
    world.undo(0)
    node.label = "x"
    world.redo()
    assert (node.count, node.label) == (3, "x")


def test_drop_undone_leaves_nothing_to_redo():
    world = World()
    node = Node.get(world, "node/a")
    node.count = 7
    world.undo(0)
    world.drop_undone()
    world.redo()
    assert node.count == 3


def test_forget_keeps_the_values():
    world = World()
    node = Node.get(world, "node/a")
    node.count = 7
    fingerprint = world.fingerprint
    world.forget()
    assert (world.mark(), node.count, world.fingerprint) == (0, 7, fingerprint)
    world.undo(0)
    assert node.count == 7


@pytest.mark.parametrize("mark", [-1, 2])
def test_undo_refuses_a_mark_outside_the_past(mark):
    world = World()
    Node.get(world, "node/a").count = 7
    with pytest.raises(ValueError, match=f"mark {mark} does not lie"):
        world.undo(mark)


@given(programs, programs)
def test_diff_tells_what_changed_net(before, after):
    world = World()
    run(world, before)
    state, mark = content(world), world.mark()
    run(world, after)
    now = content(world)
    default = object()
    expected = {name for name in state.keys() | now.keys() if state.get(name, default) != now.get(name, default)}
    changes = world.diff(mark)
    assert [(change.path, change.field) for change in changes] == sorted(expected)
    assert all(change.old != change.new for change in changes)


def test_sites_stay_with_their_writes_through_undo_and_redo():
    world = World()
    node = Node.get(world, "node/a")
    world.namer = lambda frame: "first"
    node.count, node.flag, node.label = 1, True, "x"
    world.undo(0)
    assert world.diff(0) == []
    world.redo()
    assert {change.site for change in world.diff(0)} == {"first"}
    world.undo(0)
    world.namer = None
    node.label = "y"
    assert [(change.field, change.site) for change in world.diff(0)] == [("label", "")]
    assert [(change.field, change.site) for change in world.writes(0)] == [("label", "")]


def test_diff_names_the_last_writer():
    world = World()
    node = Node.get(world, "node/a")
    for site in ("first", "second"):
        world.namer = lambda frame, site=site: site
        node.count += 1
    (change,) = world.diff(0)
    assert (change.old, change.new, change.site) == (3, 5, "second")
    assert [write.site for write in world.writes(0)] == ["first", "second"]


def test_two_cells_of_one_name_are_refused():
    world = World()
    world.allocate("hw/0", "config 04", 0)
    with pytest.raises(ValueError, match="has a cell already"):
        world.allocate("hw/0", "config 04", 0)
