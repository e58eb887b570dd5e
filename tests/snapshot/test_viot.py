import pytest

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.table import sealed
from quiesce.snapshot.viot import MmioEndpoint, PciRange, VirtioIommu, read_viot
from snapshot.snapdata import SHARED, needs_shared
from snapshot.tables import le, viot, viot_node

ON_PCI = viot_node(3, le(0, 2) + le(0x08, 2) + bytes(8))
IN_MEMORY = viot_node(4, bytes(4) + le(0x9000000, 8))


def pci_range(first: int, last: int, output: int, endpoint: int = 0, segments: tuple[int, int] = (0, 0)) -> bytes:
    spans = (*segments, first, last, output)
    return viot_node(1, le(endpoint, 4) + b"".join(le(value, 2) for value in spans) + bytes(6))


def test_every_node() -> None:
    mmio = viot_node(2, le(5, 4) + le(0xA000000, 8) + le(64, 2) + bytes(6))
    table = read_viot(viot(ON_PCI, IN_MEMORY, pci_range(0, 0xFF, 48, 7), mmio, viot_node(9, b"")))
    on_pci, in_memory = VirtioIommu(Bdf.parse("00:01.0")), VirtioIommu(None, 0x9000000)
    assert table.iommus == (on_pci, in_memory)
    assert table.ranges == (PciRange(0, 0, 0, 0xFF, 7, on_pci),)
    assert table.endpoints == (MmioEndpoint(0xA000000, 5, in_memory),)
    assert (table.skipped, table.notes) == ((9,), ())


def test_which_iommu_a_device_is_behind() -> None:
    table = read_viot(viot(ON_PCI, IN_MEMORY, pci_range(0, 0xFF, 48, 100, (0, 1)), pci_range(0x20, 0x2F, 64)))
    assert table.iommu_of(0x10) == table.iommus[0]
    assert table.iommu_of(0x20) == table.iommus[1]
    assert table.iommu_of(0x08) is None
    assert table.iommu_of(0x100) is None
    assert table.iommu_of(0x20, 1) == table.iommus[0]
    assert (table.endpoint_of(0x10), table.endpoint_of(0x20), table.endpoint_of(0x10, 1)) == (116, 0, 65652)
    assert table.endpoint_of(0x100) is None


def test_a_range_that_leads_to_no_iommu_counts_for_nothing() -> None:
    table = read_viot(viot(ON_PCI, pci_range(0, 0xFF, 48), pci_range(0x10, 0x1F, 64)))
    assert table.notes == ("offset 0x58: there is no IOMMU at offset 0x40",)
    assert table.iommu_of(0x10) == table.iommus[0]


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (sealed(b"VIOT", le(2, 2) + le(48, 2) + bytes(8) + ON_PCI), "offset 0x40: 1 nodes fewer than the table says"),
        (sealed(b"VIOT", le(0, 2) + le(48, 2) + bytes(8) + ON_PCI), "offset 0x30: more nodes than the table says"),
        (viot(viot_node(3, b"\0\0")), "offset 0x30: virtio-iommu on pci of 6 bytes instead of at least 16, not read"),
    ],
)
def test_what_is_wrong_is_noted(data: bytes, note: str) -> None:
    assert [line for line in read_viot(data).notes if line.startswith(note)]


@needs_shared
def test_the_table_of_qemu() -> None:
    table = read_viot((SHARED / "acpi/qemu/virt-viot/viot.dat").read_bytes())
    assert table.iommu_of(0x10) == VirtioIommu(Bdf.parse("00:01.0"))
    assert table.iommu_of(0x08) is None
