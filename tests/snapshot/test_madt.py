import pytest

from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.madt import IoApic, Its, MadtEntry, Override, read_madt
from quiesce.snapshot.madt_parts import ENTRIES
from quiesce.snapshot.table import sealed
from snapshot.snapdata import SHARED, needs_shared
from snapshot.tables import entry, le, madt


def test_what_a_pc_has() -> None:
    table = read_madt(
        madt(
            entry(0, b"\0\0" + le(1, 4)),
            entry(0, b"\1\2" + le(0, 4)),
            entry(1, b"\2\0" + le(0xFEC00000, 4) + le(24, 4)),
            entry(2, b"\0\x09" + le(9, 4) + le(0xF, 2)),
            entry(2, b"\0\0" + le(2, 4) + le(0, 2)),
            entry(4, b"\xff\5\0\1"),
            entry(9, b"\0\0" + le(300, 4) + le(1, 4) + le(7, 4)),
            entry(0x7F, b"\0\0\0\0"),
        )
    )
    assert table.io_apics == (IoApic(2, 0xFEC00000, 24),)
    assert table.overrides == (Override(9, 9, 0xF), Override(0, 2))
    assert [(item.active_low, item.level) for item in table.overrides] == [(True, True), (False, False)]
    assert [item.get("apic id") for item in table.processors] == [0, 300]
    assert table.of_kind("local apic nmi")[0].get("lint") == 1
    assert (table.local_apic, table.dual_8259, table.skipped, table.notes) == (0xFEE00000, True, (0x7F,), ())


def test_what_an_arm_machine_has() -> None:
    gicc = bytes(2) + le(0, 4) + le(3, 4) + le(1, 4) + bytes(24)
    table = read_madt(madt(entry(11, gicc), entry(15, bytes(2) + le(4, 4) + le(0x8080000, 8) + bytes(4)), flags=0))
    assert table.its == (Its(4, 0x8080000),)
    assert not table.dual_8259
    (cpu,) = table.processors
    assert (cpu.kind, cpu.get("uid"), cpu.get("mpidr")) == ("gicc", 3, 0)


def test_every_type_of_entry_reads() -> None:
    table = read_madt(madt(*(entry(kind, bytes(layout.size - 2)) for kind, layout in ENTRIES.items())))
    assert [item.kind for item in table.entries] == [layout.name for layout in ENTRIES.values()]
    assert len({item.kind for item in table.entries}) == 28
    assert (table.skipped, table.notes) == ((), ())


def test_an_entry_says_where_it_is() -> None:
    assert read_madt(madt(entry(5, bytes(2) + le(1 << 40, 8)))).entries == (
        MadtEntry("local apic address", 44, (("address", 1 << 40),)),
    )


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (madt(b"\0\0"), "offset 0x2d: an entry of 0 bytes; what follows it is not read"),
        (madt(b"\0\x08\0\0"), "offset 0x2c: an entry of 8 bytes, but only 4 are left"),
        (madt(b"\0"), "offset 0x2c: 1 bytes at the end are no structure"),
        (madt(entry(1, b"\2\0")), "offset 0x2c: io-apic of 4 bytes instead of at least 12, not read"),
    ],
)
def test_what_is_wrong_is_noted(data: bytes, note: str) -> None:
    found = read_madt(data)
    assert found.notes == (note,)
    assert found.refused == ""


def test_what_is_no_table_is_bad_input() -> None:
    with pytest.raises(BadInput, match="the 44 bytes that every such table has"):
        read_madt(sealed(b"APIC", b""))


@needs_shared
def test_a_real_machine() -> None:
    table = read_madt((SHARED / "machines/dell-e6430/acpi/apic.dat").read_bytes())
    assert [item.gsi_base for item in table.io_apics] == [0]
    assert [(item.source, item.gsi) for item in table.overrides] == [(0, 2), (9, 9)]
