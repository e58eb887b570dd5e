"""A small world and random writes to it, shared by the tests of this folder."""

from __future__ import annotations

from enum import Enum
from typing import Any

from hypothesis import strategies as st

from quiesce.world import Field, State, StateDict, StateList, StateSet, UseOfDeadObject, World
from quiesce.world.hashing import salt_of, stable_hash


class Colour(Enum):
    RED = 1
    GREEN = 2


class Node(State):
    """Always there, one field of every kind."""

    count: Field[int] = Field(3)
    flag: Field[bool] = Field(False)
    label: Field[str] = Field("")
    colour: Field[Colour | None] = Field(None)
    peer: Field[Any] = Field(None)
    pair: Field[tuple[Any, ...]] = Field(())
    queue: StateList[Any] = StateList()
    tags: StateSet[Any] = StateSet()
    table: StateDict[Any, Any] = StateDict()


class Thing(State):
    """Comes and goes."""

    mortal = True
    size: Field[int] = Field(0)
    owner: Field[Any] = Field(None)
    marks: StateSet[Any] = StateSet()


FIELDS = ("count", "flag", "label", "colour", "peer", "pair")
NODES = ("a", "b")
Op = tuple[Any, ...]

scalars = st.one_of(
    st.integers(-2, 5),
    st.booleans(),
    st.sampled_from(["", "x", "irq", "0000:00:1f.2"]),
    st.binary(max_size=2),
    st.sampled_from(Colour),
    st.none(),
    st.sampled_from(["@node/a", "@node/b"]),
)
values = st.one_of(scalars, st.tuples(scalars, scalars), st.tuples(scalars), st.frozensets(scalars, max_size=3))
nodes = st.sampled_from(NODES)
slots = st.integers(0, 2)

ops: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.just("set"), nodes, st.sampled_from(FIELDS), values),
    st.tuples(st.sampled_from(["append", "take", "add", "discard", "drop"]), nodes, scalars),
    st.tuples(st.just("put"), nodes, scalars, values),
    st.tuples(st.just("clear"), nodes, st.sampled_from(["queue", "tags", "table"])),
    st.tuples(st.just("assign"), nodes, st.lists(scalars, max_size=4)),
    st.tuples(st.just("reset"), nodes),
    st.tuples(st.just("fresh"), scalars),
    st.tuples(st.just("make"), slots, scalars),
    st.tuples(st.just("end"), slots),
    st.tuples(st.just("grow"), slots, st.integers(0, 3)),
    st.tuples(st.just("mark"), slots, scalars),
)
programs = st.lists(ops, max_size=25)


def handle(world: World, value: Any) -> Any:
    """Return ``value`` with ``@node/x`` replaced by the handle of that node, at any depth."""
    if isinstance(value, str) and value.startswith("@"):
        return Node.get(world, value[1:])
    if isinstance(value, tuple | frozenset):
        return type(value)(handle(world, item) for item in value)
    return value


def perform(world: World, op: Op) -> None:
    """Do one write; what cannot be done in the present state does nothing."""
    kind, *args = op
    if kind in ("fresh", "make", "end", "grow", "mark"):
        _perform_on_thing(world, kind, args)
    else:
        _perform_on_node(world, kind, Node.get(world, f"node/{args[0]}"), [handle(world, arg) for arg in args[1:]])


def run(world: World, program: list[Op]) -> None:
    """Do all writes of ``program``."""
    for op in program:
        perform(world, op)


def _perform_on_node(world: World, kind: str, node: Node, args: list[Any]) -> None:
    if kind == "set":
        setattr(node, args[0], args[1])
    elif kind == "append":
        node.queue.append(args[0])
    elif kind == "take" and args[0] in node.queue:
        node.queue.remove(args[0])
    elif kind == "add":
        node.tags.add(args[0])
    elif kind == "discard":
        node.tags.discard(args[0])
    elif kind == "put":
        node.table[args[0]] = args[1]
    elif kind == "drop" and args[0] in node.table:
        del node.table[args[0]]
    elif kind == "clear":
        getattr(node, args[0]).clear()
    elif kind == "assign":
        items = [handle(world, item) for item in args[0]]
        node.tags = items  # type: ignore[assignment]
        node.table = [(item, 1) for item in items]  # type: ignore[assignment]
    elif kind == "reset":
        node.delete()


def _perform_on_thing(world: World, kind: str, args: list[Any]) -> None:
    if kind == "fresh":
        Thing.fresh(world, "thing", owner=handle(world, args[0]))
        return
    thing = Thing.get(world, f"thing/{args[0]}")
    if kind == "make":
        if not thing.exists:
            Thing.new(world, thing.path, owner=handle(world, args[1]))
        return
    try:
        if kind == "end":
            thing.delete()
        elif kind == "grow":
            thing.size += args[1]
        elif kind == "mark":
            thing.marks.add(handle(world, args[1]))
    except UseOfDeadObject:
        assert not thing.exists


def content(world: World) -> dict[tuple[str, str], Any]:
    """Return every cell that is not at its default, by name."""
    return {world.name_of(cell): value for cell, value in enumerate(world.cells) if value != world.default_of(cell)}


def portable(found: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Return ``content`` with paths in the place of handles, to compare two worlds."""
    return {name: _portable(value) for name, value in found.items()}


def _portable(value: Any) -> Any:
    if isinstance(value, State):
        return ("handle", value.path)
    if isinstance(value, tuple | frozenset):
        return type(value)(_portable(item) for item in value)
    return value


def fingerprint_from_scratch(world: World) -> int:
    """Return what the fingerprint must be, from the cells alone."""
    result = 0
    for (path, name), value in content(world).items():
        result ^= stable_hash(salt_of(path, name), value)
    return result


def rebuild(source: World, order: list[int]) -> World:
    """Return another world with the same content, its cells made and written in another order."""
    target = World()
    cells = list(enumerate(source.cells))
    for at in sorted(range(len(cells)), key=lambda i: order[i % len(order)] if order else i):
        number, value = cells[at]
        path, name = source.name_of(number)
        owner = type(source.objects[path]).get(target, path)  # type: ignore[attr-defined]
        field = next((item for item in owner.fields if item.name == name), None)
        target.write(owner.first if field is None else owner.first + field.index, _moved(target, value))
    return target


def _moved(target: World, value: Any) -> Any:
    if isinstance(value, State):
        return type(value).get(target, value.path)
    if isinstance(value, tuple | frozenset):
        return type(value)(_moved(target, item) for item in value)
    return value


def pinned_world() -> World:
    """Return a world whose fingerprint is pinned: every kind of value, made by every kind of write."""
    world = World()
    node = Node.new(world, "node/a", count=-7, label="0000:00:1f.2", colour=Colour.GREEN)
    node.peer = Thing.fresh(world, "thing", start=16, owner=node)
    node.pair = (1, ("x", None), b"\xff", frozenset({"b", "a", 3, Colour.RED, node}))
    for item in ("msi", "intx", 11, 9, None, node):
        node.queue.append(item)
        node.tags.add(item)
        node.table[item] = (item, True)
    return world
