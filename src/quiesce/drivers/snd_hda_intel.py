"""HD audio (sound/pci/hda/hda_intel.c): one MSI vector, or a line shared with whoever else is on it."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EBUSY, EIO, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import irq, msi, pci
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev

_RING = "corb and rirb"


class SndHdaIntel(PciDriver):
    """Kept: MSI if the device has it, else the shared line, told to the device by ``pci_intx``; shutdown stops the chip
    only; suspend gives handler and MSI back.

    Left out: that it is managed since v5.15, codecs, the list of machines on which MSI does not work, runtime PM.
    """

    name = "snd_hda_intel"
    ids = (DeviceId(base_class=0x04, sub_class=0x03),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``azx_probe``, ``azx_create``, ``azx_first_init``; every failure goes through ``azx_free``."""
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        if not k.alloc("azx"):
            pci.pci_disable_device(k, dev)
            return -ENOMEM
        error = pci.pci_request_regions(k, dev, "ICH HD audio")
        if error:
            pci.pci_disable_device(k, dev)
            return error
        dev.drvdata[common.REGS] = True
        error = self._first_init(k, dev)
        if error:
            self._free(k, dev)
        return error

    def _first_init(self, k: Kernel, dev: PciDev) -> int:
        common.stop_device(k, dev)
        msi.pci_enable_msi(k, dev)
        if self._acquire_irq(k, dev) != 0:
            return -EBUSY
        pci.pci_set_master(k, dev)
        if not common.alloc_ring(k, dev, _RING):
            return -ENOMEM
        return 0 if common.start_device(k, dev) else -EIO

    def _acquire_irq(self, k: Kernel, dev: PciDev) -> int:
        """``azx_acquire_irq``."""
        action = IrqAction(self.name, "snd_hda_intel.interrupt", dev, shared=not dev.msi_enabled)
        error = irq.request_irq(k, dev.irq, action)
        if error:
            k.printk("err", f"snd_hda_intel {dev.bdf}: unable to grab IRQ {dev.irq}, disabling device")
            return error
        dev.drvdata[common.VECTORS] = (dev.irq,)
        pci.pci_intx(k, dev, not dev.msi_enabled)
        return 0

    def _release_irq(self, k: Kernel, dev: PciDev) -> None:
        common.free_vectors(k, dev)
        if dev.msi_enabled:
            msi.pci_disable_msi(k, dev)

    def _free(self, k: Kernel, dev: PciDev) -> None:
        """``azx_free``."""
        common.stop_device(k, dev)
        self._release_irq(k, dev)
        common.free_ring(k, dev, _RING)
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)
        pci.pci_disable_device(k, dev)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``azx_remove``."""
        self._free(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``azx_shutdown``: the chip stops, nothing is given back."""
        common.stop_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``azx_suspend``."""
        common.stop_device(k, dev)
        self._release_irq(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``azx_resume``."""
        msi.pci_enable_msi(k, dev)
        if self._acquire_irq(k, dev) != 0:
            return -EIO
        ring = dev.drvdata.get(_RING)
        if ring is not None:
            common.give_to_device(dev, ring)
        return 0 if common.start_device(k, dev) else -EIO

    def handlers(self) -> Mapping[str, IrqHandler]:
        """``azx_interrupt``."""
        return {"snd_hda_intel.interrupt": lambda k, irq, dev: common.service(k, dev, self.name, "azx_interrupt")}
