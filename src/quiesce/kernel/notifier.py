"""Who listens to the PCI bus: the order in which bus notifiers run (drivers/base/bus.c, kernel/notifier.c)."""

from __future__ import annotations

from collections.abc import Callable

from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev

Listener = Callable[[Kernel, str, PciDev], None]
"""``listener(kernel, action, device)``; it knows by itself which actions its version reacts to."""

ACTIONS = (
    "ADD_DEVICE",
    "DEL_DEVICE",
    "REMOVED_DEVICE",
    "BIND_DRIVER",
    "BOUND_DRIVER",
    "UNBIND_DRIVER",
    "UNBOUND_DRIVER",
    "DRIVER_NOT_BOUND",
)
"""BUS_NOTIFY_*, include/linux/device/bus.h."""


def listeners() -> tuple[Listener, ...]:
    """Return the listeners in the order in which they are called.

    Imported here because each of them unbinds, references or frees devices, and so needs the driver core itself.
    """
    from quiesce.kernel import amd_iommu, intel_iommu, iommu, vfio

    return iommu.iommu_bus_notifier, intel_iommu.bus_notifier, amd_iommu.bus_notifier, vfio.group_notifier


def bus_notify(k: Kernel, action: str, dev: PciDev) -> None:
    """kernel/notifier.c, ``blocking_notifier_call_chain``. Kept: the order: IOMMU core, VT-d, AMD-Vi, VFIO.

    Left out: a listener that stops the chain, priorities, listeners that neither bind nor map anything.
    """
    for listener in listeners():
        listener(k, action, dev)
