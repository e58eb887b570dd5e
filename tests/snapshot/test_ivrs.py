import json
from base64 import b64decode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.ivrs import IvhdEntry, Ivmd, Ivrs, IvrsUnit, read_ivrs, write_ivrs
from quiesce.snapshot.table import sealed
from snapshot.snapdata import SHARED, SHIPPED, needs_shared, shared, steady

ids = st.integers(0, 0xFFFF)
flags = st.integers(0, 255)


def unit(*entries: IvhdEntry, kind: int = 0x10, devid: int = 2, segment: int = 0) -> IvrsUnit:
    return IvrsUnit(kind, 0, devid, 0x40, 0xFEB80000, segment, 0, entries)


def bdf(text: str) -> int:
    return Bdf.parse(text).requester_id


def ivhd(*entries: bytes, kind: int = 0x10) -> bytes:
    body = b"".join(entries)
    size = {0x10: 24}.get(kind, 40) + len(body)
    head = bytes((kind, 0)) + size.to_bytes(2, "little") + b"\x02\0\x40\0" + bytes({0x10: 16}.get(kind, 32)) + body
    return sealed(b"IVRS", bytes(12) + head)


def test_every_kind_of_device_entry() -> None:
    table = ivhd(
        bytes.fromhex("00000000"),
        bytes.fromhex("01000001"),
        bytes.fromhex("02080102"),
        bytes.fromhex("03000200 04ff0200"),
        bytes.fromhex("42000300 00a00000"),
        bytes.fromhex("43000400 00a40000 04ff0400"),
        bytes.fromhex("46000500 00000010"),
        bytes.fromhex("47000600 00000080 04080600"),
        bytes.fromhex("480000d7 21a00001"),
        bytes.fromhex("48000000 00a00002"),
        bytes.fromhex("f0a50040") + b"AMDI0020" + bytes(8) + b"\x02\x04ID00",
        kind=0x40,
    )
    assert read_ivrs(table).blocks[0].entries == (
        IvhdEntry("all", 0, 0xFFFF, 1),
        IvhdEntry("select", 0x108, 0x108, 2),
        IvhdEntry("range", 0x200, 0x2FF),
        IvhdEntry("alias", 0x300, 0x300, alias=0xA0),
        IvhdEntry("alias-range", 0x400, 0x4FF, alias=0xA4),
        IvhdEntry("ext-select", 0x500, 0x500, extended=0x10000000),
        IvhdEntry("ext-range", 0x600, 0x608, extended=0x80000000),
        IvhdEntry("ioapic", 0xA0, 0xA0, 0xD7, handle=0x21),
        IvhdEntry("hpet", 0xA0, 0xA0),
        IvhdEntry("hid", 0xA5, 0xA5, 0x40, hid="AMDI0020", uid="ID00"),
    )


def test_an_alias_covers_its_target_too() -> None:
    table = Ivrs((unit(IvhdEntry("alias-range", bdf("03:00.0"), bdf("03:1f.7"), alias=bdf("00:14.4"))),))
    assert table.alias_of(bdf("03:05.1")) == bdf("00:14.4")
    assert table.alias_of(bdf("04:00.0")) == bdf("04:00.0")
    assert bdf("00:14.4") in table.covered()
    assert len(table.covered()) == 257


def test_an_alias_to_itself_is_none() -> None:
    table = Ivrs((unit(IvhdEntry("alias-range", bdf("03:00.0"), bdf("03:00.7"), alias=bdf("03:00.0"))),))
    assert bdf("03:00.0") not in table.alias_table()
    assert table.alias_table()[bdf("03:00.1")] == bdf("03:00.0")


def test_of_blocks_for_one_iommu_the_last_type_counts() -> None:
    old, new = unit(IvhdEntry("select", 8, 8)), unit(IvhdEntry("select", 16, 16), kind=0x11)
    other = unit(IvhdEntry("select", 24, 24), kind=0x11, devid=0x4002)
    table = Ivrs((old, new, other))
    assert table.units == (new, other)
    assert (table.unit_of(8), table.unit_of(16), table.unit_of(24)) == (None, new, other)


def test_of_units_that_cover_one_device_the_last_counts() -> None:
    first, second = unit(IvhdEntry("all", 0, 0xFFFF)), unit(IvhdEntry("select", 8, 8), devid=0x4002)
    assert Ivrs((first, second)).unit_of(8) == second
    assert Ivrs((first, second)).unit_of(9) == first


def test_memory_blocks() -> None:
    block = (
        bytes.fromhex("22 09 2000 0001 0702")
        + bytes(8)
        + (0x1000).to_bytes(8, "little")
        + (0x2000).to_bytes(8, "little")
    )
    memory = read_ivrs(sealed(b"IVRS", bytes(12) + block)).memory[0]
    assert memory == Ivmd("range", 0x100, 0x207, 0x1000, 0x2000, 0x09)
    assert (memory.unity, memory.exclusion) == (True, True)


def test_an_unknown_block_is_skipped_and_listed() -> None:
    assert read_ivrs(sealed(b"IVRS", bytes(12) + bytes.fromhex("51000800 00000000"))).skipped == (0x51,)


def test_the_table_of_a_recording() -> None:
    data = json.loads((SHIPPED / "pcie-to-pci-bridge--612--amd.json").read_text())
    table = read_ivrs(b64decode(data["acpi"]["IVRS"]))
    assert [str(item.bdf) for item in table.units] == ["0000:00:01.0"]
    assert table.alias_of(bdf("02:01.0")) == bdf("02:00.0")


@needs_shared
def test_the_table_of_the_gigabyte_board() -> None:
    table = read_ivrs((SHARED / "machines/gigabyte-990fxa-ud3/acpi/ivrs.dat").read_bytes())
    aliases = table.alias_table()
    assert set(aliases.values()) == {bdf("00:14.4")}
    assert (min(aliases), max(aliases), len(aliases)) == (bdf("03:00.0"), bdf("03:1f.7"), 256)
    assert table.unit_of(bdf("00:18.0")) is None
    assert table.unit_of(bdf("00:14.4")) is not None
    assert [entry.kind for entry in table.units[0].entries][-2:] == ["hpet", "ioapic"]


@needs_shared
def test_every_real_table_reads() -> None:
    tables = shared("**/ivrs.dat")
    assert len(tables) == 11
    assert all(read_ivrs(path.read_bytes(), str(path)).units for path in tables)


@pytest.mark.parametrize(
    ("data", "place", "expected"),
    [
        (b"", "offset 0x0", "4 more bytes for the table's signature"),
        (b"DMAR", "offset 0x0", "the signature IVRS, found b'DMAR'"),
        (
            b"IVRS\xff\xff\0\0" + bytes(40),
            "offset 0x4",
            "a table length from 36 to the 48 bytes there are, found 65535",
        ),
    ],
)
def test_what_is_no_table_is_bad_input(data: bytes, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_ivrs(data, "t")
    assert caught.value.place == place
    assert expected in caught.value.expected


@pytest.mark.parametrize(
    ("data", "note", "refused"),
    [
        (
            sealed(b"IVRS", bytes(12) + b"\x10\0\0\0"),
            "offset 0x32: a block of 0 bytes; what follows it is not read",
            True,
        ),
        (sealed(b"IVRS", bytes(12) + b"\x10\0\x20\0"), "offset 0x30: a block of 32 bytes, but only 4 are left", False),
        (sealed(b"IVRS", bytes(12) + b"\x11\0\4\0"), "offset 0x30: ivhd of 4 bytes instead of at least 40", False),
        (ivhd(bytes.fromhex("03000000")), "offset 0x48: a start of range without an end", False),
        (ivhd(bytes.fromhex("03000000 03080000 04100000")), "offset 0x48: a start of range without an end", False),
        (ivhd(bytes.fromhex("04000000")), "offset 0x48: an end of range that none was started for", False),
        (ivhd(bytes.fromhex("42000000")), "offset 0x48: a device entry of 8 bytes, but only 4 are left", False),
        (ivhd(bytes.fromhex("80000000")), "offset 0x48: a device entry of the reserved type 0x80, whose length", True),
        (ivhd(bytes.fromhex("05000000")), "offset 0x48: a device entry of the reserved type 0x5", False),
        (ivhd(bytes.fromhex("48000000 00a00003")), "offset 0x48: a special device of variety 3", True),
        (ivhd(bytes.fromhex("f0a50040") + bytes(18)), "offset 0x48: an ACPI device without a name, or outside", False),
        (ivhd(bytes.fromhex("02080000"))[:-1] + b"\1", "offset 0x9: the checksum is wrong", True),
    ],
)
def test_what_is_wrong_is_noted_and_the_rest_is_read(data: bytes, note: str, refused: bool) -> None:
    found = read_ivrs(data)
    assert [line for line in found.notes if line.startswith(note)]
    assert bool(found.refused) == refused


def test_an_end_without_a_start_goes_on_from_the_last_start() -> None:
    table = read_ivrs(ivhd(bytes.fromhex("03080001 04100000 04200000")))
    assert table.blocks[0].entries == (IvhdEntry("range", 8, 0x10, 1), IvhdEntry("range", 8, 0x20, 1))


def test_an_alias_inside_of_an_alias_range_becomes_that_of_the_range() -> None:
    table = read_ivrs(ivhd(bytes.fromhex("43000400 00a40000 42080100 00a50000 04ff0400")))
    assert table.alias_of(0x410) == 0xA5


def test_padding_is_no_mistake() -> None:
    table = read_ivrs(ivhd(bytes.fromhex("02080000 00000000 00000000")))
    assert table.blocks[0].entries == (IvhdEntry("select", 8, 8),)
    assert table.notes == ()


def test_blocks_behind_one_that_linux_does_not_know_do_not_decide() -> None:
    blocks = bytes.fromhex("10001800 0200 4000") + bytes(16)
    blocks += bytes.fromhex("51000800 00000000") + bytes.fromhex("11002800 0200 4000") + bytes(32)
    table = read_ivrs(sealed(b"IVRS", bytes(12) + blocks))
    assert [block.type for block in table.blocks] == [0x10, 0x11]
    assert [block.type for block in table.units] == [0x10]


def test_the_last_requester_id_that_linux_makes_room_for() -> None:
    table = Ivrs((unit(IvhdEntry("range", 8, 0x2FF), IvhdEntry("ioapic", 0xFFA0, 0xFFA0)),))
    assert table.last_bdf() == 0x2FF
    assert Ivrs((unit(IvhdEntry("all", 0, 0xFFFF)),)).last_bdf() == 0xFFFF
    assert Ivrs((unit(IvhdEntry("ioapic", 0xA0, 0xA0)),)).last_bdf() is None


def test_special_devices_and_reserved_memory_by_segment() -> None:
    entry = IvhdEntry("ioapic", 0xA0, 0xA0, handle=0x21)
    memory = (Ivmd("range", 0x100, 0x1FF, 0, 0x1000, 1, segment=1), Ivmd("device", 8, 8, 0, 0x1000, 0))
    table = Ivrs((unit(entry, segment=1),), memory)
    assert table.special("ioapic", 1) == (entry,)
    assert table.special("ioapic") == ()
    assert table.reserved_for(0x180, 1) == memory[:1]
    assert table.reserved_for(8) == ()


def test_the_entry_that_gives_an_alias() -> None:
    first, second = IvhdEntry("alias-range", 0, 0x100, alias=1), IvhdEntry("alias", 8, 8, alias=2)
    table = Ivrs((unit(first, second),))
    assert table.alias_entry(8) == (table.blocks[0], second)
    assert table.alias_entry(9) == (table.blocks[0], first)
    assert table.alias_entry(0x101) is None


@steady
@given(st.lists(st.tuples(ids, ids, st.none() | ids), max_size=8), st.lists(ids, max_size=20))
def test_fast_answers_equal_slow_ones(spans: list[tuple[int, int, int | None]], asked: list[int]) -> None:
    units = tuple(unit(IvhdEntry("alias-range", a, b, alias=c), devid=n) for n, (a, b, c) in enumerate(spans))
    table = Ivrs(units)
    for devid in (*asked, *(span[0] for span in spans)):
        covering = [item for item in units if item.covers(devid)]
        assert table.unit_of(devid) == (covering[-1] if covering else None)
        found = [c for a, b, c in spans if a <= devid <= b and c is not None]
        assert table.alias_of(devid) == (found[-1] if found else devid)


entries = st.one_of(
    st.builds(lambda f: IvhdEntry("all", 0, 0xFFFF, f), flags),
    st.builds(lambda d, f: IvhdEntry("select", d, d, f), ids, flags),
    st.builds(lambda a, b, f: IvhdEntry("range", min(a, b), max(a, b), f), ids, ids, flags),
    st.builds(lambda d, f, a: IvhdEntry("alias", d, d, f, a), ids, flags, ids),
    st.builds(lambda a, b, f, t: IvhdEntry("alias-range", min(a, b), max(a, b), f, t), ids, ids, flags, ids),
    st.builds(lambda d, f, h: IvhdEntry("ioapic", d, d, f, handle=h), ids, flags, flags),
)
tables = st.builds(
    lambda units, memory: Ivrs(tuple(units), tuple(memory)),
    st.lists(
        st.builds(
            lambda kind, devid, segment, found: unit(*found, kind=kind, devid=devid, segment=segment),
            st.sampled_from([0x10, 0x11, 0x40]),
            ids,
            ids,
            st.lists(entries, max_size=6),
        ),
        max_size=3,
    ),
    st.lists(
        st.builds(lambda d, s, n: Ivmd("device", d, d, s, n, 1), ids, st.integers(0, 2**40), st.integers(0, 2**20))
    ),
)


@steady
@given(tables)
def test_what_is_written_reads_back(table: Ivrs) -> None:
    again = read_ivrs(write_ivrs(table))
    assert (again.blocks, again.memory) == (table.blocks, table.memory)


@steady
@given(tables, st.data())
def test_no_table_breaks_the_reader(table: Ivrs, data: st.DataObject) -> None:
    raw = bytearray(write_ivrs(table))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(flags)
    with suppress(BadInput):
        read_ivrs(bytes(raw[: data.draw(st.integers(0, len(raw)))])).covered()
