"""Recovery from PCI Express errors (drivers/pci/pcie/err.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from quiesce.kernel import base_core, changes
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_dev_is_disconnected, pci_dev_of, upstream_bridge
from quiesce.kernel.pci_reset import pci_bridge_secondary_bus_reset, pci_dev_lock
from quiesce.machine import pci_regs as r

NORMAL, FROZEN, PERM_FAILURE = "normal", "frozen", "perm_failure"
"""``pci_channel_state_t``, the values of ``PciDev.error_state``."""

NONE, CAN_RECOVER, NEED_RESET, DISCONNECT, RECOVERED, NO_AER_DRIVER = (
    "none",
    "can_recover",
    "need_reset",
    "disconnect",
    "recovered",
    "no_aer_driver",
)
"""``pci_ers_result_t``, what drivers vote."""

_ERRORS_AT_ITSELF = (
    r.PCI_EXP_TYPE_ROOT_PORT,
    r.PCI_EXP_TYPE_DOWNSTREAM,
    r.PCI_EXP_TYPE_RC_EC,
    r.PCI_EXP_TYPE_RC_END,
)


def pcie_do_recovery(k: Kernel, dev: PciDev, state: str) -> str:
    """drivers/pci/pcie/err.c. Kept: who is affected, the votes and the veto of a function whose driver, or lack of one,
    has no ``error_detected``; the reset of the link for a frozen channel, before ``mmio_enabled`` up to v6.17, and for
    any driver that asks for it from v6.18 on; the order of the callbacks; the outcome; devices that runtime PM
    let sleep are awake meanwhile and sleep again afterwards.

    Drivers take part by methods named like the callbacks (``error_detected(k, dev, state)``, ``mmio_enabled``,
    ``slot_reset``, ``resume_after_error``), each optional; ``error_handlers`` says that there is an ``error_detected``.
    Left out: DPC, what the hardware blocks meanwhile, error reporting registers, v4.18 and v4.19 (fatal errors removed
    the device), v5.7 to v5.11 (a reset that worked made all votes void).
    """
    from quiesce.kernel import vfio_pci  # of all drivers of the model, only this one lets runtime PM work

    bridge = _recovery_root(k, dev)
    affected = tuple(_walk(k, bridge))
    with ExitStack() as awake:
        for below in affected:
            awake.enter_context(vfio_pci.awake(k, below))
        return _recover(k, bridge, affected, state)


def _recover(k: Kernel, bridge: PciDev, affected: tuple[PciDev, ...], state: str) -> str:
    vote = CAN_RECOVER
    for below in affected:
        vote = _merge(vote, _report_error_detected(k, below, state))
    on_request = k.has(changes.AER_RESETS_ON_REQUEST)
    if state == FROZEN and not on_request and not _reset_link(k, bridge):
        return _failed(k, bridge, affected)
    if vote == CAN_RECOVER:
        vote = _report(k, affected, "mmio_enabled")
    if on_request and (vote == NEED_RESET or state == FROZEN) and not _reset_link(k, bridge):
        return _failed(k, bridge, affected)
    if vote == NEED_RESET:
        vote = _report(k, affected, "slot_reset", normal=k.has(changes.AER_NORMAL_BEFORE_SLOT_RESET))
    if vote != RECOVERED:
        return _failed(k, bridge, affected)
    _report(k, affected, "resume_after_error", normal=True)
    k.printk("info", f"pcieport {bridge.bdf}: AER: device recovery successful")
    return RECOVERED


def _recovery_root(k: Kernel, dev: PciDev) -> PciDev:
    if dev.hw.pcie_type in _ERRORS_AT_ITSELF:
        return dev
    return upstream_bridge(k, dev) or dev


def _walk(k: Kernel, bridge: PciDev) -> Iterator[PciDev]:
    """``pci_walk_bridge``: everything below a bridge, or the device itself when it is none."""
    if not bridge.hw.is_bridge:
        yield bridge
        return
    for fn in bridge.hw.below():
        dev = pci_dev_of(k, str(fn.bdf))
        if dev is not None:
            yield dev


def _driver(k: Kernel, dev: PciDev) -> PciDriver | None:
    return k.drivers.get(dev.driver) if dev.driver else None


def _merge(old: str, new: str) -> str:
    if NO_AER_DRIVER in (old, new):
        return NO_AER_DRIVER
    if new == NONE:
        return old
    if old in (CAN_RECOVER, RECOVERED) or (old == DISCONNECT and new == NEED_RESET):
        return new
    return old


def _report_error_detected(k: Kernel, dev: PciDev, state: str) -> str:
    with base_core.device_lock(k, dev):
        driver = _driver(k, dev)
        if pci_dev_is_disconnected(k, dev):
            return DISCONNECT
        if dev.error_state == PERM_FAILURE:
            return NONE
        dev.error_state = state
        if driver is not None and driver.error_handlers:
            return _error_detected(k, driver, dev, state)
        if dev.hw.is_bridge:
            return NONE
        k.printk("info", f"{dev.driver or 'pci'} {dev.bdf}: AER: can't recover (no error_detected callback)")
        return NO_AER_DRIVER


def _error_detected(k: Kernel, driver: PciDriver, dev: PciDev, state: str) -> str:
    callback: Callable[[Kernel, PciDev, str], str] | None = getattr(driver, "error_detected", None)
    if callback is not None:
        return callback(k, dev, state)
    return NEED_RESET if state == FROZEN else CAN_RECOVER


def _report(k: Kernel, affected: tuple[PciDev, ...], name: str, *, normal: bool = False) -> str:
    """Call one callback of every driver that has it; they start from ``recovered``."""
    vote = RECOVERED
    for dev in affected:
        with base_core.device_lock(k, dev):
            if normal and dev.error_state != PERM_FAILURE:
                dev.error_state = NORMAL
            callback: Callable[[Kernel, PciDev], str | None] | None = getattr(_driver(k, dev), name, None)
            if callback is not None:
                vote = _merge(vote, callback(k, dev) or NONE)
    return vote


def _reset_link(k: Kernel, bridge: PciDev) -> bool:
    if not bridge.hw.is_bridge:
        return True
    with pci_dev_lock(k, bridge):
        works = pci_bridge_secondary_bus_reset(k, bridge) == 0
    if not works:
        k.printk("warn", f"pcieport {bridge.bdf}: AER: subordinate device reset failed")
    return works


def _failed(k: Kernel, bridge: PciDev, affected: tuple[PciDev, ...]) -> str:
    """Kept: v6.18+ tells the drivers; before, one that was told of a frozen channel never hears how it ended. The
    channel's state stays as it was in either.
    """
    for dev in affected:
        driver = _driver(k, dev)
        told = driver is not None and driver.error_handlers
        if k.has(changes.AER_TELLS_ON_FAILURE):
            if driver is not None and told:
                with base_core.device_lock(k, dev):
                    _error_detected(k, driver, dev, PERM_FAILURE)
        elif told and dev.error_state == FROZEN:
            why = f"{dev.driver} stopped {dev.bdf} for recovery, which failed; nobody tells the driver"
            k.find("device/left-frozen", why, "pcie_do_recovery")
    k.printk("info", f"pcieport {bridge.bdf}: AER: device recovery failed")
    return DISCONNECT
