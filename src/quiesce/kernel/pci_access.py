"""Configuration space of a device as the kernel sees it, and who is above it (drivers/pci/access.c, pci.c)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from quiesce.kernel import changes
from quiesce.kernel.group_view import DeviceView, KernelView
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import BusSlot, PciDev
from quiesce.machine import pci_regs as r

INSTANCES = 3
"""How many structures of one slot are looked at: the present one and earlier ones that something still holds."""
PCI_HEADER_BARS = {r.PCI_HEADER_TYPE_NORMAL: 6, r.PCI_HEADER_TYPE_BRIDGE: 2}


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


def pci_read_command(k: Kernel, dev: PciDev) -> int:
    """Return the COMMAND register."""
    return pci_read_config(k, dev, r.PCI_COMMAND, 2)


def pci_change_command(k: Kernel, dev: PciDev, *, set: int = 0, clear: int = 0) -> bool:  # noqa: A002
    """Change bits of COMMAND and say whether that took a write."""
    old = pci_read_command(k, dev)
    new = old & ~clear | set
    if new == old:
        return False
    pci_write_config(k, dev, r.PCI_COMMAND, 2, new)
    return True


def pci_device_is_present(k: Kernel, dev: PciDev) -> bool:
    """drivers/pci/pci.c. Kept: the vendor id is read; a device marked as disconnected is not asked; a virtual function
    is judged by its physical function (v6.2+; before, its own id of ffff made it look gone).
    """
    if dev.is_virtfn and k.has(changes.VF_PRESENCE_BY_PF) and dev.physfn is not None:
        dev = dev.physfn
    vendor = pci_read_config(k, dev, r.PCI_VENDOR_ID, 2)
    return vendor not in (0x0000, 0xFFFF)


def pci_dev_of(k: Kernel, bdf: str) -> PciDev | None:
    """Return the device on the bus lists with an address (``pci_get_domain_bus_and_slot``, no reference taken)."""
    return BusSlot.get(k.world, f"bus/{bdf}").dev


_Device = TypeVar("_Device", bound=DeviceView)


def upstream_bridge(k: KernelView, dev: _Device) -> _Device | None:
    """include/linux/pci.h, ``pci_upstream_bridge``. Kept: the bridge that leads to the device's bus, None on a root
    bus; a virtual function has the bridge of its physical function.
    """
    if dev.is_virtfn and dev.physfn is not None:
        dev = dev.physfn
    above = dev.hw.upstream
    return None if above is None else k.dev_at(above.bdf)


def pci_bars(dev: PciDev) -> tuple[tuple[int, str], ...]:
    """Return the BARs that decode something, each ``io`` or ``mem``; the upper half of a 64-bit BAR is none.

    They come from the addresses that firmware assigned; a BAR without an address is none.
    """
    hw = dev.hw
    found: list[tuple[int, str]] = []
    number = 0
    while number < PCI_HEADER_BARS.get(hw.header_type, 0):
        value = hw.config.static(r.PCI_BASE_ADDRESS_0 + 4 * number, 4)
        is_io = value & r.PCI_BASE_ADDRESS_SPACE_IO
        wide = not is_io and value & 0x6 == 0x4
        if value or (wide and hw.config.static(r.PCI_BASE_ADDRESS_0 + 4 * number + 4, 4)):
            found.append((number, "io" if is_io else "mem"))
        number += 2 if wide else 1
    return tuple(found)


def instances(k: Kernel, bdf: str) -> Iterator[PciDev]:
    """Yield every living structure made for a slot: the present device's, and those of removed ones that something
    still holds."""
    for number in range(1, INSTANCES + 1):
        dev = PciDev.get(k.world, f"pci/{bdf}" if number == 1 else f"pci/{bdf}~{number}")
        if dev.exists:
            yield dev
