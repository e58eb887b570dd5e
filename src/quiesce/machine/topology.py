"""The bus tree: which bridge leads to which function, and what grouping needs to know of it.

Everything here is static: it follows from the bus numbers in the snapshot, not from what the registers hold now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quiesce.machine import pci_regs as r
from quiesce.machine.view import SiliconView
from quiesce.snapshot.bdf import Bdf

if TYPE_CHECKING:
    from quiesce.machine.function import Function


def capability_list(image: bytes) -> dict[int, int]:
    """Return the first offset of every capability; a list that loops or leaves the space ends there."""
    if len(image) < r.PCI_STD_HEADER_SIZEOF or not image[r.PCI_STATUS] & r.PCI_STATUS_CAP_LIST:
        return {}
    cardbus = image[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK == r.PCI_HEADER_TYPE_CARDBUS
    at = image[r.PCI_CB_CAPABILITY_LIST if cardbus else r.PCI_CAPABILITY_LIST] & ~3
    found: dict[int, int] = {}
    seen: set[int] = set()
    while at >= r.PCI_STD_HEADER_SIZEOF and at not in seen and at + 1 < len(image):
        seen.add(at)
        if image[at] == 0xFF:
            break
        found.setdefault(image[at], at)
        at = image[at + r.PCI_CAP_LIST_NEXT] & ~3
    return found


def extended_capability_list(image: bytes) -> dict[int, int]:
    """Return the first offset of every extended capability."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    at = r.PCI_CFG_SPACE_SIZE
    while r.PCI_CFG_SPACE_SIZE <= at <= len(image) - 4 and at not in seen:
        seen.add(at)
        header = int.from_bytes(image[at : at + 4], "little")
        if header in (0, 0xFFFFFFFF):
            break
        found.setdefault(header & 0xFFFF, at)
        at = header >> 20 & ~3
    return found


def bridges_by_bus(ranges: Mapping[Bdf, tuple[int, int]]) -> dict[tuple[int, int], Bdf]:
    """Map (segment, secondary bus) to the bridge that leads there; ``ranges`` holds each bridge's bus range.

    A bridge without numbers, or whose secondary bus is not above its own, leads nowhere; of two bridges that claim one
    bus, the first keeps it.
    """
    found: dict[tuple[int, int], Bdf] = {}
    for bdf in sorted(ranges):
        secondary = ranges[bdf][0]
        if secondary > bdf.bus:
            found.setdefault((bdf.segment, secondary), bdf)
    return found


def parent_of(bdf: Bdf, leads: Mapping[tuple[int, int], Bdf]) -> Bdf | None:
    """Return the bridge above an address, or None on a root bus."""
    return leads.get((bdf.segment, bdf.bus))


def virtual_addresses(pf: Bdf, image: bytes, capability: int, count: int | None = None) -> tuple[Bdf, ...]:
    """Return where the virtual functions of ``pf`` are, from First VF Offset and VF Stride."""
    total, offset, stride = (
        int.from_bytes(image[capability + at : capability + at + 2], "little")
        for at in (r.PCI_SRIOV_TOTAL_VF, r.PCI_SRIOV_VF_OFFSET, r.PCI_SRIOV_VF_STRIDE)
    )
    if offset == 0:
        return ()
    ids = [
        pf.requester_id + offset + stride * number for number in range(total if count is None else min(total, count))
    ]
    return tuple(Bdf.from_devid(devid, pf.segment) for devid in dict.fromkeys(ids) if devid <= 0xFFFF)


def enabled_virtual_functions(image: bytes, capability: int) -> int:
    """Return how many virtual functions were enabled when the snapshot was taken."""
    control, number = (
        int.from_bytes(image[capability + at : capability + at + 2], "little")
        for at in (r.PCI_SRIOV_CTRL, r.PCI_SRIOV_NUM_VF)
    )
    return number if control & r.PCI_SRIOV_CTRL_VFE else 0


# -- queries on a built machine ----------------------------------------------------------------------------------


def chain(fn: Any) -> Iterator[Any]:
    """Yield the bridges above, nearest first."""
    bridge = fn.upstream
    while bridge is not None:
        yield bridge
        bridge = bridge.upstream


def slot_siblings(fn: Function, functions: Sequence[Function]) -> tuple[Function, ...]:
    """Return the other functions of the same device (segment, bus and device number)."""
    return tuple(other for other in functions if other.bdf.slot == fn.bdf.slot and other is not fn)


def bus_range(fn: SiliconView) -> range:
    """Return the buses below a bridge as the snapshot has them."""
    return range(fn.config.static(r.PCI_SECONDARY_BUS, 1), fn.config.static(r.PCI_SUBORDINATE_BUS, 1) + 1)


def acs_capability(fn: Function) -> int:
    """Return the ACS capability bits, 0 without the capability."""
    base = fn.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    return fn.config.static(base + r.PCI_ACS_CAP, 2) & 0x7F if base else 0


def has_ari(fn: Function) -> bool:
    """Whether the function has the ARI capability: its device may have functions numbered above 7."""
    return fn.find_ext_capability(r.PCI_EXT_CAP_ID_ARI) != 0


def forwards_ari(fn: SiliconView) -> bool:
    """Whether the port above forwards requests to functions numbered above 7 (ARI forwarding is enabled)."""
    return bool(fn.upstream and fn.upstream.config.get("EXP_DEVCTL2") & r.PCI_EXP_DEVCTL2_ARI)
