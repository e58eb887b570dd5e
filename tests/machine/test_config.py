import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.machine.config import ConfigSpace, Register
from quiesce.world import World
from snapshot.snapdata import steady

IMAGE = bytes(range(256))
REGISTERS = (
    Register("WORD", 0x04, 2, initial=0x0003, reset=0x0001, writable=0x00FF, saved=True),
    Register("STATUS", 0x06, 2, initial=0x8810, reset=0x0010, writable=0, clears=0xF800),
    Register("LONG", 0x10, 4, initial=0xFFFFFFFF, reset=0, writable=0xFFFFFFF0, saved=True, survives_flr=True),
)


@pytest.fixture
def space() -> ConfigSpace:
    return ConfigSpace(World(), "hw/x", IMAGE, REGISTERS)


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [
        (0x04, 2, 0x0003),
        (0x05, 1, 0x00),
        (0x04, 4, 0x88100003),
        (0x02, 4, 0x00030302),
        (0x20, 2, 0x2120),
        (0xFE, 4, 0xFFFFFFFE),
        (0x400, 4, 0xFFFFFFFF),
    ],
)
def test_reads_lay_registers_over_the_image(space: ConfigSpace, offset: int, size: int, value: int) -> None:
    assert space.read(offset, size) == value


def test_only_writable_bits_take_a_value(space: ConfigSpace) -> None:
    space.write(0x04, 2, 0xFF40)
    assert space.get("WORD") == 0x0040


def test_a_byte_leaves_the_others_alone(space: ConfigSpace) -> None:
    space.write(0x12, 1, 0x5A)
    assert space.get("LONG") == 0xFF5AFFFF


def test_a_write_over_two_registers_reaches_both(space: ConfigSpace) -> None:
    touched = space.write(0x04, 4, 0x0800_0007)
    assert [(register.name, value, lanes) for register, value, lanes in touched] == [
        ("WORD", 0x0007, 0xFFFF),
        ("STATUS", 0x0800, 0xFFFF),
    ]
    assert (space.get("WORD"), space.get("STATUS")) == (0x0007, 0x8010)


def test_writing_one_clears(space: ConfigSpace) -> None:
    space.write(0x06, 2, 0x8000)
    assert space.get("STATUS") == 0x0810


def test_writes_elsewhere_are_dropped(space: ConfigSpace) -> None:
    assert space.write(0x20, 4, 0) == []
    assert space.read(0x20, 4) == 0x23222120


def test_hardware_changes_a_register_without_masks(space: ConfigSpace) -> None:
    space.set("STATUS", 0x4000)
    space.set("NONE", 1)
    assert (space.get("STATUS"), space.get("NONE")) == (0x4000, 0)


def test_of_two_registers_in_one_place_the_first_counts() -> None:
    space = ConfigSpace(World(), "hw/x", IMAGE, (*REGISTERS, Register("LATE", 0x11, 1, 0, 0, 0xFF)))
    assert list(space.registers) == ["WORD", "STATUS", "LONG"]


def test_a_register_beyond_the_end_does_not_exist() -> None:
    assert ConfigSpace(World(), "hw/x", IMAGE, (Register("LATE", 0xFF, 2, 0, 0, 0xFF),)).registers == {}


def test_reset_and_firmware(space: ConfigSpace) -> None:
    space.write(0x04, 4, 0xFFFF00AA)
    space.reset(keep_flr=True)
    assert [space.get(name) for name in space.registers] == [0x0001, 0x0010, 0xFFFFFFFF]
    space.reset()
    assert space.get("LONG") == 0
    space.firmware()
    assert [space.get(name) for name in space.registers] == [0x0003, 0x8810, 0xFFFFFFFF]


def test_saved_registers_by_offset(space: ConfigSpace) -> None:
    assert space.saved_registers() == ("WORD", "LONG")


def test_changes_have_readable_names() -> None:
    world = World()
    space = ConfigSpace(world, "hw/0000:00:1f.2", IMAGE, REGISTERS)
    mark = world.mark()
    space.write(0x04, 2, 7)
    assert [(change.path, change.field, change.old, change.new) for change in world.diff(mark)] == [
        ("hw/0000:00:1f.2", "WORD", 3, 7)
    ]


@steady
@given(st.lists(st.tuples(st.integers(0, 0x18), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)), max_size=6))
def test_fixed_bits_stay(writes: list[tuple[int, int, int]]) -> None:
    space = ConfigSpace(World(), "hw/x", IMAGE, REGISTERS)
    for offset, size, value in writes:
        space.write(offset, size, value)
    assert space.get("WORD") & ~0x00FF == 0
    assert space.get("STATUS") & ~0xF800 == 0x0010
    assert space.get("LONG") & 0xF == 0xF


@steady
@given(st.lists(st.tuples(st.integers(0, 0x18), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)), max_size=4))
def test_a_wide_read_is_its_bytes(writes: list[tuple[int, int, int]]) -> None:
    space = ConfigSpace(World(), "hw/x", IMAGE, REGISTERS)
    for offset, size, value in writes:
        space.write(offset, size, value)
    for at in range(0x18):
        assert space.read(at, 4) == sum(space.read(at + byte, 1) << 8 * byte for byte in range(4))
