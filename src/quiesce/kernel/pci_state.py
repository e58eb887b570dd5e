"""Saving and restoring configuration space (drivers/pci/pci.c)."""

from __future__ import annotations

from quiesce.kernel import changes
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_read_config, pci_write_config
from quiesce.machine import pci_regs as r

SavedState = tuple[tuple[str, int], ...]
"""Register names with their values, as ``PciDev.saved_config`` holds them."""


def pci_save_state(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: the header, the PCI Express and PCI-X controls as they are now, all ones included.

    Left out: LTR, DPC, PTM, VC and error reporting registers.
    """
    config = dev.hw.config
    registers = (config.registers[name] for name in config.saved_registers())
    dev.saved_config = tuple((item.name, pci_read_config(k, dev, item.offset, item.size)) for item in registers)
    dev.state_saved = True
    return 0


def pci_restore_state(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: nothing happens when nothing was saved (v6.19+: always restored, from what was saved
    last); PCI Express controls, then the header from its end to its start, so that the BARs come before COMMAND, then
    PCI-X, then **MSI**, then ACS and SR-IOV.

    Left out: PASID, PRI, ATS, VC, resizable BARs, DPC, PTM and error reporting.
    """
    from quiesce.kernel import iov, msi  # both enable and disable devices, and that needs what is here

    if not dev.state_saved and not k.has(changes.STATE_SAVED_AT_ADD):
        return
    saved = dict(dev.saved_config)
    _restore(k, dev, saved, [name for name in saved if name.startswith("EXP_")])
    header = [name for name in saved if _offset(dev, name) < r.PCI_STD_HEADER_SIZEOF]
    _restore(k, dev, saved, sorted(header, key=lambda name: -_offset(dev, name)))
    _restore(k, dev, saved, [name for name in saved if name.startswith("X_")])
    msi.pci_restore_msi_state(k, dev)
    _restore(k, dev, saved, [name for name in saved if name.startswith("ACS_")])
    iov.pci_restore_iov_state(k, dev)
    dev.state_saved = False


def _offset(dev: PciDev, name: str) -> int:
    return dev.hw.config.registers[name].offset


def _restore(k: Kernel, dev: PciDev, saved: dict[str, int], names: list[str]) -> None:
    for name in names:
        register = dev.hw.config.registers[name]
        if pci_read_config(k, dev, register.offset, register.size) != saved[name]:
            pci_write_config(k, dev, register.offset, register.size, saved[name])


def pci_store_saved_state(dev: PciDev) -> SavedState | None:
    """drivers/pci/pci.c. Kept: a copy of what was saved, None when nothing is."""
    return dev.saved_config if dev.state_saved else None


def pci_load_saved_state(dev: PciDev, state: SavedState | None) -> int:
    """drivers/pci/pci.c. Kept: puts a copy in the place of what is saved; None leaves nothing to restore."""
    dev.state_saved = state is not None
    if state is not None:
        dev.saved_config = state
    return 0
