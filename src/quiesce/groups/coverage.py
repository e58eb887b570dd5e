"""Which functions meet an IOMMU at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel import changes
from quiesce.machine import pci_regs as r
from quiesce.machine.covering import unit_number

if TYPE_CHECKING:
    from quiesce.kernel.group_view import KernelView
    from quiesce.snapshot.ivrs import IvrsUnit

_WITH_END = ("range", "ext-range")
"""Entries of the IVRS table that have an end, and no alias."""
BY_DRIVER = ("arm", "virtio")
"""Kinds of which the firmware's description of a device is read when a driver comes (before v6.15)."""


def meets_iommu(k: KernelView, m: LightMachine, fn: LightFunction) -> bool:
    """Whether a function is probed for the IOMMU: a unit covers it, and where that takes a driver, it has one.

    A source that names no driver at all says nothing about that.
    """
    if m.iommu not in BY_DRIVER:
        return unit_number(m, fn) >= 0 or covered_by_mistake(k, m, fn)
    if not _described(m, fn):
        return False
    return fn.item.attributes.get("driver") is not None or not needs_driver(k, m)


def _described(m: LightMachine, fn: LightFunction) -> bool:
    """Whether firmware's table puts an IOMMU in front of the function; without a table, one is in front of all."""
    if m.iort is not None:
        return m.iort.smmu_of(fn.bdf.requester_id, fn.bdf.segment) is not None
    return m.viot is None or m.viot.iommu_of(fn.bdf.requester_id, fn.bdf.segment) is not None


def covered_by_mistake(k: KernelView, m: LightMachine, fn: LightFunction) -> bool:
    """drivers/iommu/amd/init.c ``init_iommu_from_acpi``, v6.14 to v6.16. Kept: at the end of a range the alias of an
    earlier entry is covered too, which is requester id 0 as long as the block had none. Without a table, firmware is
    taken to describe a range first, as that of Zen machines does.
    """
    if m.iommu != "amd" or fn.bdf[1:] != (0, 0, 0) or not k.has(changes.AMD_RANGE_COVERS_ALIAS):
        return False
    if m.ivrs is None:
        return fn.bdf.segment == 0
    return any(_starts_with_range(unit) for unit in m.ivrs.units if unit.segment == fn.bdf.segment)


def _starts_with_range(unit: IvrsUnit) -> bool:
    """Whether a range ends before any entry has an alias."""
    kinds = (entry.kind for entry in unit.entries if entry.kind in _WITH_END or entry.alias is not None)
    return next(kinds, "") in _WITH_END


def coverage_is_open(k: KernelView, m: LightMachine, fn: LightFunction) -> bool:
    """Whether the source leaves open if a function meets an IOMMU: because of its driver, or because no IVRS table is
    there and the chipset is one of before Zen, whose firmware leaves out other functions. The latter is asked of host
    bridges only: all others were covered wherever a table is known.
    """
    if m.iommu in BY_DRIVER:
        return not (fn.is_bridge or k.has(changes.IOMMU_PROBE_IN_CORE) or m.shows_drivers)
    if m.iommu != "amd" or m.ivrs is not None or fn.upstream is not None or not m.old_amd:
        return False
    return fn.bdf.bus == 0 and (fn.bdf.device == 0 or fn.bdf.device >= _NODES) and fn.class_code >> 8 == _HOST


_NODES = 0x18
_HOST = r.PCI_CLASS_BRIDGE_HOST


def needs_driver(k: KernelView, m: LightMachine) -> bool:
    """Whether functions that have no driver stay without a group, and the source shows which have one."""
    return m.iommu in BY_DRIVER and not k.has(changes.IOMMU_PROBE_IN_CORE) and m.shows_drivers
