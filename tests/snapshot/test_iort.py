import pytest

from quiesce.snapshot.iort import Iort, Mapping, Node, read_iort
from quiesce.snapshot.table import sealed
from snapshot.snapdata import SHARED, needs_shared, shared
from snapshot.tables import iort, iort_node, le

MEMORY = le(1, 4) + b"\0\0\0\3"


def its(*ids: int) -> bytes:
    return iort_node(0, le(len(ids), 4) + b"".join(le(item, 4) for item in ids))


def root(*mappings: tuple[int, int, int, int, int], segment: int = 0, ats: int = 1) -> bytes:
    return iort_node(2, MEMORY + le(ats, 4) + le(segment, 4) + b"\x40\0\0\0", *mappings)


def smmu3(*mappings: tuple[int, int, int, int, int], gsi: int = 9, special: int = 0) -> bytes:
    numbers = (0, gsi, gsi, gsi, gsi, 0, special)
    body = le(0x9050000, 8) + bytes(8) + bytes(8) + b"".join(le(value, 4) for value in numbers)
    return iort_node(4, body, *mappings)


ITS, SMMU = 48, 72
"""Offsets of the first two nodes when the first is a group of one ITS."""


def test_every_node() -> None:
    component = MEMORY + b"\x28" + b"\\_SB.GPU0\0\0\0"
    interrupts = b"".join(le(value, 4) for value in (97, 1, 98, 0)) + le(1 << 32 | 126, 8) + le(77, 8)
    smmu = le(0x15000000, 8) + le(0x1000, 8) + b"".join(le(value, 4) for value in (3, 2, 60, 1, 76, 1, 84))
    table = read_iort(
        iort(
            its(3, 4),
            iort_node(1, le(1, 4) + component, (0, 0, 5, 48, 1)),
            root((0, 0xFFFF, 0, 48, 0)),
            iort_node(3, smmu, behind=interrupts),
            smmu3(),
            iort_node(5, le(0x1000, 8) + le(33, 4) + le(48, 4) + le(0x2000, 8)),
            iort_node(
                6, le(0, 4) + le(1, 4) + le(28, 4), (0, 0, 5, 48, 1), behind=le(0x8000, 8) + le(64, 8) + bytes(4)
            ),
            iort_node(0x20, b""),
        )
    )
    kinds = ["its group", "named component", "root complex", "smmu", "smmu v3", "pmcg", "rmr"]
    assert [node.kind for node in table.nodes] == kinds
    group, gpu, complex_, old, _, counters, reserved = table.nodes
    assert group.its == (3, 4)
    assert (gpu.name, gpu.mappings) == ("\\_SB.GPU0", (Mapping(0, 0, 5, 48, 1),))
    assert (complex_.ats, complex_.get("segment"), complex_.get("address limit")) == (True, 0, 0x40)
    assert (old.get("model"), old.get("context count"), old.identifier) == (3, 1, 7)
    assert counters.get("node reference") == 48
    assert reserved.memory == ((0x8000, 64),)
    assert (table.skipped, table.notes) == ((0x20,), ())


def test_from_root_complex_over_smmu_to_its() -> None:
    table = read_iort(iort(its(0), smmu3((0, 0xFFFF, 0x10000, ITS, 0)), root((0x100, 0xFF, 0x500, SMMU, 0))))
    group, smmu, _ = table.nodes
    assert table.smmu_of(0x108) == (smmu, 0x508)
    assert table.its_of(0x108) == (group, 0x10508)
    assert table.smmu_of(0x0FF) is None
    assert table.smmu_of(0x108, 1) is None


def test_a_root_complex_without_an_smmu() -> None:
    table = read_iort(iort(its(0), root((0, 0xFFFF, 0, ITS, 0))))
    assert table.smmu_of(8) is None
    assert table.its_of(8) == (table.nodes[0], 8)


def test_a_range_that_is_one_too_long_gives_way() -> None:
    table = read_iort(iort(its(0), smmu3(), root((0, 0x100, 0, SMMU, 0), (0x100, 0xFF, 0x1000, SMMU, 0))))
    assert table.smmu_of(0x0FF) == (table.nodes[1], 0x0FF)
    assert table.smmu_of(0x100) == (table.nodes[1], 0x1000)
    alone = read_iort(iort(its(0), smmu3(), root((0, 0x100, 0, SMMU, 0))))
    assert alone.smmu_of(0x100) == (alone.nodes[1], 0x100)


def test_the_mapping_of_an_smmus_own_interrupts_is_not_for_devices() -> None:
    own, others = (0, 0xFFFF, 0x70000, ITS, 0), (0, 0xFFFF, 0x10000, ITS, 0)
    to_smmu = root((0, 0xFFFF, 0, SMMU, 0))
    group, number = read_iort(iort(its(0), smmu3(own, others, gsi=0), to_smmu)).its_of(8) or (None, 0)
    assert (group is not None, number) == (True, 0x10008)
    _, number = read_iort(iort(its(0), smmu3(own, others, gsi=9), to_smmu)).its_of(8) or (None, 0)
    assert number == 0x70008


def test_a_single_mapping_takes_every_id() -> None:
    table = read_iort(iort(its(0), smmu3(), root((0, 0, 0x33, SMMU, 1))))
    assert table.smmu_of(0x4444) == (table.nodes[1], 0x33)


def test_mappings_in_a_circle_lead_nowhere() -> None:
    mapping = Mapping(0, 0xFFFF, 0, 100)
    here, there = Node("pmcg", 100, 1, 0, (), (Mapping(0, 0xFFFF, 0, 200),)), Node("x", 200, 1, 0, (), (mapping,))
    table = Iort((Node("root complex", 48, 1, 0, (("segment", 0),), (mapping,)), here, there))
    assert table.smmu_of(8) is None


def test_a_device_of_the_acpi_name_space_and_reserved_memory() -> None:
    component = iort_node(1, bytes(4) + MEMORY + b"\x28\\_SB.GPU0\0", (0, 0, 5, SMMU, 1), (0, 0, 6, SMMU, 1))
    rmr = iort_node(6, le(0, 4) + le(1, 4) + le(28, 4), (0, 0, 5, SMMU, 1), behind=le(0x8000, 8) + le(64, 8) + bytes(4))
    table = read_iort(iort(its(0), smmu3(), component, rmr))
    smmu = table.nodes[1]
    assert table.smmu_of_acpi("\\_SB.GPU0") == ((smmu, 5), (smmu, 6))
    assert table.smmu_of_acpi("\\_SB.GPU1") == ()
    assert table.reserved_for(smmu, 5) == ((0x8000, 64),)
    assert table.reserved_for(smmu, 6) == ()


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (sealed(b"IORT", le(1, 4) + le(48, 4) + bytes(4)), "offset 0x30: a node of 0 bytes where 0 are left"),
        (
            sealed(b"IORT", le(1, 4) + le(9, 4) + bytes(4)),
            "offset 0x28: nodes from offset 0x9 on, inside of the header",
        ),
        (sealed(b"IORT", le(1, 4) + le(1 << 31, 4) + bytes(4)), "offset 0x80000000: a node of 0 bytes"),
        (iort(its(1)) + b"", ""),
        (iort(iort_node(0, le(9, 4))), "offset 0x30: 9 items (its id) in a its group that has room for 0"),
        (iort(iort_node(4, bytes(8))), "offset 0x30: smmu v3 of 24 bytes instead of at least 60"),
        (iort(root((0, 0, 0, 999, 0))), "offset 0x30: a mapping to offset 0x3e7, where there is no node"),
        (sealed(b"IORT", bytes(12) + b"more"), "offset 0x0: 52 bytes behind the nodes"),
    ],
)
def test_what_is_wrong_is_noted(data: bytes, note: str) -> None:
    notes = read_iort(data).notes
    assert [line for line in notes if line.startswith(note)] if note else notes == ()


@needs_shared
def test_every_real_table_reads() -> None:
    tables = shared("**/iort.dat")
    assert len(tables) == 18
    assert not [path for path in tables if read_iort(path.read_bytes()).notes]


@needs_shared
def test_the_table_of_qemu_without_an_smmu() -> None:
    table = read_iort((SHARED / "acpi/qemu/virt-iort/iort.dat").read_bytes())
    assert table.smmu_of(8) is None
    assert table.its_of(8) == (table.nodes[0], 8)
