"""Intel Ethernet (drivers/net/ethernet/intel/e1000e/netdev.c): an unmanaged driver with its own shutdown."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO, ENOMEM
from typing import ClassVar

from quiesce.drivers import common
from quiesce.kernel import aer, iov, msi, pci
from quiesce.kernel.driver import DeviceId, Operation, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PciDev

_RINGS = ("tx ring", "rx ring")
_UP = "up"
_RTNL = "rtnl_mutex"


class E1000e(PciDriver):
    """Kept: goto unwinding in probe, MSI-X or MSI or INTx, rings and handlers only while the interface is up,
    ``shutdown`` that frees them and clears bus mastering. The interface comes up at the end of probe, as user space
    does at once.

    Left out: workqueues, wake-up, the PHY, AMT.
    """

    name = "e1000e"
    ids: ClassVar[tuple[DeviceId, ...]] = (DeviceId(vendor=0x8086, base_class=0x02, sub_class=0x00),)
    error_handlers = True

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``e1000_probe``."""
        error = pci.pci_enable_device_mem(k, dev)
        if error:
            return error
        error = pci.pci_request_regions(k, dev, self.name)
        if error:
            pci.pci_disable_device(k, dev)
            return error
        pci.pci_set_master(k, dev)
        pci.pci_save_state(k, dev)
        if not k.alloc("net_device"):
            self._release(k, dev)
            return -ENOMEM
        dev.drvdata[common.REGS] = True
        self._set_interrupt_capability(k, dev)
        if not common.answers(dev):
            self._reset_interrupt_capability(k, dev)
            self._release(k, dev)
            return -EIO
        common.stop_device(k, dev)
        dev.drvdata[common.READY] = True
        self._open(k, dev)
        return 0

    def _release(self, k: Kernel, dev: PciDev) -> None:
        pci.pci_release_regions(k, dev)
        pci.pci_disable_device(k, dev)

    def _set_interrupt_capability(self, k: Kernel, dev: PciDev) -> None:
        """Three MSI-X vectors, or MSI, or the line."""
        if msi.pci_enable_msix(k, dev, 3) != 0:
            msi.pci_enable_msi(k, dev)

    def _reset_interrupt_capability(self, k: Kernel, dev: PciDev) -> None:
        if dev.msix_enabled:
            msi.pci_disable_msix(k, dev)
        elif dev.msi_enabled:
            msi.pci_disable_msi(k, dev)

    def _open(self, k: Kernel, dev: PciDev) -> int:
        """``e1000e_open``: rings, handlers, then the device runs."""
        with k.mutex(_RTNL):
            return self._up(k, dev)

    def _up(self, k: Kernel, dev: PciDev) -> int:
        if not all(common.alloc_ring(k, dev, ring) for ring in _RINGS):
            self._free_rings(k, dev)
            return -ENOMEM
        error = self._request_irq(k, dev)
        if error:
            common.stop_device(k, dev)
            self._free_rings(k, dev)
            return error
        dev.drvdata[_UP] = True
        common.start_device(k, dev)
        return 0

    def _request_irq(self, k: Kernel, dev: PciDev) -> int:
        """``e1000_request_irq``: what cannot be had falls back from MSI-X to MSI to the line."""
        names = ("eth0-rx-0", "eth0-tx-0", "eth0")
        error = common.request_vectors(k, dev, f"{self.name}.interrupt", names)
        if error and dev.msix_enabled:
            msi.pci_disable_msix(k, dev)
            msi.pci_enable_msi(k, dev)
            error = common.request_vectors(k, dev, f"{self.name}.interrupt", names[2:])
        if error and dev.msi_enabled:
            msi.pci_disable_msi(k, dev)
            error = common.request_vectors(k, dev, f"{self.name}.interrupt", names[2:])
        return error

    def _close(self, k: Kernel, dev: PciDev) -> int:
        """``e1000e_close``: the device stops before its handlers and rings go."""
        with k.mutex(_RTNL):
            common.stop_device(k, dev)
            common.free_vectors(k, dev)
            self._free_rings(k, dev)
            dev.drvdata[_UP] = False
        return 0

    def _free_rings(self, k: Kernel, dev: PciDev) -> None:
        for ring in _RINGS:
            common.free_ring(k, dev, ring)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``e1000_remove``."""
        if dev.drvdata.get(_UP):
            self._close(k, dev)
        del dev.drvdata[common.READY]
        self._reset_interrupt_capability(k, dev)
        del dev.drvdata[common.REGS]
        self._release(k, dev)

    def _freeze(self, k: Kernel, dev: PciDev) -> None:
        """``e1000e_pm_freeze``: the rings stay allocated."""
        with k.mutex(_RTNL):
            if dev.drvdata.get(_UP):
                common.stop_device(k, dev)
                common.free_vectors(k, dev)
            self._reset_interrupt_capability(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``e1000_shutdown``."""
        self._freeze(k, dev)
        pci.pci_clear_master(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``e1000e_pm_suspend``."""
        self._freeze(k, dev)
        pci.pci_clear_master(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``e1000e_pm_resume`` and ``e1000e_pm_thaw``."""
        pci.pci_set_master(k, dev)
        return self._thaw(k, dev)

    def _thaw(self, k: Kernel, dev: PciDev) -> int:
        self._set_interrupt_capability(k, dev)
        if not dev.drvdata.get(_UP):
            return 0
        error = self._request_irq(k, dev)
        if error:
            return error
        for ring in _RINGS:
            common.give_to_device(dev, dev.drvdata[ring])
        return 0 if common.start_device(k, dev) else -EIO

    def error_detected(self, k: Kernel, dev: PciDev, state: str) -> str:
        """``e1000_io_error_detected``."""
        self._freeze(k, dev)
        if state == aer.PERM_FAILURE:
            return aer.DISCONNECT
        pci.pci_disable_device(k, dev)
        return aer.NEED_RESET

    def slot_reset(self, k: Kernel, dev: PciDev) -> str:
        """``e1000_io_slot_reset``: what was saved at probe is restored once more."""
        if pci.pci_enable_device_mem(k, dev):
            return aer.DISCONNECT
        dev.state_saved = True
        pci.pci_restore_state(k, dev)
        pci.pci_set_master(k, dev)
        return aer.RECOVERED

    def resume_after_error(self, k: Kernel, dev: PciDev) -> None:
        """``e1000_io_resume``."""
        self._thaw(k, dev)

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One handler stands for those of the three vectors."""
        return {f"{self.name}.interrupt": lambda k, irq, dev: common.service(k, dev, self.name, "e1000_intr")}

    def operations(self) -> tuple[Operation, ...]:
        """``net-down`` and ``net-up``: what ``ip link set`` does."""
        return (
            common.operation(
                "net-down",
                lambda k, dev: common.reachable(dev, self.name) and bool(dev.drvdata.get(_UP)),
                self._close,
                "the interface is taken down",
            ),
            common.operation(
                "net-up",
                lambda k, dev: common.reachable(dev, self.name) and not dev.drvdata.get(_UP),
                self._open,
                "the interface is brought up",
            ),
        )


class Igb(E1000e):
    """drivers/net/ethernet/intel/igb/igb_main.c. Kept: as e1000e, and virtual functions on demand, off at remove.

    Left out: queues per CPU, virtual functions that a guest has.
    """

    name = "igb"
    ids = tuple(DeviceId(vendor=0x8086, device=device) for device in (0x10C9, 0x10E8, 0x1521, 0x1533))

    def sriov_configure(self, k: Kernel, dev: PciDev, num_vfs: int) -> int:
        """``igb_pci_sriov_configure``."""
        if num_vfs == 0:
            iov.pci_disable_sriov(k, dev)
            return 0
        return iov.pci_enable_sriov(k, dev, num_vfs) or num_vfs

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``igb_remove``: the virtual functions go first."""
        iov.pci_disable_sriov(k, dev)
        super().remove(k, dev)


class Igbvf(E1000e):
    """drivers/net/ethernet/intel/igbvf/netdev.c, for the virtual functions of igb. Left out: the mailbox."""

    name = "igbvf"
    ids = tuple(DeviceId(vendor=0x8086, device=device) for device in (0x10CA, 0x1520))
