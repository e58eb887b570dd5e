"""The group of a device in the running model: what ``pci_group`` finds, or a new one (drivers/iommu/iommu.c,
drivers/iommu/intel-iommu.c).
"""

from __future__ import annotations

from quiesce.kernel.iommu_group import IommuGroup, iommu_group_alloc
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_dev_of, upstream_bridge
from quiesce.kernel.pci_acs import acs_path_root
from quiesce.kernel.pci_group import find_group
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.snapshot.bdf import Bdf


def pci_device_group(k: Kernel, dev: PciDev) -> IommuGroup:
    """drivers/iommu/iommu.c, v3.17+. Kept: see ``find_group``; a device that finds none gets a new one."""
    group: IommuGroup | None = find_group(k, dev).group
    return iommu_group_alloc(k) if group is None else group


def _group_of(dev: PciDev) -> IommuGroup:
    group = dev.iommu_group
    assert isinstance(group, IommuGroup)
    return group


# -- VT-d before the central search ------------------------------------------------------------------------------


def pci_find_upstream_pcie_bridge(k: Kernel, dev: PciDev) -> PciDev | None:
    """drivers/pci/search.c, up to v3.16. Kept: for a conventional device the PCIe-to-PCI bridge above it, or else the
    outermost conventional bridge; None for a PCIe device.
    """
    if dev.hw.is_pcie:
        return None
    found = None
    bridge = upstream_bridge(k, dev)
    while bridge is not None:
        if bridge.hw.is_pcie:
            if bridge.hw.pcie_type == r.PCI_EXP_TYPE_PCI_BRIDGE:
                return bridge
            k.warn("WARNING: at drivers/pci/search.c pci_find_upstream_pcie_bridge")
            return None
        found, bridge = bridge, upstream_bridge(k, bridge)
    return found


def intel_old_group(k: Kernel, dev: PciDev) -> IommuGroup:
    """drivers/iommu/intel-iommu.c ``intel_iommu_add_device``, v3.6 to v3.16. Kept: a conventional device stands for the
    bridge above it (for the function at its secondary bus's 00.0 if there is one), quirks, isolation by slot and by
    path; only the one device at the end of that way is asked for a group.
    """
    base = dev
    bridge = pci_find_upstream_pcie_bridge(k, dev)
    if bridge is not None:
        secondary = Bdf(bridge.hw.bdf.segment, topology.bus_range(bridge.hw).start, 0, 0)
        base = (pci_dev_of(k, str(secondary)) if bridge.hw.is_pcie else None) or bridge
    root = acs_path_root(k, base)
    return _group_of(root) if root.iommu_group is not None else iommu_group_alloc(k)
