"""AHCI host controllers (drivers/ata/ahci.c, libahci.c, libata-core.c): a managed driver."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO, ENODEV, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import changes, devres, msi, pci, pci_devres
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev

_ABAR = 5


class Ahci(PciDriver):
    """Kept: all resources managed, MSI or MSI-X or INTx with one vector, one DMA buffer for all ports, ``shutdown``
    that freezes the ports (v5.6+). Left out: a vector per port, error handling, link power management, runtime PM,
    quirks.
    """

    name = "ahci"
    ids = (DeviceId(base_class=0x01, sub_class=0x06),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``ahci_init_one``; every failure only returns, because devres takes everything back."""
        error = pci_devres.pcim_enable_device(k, dev)
        if error:
            return error
        error = pci_devres.pcim_iomap_regions(k, dev, common.memory_bar(dev, _ABAR), self.name)
        if error:
            return error
        if not k.alloc("ahci_host_priv"):
            return -ENOMEM
        dev.drvdata[common.REGS] = True
        if self._init_msi(k, dev) < 0:
            common.managed_intx(k, dev, True)
        if not common.answers(dev):
            return -EIO
        common.mask_device(k, dev)
        pci.pci_set_master(k, dev)
        return self._activate(k, dev)

    def _init_msi(self, k: Kernel, dev: PciDev) -> int:
        for kind in ("msi", "msix"):
            got = msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,))
            if got > 0:
                return got
        return -ENODEV

    def _activate(self, k: Kernel, dev: PciDev) -> int:
        """``ahci_host_activate``: buffers of the ports, the handler, then the ports start."""
        if not common.dmam_alloc_coherent(k, dev, "ahci ports"):
            return -ENOMEM
        line = msi.pci_irq_vector(k, dev, 0)
        if line <= 0:
            return -ENODEV
        action = IrqAction(f"ahci[{dev.bdf}]", "ahci.interrupt", dev, shared=True)
        error = devres.devm_request_irq(k, dev, line, action)
        if error:
            return error
        k.window("ahci: handler registered, ports not started")
        return 0 if common.start_device(k, dev) else -EIO

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``ata_pci_remove_one``: the ports are detached and stopped; devres does the rest."""
        common.stop_device(k, dev)

    def has_shutdown(self, k: Kernel) -> bool:
        """Since v5.6."""
        return k.has(changes.AHCI_SHUTDOWN)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``ata_pci_shutdown_one``: port interrupts off, DMA engines stopped; nothing is freed."""
        common.stop_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``ahci_pci_device_suspend``."""
        common.stop_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``ahci_pci_device_resume``: the controller is reset, its ports start again with the same buffers."""
        if not common.start_device(k, dev):
            return -EIO
        for node in dev.devres:
            if node.kind == common.DMAM:
                common.give_to_device(dev, node.data["mapping"])
        return 0

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One handler for all vectors."""
        return {"ahci.interrupt": lambda k, irq, dev: common.service(k, dev, self.name, "ahci_single_level_irq_intr")}
