"""A GPU like Intel's (drivers/gpu/drm/i915): DMA mappings that live as long as somebody has the device open."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import dma, files, irq, msi, pci
from quiesce.kernel.base_core import get_device, put_device
from quiesce.kernel.dma import DmaMapping
from quiesce.kernel.driver import DeviceId, Operation, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.world import Field, State, StateList

_DRM = "drm"


class DrmDevice(State):
    """``struct drm_device`` with the driver's data; path ``drm/N``. It outlives the binding while files are open."""

    mortal = True
    dev: Field[PciDev | None] = Field(None)
    refs: Field[int] = Field(0)
    """The binding counts one, each open file one."""
    scratch: Field[DmaMapping | None] = Field(None)
    """The page that stands behind every unused entry of the graphics translation table."""
    buffers: StateList[DmaMapping] = StateList()
    unplugged: Field[bool] = Field(False)


class I915(PciDriver):
    """Kept: the scratch page mapped at probe (without it probe fails), a buffer mapped per open, all of it unmapped
    when the last reference goes, be that remove or, later, the last close; MSI if it can be had, else the line.

    Left out: all graphics, runtime PM, GuC, that buffers are freed one by one before.
    """

    name = "i915"
    ids = (DeviceId(base_class=0x03),)

    # -- binding ---------------------------------------------------------------------------------------------

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``i915_driver_probe``."""
        if not k.alloc("drm_device"):
            return -ENOMEM
        drm = DrmDevice.fresh(k.world, "drm", dev=dev, refs=1)
        get_device(k, dev, drm)
        dev.drvdata[_DRM] = drm
        error = pci.pci_enable_device(k, dev)
        if not error:
            dev.drvdata[common.REGS] = True
            error = self._probe_hw(k, dev, drm)
            if error:
                pci.pci_disable_device(k, dev)
        if error:
            self._put(k, drm)
        else:
            dev.drvdata[common.READY] = True
        return error

    def _probe_hw(self, k: Kernel, dev: PciDev, drm: DrmDevice) -> int:
        """``i915_driver_hw_probe`` and the parts of the load that can fail."""
        if not common.answers(dev):
            return -EIO
        common.stop_device(k, dev)
        pci.pci_set_master(k, dev)
        drm.scratch = dma.dma_map_single(k, dev, "scratch page")
        if drm.scratch is None:
            k.printk("err", f"i915 {dev.bdf}: Failed to setup scratch page")
            return -ENOMEM
        common.give_to_device(dev, drm.scratch)
        msi.pci_enable_msi(k, dev)
        error = irq.request_irq(k, dev.irq, IrqAction("i915", "i915.interrupt", dev, shared=True))
        if error:
            self._disable_msi(k, dev)
            return error
        common.start_device(k, dev)
        return 0

    def _disable_msi(self, k: Kernel, dev: PciDev) -> None:
        if dev.msi_enabled:
            msi.pci_disable_msi(k, dev)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``i915_driver_remove``: the hardware stops at once; mappings wait for the last reference."""
        drm: DrmDevice = dev.drvdata[_DRM]
        drm.unplugged = True
        del dev.drvdata[common.READY]
        common.stop_device(k, dev)
        irq.free_irq(k, dev.irq, dev)
        self._disable_msi(k, dev)
        pci.pci_disable_device(k, dev)
        del dev.drvdata[common.REGS]
        self._put(k, drm)

    def _put(self, k: Kernel, drm: DrmDevice) -> None:
        """``drm_dev_put``: the last one unmaps everything, whatever has become of the device."""
        drm.refs -= 1
        if drm.refs:
            return
        dev = drm.dev
        assert dev is not None
        for mapping in (*drm.buffers, *((drm.scratch,) if drm.scratch else ())):
            dma.dma_unmap_single(k, dev, mapping)
        drm.delete()
        put_device(k, dev, drm)

    # -- shutdown and sleep ----------------------------------------------------------------------------------

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``i915_driver_shutdown``: interrupts off and engines idle; MSI stays. Left out: kernels up to v5.9 had
        none.
        """
        common.stop_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``i915_pm_suspend``."""
        common.stop_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``i915_pm_resume``: the translation table is written again."""
        pci.pci_set_master(k, dev)
        if not common.start_device(k, dev):
            return -EIO
        drm: DrmDevice = dev.drvdata[_DRM]
        for mapping in (*((drm.scratch,) if drm.scratch else ()), *drm.buffers):
            common.give_to_device(dev, mapping)
        return 0

    def handlers(self) -> Mapping[str, IrqHandler]:
        """``gen8_irq_handler`` and its like."""
        return {"i915.interrupt": lambda k, irq, dev: common.service(k, dev, self.name, "gen8_irq_handler")}

    # -- user space ------------------------------------------------------------------------------------------

    def operations(self) -> tuple[Operation, ...]:
        """``gpu-open`` and ``gpu-close``."""
        return (
            common.operation("gpu-open", self._can_open, self._open, "a program opens the GPU and maps a buffer"),
            common.operation(
                "gpu-close",
                lambda k, dev: bool(files.files_of(k, dev, self.name)),
                self._close,
                "a program closes the GPU; the device may be long gone",
            ),
        )

    def _can_open(self, k: Kernel, dev: PciDev) -> bool:
        return common.reachable(dev, self.name) and not files.files_of(k, dev, self.name)

    def _open(self, k: Kernel, dev: PciDev) -> int:
        drm: DrmDevice = dev.drvdata[_DRM]
        mapping = dma.dma_map_single(k, dev, "buffer object")
        if mapping is None:
            return -ENOMEM
        drm.buffers.append(mapping)
        common.give_to_device(dev, mapping)
        drm.refs += 1
        files.open_file(k, dev, self.name, drm)
        return 0

    def _close(self, k: Kernel, dev: PciDev) -> int:
        """``drm_release``: as long as the device is there its buffers are unmapped at once."""
        file = files.files_of(k, dev, self.name)[0]
        drm: DrmDevice = file.private
        if not drm.unplugged:
            self._free_buffers(k, dev, drm)
        self._put(k, drm)
        files.close_file(k, file)
        return 0

    def _free_buffers(self, k: Kernel, dev: PciDev, drm: DrmDevice) -> None:
        for mapping in drm.buffers:
            take_from_device(dev, mapping)
            dma.dma_unmap_single(k, dev, mapping)
        drm.buffers.clear()


def take_from_device(dev: PciDev, mapping: DmaMapping) -> None:
    """Tell the device to write to a buffer no more."""
    if common.answers(dev):
        dev.hw.dma_target = tuple(iova for iova in dev.hw.dma_target if iova != mapping.iova)
