"""The driver that does nothing (drivers/pci/pci-stub.c)."""

from __future__ import annotations

from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev


class PciStub(PciDriver):
    """Kept: holds a device so that no other driver does; does not use its DMA domain (v5.19+). Left out: the ``ids``
    parameter; it takes a device that driver_override gives it.
    """

    name = "pci-stub"
    ids = (DeviceId(override_only=True),)
    driver_managed_dma = True
    has_pm_ops = False

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``pci_stub_probe``."""
        k.printk("info", f"pci-stub {dev.bdf}: claimed by stub")
        return 0
