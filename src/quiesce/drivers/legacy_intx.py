"""Generic drivers on the interrupt line that switch INTx themselves: one unmanaged, two managed.

The unmanaged shape is that of drivers/misc/tifm_7xx1.c. The managed one, where devres and the driver both want the
last word about INTx, is what the v6.11 regression of ``pci_intx`` was about.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENOMEM

from quiesce.drivers import common
from quiesce.kernel import devres, irq, pci, pci_devres
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev


class LegacyIntx(PciDriver):
    """Kept: unmanaged; remove stops the device, frees the handler, disables INTx, and gives everything back."""

    name = "legacy-intx"
    ids = (DeviceId(override_only=True),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """Enable, regions, handler, start."""
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        error = pci.pci_request_regions(k, dev, self.name)
        if error:
            pci.pci_disable_device(k, dev)
            return error
        error = self._start(k, dev)
        if error:
            pci.pci_release_regions(k, dev)
            pci.pci_disable_device(k, dev)
        return error

    def _start(self, k: Kernel, dev: PciDev) -> int:
        if not k.alloc("legacy_priv"):
            return -ENOMEM
        dev.drvdata[common.REGS] = True
        pci.pci_set_master(k, dev)
        pci.pci_intx(k, dev, True)
        error = irq.request_irq(k, dev.irq, IrqAction(self.name, "legacy-intx.interrupt", dev, shared=True))
        if error:
            pci.pci_intx(k, dev, False)
            return error
        common.start_device(k, dev)
        return 0

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """The reverse of probe, with INTx disabled in between."""
        common.stop_device(k, dev)
        irq.free_irq(k, dev.irq, dev)
        pci.pci_intx(k, dev, False)
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)
        pci.pci_disable_device(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """The device stops; its handler stays."""
        common.stop_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """The device stops."""
        common.stop_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """The device runs again."""
        pci.pci_set_master(k, dev)
        common.start_device(k, dev)
        return 0

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One handler."""
        key = f"{self.name}.interrupt"
        return {key: lambda k, irq, dev: common.service(k, dev, self.name, "legacy_interrupt")}


class ManagedIntx(LegacyIntx):
    """Kept: enabled and mapped by ``pcim_`` functions, a managed handler, and a remove that disables INTx."""

    name = "managed-intx"

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """Every failure only returns."""
        error = pci_devres.pcim_enable_device(k, dev)
        if error:
            return error
        error = pci_devres.pcim_iomap_regions(k, dev, common.memory_bar(dev), self.name)
        if error:
            return error
        dev.drvdata[common.REGS] = True
        pci.pci_set_master(k, dev)
        self._prepare(k, dev)
        common.managed_intx(k, dev, True)
        action = IrqAction(self.name, f"{self.name}.interrupt", dev, shared=True)
        error = devres.devm_request_irq(k, dev, dev.irq, action)
        if error:
            return error
        common.start_device(k, dev)
        return 0

    def _prepare(self, k: Kernel, dev: PciDev) -> None:
        """What comes before INTx is enabled: nothing."""

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """The device stops and INTx is disabled; devres releases the rest, and has its own idea of INTx."""
        common.stop_device(k, dev)
        common.managed_intx(k, dev, False)


class ManagedToggle(ManagedIntx):
    """Kept: disables INTx before it sets up and enables it then; remove leaves INTx to devres, which in v6.11 to v6.13
    takes the opposite of the last call for what the driver found.
    """

    name = "managed-toggle"

    def _prepare(self, k: Kernel, dev: PciDev) -> None:
        common.managed_intx(k, dev, False)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """The device stops."""
        common.stop_device(k, dev)
