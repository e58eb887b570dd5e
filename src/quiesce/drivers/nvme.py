"""NVMe controllers (drivers/nvme/host/pci.c)."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENODEV, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import msi, pci
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PciDev

_QUEUES = ("admin queue", "io queue")


class Nvme(PciDriver):
    """Kept: an admin and an I/O queue in coherent memory, MSI-X or MSI or INTx, the controller disabled at remove,
    shutdown and suspend, regions released last.

    Left out: the reset work (probe does all of it), namespaces, the vectors being given back between the admin queue
    and the I/O queues, host memory buffers, suspend that keeps the power state.
    """

    name = "nvme"
    ids = (DeviceId(base_class=0x01, sub_class=0x08),)
    error_handlers = True

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``nvme_probe``."""
        if not k.alloc("nvme_dev"):
            return -ENOMEM
        error = pci.pci_request_regions(k, dev, self.name)
        if error:
            return -ENODEV
        dev.drvdata[common.REGS] = True
        error = self._enable(k, dev)
        if error:
            pci.pci_release_regions(k, dev)
        return error

    def _enable(self, k: Kernel, dev: PciDev) -> int:
        """``nvme_pci_enable`` and the queues."""
        error = pci.pci_enable_device_mem(k, dev)
        if error:
            return error
        pci.pci_set_master(k, dev)
        if not common.answers(dev):
            pci.pci_disable_device(k, dev)
            return -ENODEV
        common.stop_device(k, dev)
        if msi.pci_alloc_irq_vectors(k, dev, 1, len(_QUEUES), ("msix", "msi", "intx")) < 0:
            pci.pci_disable_device(k, dev)
            return -ENODEV
        pci.pci_save_state(k, dev)
        error = self._create_queues(k, dev)
        if error:
            self._disable(k, dev)
        return error

    def _create_queues(self, k: Kernel, dev: PciDev) -> int:
        if not all(dev.drvdata.get(queue) or common.alloc_ring(k, dev, queue) for queue in _QUEUES):
            return -ENOMEM
        error = common.request_vectors(k, dev, "nvme.interrupt", ("nvme0q0", "nvme0q1"))
        if error:
            return error
        common.start_device(k, dev)
        return 0

    def _disable(self, k: Kernel, dev: PciDev) -> None:
        """``nvme_dev_disable``: the controller stops, handlers and vectors go, the device is disabled."""
        common.stop_device(k, dev)
        common.free_vectors(k, dev)
        msi.pci_free_irq_vectors(k, dev)
        for queue in _QUEUES:
            common.free_ring(k, dev, queue)
        if dev.enable_cnt:
            pci.pci_disable_device(k, dev)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``nvme_remove``."""
        self._disable(k, dev)
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``nvme_shutdown``."""
        self._disable(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``nvme_suspend``, the simple way."""
        self._disable(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``nvme_resume``: a controller reset. Left out: its failure removes the driver's disk, not the binding."""
        return self._enable(k, dev)

    def reset_prepare(self, k: Kernel, dev: PciDev) -> None:
        """``nvme_reset_prepare``."""
        self._disable(k, dev)

    def reset_done(self, k: Kernel, dev: PciDev) -> None:
        """``nvme_reset_done``: a controller reset."""
        self._enable(k, dev)

    def handlers(self) -> Mapping[str, IrqHandler]:
        """The handler of every queue."""
        return {"nvme.interrupt": lambda k, irq, dev: common.service(k, dev, self.name, "nvme_irq")}
