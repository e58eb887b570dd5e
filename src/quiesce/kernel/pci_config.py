"""Configuration space of any device, and the bridge above it (drivers/pci/access.c, include/linux/pci.h): what forming
groups needs of ``pci_access``.
"""

from __future__ import annotations

from typing import TypeVar

from quiesce.kernel import changes
from quiesce.kernel.group_view import DeviceView, KernelView

_Device = TypeVar("_Device", bound=DeviceView)


def pci_dev_is_disconnected(k: KernelView, dev: DeviceView) -> bool:
    """include/linux/pci.h. Kept: hotplug has marked the device as gone, or recovery has given it up.

    Left out: v4.12 to v4.19 kept the mark apart from ``error_state``.
    """
    return k.has(changes.DISCONNECTED_STATE) and (dev.disconnected or dev.error_state == "perm_failure")


def pci_read_config(k: KernelView, dev: DeviceView, offset: int, size: int) -> int:
    """drivers/pci/access.c. Kept: a device marked as disconnected reads as ones without touching the bus.

    Left out: ``pci_lock``, error codes (all ones is what callers see), user accesses held off by a reset.
    """
    if pci_dev_is_disconnected(k, dev):
        return (1 << 8 * size) - 1
    return dev.hw.read_config(offset, size)


def pci_write_config(k: KernelView, dev: DeviceView, offset: int, size: int, value: int) -> None:
    """drivers/pci/access.c. Kept: a write to a device marked as disconnected is dropped."""
    if not pci_dev_is_disconnected(k, dev):
        dev.hw.write_config(offset, size, value)


def upstream_bridge(k: KernelView, dev: _Device) -> _Device | None:
    """include/linux/pci.h, ``pci_upstream_bridge``. Kept: the bridge that leads to the device's bus, None on a root
    bus; a virtual function has the bridge of its physical function.
    """
    if dev.is_virtfn and dev.physfn is not None:
        dev = dev.physfn
    above = dev.hw.upstream
    return None if above is None else k.dev_at(above.bdf)
