"""The VIOT table: which devices are behind which virtio-iommu.

ACPI specification 6.5, section 5.2.34; Linux: drivers/acpi/viot.c, v6.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quiesce.snapshot.acpi_layout import Field, Layout, Notes, Part, View
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.table import HEADER, head, open_table, structures

_PCI_RANGE, _MMIO, _IOMMU_PCI, _IOMMU_MMIO = range(1, 5)
_TABLE = HEADER.and_then(Field("node count", 2), Field("node offset", 2), Field("reserved", 8, "bytes"))
_START = (Field("type", 1), Field("reserved", 1), Field("length", 2))
_UNKNOWN = Layout("unknown", *_START)
_LAYOUTS = {
    _PCI_RANGE: Layout(
        "pci range",
        *_START,
        Field("endpoint", 4),
        Field("first segment", 2),
        Field("last segment", 2),
        Field("first", 2),
        Field("last", 2),
        Field("output", 2),
        Field("reserved", 6, "bytes"),
    ),
    _MMIO: Layout(
        "mmio endpoint",
        *_START,
        Field("endpoint", 4),
        Field("base", 8),
        Field("output", 2),
        Field("reserved", 6, "bytes"),
    ),
    _IOMMU_PCI: Layout(
        "virtio-iommu on pci", *_START, Field("segment", 2), Field("devid", 2), Field("reserved", 8, "bytes")
    ),
    _IOMMU_MMIO: Layout("virtio-iommu in memory", *_START, Field("reserved", 4, "bytes"), Field("base", 8)),
}


@dataclass(frozen=True, slots=True)
class VirtioIommu:
    """A virtio-iommu: a PCI function (``bdf``), or a device in memory (``base``)."""

    bdf: Bdf | None
    base: int | None = None


@dataclass(frozen=True, slots=True)
class PciRange:
    """Requester ids that are behind an IOMMU."""

    first_segment: int
    last_segment: int
    first: int
    last: int
    """Requester ids in each of the segments."""
    endpoint: int
    """Endpoint id of the first one."""
    iommu: VirtioIommu | None
    """None when the table names a node that is no IOMMU; Linux then skips the range."""


@dataclass(frozen=True, slots=True)
class MmioEndpoint:
    """A device in memory that is behind an IOMMU."""

    base: int
    endpoint: int
    iommu: VirtioIommu | None


@dataclass(frozen=True, slots=True)
class Viot:
    """A whole VIOT table."""

    iommus: tuple[VirtioIommu, ...]
    ranges: tuple[PciRange, ...] = ()
    endpoints: tuple[MmioEndpoint, ...] = ()
    skipped: tuple[int, ...] = ()
    """Types of nodes that were not understood."""
    notes: tuple[str, ...] = ()
    """What is wrong with the table, with offsets."""
    refused: str = ""
    """Why Linux uses nothing of it; empty when it does."""

    def range_of(self, devid: int, segment: int = 0) -> PciRange | None:
        """Return the range of a requester id; the last one in the table counts (list_add in viot_parse_node)."""
        for item in reversed(self.ranges):
            here = item.first_segment <= segment <= item.last_segment and item.first <= devid <= item.last
            if here and item.iommu is not None:
                return item
        return None

    def iommu_of(self, devid: int, segment: int = 0) -> VirtioIommu | None:
        """Return the IOMMU of a requester id; an IOMMU does not translate for itself."""
        found = self.range_of(devid, segment)
        own = Bdf.from_devid(devid, segment)
        return None if found is None or found.iommu is None or found.iommu.bdf == own else found.iommu

    def endpoint_of(self, devid: int, segment: int = 0) -> int | None:
        """Return the endpoint id of a requester id."""
        found = self.range_of(devid, segment)
        if found is None:
            return None
        return (segment - found.first_segment << 16) + devid - found.first + found.endpoint & 0xFFFFFFFF


def parts_of(table: View, notes: Notes) -> Iterator[Part]:
    """Yield the header and the nodes of a VIOT table."""
    header = head(table, _TABLE)
    yield header
    first, left = max(header.number("node offset"), _TABLE.size), header.number("node count")
    for view in structures(table, first, "a node", notes, sizes=(2, 2)):
        if not left:
            notes.add(view.start, "more nodes than the table says; Linux does not look at them")
            return
        left -= 1
        layout = _LAYOUTS.get(view.uint(0, 1, "a type"), _UNKNOWN)
        if len(view) < layout.size:
            notes.add(view.start, f"{layout.name} of {len(view)} bytes instead of at least {layout.size}, not read")
        else:
            yield Part(layout, view)
    if left:
        notes.add(len(table), f"{left} nodes fewer than the table says")


def read_viot(data: bytes, file: str = "VIOT") -> Viot:
    """Read a raw VIOT table; raises BadInput with the offset when there is no such table in it."""
    notes = Notes()
    _, *parts = parts_of(open_table(data, b"VIOT", file, notes), notes)
    iommus = {part.offset: _iommu(part) for part in parts if part.number("type") in (_IOMMU_PCI, _IOMMU_MMIO)}
    for part in parts:
        if part.number("type") in (_PCI_RANGE, _MMIO) and part.number("output") not in iommus:
            notes.add(part.offset, f"there is no IOMMU at offset {part.number('output'):#x}")
    return Viot(
        iommus=tuple(iommus.values()),
        ranges=tuple(_range(part, iommus) for part in parts if part.number("type") == _PCI_RANGE),
        endpoints=tuple(
            MmioEndpoint(part.number("base"), part.number("endpoint"), iommus.get(part.number("output")))
            for part in parts
            if part.number("type") == _MMIO
        ),
        skipped=tuple(part.number("type") for part in parts if part.layout is _UNKNOWN),
        notes=tuple(notes.lines),
        refused=notes.refused,
    )


def _iommu(part: Part) -> VirtioIommu:
    if part.number("type") == _IOMMU_MMIO:
        return VirtioIommu(None, part.number("base"))
    return VirtioIommu(Bdf.from_devid(part.number("devid"), part.number("segment")))


def _range(part: Part, iommus: dict[int, VirtioIommu]) -> PciRange:
    return PciRange(
        part.number("first segment"),
        part.number("last segment"),
        part.number("first"),
        part.number("last"),
        part.number("endpoint"),
        iommus.get(part.number("output")),
    )
