"""Memo against direct execution: reuse must never change what a piece of model code does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.explore.memo import Memo, NonDeterminism
from quiesce.world import Recording, World

CELLS = 4
VALUES = st.integers(0, 2)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, CELLS - 1), VALUES),
    st.tuples(st.just("copy"), st.integers(0, CELLS - 1), st.integers(0, CELLS - 1)),
    st.tuples(st.just("choose"), st.integers(0, CELLS - 1), st.just(0)),
)
PROGRAMS = st.recursive(
    st.lists(ACTIONS, max_size=3).map(lambda body: ("do", body)),
    lambda inner: st.tuples(st.just("if"), st.integers(0, CELLS - 1), VALUES, inner, inner),
    max_leaves=6,
)


def a_world() -> World:
    world = World()
    for number in range(CELLS):
        world.allocate("object", f"cell{number}", 0)
    return world


def interpret(world: World, program: tuple) -> int:
    while program[0] == "if":
        _, cell, value, yes, no = program
        program = yes if world.read(cell) == value else no
    for kind, cell, operand in program[1]:
        if kind == "write":
            world.write(cell, operand)
        elif kind == "copy":
            world.write(cell, world.read(operand))
        else:
            world.write(cell, world.choose("value", (0, 1, 2)))
    return len(program[1])


def all_effects(world: World, program: tuple) -> set[tuple[int, ...]]:
    """Run the program with every sequence of choices and gather the states that result."""
    effects, todo = set(), [()]
    while todo:
        picks = todo.pop()
        mark = world.mark()
        world.recording = recording = Recording(forced=picks)
        interpret(world, program)
        world.recording = None
        effects.add(tuple(world.cells))
        world.undo(mark)
        if recording.chosen > len(picks):
            todo += [(*picks, pick) for pick in (0, 1, 2)]
    return effects


@given(PROGRAMS, st.lists(st.lists(VALUES, min_size=CELLS, max_size=CELLS), min_size=1, max_size=12))
def test_outcomes_equal_direct_execution_in_any_sequence_of_states(program: tuple, states: list[list[int]]) -> None:
    world = a_world()
    memo = Memo(world, lambda: interpret(world, program))
    for state in states:
        for cell, value in enumerate(state):
            world.write(cell, value)
        reached, fingerprint = set(), world.fingerprint
        for leaf in memo.outcomes():
            mix = world.mix_of(leaf.delta)
            overwritten = world.apply(leaf.delta)
            assert world.fingerprint == fingerprint ^ mix
            reached.add(tuple(world.cells))
            world.revert(leaf.delta, overwritten)
        assert reached == all_effects(world, program)
        assert (world.fingerprint, world.cells) == (fingerprint, state)


def test_a_known_run_is_not_run_again() -> None:
    world = a_world()
    memo = Memo(world, lambda: world.write(0, world.read(1)))
    world.write(1, 2)
    memo.outcomes()
    world.write(3, 1)
    memo.outcomes()
    assert memo.runs == 1
    world.write(1, 1)
    memo.outcomes()
    assert memo.runs == 2


def test_what_a_run_overwrites_without_looking_does_not_matter_to_it() -> None:
    world = a_world()
    memo = Memo(world, lambda: world.write(0, 2))
    for before in (0, 1, 2):
        world.write(0, before)
        (leaf,) = memo.outcomes()
        overwritten = world.apply(leaf.delta)
        assert world.cells[0] == 2
        world.revert(leaf.delta, overwritten)
        assert world.cells[0] == before
    assert memo.runs == 1


@pytest.mark.parametrize("everything", [True, False])
def test_writes_that_are_taken_back_within_a_run_have_no_effect(everything: bool) -> None:
    world = a_world()

    def run() -> None:
        mark = world.mark()
        world.write(0, 1)
        if not everything:
            mark = world.mark()
        world.write(1, 1)
        if everything:
            world.abandon(mark)
        else:
            world.undo(mark)

    memo = Memo(world, run)
    for before in (0, 2, 1):
        world.write(0, before)
        world.write(1, before)
        (leaf,) = memo.outcomes()
        overwritten = world.apply(leaf.delta)
        assert world.cells[:2] == [before if everything else 1, before]
        world.revert(leaf.delta, overwritten)


def test_choices_come_in_order_and_only_those_off_the_ordinary_course_are_named() -> None:
    world = a_world()
    memo = Memo(world, lambda: world.write(0, world.choose("which", ("a", "b", "c"))))
    leaves = memo.outcomes()
    assert [leaf.choices for leaf in leaves] == [(), (("which", "b"),), (("which", "c"),)]
    assert len(list(memo.leaves())) == 3


def test_code_that_looks_outside_the_world_is_found_out() -> None:
    world = a_world()
    outside = [0]

    def run() -> None:
        outside[0] += 1
        world.read(outside[0])
        world.read(0)

    memo = Memo(world, run)
    memo.outcomes()
    world.write(1, 1)
    with pytest.raises(NonDeterminism, match="keeps state outside the world"):
        memo.outcomes()
