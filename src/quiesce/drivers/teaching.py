"""Small drivers with one mistake each, for tests, documentation, and to see what each rule catches.

They bind only where driver_override or ``bind`` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EIO, ENOMEM
from typing import ClassVar

from quiesce.drivers import common
from quiesce.kernel import dma, files, msi, pci
from quiesce.kernel.driver import DeviceId, Operation, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PciDev

_BUFFER = "buffer"


class Correct(PciDriver):
    """What the others would be without their mistake: MSI or the line, one DMA buffer, everything undone in reverse."""

    name = "correct"
    ids = (DeviceId(override_only=True),)
    vectors: ClassVar[tuple[str, ...]] = ("msi", "intx")
    """The kinds of interrupt it asks for, best first."""

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """Enable, regions, vectors, buffer, handler, start."""
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        error = pci.pci_request_regions(k, dev, self.name)
        if error:
            self.disable(k, dev)
            return error
        error = self.setup(k, dev)
        if error:
            pci.pci_release_regions(k, dev)
            self.disable(k, dev)
        else:
            dev.drvdata[common.READY] = True
        return error

    def setup(self, k: Kernel, dev: PciDev) -> int:
        """The part of probe between regions and start."""
        dev.drvdata[common.REGS] = True
        pci.pci_set_master(k, dev)
        count = msi.pci_alloc_irq_vectors(k, dev, 1, 1, self.vectors)
        if count < 0:
            return count
        error = -ENOMEM if not common.alloc_ring(k, dev, _BUFFER) else self.request(k, dev)
        if not error and not common.start_device(k, dev):
            common.free_vectors(k, dev)
            error = -EIO
        if error:
            self.unmap(k, dev)
            msi.pci_free_irq_vectors(k, dev)
        return error

    def request(self, k: Kernel, dev: PciDev) -> int:
        """Take the handler."""
        return common.request_vectors(k, dev, f"{self.name}.interrupt", (self.name,))

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """Everything in reverse."""
        del dev.drvdata[common.READY]
        common.stop_device(k, dev)
        self.release_vectors(k, dev)
        self.unmap(k, dev)
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)
        self.disable(k, dev)

    def release_vectors(self, k: Kernel, dev: PciDev) -> None:
        """Handler first, vector second."""
        common.free_vectors(k, dev)
        msi.pci_free_irq_vectors(k, dev)

    def unmap(self, k: Kernel, dev: PciDev) -> None:
        """Give the buffer back."""
        common.free_ring(k, dev, _BUFFER)

    def disable(self, k: Kernel, dev: PciDev) -> None:
        """Disable the device."""
        pci.pci_disable_device(k, dev)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """The device stops."""
        common.stop_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """The device stops."""
        common.stop_device(k, dev)
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """The device runs again with the same buffer."""
        pci.pci_set_master(k, dev)
        if dev.drvdata.get(_BUFFER) is not None:
            common.give_to_device(dev, dev.drvdata[_BUFFER])
        return 0 if common.start_device(k, dev) else -EIO

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One handler."""
        key = f"{self.name}.interrupt"
        return {key: lambda k, irq, dev: common.service(k, dev, self.name, "interrupt")}


class LeakyMsi(Correct):
    """Leaves MSI on: the next driver cannot have it, and since v5.17 its store is gone while ``msi_enabled`` stays."""

    name = "leaky-msi"

    def release_vectors(self, k: Kernel, dev: PciDev) -> None:
        """Handler only."""
        common.free_vectors(k, dev)


class MsiOffFirst(Correct):
    """Gives the vector back with the handler still on it: a BUG up to v5.16, a WARN from then on."""

    name = "msi-off-first"

    def release_vectors(self, k: Kernel, dev: PciDev) -> None:
        """Vector first, handler second."""
        msi.pci_free_irq_vectors(k, dev)
        common.free_vectors(k, dev)


class DoubleFreeIrq(Correct):
    """Frees its handler twice."""

    name = "double-free-irq"

    def release_vectors(self, k: Kernel, dev: PciDev) -> None:
        """Handler twice."""
        lines = common.vectors(dev)
        common.free_vectors(k, dev)
        dev.drvdata[common.VECTORS] = lines
        super().release_vectors(k, dev)


class NoDisable(Correct):
    """Never disables the device: bus mastering stays on and the enable count grows with every bind."""

    name = "no-disable"

    def disable(self, k: Kernel, dev: PciDev) -> None:
        """Forgotten."""


class HandlerLeft(Correct):
    """Gives everything back but its handler, on the line: the next interrupt of a neighbour runs it on freed data."""

    name = "handler-left"
    vectors = ("intx",)

    def release_vectors(self, k: Kernel, dev: PciDev) -> None:
        """Vector only."""
        msi.pci_free_irq_vectors(k, dev)


class RunsOn(Correct):
    """Lets go of a running device: it is neither stopped nor disabled, and goes on writing where it was told to."""

    name = "runs-on"

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """All that a driver takes is given back; the device itself is not told."""
        del dev.drvdata[common.READY]
        self.release_vectors(k, dev)
        self.unmap(k, dev)
        del dev.drvdata[common.REGS]
        pci.pci_release_regions(k, dev)

    def disable(self, k: Kernel, dev: PciDev) -> None:
        """Forgotten on the failure exits too."""


class IrqBeforeReady(Correct):
    """Takes its handler before what the handler uses exists; one interrupt from a device on the same line is enough."""

    name = "irq-before-ready"

    def setup(self, k: Kernel, dev: PciDev) -> int:
        """Handler first."""
        pci.pci_set_master(k, dev)
        count = msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("intx",))
        if count < 0:
            return count
        error = self.request(k, dev)
        if error:
            return error
        k.window("irq-before-ready: handler registered, data not there")
        dev.drvdata[common.REGS] = True
        error = -ENOMEM if not common.alloc_ring(k, dev, _BUFFER) else 0
        if not error and not common.start_device(k, dev):
            error = -EIO
        if error:
            common.free_vectors(k, dev)
            self.unmap(k, dev)
        return error


class LateUnmap(Correct):
    """Unmaps its buffer only when the program that has the device open closes it, however late that is."""

    name = "late-unmap"

    def unmap(self, k: Kernel, dev: PciDev) -> None:
        """Leave the buffer to the open file, if there is one."""
        opened = files.files_of(k, dev, self.name)
        if opened:
            opened[0].private = dev.drvdata.get(_BUFFER)
        else:
            super().unmap(k, dev)

    def operations(self) -> tuple[Operation, ...]:
        """``late-open`` and ``late-close``."""
        return (
            common.operation(
                "late-open",
                lambda k, dev: common.reachable(dev, self.name) and not files.files_of(k, dev, self.name),
                self._open,
                "a program opens the device",
            ),
            common.operation(
                "late-close",
                lambda k, dev: bool(files.files_of(k, dev, self.name)),
                self._close,
                "the program closes the device",
            ),
        )

    def _open(self, k: Kernel, dev: PciDev) -> None:
        files.open_file(k, dev, self.name)

    def _close(self, k: Kernel, dev: PciDev) -> None:
        file = files.files_of(k, dev, self.name)[0]
        if file.private is not None:
            dma.dma_free_coherent(k, dev, file.private)
        files.close_file(k, file)


TEACHING = (
    Correct,
    LeakyMsi,
    MsiOffFirst,
    DoubleFreeIrq,
    NoDisable,
    HandlerLeft,
    RunsOn,
    IrqBeforeReady,
    LateUnmap,
)
