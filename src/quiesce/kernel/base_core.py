"""Devices: registration, references, removal, shutdown (drivers/base/core.c, lib/kobject.c)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quiesce.kernel import changes, devres, pci_access, x86_irq
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.notifier import bus_notify
from quiesce.kernel.objects import PciDev

__all__ = [
    "EPROBE_DEFER",
    "bus_notify",
    "dev_printk",
    "device_add",
    "device_block_probing",
    "device_del",
    "device_lock",
    "device_shutdown",
    "device_unblock_probing",
    "device_unlinked",
    "get_device",
    "put_device",
]

EPROBE_DEFER = 517
"""include/linux/errno.h: probe again later."""


def dev_printk(k: Kernel, level: str, dev: PciDev, text: str) -> None:
    """drivers/base/core.c. Kept: the line starts with the driver, or the bus when there is none, and the address."""
    k.printk(level, f"{dev.driver or 'pci'} {dev.bdf}: {text}")


@contextmanager
def device_lock(k: Kernel, dev: PciDev) -> Iterator[None]:
    """include/linux/device.h. Kept: the lock that binding, unbinding, reset and shutdown of one device share."""
    with k.mutex(f"device_lock {dev.bdf}"):
        yield


# -- references ----------------------------------------------------------------------------------------------


def get_device(k: Kernel, dev: PciDev, holder: Any) -> None:
    """drivers/base/core.c. Kept: who holds the reference; a holder of several holds each of them."""
    slot, number = holder, 1
    while slot in dev.refs:
        number += 1
        slot = (holder, number)
    dev.refs.add(slot)


def put_device(k: Kernel, dev: PciDev, holder: Any) -> None:
    """drivers/base/core.c. Kept: the structure goes with the last reference; one put too many is found.

    Left out: before v4.11 nothing was printed, the memory was freed twice.
    """
    held, number = holder, 1
    while (holder, number + 1) in dev.refs:
        number += 1
        held = (holder, number)
    if held not in dev.refs:
        _report_underflow(k, dev, holder)
        return
    dev.refs.discard(held)
    _free_if_unused(k, dev)


def device_unlinked(k: Kernel, dev: PciDev) -> None:
    """Drop the reference of the device hierarchy, after the device left the bus list."""
    _free_if_unused(k, dev)


def _report_underflow(k: Kernel, dev: PciDev, holder: Any) -> None:
    k.warn(
        "refcount_t: underflow; use-after-free.",
        "memory/refcount",
        f"{holder} drops a reference on {dev.path} that it does not hold",
        "put_device",
    )


def _free_if_unused(k: Kernel, dev: PciDev) -> None:
    if dev.refs or dev in k.system.devices:
        return
    _device_release(k, dev)


def _device_release(k: Kernel, dev: PciDev) -> None:
    """drivers/base/core.c, ``device_release``, and ``pci_release_dev``. Kept: devres that is still there is released
    (v3.7+), an enabled device gives its legacy interrupt back, the memory goes.
    """
    if k.has(changes.DEVRES_FREED_AT_RELEASE):
        devres.devres_release_all(k, dev)
    x86_irq.pcibios_release_device(k, dev)
    dev.delete()


# -- registration --------------------------------------------------------------------------------------------


def device_add(k: Kernel, dev: PciDev) -> int:
    """drivers/base/core.c. Kept: ADD_DEVICE, then probing, which for PCI waits until ``match_driver`` is set (up to
    v3.8 it is set from the start).

    Left out: sysfs, uevents, device links, and everything in it that can fail.
    """
    from quiesce.kernel import base_dd  # the driver core calls the bus, and the bus calls back here

    dev.registered = True
    bus_notify(k, "ADD_DEVICE", dev)
    base_dd.bus_probe_device(k, dev)
    return 0


def device_del(k: Kernel, dev: PciDev) -> None:
    """drivers/base/core.c. Kept: dead under the device lock, DEL_DEVICE, unbound if a driver is still there, devres
    released (up to v3.6 and v6.6+), REMOVED_DEVICE (v3.18+).

    Left out: ``dead`` exists since v5.1 only; sysfs, uevents, device links, PM lists.
    """
    from quiesce.kernel import base_dd  # see device_add

    with device_lock(k, dev):
        dev.dead = True
    bus_notify(k, "DEL_DEVICE", dev)
    base_dd.bus_remove_device(k, dev)
    if k.has(changes.DEVICE_DEL_RELEASES_DEVRES) or not k.has(changes.DEVRES_FREED_AT_RELEASE):
        devres.devres_release_all(k, dev)
    if k.has(changes.NOTIFY_REMOVED_DEVICE):
        bus_notify(k, "REMOVED_DEVICE", dev)
    dev.registered = False


# -- shutdown ------------------------------------------------------------------------------------------------


def device_block_probing(k: Kernel) -> None:
    """drivers/base/dd.c. Kept: every probe is deferred from now on."""
    k.system.defer_all_probes = True


def device_unblock_probing(k: Kernel) -> None:
    """drivers/base/dd.c. Kept: what was deferred is probed now."""
    from quiesce.kernel import base_dd  # see device_add

    k.system.defer_all_probes = False
    base_dd.driver_deferred_probe_trigger(k)


def device_shutdown(k: Kernel) -> None:
    """drivers/base/core.c. Kept: no probing any more; from the newest device to the oldest, each with the locks of its
    parent and its own; drivers stay bound, devres is not released, interrupts stay on.

    Left out: devices of other buses; v4.3 to v4.18 moved a device to the end of the list when it was probed.
    """
    device_block_probing(k)
    for dev in reversed(k.system.devices.as_tuple()):
        if dev.exists and dev.registered:
            driven = dev.driver is not None
            _shutdown_one(k, dev)
            if driven:
                k.window(f"device_shutdown {dev.bdf}: done")


def _shutdown_one(k: Kernel, dev: PciDev) -> None:
    from quiesce.kernel import pci_driver  # see device_add

    parent = pci_access.upstream_bridge(k, dev)
    if parent is None:
        with device_lock(k, dev):
            pci_driver.pci_device_shutdown(k, dev)
        return
    with device_lock(k, parent), device_lock(k, dev):
        pci_driver.pci_device_shutdown(k, dev)
