"""USB host controllers (drivers/usb/core/hcd-pci.c with xhci, ehci and uhci below it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from errno import EIO, ENODEV, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import changes, msi, pci
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine.function import Function

_RING = "schedule"
_VECTORS = 2


@dataclass(frozen=True, slots=True)
class UsbId(DeviceId):
    """A table entry that names the programming interface besides the class, as those of USB controllers do."""

    base_class: int | None = 0x0C
    sub_class: int | None = 0x03
    prog_if: int = 0x30

    def matches(self, function: Function) -> bool:
        """Whether class and programming interface fit."""
        return DeviceId.matches(self, function) and function.class_code & 0xFF == self.prog_if


class UsbHcd(PciDriver):
    """``usb_hcd_pci_probe`` and its kin. Kept: regions, bus mastering, a schedule in memory, the handler; shutdown
    frees the handler and disables the device.

    Left out: the USB bus, hand-over from the firmware, companion controllers, wake-up.
    """

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``usb_hcd_pci_probe``."""
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        error = pci.pci_request_regions(k, dev, self.name)
        if error:
            pci.pci_disable_device(k, dev)
            return error
        dev.drvdata[common.REGS] = True
        pci.pci_set_master(k, dev)
        error = self._add_hcd(k, dev)
        if error:
            self._release(k, dev)
        return error

    def _add_hcd(self, k: Kernel, dev: PciDev) -> int:
        """``usb_add_hcd``."""
        if not k.alloc("usb_hcd"):
            return -ENOMEM
        common.stop_device(k, dev)
        if not common.alloc_ring(k, dev, _RING):
            return -ENOMEM
        error = self._request(k, dev)
        if error:
            common.free_ring(k, dev, _RING)
            return error
        if common.start_device(k, dev):
            return 0
        self._stop(k, dev)
        return -EIO

    def _request(self, k: Kernel, dev: PciDev) -> int:
        """Vectors and the handlers on them."""
        if not self._allocate(k, dev):
            return -ENODEV
        error = common.request_vectors(k, dev, f"{self.name}.interrupt", self._names(k))
        if error:
            msi.pci_free_irq_vectors(k, dev)
        return error

    def _allocate(self, k: Kernel, dev: PciDev) -> bool:
        return msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("intx",)) > 0

    def _names(self, k: Kernel) -> tuple[str, ...]:
        return (self.name,)

    def _stop(self, k: Kernel, dev: PciDev) -> None:
        """``usb_remove_hcd``."""
        common.stop_device(k, dev)
        common.free_vectors(k, dev)
        msi.pci_free_irq_vectors(k, dev)
        common.free_ring(k, dev, _RING)

    def _release(self, k: Kernel, dev: PciDev) -> None:
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)
        pci.pci_disable_device(k, dev)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``usb_hcd_pci_remove``."""
        self._stop(k, dev)
        self._release(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``usb_hcd_pci_shutdown``: halted, the handler freed, the device disabled."""
        common.stop_device(k, dev)
        common.free_vectors(k, dev)
        msi.pci_free_irq_vectors(k, dev)
        pci.pci_disable_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``suspend_common``: halted; vectors stay."""
        common.stop_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``resume_common``."""
        pci.pci_set_master(k, dev)
        ring = dev.drvdata.get(_RING)
        if ring is not None:
            common.give_to_device(dev, ring)
        return 0 if common.start_device(k, dev) else -EIO

    def handlers(self) -> Mapping[str, IrqHandler]:
        """``usb_hcd_irq``."""
        return {f"{self.name}.interrupt": lambda k, irq, dev: common.service(k, dev, self.name, "usb_hcd_irq")}


class XhciHcd(UsbHcd):
    """drivers/usb/host/xhci-pci.c. Kept: a vector for each of one CPU and one more by MSI-X, else MSI, else the line; a
    handler on every vector, later on the first one only.
    """

    name = "xhci_hcd"
    ids = (UsbId(prog_if=0x30),)

    def _allocate(self, k: Kernel, dev: PciDev) -> bool:
        """``xhci_try_enable_msi``."""
        wanted = (_VECTORS, ("msix",)), (1, ("msi", "intx"))
        return any(msi.pci_alloc_irq_vectors(k, dev, count, count, kinds) > 0 for count, kinds in wanted)

    def _names(self, k: Kernel) -> tuple[str, ...]:
        return (self.name,) * (1 if k.has(changes.XHCI_ONE_HANDLER) else _VECTORS)


class EhciPci(UsbHcd):
    """drivers/usb/host/ehci-pci.c. Left out: that it can use MSI since v5.10."""

    name = "ehci-pci"
    ids = (UsbId(prog_if=0x20),)


class UhciHcd(UsbHcd):
    """drivers/usb/host/uhci-pci.c."""

    name = "uhci_hcd"
    ids = (UsbId(prog_if=0x00),)
