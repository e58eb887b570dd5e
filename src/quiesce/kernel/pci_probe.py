"""Finding devices and giving them to the kernel (drivers/pci/probe.c, drivers/pci/bus.c)."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.kernel import base_core, base_dd, changes, msi, pci, pci_acs_enable, pci_group, pci_power, pci_reset
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_UNKNOWN, PciDev
from quiesce.kernel.pci_access import pci_dev_of, pci_read_config, pci_write_config
from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function

_NOTHING = 0xFFFFFFFF
_BUS_NUMBERS = (("PRIMARY_BUS", r.PCI_PRIMARY_BUS), ("SECONDARY_BUS", r.PCI_SECONDARY_BUS))
_LAST_BUS = ("SUBORDINATE_BUS", r.PCI_SUBORDINATE_BUS)

# -- one device ----------------------------------------------------------------------------------------------


def pci_alloc_dev(k: Kernel, bdf: str) -> PciDev:
    """drivers/pci/probe.c. Kept: a structure of its own for every time a device appears; while an older one is still
    referenced the new one is ``pci/BDF~2`` and so on.

    Left out: the allocation failing.
    """
    path, number = f"pci/{bdf}", 1
    while PciDev.get(k.world, path).exists:
        number += 1
        path = f"pci/{bdf}~{number}"
    return PciDev.new(k.world, path, bdf=bdf)


def pci_setup_device(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/probe.c. Kept: pin and line as firmware left them (a virtual function has neither), power state
    unknown, no errors.

    Left out: BARs, broken headers, quirks.
    """
    dev.current_state = PCI_UNKNOWN
    dev.error_state = "normal"
    if dev.hw.is_virtfn:
        return
    dev.pin = pci_read_config(k, dev, r.PCI_INTERRUPT_PIN, 1)
    if dev.pin:
        dev.irq = pci_read_config(k, dev, r.PCI_INTERRUPT_LINE, 1)


def pci_device_add(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/probe.c. Kept: message interrupts off, D0 (v6.16+), ACS on (up to v6.19), on the bus list,
    ``match_driver`` off, ``device_add``, which is when the IOMMU learns of the device. Up to v3.8 ``device_add`` comes
    with ``pci_bus_add_device``.

    It goes where its address belongs, a virtual function behind the others on its bus, so that removing a device and
    finding it again leads to the same state. Left out: the kernel appends it to the list of its bus, and to the end of
    the list that shutdown walks; quirks other than those for DMA aliases, capabilities that are not modelled.
    """
    pci_group.pci_fixup_dma_alias(k, dev)
    _pci_init_capabilities(k, dev)
    k.system.devices.append(dev)
    if k.has(changes.DEVICE_ADD_AT_SCAN):
        dev.match_driver = False
        base_core.device_add(k, dev)


def _pci_init_capabilities(k: Kernel, dev: PciDev) -> None:
    msi.pci_msi_init(k, dev)
    if k.has(changes.D0_AT_INIT):
        pci_power.pci_pm_power_up_and_verify_state(k, dev)
    pci_acs_enable.pci_acs_init(k, dev)
    pci_reset.pci_init_reset_methods(k, dev)


def pci_bus_add_device(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/bus.c. Kept: configuration saved (v6.19+), ``match_driver`` on, offered to the drivers.

    Up to v3.8 this is where the device is registered. Left out: other final fixups, sysfs, procfs.
    """
    _quirk_usb_early_handoff(k, dev)
    if k.has(changes.STATE_SAVED_AT_ADD):
        pci.pci_save_state(k, dev)
    dev.match_driver = True
    if k.has(changes.DEVICE_ADD_AT_SCAN):
        base_dd.device_attach(k, dev)
    else:
        base_core.device_add(k, dev)
    dev.is_added = True


def _quirk_usb_early_handoff(k: Kernel, dev: PciDev) -> None:
    """drivers/usb/host/pci-quirks.c, a final fixup. Kept: a USB controller is enabled and disabled again, which gives
    it its line and clears bus mastering. Left out: taking it over from firmware.
    """
    if dev.hw.class_code >> 8 == r.PCI_CLASS_SERIAL_USB and pci.pci_enable_device(k, dev) == 0:
        pci.pci_disable_device(k, dev)


# -- buses ---------------------------------------------------------------------------------------------------


def pci_scan(k: Kernel, bridge: PciDev | None = None) -> tuple[PciDev, ...]:
    """drivers/pci/probe.c, ``pci_scan_child_bus``. Kept: every function that answers, below a bridge or everywhere,
    gets a structure unless it has one; a bridge that lost its bus numbers gets them back first, so that what is below
    answers. Returns the new devices, which are not bound yet.

    Left out: bus numbers other than those of the description, resources beyond the BARs' old addresses, ARI.
    """
    found = []
    for fn in _functions(k, bridge):
        if fn.is_virtfn or pci_dev_of(k, str(fn.bdf)) is not None or not _answers(k, fn):
            continue
        dev = pci_alloc_dev(k, str(fn.bdf))
        pci_setup_device(k, dev)
        _assign_bus_numbers(k, dev)
        _assign_resources(k, dev)
        pci_device_add(k, dev)
        found.append(dev)
    return tuple(found)


def _functions(k: Kernel, bridge: PciDev | None) -> Iterator[Function]:
    below = None if bridge is None else set(bridge.hw.below())
    return (fn for fn in k.machine.functions.values() if below is None or fn in below)


def _answers(k: Kernel, fn: Function) -> bool:
    """Whether a scan finds the function: its bus is known, its slot has a function 0, and its vendor id reads."""
    if fn.upstream is not None and pci_dev_of(k, str(fn.upstream.bdf)) is None:
        return False
    first = k.machine.functions.get(str(fn.bdf._replace(function=0)))
    if first is not None and first is not fn and not first.reachable:
        return False
    return fn.read_config(r.PCI_VENDOR_ID, 4) not in (_NOTHING, 0)


def _assign_bus_numbers(k: Kernel, dev: PciDev) -> None:
    config = dev.hw.config
    if not dev.hw.is_bridge or pci_read_config(k, dev, r.PCI_SECONDARY_BUS, 1):
        return
    for _, offset in (*_BUS_NUMBERS, _LAST_BUS):
        pci_write_config(k, dev, offset, 1, config.static(offset, 1))


def _assign_resources(k: Kernel, dev: PciDev) -> None:
    for name, register in dev.hw.config.registers.items():
        if name.startswith("BASE_ADDRESS_") and pci_read_config(k, dev, register.offset, 4) != register.initial:
            pci_write_config(k, dev, register.offset, 4, register.initial)


def pci_bus_add_devices(k: Kernel, bridge: PciDev | None = None) -> None:
    """drivers/pci/bus.c. Kept: all devices that are not added yet, those of a bus before those below it."""
    for fn in _functions(k, bridge):
        dev = pci_dev_of(k, str(fn.bdf))
        if dev is not None and not dev.is_added:
            pci_bus_add_device(k, dev)


def pci_rescan_bus(k: Kernel, bridge: PciDev | None = None) -> None:
    """drivers/pci/probe.c. Kept: scan, then add. Left out: assigning resources anew."""
    pci_scan(k, bridge)
    pci_bus_add_devices(k, bridge)
