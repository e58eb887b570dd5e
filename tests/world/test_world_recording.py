"""Recordings and choices: what a run depended on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from worldgen import Node, Thing, content, ops, perform, programs, run

from quiesce.world import Choice, Delta, Read, Recording, UseOfDeadObject, World


def record(world: World, code: Any, forced: tuple[int, ...] = ()) -> Recording:
    """Run ``code`` under a recording and take its writes back."""
    mark = world.mark()
    recording = world.recording = Recording(forced)
    try:
        code()
    finally:
        world.recording = None
    world.undo(mark)
    return recording


def named(world: World, recording: Recording) -> list[tuple[str, str, Any]]:
    """Return the reads of a recording with names in the place of cell numbers."""
    return [(*world.name_of(step.cell), step.value) for step in recording.steps if isinstance(step, Read)]


def test_only_the_first_read_of_a_cell_is_noted():
    world = World()
    node = Node.get(world, "node/a")

    def code() -> None:
        assert node.count == node.count == 3
        node.count = 8
        assert node.count == 8
        assert not node.flag

    recording = record(world, code)
    assert named(world, recording) == [("node/a", "count", 3), ("node/a", "flag", False)]


def test_what_is_overwritten_unread_is_no_dependency():
    world = World()
    node = Node.get(world, "node/a")

    def code() -> None:
        node.count = 8
        node.label = ""
        assert node.count == 8

    recording = record(world, code)
    assert named(world, recording) == []
    assert [world.name_of(cell)[1] for cell in recording.blind] == ["count", "label"]


def test_a_mortal_is_read_together_with_its_life():
    world = World()
    thing = Thing.new(world, "thing/0", size=2)
    assert named(world, record(world, lambda: thing.size)) == [("thing/0", "exists", True), ("thing/0", "size", 2)]


def test_a_use_after_death_depends_on_the_life_alone():
    world = World()
    thing = Thing.get(world, "thing/0")

    def code() -> None:
        with pytest.raises(UseOfDeadObject):
            thing.size += 1

    assert named(world, record(world, code)) == [("thing/0", "exists", False)]


def test_a_lowest_free_number_depends_on_all_that_were_tried():
    world = World()
    for _ in range(2):
        Thing.fresh(world, "thing")
    noted = named(world, record(world, lambda: Thing.fresh(world, "thing")))
    lives = [(path, value) for path, name, value in noted if name == "exists"]
    assert lives == [("thing/0", True), ("thing/1", True), ("thing/2", False)]


def test_looking_from_outside_is_not_noted():
    world = World()
    node = Node.get(world, "node/a")
    recording = record(world, lambda: (world.diff(0), world.delta(0), world.writes(0), world.mark(), repr(node)))
    assert recording.steps == []


def test_without_a_recording_the_ordinary_course_is_taken():
    assert World().choose("x fails", (False, True)) is False


def test_choices_take_the_forced_picks_then_the_first_option():
    world = World()
    taken = []

    def code() -> None:
        taken.extend(world.choose(what, ("no", "yes", "maybe")) for what in "abc")

    recording = record(world, code, forced=(2, 1))
    assert taken == ["maybe", "yes", "no"]
    options = ("no", "yes", "maybe")
    assert recording.steps == [Choice("a", options, 2), Choice("b", options, 1), Choice("c", options, 0)]
    assert recording.chosen == 3


def test_a_single_option_is_no_choice():
    world = World()
    recording = record(world, lambda: world.choose("a", ("only",)), forced=(1,))
    assert (recording.steps, recording.chosen) == ([], 0)


@pytest.mark.parametrize("pick", [-1, 2, 99])
def test_a_pick_beyond_the_options_is_refused(pick):
    world = World()
    with pytest.raises(ValueError, match=f"'a' has 2 options, the trace asks for number {pick}"):
        record(world, lambda: world.choose("a", (0, 1)), forced=(pick,))


@pytest.mark.parametrize("recorded", [False, True])
def test_a_choice_without_options_is_refused(recorded):
    world = World()
    world.recording = Recording() if recorded else None
    with pytest.raises(ValueError, match="'a' has no options"):
        world.choose("a", ())


def test_reads_and_choices_keep_their_order():
    world = World()
    node = Node.get(world, "node/a")

    def code() -> None:
        if world.choose("before", (False, True)):
            assert node.count == 3
        assert world.choose("after", (False, True)) is False
        assert node.flag is False

    kinds = [getattr(step, "what", None) or world.name_of(step.cell)[1] for step in record(world, code, (1,)).steps]
    assert kinds == ["before", "count", "after", "flag"]


def test_an_undo_inside_a_run_makes_what_it_overwrote_a_dependency():
    world = World()
    node = Node.get(world, "node/a")

    def code() -> None:
        node.count = 8
        mark = world.mark()
        node.label = "x"
        world.undo(mark)

    recording = record(world, code)
    assert named(world, recording) == [("node/a", "count", 3), ("node/a", "label", "")]
    assert not recording.blind


def test_an_abandoned_run_overwrites_nothing():
    world = World()
    node = Node.get(world, "node/a")

    def code() -> None:
        mark = world.mark()
        assert node.flag is False
        node.count = 8
        world.abandon(mark)

    recording = record(world, code)
    assert (named(world, recording), list(recording.blind)) == ([("node/a", "flag", False)], [])


# -- a recording tells all that a run depends on ---------------------------------------------------------------

steps = st.one_of(
    st.tuples(st.just("do"), ops),
    st.tuples(st.just("copy"), st.sampled_from(["count", "flag", "peer"])),
    st.tuples(st.just("guard"), st.integers(0, 5)),
    st.tuples(st.just("choose"), st.integers(1, 3)),
    st.tuples(st.just("count"), st.just(None)),
    st.tuples(st.just("back"), st.integers(0, 3)),
)


def execute(world: World, code: list[tuple[str, Any]]) -> list[Any]:
    """Do what a piece of model code does: read, branch on what was read, choose, write; return what it saw."""
    first, second = Node.get(world, "node/a"), Node.get(world, "node/b")
    seen: list[Any] = []
    marks = [world.mark()]
    for kind, arg in code:
        marks.append(world.mark())
        if kind == "back":
            world.undo(marks[-min(arg + 1, len(marks))])
            marks = [mark for mark in marks if mark <= world.mark()]
        elif kind == "do":
            perform(world, arg)
        elif kind == "copy":
            setattr(second, arg, getattr(first, arg))
        elif kind == "guard" and first.count == arg:
            return seen
        elif kind == "choose":
            first.count = world.choose("count", tuple(range(arg)))
        elif kind == "count":
            seen.append((len(first.tags), second.flag, Thing.get(world, "thing/0").exists))
    return seen


def execute_and_undo(world: World, code: list[tuple[str, Any]], forced: tuple[int, ...]) -> tuple[Any, ...]:
    mark = world.mark()
    recording = world.recording = Recording(forced, mark)
    try:
        seen = execute(world, code)
    finally:
        world.recording = None
    delta = world.delta(mark, recording.blind)
    world.undo(mark)
    return recording.steps, delta, seen


@given(st.lists(steps, max_size=10), programs, programs, st.lists(st.integers(0, 0) | st.integers(0, 2), max_size=3))
def test_where_all_recorded_reads_hold_the_run_is_the_same(code, here, there, picks):
    forced = tuple(picks)
    world = World()
    run(world, here)
    try:
        noted, delta, seen = execute_and_undo(world, code, forced)
    except ValueError:
        return
    finally:
        world.recording = None
    run(world, there)
    if any(isinstance(step, Read) and world.cells[step.cell] != step.value for step in noted):
        event("reads differ")
        return
    event("same reads, other state" if there else "same state")
    again, delta_again, seen_again = execute_and_undo(world, code, forced)
    assert (again, delta_again, seen_again) == (noted, delta, seen)
    assert_same_effect(world, lambda: execute_with(world, code, forced), delta)


def execute_with(world: World, code: list[tuple[str, Any]], forced: tuple[int, ...]) -> None:
    world.recording = Recording(forced, world.mark())
    try:
        execute(world, code)
    finally:
        world.recording = None


def assert_same_effect(world: World, code: Any, delta: Delta) -> None:
    """Assert that ``delta`` does in the present state what ``code`` does, and that it can be taken back."""
    before, mark = (content(world), world.fingerprint), world.mark()
    code()
    after = (content(world), world.fingerprint)
    world.undo(mark)
    assert world.fingerprint ^ world.mix_of(delta) == after[1]
    overwritten = world.apply(delta)
    assert (content(world), world.fingerprint) == after
    world.revert(delta, overwritten)
    assert (content(world), world.fingerprint) == before


@given(st.lists(steps, max_size=10), programs)
def test_every_cell_of_a_delta_was_noted(code, here):
    world = World()
    run(world, here)
    noted, delta, _ = execute_and_undo(world, code, ())
    read = {step.cell: step.value for step in noted if isinstance(step, Read)}
    assert all(read[cell] == old for cell, old in delta.before)
