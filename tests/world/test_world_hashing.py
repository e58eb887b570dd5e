"""Stable hashes: equal exactly for equal values, the same in every process and on every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import Enum, IntEnum, StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from worldgen import Colour, Node, values

from quiesce.world import World
from quiesce.world.hashing import encode, salt_of, stable_hash

PINNED = "d003dbf71fffb8e7"
SCRIPT = """
from worldgen import pinned_world
print(format(pinned_world().fingerprint, "x"))
"""


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    ONE = "one"


Other = Enum("Colour", "RED GREEN", module="elsewhere")


@given(values, values)
def test_encodings_are_equal_exactly_for_equal_values(one, other):
    assert (encode(one) == encode(other)) == (one == other)


@pytest.mark.parametrize(("one", "other"), [(1, True), (Level.LOW, 1), (Word.ONE, "one"), ((1, 0), (True, False))])
def test_what_python_holds_equal_is_equal(one, other):
    assert encode(one) == encode(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        ("n", None),
        (b"x", "x"),
        ((), frozenset()),
        ((1, 2), ((1, 2),)),
        (("ab", "c"), ("a", "bc")),
        (("asb",), ("a", "b")),
        (("a",), "a"),
        (Colour.RED, Colour.GREEN),
        (Colour.RED, Other.RED),
        (Colour.RED, "Colour.RED"),
    ],
)
def test_what_differs_only_in_form_differs(one, other):
    assert encode(one) != encode(other)


def test_a_handle_is_its_path():
    assert encode(Node.get(World(), "node/a")) == encode(Node.get(World(), "node/a"))
    assert encode(Node.get(World(), "node/a")) != encode("node/a")


def test_text_that_is_no_unicode_has_a_hash_too():
    assert encode("\udcff") != encode("?")


def test_a_cell_is_salted_by_object_and_field():
    salts = {salt_of(path, name) for path in ("a", "b", "ab") for name in ("c", "bc", "")}
    assert len({stable_hash(salt, 1) for salt in salts}) == len(salts) == 9


def test_order_of_first_sight_does_not_matter():
    """The hash of a value must not depend on which of two equal values the cell met first."""
    prints = set()
    for order in ([True, 0, 1], [1, 0, True], [Level.LOW, 0, 1]):
        world = World()
        node = Node.get(world, "node/a")
        for value in order:
            node.peer = value
        prints.add(world.fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize("seed", ["0", "1", "4242", "random"])
def test_fingerprints_are_the_same_in_every_process(seed):
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SCRIPT]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == PINNED
