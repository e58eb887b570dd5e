"""virtio over PCI with a network device on it (drivers/virtio/virtio_pci_*.c, drivers/net/virtio_net.c)."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EBUSY, EIO, ENODEV, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import changes, irq, msi, pci
from quiesce.kernel.driver import DeviceId, Operation, PciDriver
from quiesce.kernel.kernel import IRQ_HANDLED, IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine.devices import Virtio

_QUEUES = ("virtio0-input.0", "virtio0-output.0")
_MSIX = "msix_enabled"
_BROKEN = "broken"


def device_config_offset(dev: PciDev) -> int:
    """include/uapi/linux/virtio_pci.h. Kept: where the driver takes the device registers of the legacy block to be, by
    its own memory of whether it enabled MSI-X; a modern device has them in a capability of their own.
    """
    behaviour = dev.hw.behaviour
    if not (isinstance(behaviour, Virtio) and behaviour.transitional):
        return 0
    return 24 if dev.drvdata.get(_MSIX) else 20


class VirtioPci(PciDriver):
    """Kept: vectors per queue, then two vectors, then the line; the cached ``msix_enabled``; no ``shutdown`` of its own
    (the bus breaks and resets since v6.15); the device marked broken when it was found gone at remove (v5.14+).

    Left out: feature negotiation, the admin queue, NAPI, a modern driver that waits for ever for its reset to be read
    back from a device that is gone.
    """

    name = "virtio-pci"
    ids = (DeviceId(vendor=0x1AF4),)

    # -- binding ---------------------------------------------------------------------------------------------

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``virtio_pci_probe``; that the network device on top cannot start does not undo it."""
        if not k.alloc("virtio_pci_device"):
            return -ENOMEM
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        if pci.pci_request_regions(k, dev, "virtio-pci") != 0:
            pci.pci_disable_device(k, dev)
            return -EBUSY
        if not common.answers(dev):
            pci.pci_release_regions(k, dev)
            pci.pci_disable_device(k, dev)
            return -ENODEV
        dev.drvdata[common.REGS] = True
        pci.pci_set_master(k, dev)
        self._reset(k, dev)
        self._start(k, dev)
        return 0

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``virtio_pci_remove``."""
        if not pci.pci_device_is_present(k, dev):
            self._device_is_gone(k, dev)
        self._stop_threads(dev)
        self._reset(k, dev)
        self._del_vqs(k, dev)
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)
        pci.pci_disable_device(k, dev)

    def _device_is_gone(self, k: Kernel, dev: PciDev) -> None:
        """Without being told that the device is broken, the network driver polls its control queue for an answer."""
        if k.has(changes.VIRTIO_BREAKS_ON_SURPRISE):
            dev.drvdata[_BROKEN] = True
        elif common.vectors(dev):
            raise k.crash(
                "wait/gone-device",
                "watchdog: BUG: soft lockup - CPU#0 stuck",
                f"{dev.bdf} is gone; its driver polls the control queue for an answer that cannot come",
                "virtnet_send_command",
            )

    # -- virtqueues ------------------------------------------------------------------------------------------

    def _start(self, k: Kernel, dev: PciDev) -> int:
        """``virtnet_probe``: queues with their vectors, then the device may run."""
        if not all(common.alloc_ring(k, dev, queue) for queue in _QUEUES):
            self._del_vqs(k, dev)
            return -ENOMEM
        error = self._find_vqs(k, dev)
        if error:
            self._reset(k, dev)
            self._del_vqs(k, dev)
            return error
        if not common.start_device(k, dev):
            return -EIO
        dev.drvdata[common.READY] = True
        return 0

    def _stop_threads(self, dev: PciDev) -> None:
        """``flush_work`` in the network driver's remove and freeze: no worker runs from here on, none is queued."""
        dev.drvdata[common.READY] = False

    def _find_vqs(self, k: Kernel, dev: PciDev) -> int:
        """``vp_find_vqs``: a vector for each queue, one for all queues, the line."""
        for wanted in (1 + len(_QUEUES), 2):
            if self._find_vqs_msix(k, dev, wanted) == 0:
                return 0
        error = irq.request_irq(k, dev.irq, IrqAction("virtio0", "virtio-pci.line", dev, shared=True))
        if not error:
            dev.drvdata[common.VECTORS] = (dev.irq,)
        return error

    def _find_vqs_msix(self, k: Kernel, dev: PciDev, wanted: int) -> int:
        got = msi.pci_alloc_irq_vectors(k, dev, wanted, wanted, ("msix",))
        if got < 0:
            return got
        dev.drvdata[_MSIX] = True
        names = ("virtio0-config", *(_QUEUES if wanted > 2 else ("virtio0-virtqueues",)))
        error = common.request_vectors(k, dev, "virtio-pci.vector", names)
        if error:
            self._free_vectors(k, dev)
        return error

    def _free_vectors(self, k: Kernel, dev: PciDev) -> None:
        common.free_vectors(k, dev)
        if dev.drvdata.get(_MSIX):
            msi.pci_free_irq_vectors(k, dev)
            dev.drvdata[_MSIX] = False

    def _del_vqs(self, k: Kernel, dev: PciDev) -> None:
        """``vp_del_vqs``."""
        self._free_vectors(k, dev)
        for queue in _QUEUES:
            common.free_ring(k, dev, queue)

    def _reset(self, k: Kernel, dev: PciDev) -> None:
        """``vp_reset``: a status of 0 stops the device."""
        common.stop_device(k, dev)

    # -- shutdown and sleep ----------------------------------------------------------------------------------

    def has_shutdown(self, k: Kernel) -> bool:
        """Never of its own; the virtio bus does it since v6.15, and a proposal would have had one."""
        return k.has(changes.VIRTIO_BUS_SHUTDOWN) or k.has(changes.VIRTIO_SHUTDOWN_CALLBACK)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``virtio_dev_shutdown``: the driver's threads are told that the device is broken, then it is reset.

        The proposed callback reset the device behind the back of the driver's threads.
        """
        if k.has(changes.VIRTIO_BUS_SHUTDOWN):
            dev.drvdata[_BROKEN] = True
        else:
            dev.drvdata["reset_by_shutdown"] = True
        self._reset(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """``virtio_pci_freeze``: the queues go, the device is disabled."""
        self._stop_threads(dev)
        self._reset(k, dev)
        self._del_vqs(k, dev)
        pci.pci_disable_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``virtio_pci_restore``."""
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        pci.pci_set_master(k, dev)
        self._reset(k, dev)
        return self._start(k, dev)

    # -- interrupts and threads ------------------------------------------------------------------------------

    def handlers(self) -> Mapping[str, IrqHandler]:
        """A message is for us without asking; on the line, reading ISR tells and clears the condition."""
        return {
            "virtio-pci.line": lambda k, irq, dev: common.service(k, dev, self.name, "vp_interrupt"),
            "virtio-pci.vector": self._vring_interrupt,
        }

    def _vring_interrupt(self, k: Kernel, line: int, dev: PciDev) -> str:
        if common.missing(dev, self.name):
            raise common.fault(k, dev, "the interrupt handler", "vring_interrupt")
        dev.hw.irq_status = False
        return IRQ_HANDLED

    def operations(self) -> tuple[Operation, ...]:
        """``config-access``: a kernel thread reads the device configuration, as the link or balloon worker does."""
        return (
            common.operation(
                "config-access",
                lambda k, dev: common.reachable(dev, self.name) and not dev.drvdata.get(_BROKEN),
                self._config_access,
                "a kernel thread reads the device's own configuration",
            ),
        )

    def _config_access(self, k: Kernel, dev: PciDev) -> None:
        """``vp_get`` from a worker."""
        if not dev.hw.reachable:
            if dev.disconnected:
                why = f"{dev.bdf} is known to be gone; its driver takes all ones for the device's configuration"
                k.find("device/touched-when-gone", why, "vp_get")
            return
        behaviour = dev.hw.behaviour
        real = behaviour.device_config_offset(dev.hw) if isinstance(behaviour, Virtio) else 0
        taken = device_config_offset(dev)
        if real != taken:
            why = f"the driver of {dev.bdf} uses offset {taken}, in the hardware the registers begin at {real}"
            k.find("device/register-layout", why, "vp_get")
        elif dev.drvdata.get("reset_by_shutdown"):
            why = f"a thread of the driver uses {dev.bdf} after shutdown has reset it, and was not told"
            k.find("device/used-after-reset", why, "vp_get")
