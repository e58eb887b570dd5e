"""A driver with a handler on its line and another one on its message."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO

from quiesce.drivers import common
from quiesce.kernel import irq, msi, pci
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import IRQ_HANDLED, IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev

_LINE = "line"


class MsiAndLine(PciDriver):
    """Kept: the line's handler is registered first and stays when MSI is switched on, for the case that messages do not
    arrive; no shutdown callback. While the message's handler runs, other CPUs go on.
    """

    name = "msi-and-line"

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """Line, then message."""
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        dev.drvdata[common.REGS] = True
        dev.drvdata[_LINE] = dev.irq
        error = irq.request_irq(k, dev.irq, IrqAction("line", "msi-and-line.line", dev, shared=True))
        if not error:
            error = self._start(k, dev)
            if error:
                irq.free_irq(k, dev.drvdata[_LINE], dev)
        if error:
            pci.pci_disable_device(k, dev)
        return error

    def _start(self, k: Kernel, dev: PciDev) -> int:
        error = msi.pci_enable_msi(k, dev)
        if error:
            return error
        error = irq.request_irq(k, dev.irq, IrqAction("message", "msi-and-line.message", dev))
        if not error:
            pci.pci_set_master(k, dev)
            if common.start_device(k, dev):
                return 0
            irq.free_irq(k, dev.irq, dev)
            error = -EIO
        msi.pci_disable_msi(k, dev)
        return error

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """In reverse."""
        common.stop_device(k, dev)
        irq.free_irq(k, dev.irq, dev)
        msi.pci_disable_msi(k, dev)
        irq.free_irq(k, dev.drvdata[_LINE], dev)
        pci.pci_disable_device(k, dev)
        del dev.drvdata[common.REGS]

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One for each way to interrupt."""
        return {
            "msi-and-line.line": lambda k, irq, dev: common.service(k, dev, self.name, "line_handler"),
            "msi-and-line.message": self._message,
        }

    def _message(self, k: Kernel, line: int, dev: PciDev) -> str:
        """The device is satisfied only at the end."""
        k.window(f"message handler of {dev.bdf}", other_cpu=True)
        common.service(k, dev, self.name, "message_handler")
        return IRQ_HANDLED
