"""Hot-plug slots of PCI Express ports (drivers/pci/hotplug/pciehp_*.c, drivers/pci/pcie/dpc.c).

The hardware comes and goes by ``Machine.plug`` and ``Machine.unplug``; what is here is how the kernel takes it.
Whether a slot is on is hardly a state of its own: it is on when the kernel knows devices in it, or when it knows none
because somebody removed them through sysfs. Only a slot that the operator has switched off is remembered.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from errno import EEXIST, ENODEV

from quiesce.kernel import aer, changes, pci_probe
from quiesce.kernel.base_core import device_lock, get_device, put_device
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import (
    pci_change_command,
    pci_dev_is_disconnected,
    pci_dev_of,
    pci_read_config,
    pci_write_config,
)
from quiesce.kernel.pci_remove import pci_children, pci_lock_rescan_remove, pci_stop_and_remove_bus_device
from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function

_CONTROLLER = "pciehp"
_PORT_DRIVER = "pcieport"
_SLOT_NUMBER_SHIFT = 19

# -- slots ---------------------------------------------------------------------------------------------------


def pciehp_port(k: Kernel, function: Function) -> PciDev | None:
    """Return the port whose slot a function is in, if pciehp looks after it, else None.

    Kept: the slot must be hot-plug capable; where the scenario has a port driver, that must be bound to the port.
    """
    above = function.upstream
    port = None if above is None else pci_dev_of(k, str(above.bdf))
    if port is None or not _slot_capabilities(port) & r.PCI_EXP_SLTCAP_HPC:
        return None
    return port if _driven(k, port) else None


def _driven(k: Kernel, port: PciDev) -> bool:
    return _PORT_DRIVER not in k.drivers or port.driver == _PORT_DRIVER


def _slot_capabilities(port: PciDev) -> int:
    base = port.hw.find_capability(r.PCI_CAP_ID_EXP)
    return port.hw.config.static(base + r.PCI_EXP_SLTCAP, 4) if base and port.hw.has_slot else 0


def _slot_print(k: Kernel, port: PciDev, text: str) -> None:
    number = _slot_capabilities(port) >> _SLOT_NUMBER_SHIFT
    k.printk("info", f"{_PORT_DRIVER} {port.bdf}: pciehp: Slot({number}): {text}")


# -- cards come and go ---------------------------------------------------------------------------------------


def surprise_removed(k: Kernel, dev: PciDev) -> None:
    """The slot reports that a card went away without warning; without such a slot nobody notices."""
    port = pciehp_port(k, dev.hw)
    if port is not None:
        pciehp_handle_presence_or_link_change(k, port)


def plugged(k: Kernel, function: Function) -> None:
    """The slot reports a card; without such a slot it takes a rescan to find it."""
    port = pciehp_port(k, function)
    if port is not None:
        pciehp_handle_presence_or_link_change(k, port)


def pciehp_handle_presence_or_link_change(k: Kernel, port: PciDev) -> None:
    """drivers/pci/hotplug/pciehp_ctrl.c. Kept: a slot that is on is turned off, even if a card is in it again; then
    it is turned on if there is one.

    Left out: buttons, latches, indicators, power faults.
    """
    _acknowledge(k, port)
    if pci_children(k, port):
        _slot_print(k, port, "Link Down")
        if not port.hw.card_present:
            _slot_print(k, port, "Card not present")
        pciehp_unconfigure_device(k, port, presence=False)
    if port.hw.card_present:
        _slot_print(k, port, "Card present")
        _slot_print(k, port, "Link Up")
        pciehp_configure_device(k, port)


def pciehp_resume_noirq(k: Kernel) -> tuple[PciDev, ...]:
    """drivers/pci/hotplug/pciehp_core.c, v6.11+. Kept: when the kernel knows no first function in a slot that is on, or
    that function does not answer, everything below is marked as disconnected. Returns the ports of such slots, which
    ``pciehp_handle_presence_or_link_change`` looks at next: a device that was removed through sysfs comes back.

    Left out: another device of the same slot number in its place, which the model does not have.
    """
    if not k.has(changes.PCIEHP_REPLACED_IN_SLEEP):
        return ()
    ports = tuple(port for port in k.system.devices if _serves_a_slot(k, port) and _device_replaced(k, port))
    for port in ports:
        _disconnect_below(k, port)
    return ports


def _serves_a_slot(k: Kernel, port: PciDev) -> bool:
    return bool(_slot_capabilities(port) & r.PCI_EXP_SLTCAP_HPC) and _driven(k, port)


def _device_replaced(k: Kernel, port: PciDev) -> bool:
    """``pciehp_device_replaced``, for a slot that is on."""
    children = pci_children(k, port)
    if port.slot_off or pci_dev_is_disconnected(k, port) or not (children or port.hw.card_present):
        return False
    first = next((dev for dev in children if dev.hw.bdf.function == 0), None)
    return first is None or not first.hw.present


def _acknowledge(k: Kernel, port: PciDev) -> None:
    """Clear the change bits in the slot's status (``pciehp_isr``)."""
    status = port.hw.find_capability(r.PCI_CAP_ID_EXP) + r.PCI_EXP_SLTSTA
    changed = pci_read_config(k, port, status, 2) & (r.PCI_EXP_SLTSTA_PDC | r.PCI_EXP_SLTSTA_DLLSC)
    pci_write_config(k, port, status, 2, changed)


def pciehp_configure_device(k: Kernel, port: PciDev) -> int:
    """drivers/pci/hotplug/pciehp_pci.c. Kept: under the rescan lock, the bus below is scanned and added; -EEXIST when
    devices are there already, -ENODEV when none answers.
    """
    port.slot_off = False
    with pci_lock_rescan_remove(k):
        if pci_children(k, port):
            return -EEXIST
        if not pci_probe.pci_scan(k, port):
            return -ENODEV
        pci_probe.pci_bus_add_devices(k, port)
    return 0


def pciehp_unconfigure_device(k: Kernel, port: PciDev, *, presence: bool) -> None:
    """drivers/pci/hotplug/pciehp_pci.c. Kept: after a surprise removal everything below is marked as disconnected
    **before** its drivers are unbound (v4.12+); devices go last to first; after an orderly removal each is silenced.

    Left out: ``reset_lock``.
    """
    if not presence and k.has(changes.DISCONNECTED_STATE):
        _disconnect_below(k, port)
        k.window(f"pciehp {port.bdf}: marked as disconnected, drivers still bound")
    with pci_lock_rescan_remove(k):
        for dev in reversed(pci_children(k, port)):
            if dev.exists and dev in k.system.devices:
                _remove_card(k, dev, presence)


def _disconnect_below(k: Kernel, port: PciDev) -> None:
    for dev in pci_children(k, port):
        pci_dev_set_disconnected(k, dev)
        _disconnect_below(k, dev)


def _remove_card(k: Kernel, dev: PciDev, presence: bool) -> None:
    get_device(k, dev, _CONTROLLER)
    pci_stop_and_remove_bus_device(k, dev)
    if presence:
        pci_change_command(k, dev, set=r.PCI_COMMAND_INTX_DISABLE, clear=r.PCI_COMMAND_MASTER | r.PCI_COMMAND_SERR)
    put_device(k, dev, _CONTROLLER)


def pci_dev_set_disconnected(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.h. Kept: no way back from ``perm_failure``; waits for the device lock, and so for a driver that
    is just binding or unbinding (up to v6.2).

    Left out: v4.12 to v4.19 took no lock either.
    """
    lock: AbstractContextManager[None] = nullcontext()
    if not k.has(changes.DISCONNECT_WITHOUT_LOCK):
        lock = device_lock(k, dev)
    with lock:
        dev.disconnected = True
        dev.error_state = aer.PERM_FAILURE


# -- the operator and the slot -------------------------------------------------------------------------------


def pciehp_disable_slot(k: Kernel, port: PciDev) -> int:
    """drivers/pci/hotplug/pciehp_ctrl.c, by button or sysfs. Kept: drivers are unbound while the card still answers,
    then it loses power where the slot can switch it; -ENODEV for a slot that is off.
    """
    if not pci_children(k, port):
        return -ENODEV
    pciehp_unconfigure_device(k, port, presence=True)
    port.slot_off = True
    _switch_power(k, port, on=False)
    return 0


def pciehp_enable_slot(k: Kernel, port: PciDev) -> int:
    """drivers/pci/hotplug/pciehp_ctrl.c. Kept: power, then the card is found; -ENODEV for an empty slot."""
    if not port.hw.card_present:
        return -ENODEV
    _switch_power(k, port, on=True)
    return pciehp_configure_device(k, port)


def _switch_power(k: Kernel, port: PciDev, *, on: bool) -> None:
    if not _slot_capabilities(port) & r.PCI_EXP_SLTCAP_PCP:
        return
    control = port.hw.find_capability(r.PCI_CAP_ID_EXP) + r.PCI_EXP_SLTCTL
    value = pci_read_config(k, port, control, 2) & ~r.PCI_EXP_SLTCTL_PCC
    pci_write_config(k, port, control, 2, value if on else value | r.PCI_EXP_SLTCTL_PCC)


# -- containment ---------------------------------------------------------------------------------------------


def dpc_triggered(k: Kernel, port: PciDev) -> None:
    """drivers/pci/pcie/dpc.c, pciehp_hpc.c. A port cuts its link because of a fatal error, and what is below is reset.

    Kept: pciehp ignores the link that went down and came back if recovery worked (v5.14+), and takes the slot down
    otherwise; before v5.14 it always does. Left out: the time that recovery takes and what may happen in it, presence
    changes (v6.16+), link changes by a bus reset (v6.16+).
    """
    port.hw.reset_below()
    port.hw.note_slot_change()
    k.printk("warn", f"{_PORT_DRIVER} {port.bdf}: DPC: containment event")
    if not k.has(changes.PCIEHP_IGNORES_DPC_LINK):
        pciehp_handle_presence_or_link_change(k, port)
        return
    if aer.pcie_do_recovery(k, port, aer.FROZEN) == aer.RECOVERED:
        _acknowledge(k, port)
        _slot_print(k, port, "Link Down/Up ignored (recovered by DPC)")
    else:
        pciehp_handle_presence_or_link_change(k, port)
