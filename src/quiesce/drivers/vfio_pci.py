"""The driver that hands devices to user space, and what user space does with them (drivers/vfio/pci/vfio_pci.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quiesce.drivers import common
from quiesce.kernel import vfio_intrs, vfio_pci, vfio_type1
from quiesce.kernel.driver import DeviceId, Operation, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.vfio_intrs import INTX, MSI, MSIX, NONE, VfioPciDevice
from quiesce.machine import pci_regs as r

_Test = Callable[[Kernel, PciDev, VfioPciDevice], bool]
_Action = Callable[[Kernel, PciDev, VfioPciDevice], int | None]


def _user_operation(name: str, test: _Test, action: _Action, meaning: str) -> Operation:
    """Make an operation on an open device."""

    def ready(k: Kernel, dev: PciDev) -> bool:
        vdev = vfio_pci.vdev_of(k, dev)
        return vdev is not None and vdev.open and test(k, dev, vdev)

    def run(k: Kernel, dev: PciDev) -> int | None:
        vdev = vfio_pci.vdev_of(k, dev)
        assert vdev is not None
        return action(k, dev, vdev)

    return common.operation(name, ready, run, meaning)


class VfioPci(PciDriver):
    """Binds only where driver_override names it. The kernel's part is in kernel/vfio*.py; here is the user."""

    name = "vfio-pci"
    ids = (DeviceId(override_only=True),)
    driver_managed_dma = True
    has_pm_ops = False
    error_handlers = True

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``vfio_pci_probe``."""
        return vfio_pci.vfio_pci_probe(k, dev)

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``vfio_pci_remove``; blocks as long as user space has the device open."""
        vfio_pci.vfio_pci_remove(k, dev)

    def sriov_configure(self, k: Kernel, dev: PciDev, num_vfs: int) -> int:
        """``vfio_pci_sriov_configure``, v5.7+."""
        return vfio_pci.vfio_pci_sriov_configure(k, dev, num_vfs)

    def handlers(self) -> Mapping[str, IrqHandler]:
        """INTx masks and signals, message interrupts signal."""
        return {"vfio-pci.intx": vfio_intrs.vfio_intx_handler, "vfio-pci.msi": vfio_intrs.vfio_msihandler}

    def operations(self) -> tuple[Operation, ...]:
        """What a virtual machine monitor and the guest in it do."""
        return (
            common.operation(
                "vfio-open",
                lambda k, dev: vfio_pci.vdev_of(k, dev) is not None and not vfio_pci.in_use(k, dev),
                vfio_pci.vfio_pci_open,
                "a program opens the device, with its group and a container",
            ),
            common.operation("vfio-close", vfio_pci.is_open, vfio_pci.vfio_pci_close, "the program closes all of it"),
            *_GENERAL,
            *_LINE,
            *_MESSAGES,
        )


# -- the device in general -----------------------------------------------------------------------------------


def _run_device(dev: PciDev, *, interrupts: bool = True) -> None:
    """The driver in user space lets the device run, and interrupt once it has somewhere to be told."""
    if common.answers(dev):
        dev.hw.engine = "running"
        dev.hw.irq_enabled = dev.hw.irq_enabled or interrupts


def _request_on(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    vdev.req_trigger = True


def _reset(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_device_reset(k, vdev)


def _dma_map(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    """Map guest memory, let the device be bus master and write there."""
    error = vfio_type1.vfio_dma_map(k, vdev)
    if not error:
        vfio_pci.vfio_config_write(k, vdev, set=r.PCI_COMMAND_MASTER)
        _run_device(dev, interrupts=False)
        if common.answers(dev):
            dev.hw.dma_target = (*dev.hw.dma_target, *vdev.dma)
    return error


def _dma_unmap(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    """The guest stops DMA before its memory is unmapped."""
    if common.answers(dev):
        dev.hw.dma_target = tuple(iova for iova in dev.hw.dma_target if iova not in vdev.dma)
    vfio_type1.vfio_dma_unmap(k, vdev)


def _memory_off(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    vfio_pci.vfio_config_write(k, vdev, clear=r.PCI_COMMAND_MEMORY)


def _memory_on(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    vfio_pci.vfio_config_write(k, vdev, set=r.PCI_COMMAND_MEMORY)


def _decodes(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> bool:
    return bool(dev.hw.command & r.PCI_COMMAND_MEMORY)


_GENERAL = (
    _user_operation(
        "vfio-req-on", lambda k, dev, vdev: not vdev.req_trigger, _request_on, "the program will leave when asked to"
    ),
    _user_operation("vfio-reset", lambda k, dev, vdev: vdev.reset_works, _reset, "the program resets the device"),
    _user_operation(
        "vfio-dma-map", lambda k, dev, vdev: not vdev.dma, _dma_map, "the guest starts the device, which writes memory"
    ),
    _user_operation("vfio-dma-unmap", lambda k, dev, vdev: bool(vdev.dma), _dma_unmap, "the guest stops DMA again"),
    _user_operation("vfio-mem-off", _decodes, _memory_off, "the guest switches memory decoding off"),
    _user_operation(
        "vfio-mem-on",
        lambda k, dev, vdev: not _decodes(k, dev, vdev),
        _memory_on,
        "the guest switches memory decoding on",
    ),
    _user_operation(
        "vfio-mmio",
        lambda k, dev, vdev: True,
        lambda k, dev, vdev: vfio_pci.vfio_mmio(k, vdev),
        "the program accesses the device's memory",
    ),
)


# -- INTx ----------------------------------------------------------------------------------------------------


def _intx_on(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    error = vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_intx_enable(k, vdev))
    if not error:
        _run_device(dev)
    return error


def _intx_off(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_intx_disable(k, vdev))


def _intx_mask(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.intx_mask(k, vdev))


def _intx_unmask(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.intx_unmask(k, vdev))


def _irqfd_unmask(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    """``virqfd_wakeup``: in the context of whoever signals the eventfd, without ``igate``."""
    vfio_intrs.intx_unmask(k, vdev)


def _intx_detach(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_intx_set_signal(k, vdev, False))


def _intx_attach(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_intx_set_signal(k, vdev, True))


def _intx_trigger(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_send_intx_eventfd(k, vdev))


def _intx_service(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    """The guest's handler runs: it satisfies the device; unmasking is a call of its own."""
    vdev.triggers[0].signalled = False  # type: ignore[union-attr]
    if common.answers(dev):
        dev.hw.irq_status = False


def _guest_disables(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    vfio_pci.vfio_config_write_disintx(k, vdev, True)


def _guest_enables(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> None:
    vfio_pci.vfio_config_write_disintx(k, vdev, False)


def _in_intx(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> bool:
    return vdev.irq_type == INTX


def _has_trigger(vdev: VfioPciDevice) -> bool:
    return vdev.irq_type == INTX and vdev.triggers[0] is not None


def _signalled(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> bool:
    trigger = vdev.triggers[0] if vdev.irq_type == INTX else None
    return trigger is not None and trigger.signalled


_LINE = (
    _user_operation(
        "vfio-intx-on",
        lambda k, dev, vdev: vdev.irq_type == NONE and dev.irq != 0 and dev.pin != 0,
        _intx_on,
        "the program enables INTx and the guest starts the device",
    ),
    _user_operation("vfio-intx-off", _in_intx, _intx_off, "the program leaves INTx mode"),
    _user_operation(
        "vfio-intx-mask", lambda k, dev, vdev: _in_intx(k, dev, vdev) and not vdev.masked, _intx_mask, "INTx masked"
    ),
    _user_operation(
        "vfio-intx-unmask",
        lambda k, dev, vdev: _in_intx(k, dev, vdev) and vdev.masked,
        _intx_unmask,
        "INTx unmasked",
    ),
    _user_operation(
        "vfio-intx-unmask-irqfd",
        lambda k, dev, vdev: _in_intx(k, dev, vdev) and vdev.masked,
        _irqfd_unmask,
        "the hypervisor unmasks INTx by an eventfd",
    ),
    _user_operation(
        "vfio-intx-detach", lambda k, dev, vdev: _has_trigger(vdev), _intx_detach, "the program takes its eventfd away"
    ),
    _user_operation(
        "vfio-intx-attach",
        lambda k, dev, vdev: vdev.irq_type == INTX and not _has_trigger(vdev),
        _intx_attach,
        "the program gives an eventfd again",
    ),
    _user_operation("vfio-intx-trigger", _in_intx, _intx_trigger, "the program asks for a test signal"),
    _user_operation("vfio-intx-service", _signalled, _intx_service, "the guest services the device"),
    _user_operation(
        "vfio-guest-intx-off", lambda k, dev, vdev: not vdev.virq_disabled, _guest_disables, "the guest sets DisINTx"
    ),
    _user_operation(
        "vfio-guest-intx-on", lambda k, dev, vdev: vdev.virq_disabled, _guest_enables, "the guest clears DisINTx"
    ),
)


# -- MSI and MSI-X -------------------------------------------------------------------------------------------


def _messages_on(kind: str) -> _Action:
    def run(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
        error = vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_msi_enable(k, vdev, kind))
        if not error:
            vfio_pci.vfio_config_write(k, vdev, set=r.PCI_COMMAND_MASTER)
            _run_device(dev)
        return error

    return run


def _messages_off(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    return vfio_pci.vfio_set_irqs(k, vdev, lambda: vfio_intrs.vfio_msi_disable(k, vdev))


def _message_operations(kind: str, capability: int) -> tuple[Operation, ...]:
    return (
        _user_operation(
            f"vfio-{kind}-on",
            lambda k, dev, vdev: vdev.irq_type == NONE and dev.hw.find_capability(capability) != 0,
            _messages_on(kind),
            f"the program enables {kind} and the guest starts the device",
        ),
        _user_operation(
            f"vfio-{kind}-off",
            lambda k, dev, vdev: vdev.irq_type == kind,
            _messages_off,
            f"the program leaves {kind} mode",
        ),
    )


_MESSAGES = (*_message_operations(MSI, r.PCI_CAP_ID_MSI), *_message_operations(MSIX, r.PCI_CAP_ID_MSIX))
