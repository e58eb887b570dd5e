"""Removing devices from the bus (drivers/pci/remove.c)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from quiesce.kernel import base_core, base_dd, changes
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import DeviceList, PciDev

RESCAN_REMOVE_LOCK = "pci_rescan_remove_lock"


def pci_lock_rescan_remove(k: Kernel) -> AbstractContextManager[None]:
    """drivers/pci/probe.c, v3.14+. Kept: one lock for all that adds or removes devices; before, there was none."""
    return k.mutex(RESCAN_REMOVE_LOCK) if k.has(changes.RESCAN_REMOVE_LOCK) else nullcontext()


def pci_children(k: Kernel, dev: PciDev) -> tuple[PciDev, ...]:
    """Return the devices on the bus below, in the order of its list (``subordinate->devices``), the virtual functions
    of each behind it.
    """
    if not dev.hw.is_bridge:
        return ()
    return DeviceList(k.system.below.get(dev.hw, ())).as_tuple()


def pci_stop_and_remove_bus_device(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/remove.c. Kept: first the whole subtree is stopped, then the whole subtree is removed."""
    _pci_stop_bus_device(k, dev)
    k.window(f"pci_stop_and_remove_bus_device {dev.bdf}: stopped, not removed")
    _pci_remove_bus_device(k, dev)


def pci_stop_and_remove_bus_device_locked(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/remove.c. Kept: the same under ``pci_rescan_remove_lock`` (v3.14+)."""
    with pci_lock_rescan_remove(k):
        pci_stop_and_remove_bus_device(k, dev)


def _pci_stop_bus_device(k: Kernel, dev: PciDev) -> None:
    """Stop children before their parent and the last child first, hence virtual functions before their physical one."""
    for child in reversed(pci_children(k, dev)):
        if child.exists and child in k.system.devices:
            _pci_stop_bus_device(k, child)
    _pci_stop_dev(k, dev)


def _pci_stop_dev(k: Kernel, dev: PciDev) -> None:
    """Kept: only a device that was added; the driver is unbound. Up to v3.13 the device is deleted here already, so
    that DEL_DEVICE comes before the driver is unbound.

    Left out: PME, sysfs and procfs files, ASPM.
    """
    if not dev.is_added:
        return
    if k.has(changes.DEVICE_DEL_AFTER_STOP):
        base_dd.device_release_driver(k, dev)
    else:
        base_core.device_del(k, dev)
    dev.is_added = False


def _pci_remove_bus_device(k: Kernel, dev: PciDev) -> None:
    for child in pci_children(k, dev):
        _pci_remove_bus_device(k, child)
    _pci_destroy_dev(k, dev)


def _pci_destroy_dev(k: Kernel, dev: PciDev) -> None:
    """Kept: deleted, off the list, and gone for good unless somebody holds a reference.

    Left out: in v3.6 message vectors that the driver left behind were freed here.
    """
    if dev.registered:
        base_core.device_del(k, dev)
    if dev in k.system.devices:
        k.system.devices.remove(dev)
        base_core.device_unlinked(k, dev)
