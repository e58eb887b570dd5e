"""What an operator can write to (drivers/pci/pci-sysfs.c, drivers/pci/iov.c, drivers/base/bus.c).

Every function returns 0 or a negative errno, as the write does.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from errno import EBUSY, EIO, ENODEV, ENOENT, ERANGE
from typing import Protocol, runtime_checkable

from quiesce.kernel import base_dd, changes, pci, pci_driver, pci_probe
from quiesce.kernel.base_core import dev_printk, device_lock
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_remove import pci_lock_rescan_remove, pci_stop_and_remove_bus_device_locked

# -- a driver's files ----------------------------------------------------------------------------------------


def bind_store(k: Kernel, name: str, dev: PciDev) -> int:
    """drivers/base/bus.c. Kept: the driver must fit. v5.14+: -EBUSY for a device that has a driver, and the driver's
    own error; before, -ENODEV for both.
    """
    if name not in k.system.loaded or not dev.registered or not pci_driver.pci_bus_match(k, name, dev):
        return -ENODEV
    if dev.driver is not None and not k.has(changes.BIND_RETURNS_PROBE_ERROR):
        return -ENODEV
    return base_dd.device_driver_attach(k, name, dev)


def unbind_store(k: Kernel, name: str, dev: PciDev) -> int:
    """drivers/base/bus.c. Kept: -ENODEV unless the driver has the device; then unbound under the device lock."""
    if dev.driver != name:
        return -ENODEV
    base_dd.device_driver_detach(k, name, dev)
    return 0


def new_id_store(k: Kernel, name: str, vendor: int, device: int) -> int:
    """drivers/pci/pci-driver.c. Kept: the id is added, then the driver is offered every device.

    Left out: -EEXIST for an id that is there, subsystem and class, memory.
    """
    k.system.dynids.add((name, vendor, device))
    base_dd.driver_attach(k, name)
    return 0


def remove_id_store(k: Kernel, name: str, vendor: int, device: int) -> int:
    """drivers/pci/pci-driver.c. Kept: -ENODEV for an id that was never added; bound devices stay bound."""
    if (name, vendor, device) not in k.system.dynids:
        return -ENODEV
    k.system.dynids.discard((name, vendor, device))
    return 0


def bind_by_hand(k: Kernel, name: str, dev: PciDev) -> int:
    """Bind as an operator does who wants this driver: with driver_override (v3.16+) or a new id where the tables do not
    fit, and without what an earlier attempt left in driver_override.
    """
    if name not in k.system.loaded:
        return -ENODEV
    if dev.driver_override not in (None, name):
        driver_override_store(k, dev, None)
    if not pci_driver.pci_bus_match(k, name, dev):
        if k.has(changes.DRIVER_OVERRIDE):
            driver_override_store(k, dev, name)
        else:
            new_id_store(k, name, dev.hw.vendor, dev.hw.device)
    return 0 if dev.driver == name else bind_store(k, name, dev)


# -- a device's files ----------------------------------------------------------------------------------------


def driver_override_store(k: Kernel, dev: PciDev, name: str | None) -> int:
    """drivers/pci/pci-sysfs.c, v3.16+ (-ENOENT before: there is no such file), drivers/base/bus.c in v7.1+. Kept: None
    or a name, which need not be that of a driver; a bound driver stays; up to v7.0 it waits for the device's lock.
    """
    if not k.has(changes.DRIVER_OVERRIDE):
        return -ENOENT
    with nullcontext() if k.has(changes.DRIVER_OVERRIDE_OWN_LOCK) else device_lock(k, dev):
        dev.driver_override = name
    return 0


def enable_store(k: Kernel, dev: PciDev, on: bool) -> int:
    """drivers/pci/pci-sysfs.c. Kept: -EBUSY while a driver is bound (v4.18+), -EIO for disabling a device that is not
    enabled.
    """
    with device_lock(k, dev):
        if dev.driver is not None and k.has(changes.ENABLE_REFUSES_BOUND):
            return -EBUSY
        if on:
            return pci.pci_enable_device(k, dev)
        if not pci.pci_is_enabled(dev):
            return -EIO
        pci.pci_disable_device(k, dev)
    return 0


def reset_store(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci-sysfs.c. Kept: ``pci_reset_function``, of a device that is awake; -ENOTTY without a way to do it.

    Left out: that the file does not exist for such a device.
    """
    from quiesce.kernel import vfio_pci  # of all drivers of the model, only this one lets runtime PM work

    with vfio_pci.awake(k, dev):
        return pci.pci_reset_function(k, dev)


def remove_store(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci-sysfs.c. Kept: the device and all below are stopped and removed, once.

    Left out: up to v3.14 a worker did it later.
    """
    if not dev.registered:
        return -ENODEV
    pci_stop_and_remove_bus_device_locked(k, dev)
    return 0


def rescan_store(k: Kernel) -> int:
    """drivers/pci/pci-sysfs.c. Kept: every bus is scanned and what is new is added."""
    with pci_lock_rescan_remove(k):
        pci_probe.pci_rescan_bus(k)
    return 0


# -- SR-IOV --------------------------------------------------------------------------------------------------


@runtime_checkable
class ConfiguresSriov(Protocol):
    """A driver with ``sriov_configure``: turns virtual functions on and off, returns how many are on."""

    def sriov_configure(self, k: Kernel, dev: PciDev, num_vfs: int) -> int:
        """Turn on ``num_vfs`` virtual functions, or all off for 0."""


def numvfs_store(k: Kernel, dev: PciDev, num_vfs: int) -> int:
    """drivers/pci/iov.c, ``sriov_numvfs_store``. Kept: the device lock (v4.13+) and the rescan lock (v6.19+) are held
    around the driver's callback; the number it has is no change; from one number to another goes through 0.
    """
    if num_vfs > len(dev.hw.virtfns):
        return -ERANGE
    with ExitStack() as locks:
        if k.has(changes.NUMVFS_STORE_DEVICE_LOCK):
            locks.enter_context(device_lock(k, dev))
        answer = _set_numvfs(k, dev, num_vfs)
    base_dd.deferred_probe_work(k)
    return min(answer, 0)


def _set_numvfs(k: Kernel, dev: PciDev, num_vfs: int) -> int:
    if num_vfs == dev.num_vfs:
        return 0
    driver = k.drivers.get(dev.pci_driver or "")
    if not isinstance(driver, ConfiguresSriov):
        reason = "no driver bound to device; cannot configure SR-IOV"
        if driver is not None:
            reason = "driver does not support SR-IOV configuration via sysfs"
        dev_printk(k, "info", dev, reason)
        return -ENOENT
    if num_vfs and dev.num_vfs:
        text = f"{dev.num_vfs} VFs already enabled. Disable before enabling {num_vfs} VFs"
        dev_printk(k, "warn", dev, text)
        return -EBUSY
    with ExitStack() as locks:
        if k.has(changes.SRIOV_RESCAN_LOCK_IN_STORE):
            locks.enter_context(pci_lock_rescan_remove(k))
        answer = driver.sriov_configure(k, dev, num_vfs)
    if 0 <= answer != num_vfs:
        dev_printk(k, "warn", dev, f"{num_vfs} VFs requested; only {answer} enabled")
    return answer


def drivers_autoprobe_store(k: Kernel, dev: PciDev, on: bool) -> int:
    """drivers/pci/iov.c, ``sriov_drivers_autoprobe``, v4.12+ (-ENOENT before). Kept: also for functions to come."""
    if not k.has(changes.SRIOV_AUTOPROBE):
        return -ENOENT
    dev.drivers_autoprobe = on
    return 0
