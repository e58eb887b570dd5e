"""Intel SMBus (drivers/i2c/busses/i2c-i801.c): managed, pinned, and nearly always on a shared line."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import devres, pci, pci_devres
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IRQ_NONE, IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import pci_regs as r


class I2cI801(PciDriver):
    """Kept: managed but pinned, so that the device stays enabled after unbind (some firmware uses it); the shared
    handler looks at STATUS.INTERRUPT first; without an interrupt it polls.

    Left out: transfers, host notify, the ACPI conflict check.
    """

    name = "i2c_i801"
    ids = (DeviceId(vendor=0x8086, base_class=0x0C, sub_class=0x05),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``i801_probe``."""
        if not k.alloc("i801_priv"):
            return -ENOMEM
        error = pci_devres.pcim_enable_device(k, dev)
        if error:
            return error
        pci_devres.pcim_pin_device(k, dev)
        error = pci_devres.pcim_iomap_regions(k, dev, common.memory_bar(dev, 4), self.name)
        if error:
            return error
        dev.drvdata[common.REGS] = True
        if not common.answers(dev):
            return -EIO
        common.stop_device(k, dev)
        action = IrqAction("i801_smbus", "i2c_i801.interrupt", dev, shared=True)
        if dev.irq and devres.devm_request_irq(k, dev, dev.irq, action) == 0:
            common.start_device(k, dev)
        return 0

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``i801_remove``."""
        common.stop_device(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``i801_shutdown``: the host configuration is put back. Left out: kernels up to v4.17 had none."""
        common.stop_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``i801_suspend``."""
        common.stop_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``i801_resume``."""
        if any(node.kind == devres.IRQ for node in dev.devres):
            common.start_device(k, dev)
        return 0

    def handlers(self) -> Mapping[str, IrqHandler]:
        """``i801_isr``."""
        return {"i2c_i801.interrupt": self._interrupt}

    def _interrupt(self, k: Kernel, line: int, dev: PciDev) -> str:
        if not pci.pci_read_config(k, dev, r.PCI_STATUS, 2) & r.PCI_STATUS_INTERRUPT:
            return IRQ_NONE
        return common.service(k, dev, self.name, "i801_isr")
