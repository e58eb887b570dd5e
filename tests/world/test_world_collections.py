"""List, set and dict fields against Python's own."""

from __future__ import annotations

from enum import IntEnum
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worldgen import Node, handle, scalars

from quiesce.world import World

plain = scalars.filter(lambda value: not isinstance(value, str) or not value.startswith("@"))


class Level(IntEnum):
    LOW = 1


@given(st.lists(st.tuples(st.sampled_from(["append", "remove", "clear", "replace"]), plain)))
def test_a_list_field_is_a_list(steps):
    queue, oracle = Node.get(World(), "node/a").queue, []
    for kind, value in steps:
        if kind == "append":
            queue.append(value)
            oracle.append(value)
        elif kind == "remove" and value in oracle:
            queue.remove(value)
            oracle.remove(value)
        elif kind == "clear":
            queue.clear()
            oracle.clear()
        elif kind == "replace":
            queue.replace((value, value))
            oracle = [value, value]
        assert (list(queue), len(queue), bool(queue), value in queue) == (
            oracle,
            len(oracle),
            bool(oracle),
            value in oracle,
        )
        assert [queue[at] for at in range(len(queue))] == list(queue.as_tuple()) == oracle


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "clear"]), plain)))
def test_a_set_field_is_a_set(steps):
    tags, oracle = Node.get(World(), "node/a").tags, set()
    for kind, value in steps:
        if kind == "clear":
            tags.clear()
            oracle.clear()
        else:
            getattr(tags, kind)(value)
            getattr(oracle, kind)(value)
        assert (set(tags), len(tags), value in tags) == (oracle, len(oracle), value in oracle)


@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "clear"]), plain, plain)))
def test_a_dict_field_is_a_dict(steps):
    table, oracle = Node.get(World(), "node/a").table, {}
    for kind, key, value in steps:
        if kind == "put":
            table[key] = value
            oracle[key] = value
        elif kind == "drop" and key in oracle:
            del table[key]
            del oracle[key]
        elif kind == "clear":
            table.clear()
            oracle.clear()
        assert (dict(table.items()), set(table), len(table)) == (oracle, set(oracle), len(oracle))
        assert (key in table, table.get(key)) == (key in oracle, oracle.get(key))
        assert all(table[known] == oracle[known] for known in table)


@given(st.lists(scalars, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_adding_leaves_no_trace(items, random):
    world = World()
    node, other = Node.get(world, "node/a"), Node.get(world, "node/b")
    items = [handle(world, item) for item in items]
    for item in items:
        node.tags.add(item)
        node.table[item] = 1
    random.shuffle(items)
    other.tags = items
    other.table = dict.fromkeys(items, 1)
    assert node.tags._items() == other.tags._items()
    assert node.table.items() == other.table.items()


def test_equal_members_with_other_looks_make_equal_sets():
    prints = set()
    for members in permutations((Level.LOW, 3, "z")):
        for one in (1, True, Level.LOW):
            world = World()
            node = Node.get(world, "node/a")
            for member in members:
                node.tags.add(one if member == 1 else member)
            prints.add(world.fingerprint)
    assert len(prints) == 1


def test_iterating_while_changing_sees_the_old_members():
    node = Node.get(World(), "node/a")
    node.queue = (1, 2, 3)
    for item in node.queue:
        node.queue.remove(item)
    assert list(node.queue) == []


def test_assignment_takes_what_it_is_given_apart():
    world = World()
    node, other = Node.get(world, "node/a"), Node.get(world, "node/b")
    node.queue, node.tags, node.table = [2, 1, 1], [2, 1, 1], {"b": 1, "a": 2}
    other.queue, other.tags, other.table = node.queue, node.tags, node.table.items()
    assert list(other.queue) == [2, 1, 1]
    assert list(other.tags) == [1, 2]
    assert other.table.items() == (("a", 2), ("b", 1))


def test_missing_members_are_reported_as_python_does():
    node = Node.get(World(), "node/a")
    with pytest.raises(ValueError, match="not in list"):
        node.queue.remove(1)
    with pytest.raises(IndexError):
        node.queue[0]
    with pytest.raises(KeyError):
        node.table["x"]
    with pytest.raises(KeyError):
        del node.table["x"]
    node.tags.discard("x")
    assert node.table.get("x") is None


@pytest.mark.parametrize("value", [1.5, [1], object()])
def test_members_that_no_cell_can_hold_are_refused(value):
    world = World()
    node = Node.get(world, "node/a")
    for put in (node.queue.append, node.tags.add, lambda item: node.table.__setitem__("k", item)):
        with pytest.raises(TypeError):
            put(value)
    assert world.fingerprint == 0
