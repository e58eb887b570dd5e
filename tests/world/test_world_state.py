"""Objects, their fields and their lives."""

from __future__ import annotations

import pytest
from worldgen import Colour, Node, Thing, content

from quiesce.world import Field, State, UseOfDeadObject, World


@pytest.fixture
def world() -> World:
    return World()


def test_handles_are_interned(world):
    assert Node.get(world, "node/a") is Node.get(world, "node/a")
    assert Node.get(world, "node/a") is not Node.get(world, "node/b")


def test_a_path_belongs_to_one_class(world):
    Node.get(world, "x/1")
    with pytest.raises(TypeError, match="x/1 is a Node, not a Thing"):
        Thing.get(world, "x/1")


def test_untouched_fields_hold_their_defaults(world):
    node = Node.get(world, "node/a")
    assert (node.count, node.flag, node.colour, tuple(node.queue)) == (3, False, None, ())


def test_values_of_every_kind_are_kept(world):
    node, other = Node.get(world, "node/a"), Node.get(world, "node/b")
    for value in (5, True, "x", b"x", Colour.RED, None, other, (1, (2, other)), frozenset({1, "a"})):
        node.peer = value
        assert node.peer == value


@pytest.mark.parametrize("value", [1.5, [1], {"a": 1}, {1}, object(), (1, [2]), (1, 2.5), bytearray(b"x")])
def test_other_values_are_refused_and_change_nothing(world, value):
    node = Node.get(world, "node/a")
    with pytest.raises(TypeError, match=r"node/a\.peer: "):
        node.peer = value
    assert (node.peer, world.fingerprint, world.mark()) == (None, 0, 0)


def test_a_bound_collection_is_no_value(world):
    node = Node.get(world, "node/a")
    with pytest.raises(TypeError, match="cannot hold a BoundList"):
        node.peer = node.queue


@pytest.mark.parametrize("default", [1.5, [], {}, object()])
def test_other_defaults_are_refused(default):
    with pytest.raises(TypeError):
        Field(default)


def test_a_field_name_must_not_hide_an_attribute_of_state():
    with pytest.raises(TypeError, match="every State has an attribute"):
        type("Bad", (State,), {"exists": Field(0)})


def test_a_subclass_adds_fields_after_the_inherited_ones(world):
    class Wide(Thing):
        width: Field[int] = Field(4)

    wide = Wide.new(world, "wide/0", size=2, width=6)
    assert ([item.name for item in Wide.fields], wide.size, wide.width) == (["size", "owner", "marks", "width"], 2, 6)
    assert content(world) == {("wide/0", "exists"): True, ("wide/0", "size"): 2, ("wide/0", "width"): 6}


def test_a_field_in_the_middle_cannot_be_laid_out_anew():
    with pytest.raises(TypeError, match="laid out in one class only"):
        type("Bad", (Thing,), {"size": Field(1)})


def test_fields_of_two_classes_cannot_be_mixed():
    with pytest.raises(TypeError, match="from one class only"):
        type("Bad", (Node, Thing), {})


def test_a_class_without_fields_may_be_mixed_in(world):
    class Printable:
        def text(self) -> str:
            return str(self)

    mixed = type("Mixed", (Printable, Thing), {}).new(world, "mixed/0", size=3)
    assert (mixed.size, mixed.text()) == (3, "<Mixed mixed/0>")


def test_new_sets_the_given_fields(world):
    thing = Thing.new(world, "thing/0", size=2, marks=("b", "a"))
    assert (thing.exists, thing.size, tuple(thing.marks)) == (True, 2, ("a", "b"))


def test_new_refuses_what_exists_and_unknown_fields(world):
    Thing.new(world, "thing/0")
    with pytest.raises(ValueError, match="thing/0 exists already"):
        Thing.new(world, "thing/0")
    with pytest.raises(TypeError, match="Thing has no field 'sise'"):
        Thing.new(world, "thing/1", sise=1)
    assert not Thing.get(world, "thing/1").exists


def test_new_starts_from_defaults_even_where_an_immortal_was_written_before_its_life(world):
    node = Node.get(world, "node/a")
    node.count = 9
    assert Node.new(world, "node/a", label="x").count == 3


def test_fresh_takes_the_lowest_free_number(world):
    first, second, third = (Thing.fresh(world, "thing", start=16) for _ in range(3))
    assert [first.number, second.number, third.number] == [16, 17, 18]
    second.delete()
    assert Thing.fresh(world, "thing", start=16) is second


@pytest.mark.parametrize(
    "touch",
    [
        lambda thing: thing.size,
        lambda thing: setattr(thing, "size", 1),
        lambda thing: len(thing.marks),
        lambda thing: thing.marks.add(1),
        lambda thing: thing.marks.clear(),
        lambda thing: thing.delete(),
    ],
)
@pytest.mark.parametrize("lived", [False, True])
def test_touching_a_mortal_outside_its_life_is_found(world, touch, lived):
    thing = Thing.get(world, "thing/0")
    if lived:
        Thing.new(world, "thing/0")
        thing.delete()
    with pytest.raises(UseOfDeadObject, match=r"thing/0\.(size|marks|delete) accessed") as caught:
        touch(thing)
    assert caught.value.path == "thing/0"
    assert world.fingerprint == 0


def test_a_dead_object_can_be_looked_at_from_outside(world):
    thing = Thing.get(world, "thing/0")
    assert (thing.exists, dict(thing.items())["size"], repr(thing)) == (False, 0, "<Thing thing/0>")


def test_a_collection_taken_before_death_is_dead_too(world):
    marks = Thing.new(world, "thing/0").marks
    Thing.get(world, "thing/0").delete()
    with pytest.raises(UseOfDeadObject):
        marks.add(1)


def test_a_second_life_starts_clean(world):
    thing = Thing.new(world, "thing/0", size=2, marks=("a",))
    thing.delete()
    again = Thing.new(world, "thing/0")
    assert (again, again.size, len(again.marks)) == (thing, 0, 0)


def test_undo_brings_back_the_dead(world):
    thing = Thing.new(world, "thing/0", size=2)
    mark = world.mark()
    thing.delete()
    world.undo(mark)
    assert thing.size == 2
