import json
from base64 import b64decode
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.dmar import (
    Atsr,
    Dmar,
    Drhd,
    Rmrr,
    Satc,
    Scope,
    Sidp,
    ignored_units,
    mismatched_scope,
    read_dmar,
    write_dmar,
)
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.table import sealed
from snapshot.snapdata import SHARED, SHIPPED, needs_shared, shared, steady

GPU, PORT, BELOW = Bdf.parse("00:02.0"), Bdf.parse("00:1c.0"), Bdf.parse("02:00.0")
BUSES = {PORT: 2, Bdf.parse("02:00.0"): 3}
SCOPE = bytes.fromhex("0108000000000200")


def structure(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "little") + (4 + len(body)).to_bytes(2, "little") + body


def dmar(*structures: bytes) -> bytes:
    return sealed(b"DMAR", bytes((38, 1)) + bytes(10) + b"".join(structures))


def test_every_structure() -> None:
    found = read_dmar(
        dmar(
            structure(0, bytes((1, 3)) + b"\x02\0" + (0xFED90000).to_bytes(8, "little") + SCOPE),
            structure(1, bytes(4) + (0x1000).to_bytes(8, "little") + (0x1FFF).to_bytes(8, "little") + SCOPE),
            structure(2, b"\1\0\0\0"),
            structure(3, bytes(4) + (0xFED90000).to_bytes(8, "little") + b"\1\0\0\0"),
            structure(4, b"\0\0\0\x09" + b"\\_SB.PCI0\0\0\0"),
            structure(5, b"\1\0\0\0" + SCOPE),
            structure(6, b"\0\0\3\0" + SCOPE),
            structure(7, bytes(4)),
        )
    )
    gpu = Scope("endpoint", 0, ((2, 0),))
    assert found == Dmar(
        units=(Drhd(2, 0xFED90000, True, (gpu,), 1, size=3),),
        memory=(Rmrr(0, 0x1000, 0x1FFF, (gpu,)),),
        ats=(Atsr(0, True, ()),),
        satc=(Satc(0, True, (gpu,)),),
        affinity=((0xFED90000, 1),),
        names=((9, "\\_SB.PCI0"),),
        width=38,
        flags=1,
        skipped=(7,),
        properties=(Sidp(3, (gpu,)),),
    )
    assert found.interrupt_remapping
    assert not found.x2apic_opt_out
    assert not found.dma_opt_in


def test_a_path_leads_through_bridges() -> None:
    scope = Scope("endpoint", 0, ((0x1C, 0), (0, 0), (1, 2)))
    assert scope.resolve(0, BUSES.get) == Bdf.parse("03:01.2")
    assert Scope("endpoint", 0, ((2, 0), (0, 0))).resolve(0, BUSES.get) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [([GPU], 0), ([PORT], 1), ([BELOW, PORT], 1), ([Bdf.parse("00:1f.2")], 2), ([Bdf.parse("0001:00:02.0")], None)],
)
def test_which_unit_covers_a_device(path: list[Bdf], expected: int | None) -> None:
    units = (
        Drhd(0, 1, False, (Scope("endpoint", 0, ((2, 0),)),)),
        Drhd(0, 2, False, (Scope("bridge", 0, ((0x1C, 0),)), Scope("ioapic", 0, ((0x1F, 2),)))),
        Drhd(0, 3, True, ()),
    )
    assert Dmar(units).unit_of(path, BUSES.get) == (None if expected is None else units[expected])


def test_an_endpoint_scope_does_not_cover_what_is_below() -> None:
    units = (Drhd(0, 1, False, (Scope("endpoint", 0, ((0x1C, 0),)),)),)
    assert Dmar(units).unit_of([BELOW, PORT], BUSES.get) is None


def test_reserved_memory_of_a_device() -> None:
    memory = (Rmrr(0, 0x1000, 0x1FFF, (Scope("endpoint", 0, ((2, 0),)),)),)
    assert Dmar((), memory).reserved_for([GPU], BUSES.get) == memory
    assert Dmar((), memory).reserved_for([PORT], BUSES.get) == ()


def test_the_table_of_a_recording() -> None:
    data = json.loads((SHIPPED / "root-ports-acs--612--intel.json").read_text())
    found = read_dmar(b64decode(data["acpi"]["DMAR"]))
    (unit,) = found.units
    assert not unit.include_all
    assert [(scope.kind, scope.bus, scope.path) for scope in unit.scopes][:3] == [
        ("ioapic", 0xFF, ((0, 0),)),
        ("endpoint", 0, ((0, 0),)),
        ("bridge", 0, ((4, 0),)),
    ]
    assert found.unit_of([Bdf.parse("01:00.0"), Bdf.parse("00:04.0")], {}.get) == unit
    assert found.unit_of([Bdf.parse("00:1e.0")], {}.get) is None


@needs_shared
def test_the_table_of_a_laptop() -> None:
    found = read_dmar((SHARED / "machines/dell-e6430/acpi/dmar.dat").read_bytes())
    assert [(unit.base, unit.include_all) for unit in found.units] == [(0xFED90000, False), (0xFED91000, True)]
    assert found.units[0].scopes == (Scope("endpoint", 0, ((2, 0),)),)
    assert len(found.memory) == 2
    assert found.interrupt_remapping


@needs_shared
def test_every_real_table_reads() -> None:
    tables = shared("**/dmar.dat")
    assert len(tables) == 24
    assert all(read_dmar(path.read_bytes(), str(path)).units for path in tables)


UNIT = bytes(4) + (0xFED90000).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("data", "note", "refused"),
    [
        (dmar(structure(0, bytes(4))), "offset 0x30: drhd of 8 bytes instead of at least 16, not read", False),
        (
            dmar(structure(0, UNIT + b"\1\x05\0\0\0\0")),
            "offset 0x40: a device scope of 5 bytes where 6 are left",
            False,
        ),
        (
            dmar(structure(0, UNIT + b"\1\x0a\0\0\0\0")),
            "offset 0x40: a device scope of 10 bytes where 6 are left",
            False,
        ),
        (dmar(structure(0, UNIT + b"\1\0\0\0\0\0")), "offset 0x40: a device scope of 0 bytes where 6 are left", True),
        (
            dmar(structure(0, UNIT + b"\1\x09\0\0\0\0\2\0\0")),
            "offset 0x40: a device scope with a path of 3 bytes",
            False,
        ),
        (dmar(structure(0, UNIT + b"\7\x08\0\0\0\0\2\0")), "offset 0x40: a device scope of the reserved type 7", False),
        (
            dmar(structure(0, UNIT), structure(0, UNIT)),
            "offset 0x40: the unit at 0xfed90000 is described a second",
            False,
        ),
        (dmar(structure(0, bytes(12))), "offset 0x30: a unit without a register base address", True),
        (dmar(structure(1, bytes(20))), "offset 0x30: reserved memory 0x0-0x0 is not a range of whole pages", False),
        (dmar(structure(3, bytes(16))), "offset 0x30: there is no unit at 0x0", False),
        (dmar(structure(4, bytes(4) + b"\\_SB")), "offset 0x30: the name of an ACPI device has no end", True),
        (dmar(b"\0\0\1\0"), "offset 0x32: a structure of 1 bytes; what follows it is not read", False),
        (dmar(b"\0\0\0\0"), "offset 0x32: a structure of 0 bytes; what follows it is not read", False),
        (dmar(b"\0\0\x20\0"), "offset 0x30: a structure of 32 bytes, but only 4 are left", True),
        (dmar(b"\0\0"), "offset 0x30: 2 bytes at the end are no structure", False),
        (sealed(b"DMAR", bytes(12)), "offset 0x24: a host address width of 1", True),
        (dmar() + b"more", "offset 0x30: 4 bytes behind the table", False),
        (dmar()[:-1] + b"\1", "offset 0x9: the checksum is wrong", False),
    ],
)
def test_what_is_wrong_is_noted_and_the_rest_is_read(data: bytes, note: str, refused: bool) -> None:
    found = read_dmar(data)
    assert [line for line in found.notes if line.startswith(note)]
    assert bool(found.refused) == refused


@pytest.mark.parametrize(
    ("data", "place", "expected"),
    [
        (b"", "offset 0x0", "4 more bytes for the table's signature"),
        (sealed(b"IVRS", b""), "offset 0x0", "the signature DMAR"),
        (sealed(b"DMAR", b""), "offset 0x24", "the 48 bytes that every such table has"),
        (dmar()[:40], "offset 0x4", "a table length from 36 to the 40 bytes there are, found 48"),
        (sealed(b"DMAR", bytes(1 << 18)), "offset 0x4", "a table of at most 262144 bytes"),
    ],
)
def test_what_is_no_table_is_bad_input(data: bytes, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_dmar(data, "t")
    assert caught.value.place == place
    assert expected in caught.value.expected


def test_of_units_that_name_one_device_linux_asks_the_last_first() -> None:
    scopes = (Scope("endpoint", 0, ((2, 0),)),)
    units = (Drhd(0, 1, False, scopes), Drhd(0, 2, False, scopes), Drhd(0, 3, True, scopes))
    assert Dmar(units).unit_of([GPU]) == units[1]


def test_a_path_that_starts_below_a_bridge_must_be_of_one_hop() -> None:
    direct, longer = Scope("endpoint", 2, ((0, 0),)), Scope("endpoint", 2, ((0, 0), (0, 0)))
    assert direct.names([BELOW, PORT])
    assert not longer.names([Bdf.parse("03:00.0"), BELOW, PORT])
    assert Scope("endpoint", 0, ((0x1C, 0), (0, 0))).names([BELOW, PORT])
    assert not Scope("endpoint", 0, ((0x1C, 0), (0, 0))).names([BELOW, Bdf.parse("00:1d.0")])


def test_the_unit_says_by_which_entry_it_covers() -> None:
    scope = Scope("bridge", 0, ((0x1C, 0),))
    found = Dmar((Drhd(0, 1, False, (scope,)),)).cover_of([BELOW, PORT])
    assert found is not None
    assert (found.scope, found.named) == (scope, PORT)


def test_a_device_of_the_acpi_name_space() -> None:
    units = (Drhd(0, 1, False, (Scope("acpi", 0, ((0x15, 0),), number=4),)),)
    table = Dmar(units, names=((4, "\\_SB.PCI0.I2C0"),))
    assert table.unit_of_acpi("\\_SB.PCI0.I2C0") == units[0]
    assert table.unit_of_acpi("\\_SB.PCI0.I2C1") is None


def test_units_that_linux_leaves_alone() -> None:
    units = (
        Drhd(0, 1, False, (Scope("endpoint", 0, ((2, 0),)),)),
        Drhd(0, 2, False, (Scope("endpoint", 0, ((5, 0),)),)),
        Drhd(0, 3, False, (Scope("acpi", 0, ((0x15, 0),)),)),
        Drhd(0, 4, True, ()),
    )
    devices = [([GPU], 0x030000), ([PORT], 0x060400)]
    assert ignored_units(Dmar(units), devices) == {1}
    assert ignored_units(Dmar(units), devices, graphics=False) == {0, 1}


@pytest.mark.parametrize(
    ("kind", "header_type", "class_code", "wrong"),
    [
        ("endpoint", 0, 0x020000, False),
        ("endpoint", 0x81, 0x060400, True),
        ("bridge", 0x01, 0x060400, False),
        ("bridge", 0, 0x068000, False),
        ("bridge", 0, 0x020000, True),
    ],
)
def test_an_entry_of_the_wrong_kind(kind: str, header_type: int, class_code: int, wrong: bool) -> None:
    table = Dmar((Drhd(0, 1, False, (Scope(kind, 0, ((0x1C, 0),)),)),))
    assert bool(mismatched_scope(table, [PORT], header_type, class_code)) == wrong


scopes = st.lists(
    st.builds(
        Scope,
        st.sampled_from(["endpoint", "bridge", "ioapic", "hpet", "acpi"]),
        st.integers(0, 255),
        st.lists(st.tuples(st.integers(0, 31), st.integers(0, 7)), min_size=1, max_size=3).map(tuple),
        st.integers(0, 255),
    ),
    max_size=3,
).map(tuple)
segments, addresses = st.integers(0, 0xFFFF), st.integers(0, 2**64 - 1)
tables = st.builds(
    Dmar,
    st.lists(
        st.builds(lambda s, b, a, c: Drhd(s, b, a, c, int(a)), segments, addresses, st.booleans(), scopes),
        unique_by=lambda unit: (unit.segment, unit.base),
    ).map(tuple),
    st.lists(st.builds(Rmrr, segments, addresses, addresses, scopes), max_size=2).map(tuple),
    st.lists(st.builds(Atsr, segments, st.booleans(), scopes), max_size=2).map(tuple),
)


@steady
@given(tables)
def test_what_is_written_reads_back(table: Dmar) -> None:
    assert replace(read_dmar(write_dmar(table)), notes=(), refused="") == table


@steady
@given(tables, st.data())
def test_no_table_breaks_the_reader(table: Dmar, data: st.DataObject) -> None:
    raw = bytearray(write_dmar(table))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadInput):
        read_dmar(bytes(raw[: data.draw(st.integers(0, len(raw)))])).unit_of([BELOW, PORT], BUSES.get)
