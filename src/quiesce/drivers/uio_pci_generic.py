"""User space drivers by INTx (drivers/uio/uio_pci_generic.c)."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENODEV, ENOMEM

from quiesce.drivers import common
from quiesce.kernel import changes, devres, irq, pci, pci_devres
from quiesce.kernel.driver import DeviceId, Operation, PciDriver
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import pci_regs as r

_REGISTERED = "devm_uio_unregister_device"


def _unregister(k: Kernel, dev: PciDev) -> None:
    dev.drvdata[common.READY] = False
    if dev.irq:
        irq.free_irq(k, dev.irq, dev)


devres.RELEASE[_REGISTERED] = lambda k, dev, node: _unregister(k, dev)


class UioPciGeneric(PciDriver):
    """Kept: INTx, masked in COMMAND by the handler until user space unmasks it there; no probe without an interrupt
    that can be masked so, but since v5.13 without any interrupt, and all of it managed. Left out: sysfs files.
    """

    name = "uio_pci_generic"
    ids = (DeviceId(override_only=True),)
    has_pm_ops = False

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``probe``."""
        if k.has(changes.UIO_PCI_MANAGED):
            return self._probe_managed(k, dev)
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        error = -ENODEV if not dev.irq else self._register(k, dev)
        if error:
            pci.pci_disable_device(k, dev)
        return error

    def _probe_managed(self, k: Kernel, dev: PciDev) -> int:
        error = pci_devres.pcim_enable_device(k, dev) or self._register(k, dev)
        if not error:
            devres.devres_add(k, dev, devres.devres_alloc(k, dev, _REGISTERED))
        return error

    def _register(self, k: Kernel, dev: PciDev) -> int:
        if dev.irq and not pci.pci_intx_mask_supported(k, dev):
            return -ENODEV
        if not k.alloc("uio_pci_generic_dev"):
            return -ENOMEM
        error = 0
        if dev.irq:
            action = IrqAction(self.name, "uio_pci_generic.interrupt", dev, shared=True)
            error = irq.request_irq(k, dev.irq, action)
        if not error:
            dev.drvdata[common.READY] = True
        return error

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``remove``, up to v5.12; it does not stop the device, which only user space knows how to."""
        if k.has(changes.UIO_PCI_MANAGED):
            return
        _unregister(k, dev)
        pci.pci_disable_device(k, dev)

    def handlers(self) -> Mapping[str, IrqHandler]:
        """``irqhandler``."""
        return {"uio_pci_generic.interrupt": self._interrupt}

    def _interrupt(self, k: Kernel, line: int, dev: PciDev) -> str:
        return IRQ_HANDLED if pci.pci_check_and_mask_intx(k, dev) else IRQ_NONE

    def operations(self) -> tuple[Operation, ...]:
        """``uio-start``, ``uio-ack``: the driver in user space lets its device run; it services it and unmasks."""
        return (
            common.operation(
                "uio-start",
                lambda k, dev: common.reachable(dev, self.name) and dev.hw.engine == "off",
                self._start,
                "the user space driver starts its device",
            ),
            common.operation(
                "uio-ack",
                lambda k, dev: common.reachable(dev, self.name) and dev.hw.intx_disabled,
                self._acknowledge,
                "the user space driver services its device and unmasks INTx",
            ),
        )

    def _start(self, k: Kernel, dev: PciDev) -> None:
        common.start_device(k, dev)

    def _acknowledge(self, k: Kernel, dev: PciDev) -> None:
        if common.answers(dev):
            dev.hw.irq_status = False
        command = pci.pci_read_config(k, dev, r.PCI_COMMAND, 2)
        pci.pci_write_config(k, dev, r.PCI_COMMAND, 2, command & ~r.PCI_COMMAND_INTX_DISABLE)
