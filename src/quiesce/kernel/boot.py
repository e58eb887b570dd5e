"""From power-on to a running system (init/main.c, drivers/acpi/pci_root.c: the order of things)."""

from __future__ import annotations

from collections.abc import Sequence

from quiesce.kernel import base_dd, iommu, pci, pci_probe, pci_remove
from quiesce.kernel.kernel import Kernel


def enumerate_all(k: Kernel) -> None:
    """drivers/acpi/pci_root.c, ``acpi_pci_root_add``. Kept: all buses are scanned, then their devices are added; up to
    v3.12 the bridges are enabled in between. A kernel that starts has no device waiting for a driver.
    """
    k.system.deferred_probes.clear()
    with pci_remove.pci_lock_rescan_remove(k):
        pci_probe.pci_scan(k)
        pci.pci_enable_bridges(k)
        pci_probe.pci_bus_add_devices(k)


def boot(k: Kernel, drivers: Sequence[str] = ()) -> None:
    """init/main.c. Kept: devices are enumerated, then the IOMMU is set up, then drivers are registered in the order
    given; those that are marked as loaded already come first. Deferred probes are retried at the end.

    Left out: everything that is neither PCI nor IOMMU; probing that runs at the same time.
    """
    early = base_dd.loaded_drivers(k)
    k.system.loaded.clear()
    enumerate_all(k)
    iommu.iommu_init(k)
    for name in (*early, *(name for name in drivers if name not in early)):
        base_dd.driver_register(k, name)
    k.system.phase = "running"
    base_dd.driver_deferred_probe_trigger(k)
