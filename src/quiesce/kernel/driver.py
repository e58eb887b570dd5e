"""What a PCI driver is to the kernel (``struct pci_driver``, include/linux/pci.h)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import ENODEV
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from quiesce.kernel.kernel import IrqHandler, Kernel
    from quiesce.kernel.objects import PciDev
    from quiesce.machine.function import Function


@dataclass(frozen=True, slots=True)
class DeviceId:
    """One entry of a driver's id table; None matches anything. ``base_class`` is the class byte, ``sub_class``
    the next one; ``override_only`` entries match only through driver_override (vfio-pci)."""

    vendor: int | None = None
    device: int | None = None
    base_class: int | None = None
    sub_class: int | None = None
    override_only: bool = False

    def matches(self, function: Function) -> bool:
        """Whether the ids of a function fit (``pci_match_one_device``); ``override_only`` is for the caller."""
        wanted = (self.vendor, self.device, self.base_class, self.sub_class)
        code = function.class_code
        found = (function.vendor, function.device, code >> 16, code >> 8 & 0xFF)
        return all(want is None or want == have for want, have in zip(wanted, found, strict=True))


@dataclass(frozen=True, slots=True)
class Operation:
    """Something user space or the driver's own threads can do with a bound or opened device.

    ``ready`` says whether it can be done now, ``run`` does it and returns what user space gets back. Its event reads
    ``NAME BDF``.
    """

    name: str
    ready: Callable[[Kernel, PciDev], bool]
    run: Callable[[Kernel, PciDev], int | None]
    meaning: str = ""


class PciDriver:
    """Base of all driver models. Methods return 0 or a negative errno, as in the kernel."""

    name: ClassVar[str]
    ids: ClassVar[tuple[DeviceId, ...]] = ()
    driver_managed_dma: ClassVar[bool] = False
    """The driver does not use the default DMA domain (v5.19+ ``driver_managed_dma``)."""
    has_pm_ops: ClassVar[bool] = True
    """The driver has dev_pm_ops (or legacy suspend/resume)."""
    builtin: ClassVar[bool] = False
    """The driver is never a module: it cannot be unloaded."""
    error_handlers: ClassVar[bool] = False
    """The driver has pci_error_handlers with error_detected."""

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """Bind to the device; the base binds to none."""
        return -ENODEV

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """Let go of the device."""

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """Quiesce the device at shutdown; ``has_shutdown`` says whether the driver has this callback."""

    def has_shutdown(self, k: Kernel) -> bool:
        """Whether this kernel's version of the driver has a shutdown callback."""
        return type(self).shutdown is not PciDriver.shutdown

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """Quiesce the device before sleep."""
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """Bring the device back after sleep."""
        return 0

    def handlers(self) -> Mapping[str, IrqHandler]:
        """Interrupt handlers by key, ``NAME.interrupt`` by convention."""
        return {}

    def operations(self) -> tuple[Operation, ...]:
        """What user space and the driver's own threads can do."""
        return ()
