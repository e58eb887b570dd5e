import json
from base64 import b64decode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.dmar import Atsr, Dmar, Drhd, Rmrr, Satc, Scope, read_dmar, write_dmar
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
            structure(0, bytes((1, 0)) + b"\x02\0" + (0xFED90000).to_bytes(8, "little") + SCOPE),
            structure(1, bytes(4) + (0x1000).to_bytes(8, "little") + (0x1FFF).to_bytes(8, "little") + SCOPE),
            structure(2, b"\1\0\0\0"),
            structure(3, bytes(4) + (0xFED90000).to_bytes(8, "little") + b"\1\0\0\0"),
            structure(4, b"\0\0\0\x09" + b"\\_SB.PCI0\0\0\0"),
            structure(5, b"\1\0\0\0" + SCOPE),
            structure(6, bytes(4)),
        )
    )
    gpu = Scope("endpoint", 0, ((2, 0),))
    assert found == Dmar(
        units=(Drhd(2, 0xFED90000, True, (gpu,), 1),),
        memory=(Rmrr(0, 0x1000, 0x1FFF, (gpu,)),),
        ats=(Atsr(0, True, ()),),
        satc=(Satc(0, True, (gpu,)),),
        affinity=((0xFED90000, 1),),
        names=((9, "\\_SB.PCI0"),),
        width=38,
        flags=1,
        skipped=(6,),
    )
    assert found.interrupt_remapping


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


@pytest.mark.parametrize(
    ("data", "place", "expected"),
    [
        (dmar(structure(0, bytes(4))), "offset 0x38", "8 more bytes for the base address"),
        (dmar(structure(0, bytes(12) + b"\1\x05\0\0\0\0")), "offset 0x41", "an even length of at least 6"),
        (dmar(structure(0, bytes(12) + b"\1\x0a\0\0\0\0")), "offset 0x40", "10 bytes of a device scope"),
        (dmar(b"\0\0\1\0"), "offset 0x32", "a length of at least 4 for a DMAR structure, found 1"),
        (dmar(b"\0\0"), "offset 0x32", "2 more bytes for the length of a DMAR structure"),
    ],
)
def test_a_bad_table_is_named_with_the_offset(data: bytes, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_dmar(data, "t")
    assert caught.value.place == place
    assert expected in caught.value.expected


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
    st.lists(st.builds(lambda s, b, a, c: Drhd(s, b, a, c, int(a)), segments, addresses, st.booleans(), scopes)).map(
        tuple
    ),
    st.lists(st.builds(Rmrr, segments, addresses, addresses, scopes), max_size=2).map(tuple),
    st.lists(st.builds(Atsr, segments, st.booleans(), scopes), max_size=2).map(tuple),
)


@steady
@given(tables)
def test_what_is_written_reads_back(table: Dmar) -> None:
    assert read_dmar(write_dmar(table)) == table


@steady
@given(tables, st.data())
def test_no_table_breaks_the_reader(table: Dmar, data: st.DataObject) -> None:
    raw = bytearray(write_dmar(table))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadInput):
        read_dmar(bytes(raw[: data.draw(st.integers(0, len(raw)))])).unit_of([BELOW, PORT], BUSES.get)
