"""Resetting functions and buses (drivers/pci/pci.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from errno import EAGAIN, EINVAL, ENOTTY

from quiesce.kernel import base_core, changes
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PciDev
from quiesce.kernel.pci_access import (
    pci_dev_is_disconnected,
    pci_dev_of,
    pci_read_command,
    pci_read_config,
    pci_write_config,
    upstream_bridge,
)
from quiesce.kernel.pci_power import pci_set_power_state, pm_cap
from quiesce.kernel.pci_state import pci_restore_state, pci_save_state
from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function

_DOWNSTREAM = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_DOWNSTREAM)
METHODS = ("flr", "af_flr", "pm", "bus")
"""Default order. Left out: device specific methods, ACPI ``_RST``, ``cxl_bus``."""


# -- methods -------------------------------------------------------------------------------------------------


def _reset_flr(k: Kernel, dev: PciDev, probe: bool) -> int:
    """``pcie_reset_flr``. Left out: waiting for pending transactions."""
    base = dev.hw.find_capability(r.PCI_CAP_ID_EXP)
    if not base or not dev.hw.config.static(base + r.PCI_EXP_DEVCAP, 4) & r.PCI_EXP_DEVCAP_FLR:
        return -ENOTTY
    if probe:
        return 0
    control = pci_read_config(k, dev, base + r.PCI_EXP_DEVCTL, 2)
    pci_write_config(k, dev, base + r.PCI_EXP_DEVCTL, 2, control | r.PCI_EXP_DEVCTL_BCR_FLR)
    return _pci_dev_wait(k, dev, "FLR")


def _reset_af_flr(k: Kernel, dev: PciDev, probe: bool) -> int:
    base = dev.hw.find_capability(r.PCI_CAP_ID_AF)
    if not base or not dev.hw.config.static(base + r.PCI_AF_CAP, 1) & r.PCI_AF_CAP_FLR:
        return -ENOTTY
    if probe:
        return 0
    pci_write_config(k, dev, base + r.PCI_AF_CTRL, 1, r.PCI_AF_CTRL_FLR)
    return _pci_dev_wait(k, dev, "AF_FLR")


def _reset_pm(k: Kernel, dev: PciDev, probe: bool) -> int:
    """``pci_pm_reset``: through D3hot and back; not for a device that keeps its state there or is not in D0."""
    base = pm_cap(dev)
    if not base:
        return -ENOTTY
    pmcsr = pci_read_config(k, dev, base + r.PCI_PM_CTRL, 2)
    if pmcsr & r.PCI_PM_CTRL_NO_SOFT_RESET:
        return -ENOTTY
    if probe:
        return 0
    if dev.current_state != PCI_D0:
        return -EINVAL
    for state in (PCI_D3HOT, PCI_D0):
        pci_write_config(k, dev, base + r.PCI_PM_CTRL, 2, pmcsr & ~r.PCI_PM_CTRL_STATE_MASK | state)
    return _pci_dev_wait(k, dev, "PM D3hot->D0")


def _reset_bus(k: Kernel, dev: PciDev, probe: bool) -> int:
    """``pci_parent_bus_reset``: only for a function that is alone on its bus. Left out: hot-plug slots."""
    bridge = upstream_bridge(k, dev)
    if bridge is None or dev.is_virtfn or dev.hw.is_bridge or _bus_of(k, bridge) != (dev,):
        return -ENOTTY
    return 0 if probe else pci_bridge_secondary_bus_reset(k, bridge)


_Method = Callable[[Kernel, PciDev, bool], int]
_RESET: dict[str, _Method] = {"flr": _reset_flr, "af_flr": _reset_af_flr, "pm": _reset_pm, "bus": _reset_bus}


def pci_reset_methods(k: Kernel, dev: PciDev) -> tuple[str, ...]:
    """Return the methods in force: those that user space chose (v5.15+), else all that the device supports."""
    if dev.reset_methods is not None:
        return dev.reset_methods
    if k.has(changes.RESET_PROBED_AT_INIT):
        return dev.reset_methods_found
    return tuple(name for name in METHODS if can_reset(k, dev, name))


def can_reset(k: Kernel, dev: PciDev, name: str) -> bool:
    """Return what a method answers when it is only asked."""
    return _RESET[name](k, dev, True) == 0


def pci_init_reset_methods(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/probe.c, v4.17+. Kept: the list is made once, when the device has been found but is not on its bus
    yet, so that the first one on a bus, and a bridge there, has a bus reset in it, which may turn out impossible later.
    """
    if not k.has(changes.RESET_PROBED_AT_INIT):
        return
    bridge = upstream_bridge(k, dev)
    alone = bridge is not None and not dev.is_virtfn and not _bus_of(k, bridge)
    other = (name for name in METHODS if name != "bus" and can_reset(k, dev, name))
    dev.reset_methods_found = (*other, "bus") if alone else tuple(other)


def reset_method_store(k: Kernel, dev: PciDev, names: tuple[str, ...] | None) -> int:
    """drivers/pci/pci.c, v5.15+. Kept: an order, an empty list (no reset at all) or None for the default."""
    if not k.has(changes.RESET_METHOD_SYSFS):
        return -EINVAL
    for name in names or ():
        if name not in _RESET:
            k.printk("err", f"pci {dev.bdf}: Invalid reset method '{name}'")
            return -EINVAL
        if _RESET[name](k, dev, True) != 0:
            k.printk("err", f"pci {dev.bdf}: Unsupported reset method '{name}'")
            return -EINVAL
    if names == ():
        k.printk("warn", f"pci {dev.bdf}: All device reset methods disabled by user")
    dev.reset_methods = names
    return 0


def _pci_dev_wait(k: Kernel, dev: PciDev, what: str) -> int:
    if pci_read_command(k, dev) == 0xFFFF:
        k.printk("warn", f"pci {dev.bdf}: not ready 65535ms after {what}; giving up")
        return -ENOTTY
    return 0


# -- locks ---------------------------------------------------------------------------------------------------


def _cfg_access_lock(dev: PciDev) -> str:
    return f"cfg_access_lock {dev.bdf}"


@contextmanager
def pci_dev_lock(k: Kernel, dev: PciDev) -> Iterator[None]:
    """drivers/pci/pci.c. Kept: the device's mutex, then its configuration space is closed to user space."""
    with base_core.device_lock(k, dev), k.mutex(_cfg_access_lock(dev)):
        yield


def _is_locked(k: Kernel, dev: PciDev) -> bool:
    held = (*k.mutexes, *k.others)
    return f"device_lock {dev.bdf}" in held or _cfg_access_lock(dev) in held


# -- one function --------------------------------------------------------------------------------------------


def pci_reset_function(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: waits for the device's lock, and first for that of the bridge above (v6.10+); saves,
    silences, resets, restores. The driver is told under the lock (v4.13+) or before it is taken.
    """
    if not pci_reset_methods(k, dev):
        return -ENOTTY
    with ExitStack() as locks:
        bridge = upstream_bridge(k, dev)
        if bridge is not None and k.has(changes.RESET_LOCKS_BRIDGE):
            locks.enter_context(pci_dev_lock(k, bridge))
        if k.has(changes.RESET_NOTIFY_LOCKED):
            locks.enter_context(pci_dev_lock(k, dev))
            return pci_reset_function_locked(k, dev)
        _pci_dev_save_and_disable(k, dev)
        with pci_dev_lock(k, dev):
            error = pci_reset_function_only(k, dev)
        _pci_dev_restore(k, dev)
        return error


def pci_try_reset_function(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: gives up with -EAGAIN when somebody, the caller included, has the device's lock."""
    if not pci_reset_methods(k, dev):
        return -ENOTTY
    if _is_locked(k, dev):
        return -EAGAIN
    with pci_dev_lock(k, dev):
        return pci_reset_function_locked(k, dev)


def pci_reset_function_locked(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: for a caller that has the device's lock."""
    if not pci_reset_methods(k, dev):
        return -ENOTTY
    _pci_dev_save_and_disable(k, dev)
    error = pci_reset_function_only(k, dev)
    _pci_dev_restore(k, dev)
    return error


def pci_reset_function_only(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c, ``__pci_reset_function_locked``. Kept: the first method that works, for a caller that has the
    lock and saves and restores by itself.
    """
    k.might_sleep("pci_reset_function")
    error = _block_iommu(k, dev)
    if error:
        k.printk("err", f"{dev.driver or 'pci'} {dev.bdf}: failed to stop IOMMU for a PCI reset: {error}")
        return error
    error = -ENOTTY
    for name in pci_reset_methods(k, dev):
        error = _RESET[name](k, dev, False)
        if error != -ENOTTY:
            break
    k.window(f"pci_reset_function {dev.bdf}: reset, not restored")
    _unblock_iommu(k, dev)
    return error


_pci_reset_function_locked = pci_reset_function_only


def _pci_dev_save_and_disable(k: Kernel, dev: PciDev) -> None:
    """Kept: D0, saved, then everything off but INTx disable."""
    _notify(k, dev, "reset_prepare")
    pci_set_power_state(k, dev, PCI_D0)
    pci_save_state(k, dev)
    pci_write_config(k, dev, r.PCI_COMMAND, 2, r.PCI_COMMAND_INTX_DISABLE)


def _pci_dev_restore(k: Kernel, dev: PciDev) -> None:
    pci_restore_state(k, dev)
    _notify(k, dev, "reset_done")


def _may_translate(k: Kernel, dev: PciDev) -> bool:
    return k.has(changes.PCI_RESET_BLOCKS_IOMMU) and dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ATS) != 0


def _block_iommu(k: Kernel, dev: PciDev) -> int:
    """v7.0+: translation is blocked around the reset of a device that can hold translations of its own (ATS)."""
    from quiesce.kernel import iommu  # which configures ACS, and so needs configuration space from here

    return iommu.pci_dev_reset_iommu_prepare(k, dev) if _may_translate(k, dev) else 0


def _unblock_iommu(k: Kernel, dev: PciDev) -> None:
    from quiesce.kernel import iommu  # see _block_iommu

    if _may_translate(k, dev):
        iommu.pci_dev_reset_iommu_done(k, dev)


def _notify(k: Kernel, dev: PciDev, callback: str) -> None:
    driver = k.drivers.get(dev.driver) if dev.driver else None
    function = getattr(driver, callback, None)
    if function is not None:
        function(k, dev)


# -- a bus ---------------------------------------------------------------------------------------------------


def _bus_of(k: Kernel, bridge: PciDev) -> tuple[PciDev, ...]:
    """Return the devices on the bus below a bridge; virtual functions are not on it."""
    children: tuple[Function, ...] = bridge.hw.children
    devices = (pci_dev_of(k, str(fn.bdf)) for fn in children if not fn.is_virtfn)
    return tuple(dev for dev in devices if dev is not None)


def _subtree(k: Kernel, bridge: PciDev) -> Iterator[PciDev]:
    for dev in _bus_of(k, bridge):
        yield dev
        yield from _subtree(k, dev)


def pci_bridge_secondary_bus_reset(k: Kernel, bridge: PciDev) -> int:
    """drivers/pci/pci.c. Kept: everything on the bus below is reset; v6.11+ warns when the bridge is not locked;
    below a PCI Express port the first device is waited for, but not on a bus where no device has power management,
    which is what ``pci_bus_max_d3cold_delay`` asks. Left out: before v6.3 the bridge itself was waited for.
    """
    if k.has(changes.WARN_UNLOCKED_BUS_RESET) and _cfg_access_lock(bridge) not in k.mutexes:
        k.warn(
            f"pci {bridge.bdf}: unlocked secondary bus reset via: pci_reset_bus_function",
            "device/unlocked-bus-reset",
            f"the bus below {bridge.bdf} is reset while others may configure the bridge",
            "pci_bridge_secondary_bus_reset",
        )
    control = pci_read_config(k, bridge, r.PCI_BRIDGE_CONTROL, 2)
    pci_write_config(k, bridge, r.PCI_BRIDGE_CONTROL, 2, control | r.PCI_BRIDGE_CTL_BUS_RESET)
    pci_write_config(k, bridge, r.PCI_BRIDGE_CONTROL, 2, control & ~r.PCI_BRIDGE_CTL_BUS_RESET)
    below = _bus_of(k, bridge)
    first = next((dev for dev in below if any(one.hw.find_capability(r.PCI_CAP_ID_PM) for one in below)), None)
    if first is None or pci_dev_is_disconnected(k, bridge) or bridge.hw.pcie_type not in _DOWNSTREAM:
        return 0
    return _pci_dev_wait(k, first, "bus reset")


def pci_probe_reset_bus(k: Kernel, bridge: PciDev) -> int:
    """drivers/pci/pci.c. Kept: a bus can be reset unless a function on it has no reset method left (v6.15+)."""
    if k.has(changes.BUS_RESET_NEEDS_RESET_METHOD) and any(dev.reset_methods == () for dev in _subtree(k, bridge)):
        return -ENOTTY
    return 0


def pci_reset_bus(k: Kernel, bridge: PciDev) -> int:
    """drivers/pci/pci.c. Kept: -EAGAIN unless every device below, and the bridge too (v6.11+), can be locked at once;
    all are saved and silenced, the bus is reset, all are restored.
    """
    if pci_probe_reset_bus(k, bridge):
        return -ENOTTY
    below = tuple(_subtree(k, bridge))
    locked = (bridge, *below) if k.has(changes.BUS_LOCK_LOCKS_BRIDGE) else below
    if any(_is_locked(k, dev) for dev in locked):
        return -EAGAIN
    with ExitStack() as locks:
        for dev in locked:
            locks.enter_context(pci_dev_lock(k, dev))
        for dev in below:
            _pci_dev_save_and_disable(k, dev)
        error = pci_bridge_secondary_bus_reset(k, bridge)
        k.window(f"pci_reset_bus {bridge.bdf}: reset, not restored")
        for dev in below:
            _pci_dev_restore(k, dev)
        return error
