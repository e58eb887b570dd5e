"""Xen's PCI back end (drivers/xen/xen-pciback/pci_stub.c): offered every device, takes those that are hidden for
guests.
"""

from __future__ import annotations

from errno import ENODEV, ENOMEM

from quiesce.kernel import pci, pci_reset
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import pci_regs as r


class PciBack(PciDriver):
    """Kept: its table matches everything; a device is seized when driver_override names it, otherwise -ENODEV; seizing
    enables, saves, resets and disables the device.

    Left out: the ``hide`` parameter, all of Xen, Xen's own bookkeeping of the device.
    """

    name = "pciback"
    ids = (DeviceId(),)
    has_pm_ops = False
    error_handlers = True

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``pcistub_probe``, ``pcistub_seize``, ``pcistub_init_device``."""
        if dev.driver_override != self.name or dev.hw.header_type == r.PCI_HEADER_TYPE_CARDBUS:
            return -ENODEV
        if not k.alloc("pcistub_device"):
            return -ENOMEM
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        pci.pci_save_state(k, dev)
        dev.drvdata["saved_state"] = pci.pci_store_saved_state(dev)
        pci_reset.pci_reset_function_locked(k, dev)
        pci.pci_restore_state(k, dev)
        self._reset_device(k, dev)
        return 0

    def _reset_device(self, k: Kernel, dev: PciDev) -> None:
        """``xen_pcibk_reset_device``."""
        pci.pci_disable_device(k, dev)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``pcistub_remove`` and the release: the state found at probe is put back."""
        pci_reset.pci_reset_function_locked(k, dev)
        pci.pci_load_saved_state(dev, dev.drvdata.get("saved_state"))
        pci.pci_restore_state(k, dev)
