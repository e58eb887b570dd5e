"""Configuration space of a device as the kernel sees it, and who is above it (drivers/pci/access.c, pci.c)."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.kernel import changes
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import BusSlot, PciDev
from quiesce.kernel.pci_config import pci_dev_is_disconnected as pci_dev_is_disconnected
from quiesce.kernel.pci_config import pci_read_config as pci_read_config
from quiesce.kernel.pci_config import pci_write_config as pci_write_config
from quiesce.kernel.pci_config import upstream_bridge as upstream_bridge
from quiesce.machine import pci_regs as r

INSTANCES = 3
"""How many structures of one slot are looked at: the present one and earlier ones that something still holds."""
PCI_HEADER_BARS = {r.PCI_HEADER_TYPE_NORMAL: 6, r.PCI_HEADER_TYPE_BRIDGE: 2}


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
