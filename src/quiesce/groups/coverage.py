"""Which functions meet an IOMMU at all."""

from __future__ import annotations

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel import changes
from quiesce.kernel.group_view import KernelView
from quiesce.machine.iommu import unit_number

BY_DRIVER = ("arm", "virtio")
"""Kinds of which the firmware's description of a device is read when a driver comes (before v6.15)."""


def meets_iommu(k: KernelView, m: LightMachine, fn: LightFunction) -> bool:
    """Whether a function is probed for the IOMMU: a unit covers it, and where that takes a driver, it has one.

    A source that names no driver at all says nothing about that.
    """
    if m.iommu not in BY_DRIVER:
        return unit_number(m, fn) >= 0
    return fn.item.attributes.get("driver") is not None or not needs_driver(k, m)


def needs_driver(k: KernelView, m: LightMachine) -> bool:
    """Whether functions that have no driver stay without a group, and the source shows which have one."""
    return m.iommu in BY_DRIVER and not k.has(changes.IOMMU_PROBE_IN_CORE) and m.shows_drivers
