"""Which devices the IOMMU can not tell apart: requester id aliases and the search for a group (drivers/iommu/iommu.c,
drivers/pci/search.c, drivers/pci/quirks.c).

The search stops at the first group it meets; two groups that exist are never merged, so the order in which devices are
added can matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.kernel import changes
from quiesce.kernel.iommu_group import IommuGroup, iommu_group_alloc
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_dev_of, upstream_bridge
from quiesce.kernel.pci_acs import (
    acs_path_root,
    knows,
    pci_acs_enabled,
    pci_acs_path_enabled,
    pci_enable_acs,
    pci_multifunction,
)
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS
from quiesce.machine.requester import below_pcie, quirk_applies, quirk_devfns, volume_manager
from quiesce.snapshot.bdf import Bdf

__all__ = [
    "get_pci_alias_group",
    "get_pci_function_alias_group",
    "intel_old_group",
    "pci_acs_enabled",
    "pci_add_dma_alias",
    "pci_device_group",
    "pci_devs_are_dma_aliases",
    "pci_enable_acs",
    "pci_find_upstream_pcie_bridge",
    "pci_fixup_dma_alias",
    "pci_for_each_dma_alias",
    "pci_real_dma_dev",
]

_PASS_THROUGH = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_UPSTREAM, r.PCI_EXP_TYPE_DOWNSTREAM)
_DEVICE_ALIASES = ("function_0", "function_1", "fixed_01_0", "mic_x200", "five_per_slot", "whole_bus")


# -- aliases -----------------------------------------------------------------------------------------------------


def pci_add_dma_alias(k: Kernel, dev: PciDev, devfn: int, nr_devfns: int = 1) -> None:
    """drivers/pci/pci.c. Kept: one alias per device before v4.7 (the last one wins), any number since."""
    if not k.has(changes.DMA_ALIAS_BITMAP):
        dev.dma_alias_mask.clear()
        nr_devfns = 1
    for number in range(devfn, min(devfn + nr_devfns, 256)):
        dev.dma_alias_mask.add(number)
    place = Bdf.from_devid(devfn)
    k.printk("info", f"pci {dev.bdf}: Enabling fixed DMA alias to {place.device:02x}.{place.function}")


def pci_fixup_dma_alias(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/quirks.c, header fixups at enumeration. Kept: devices known to send under the id of another
    function, by the kernel's version of the table.

    Left out: Switchtec NTBs, whose aliases are in a table of the switch.
    """
    for quirk in DMA_ALIAS_QUIRKS:
        known = quirk.kind in _DEVICE_ALIASES and quirk.covers(dev.hw.vendor, dev.hw.device) and knows(k, quirk)
        if known and quirk_applies(quirk.kind, dev.hw):
            for devfn in quirk_devfns(quirk.kind, dev.hw.bdf):
                pci_add_dma_alias(k, dev, devfn)


def pci_real_dma_dev(k: Kernel, dev: PciDev) -> PciDev:
    """arch/x86/pci/common.c, v5.6+. Kept: what hides behind an Intel VMD does its DMA as the VMD."""
    manager = volume_manager(k.machine, dev.hw)
    if manager is None or not k.has(changes.VTD_REAL_DMA_DEV):
        return dev
    return pci_dev_of(k, str(manager.bdf)) or dev


def pci_devs_are_dma_aliases(one: PciDev, other: PciDev) -> bool:
    """drivers/pci/pci.c. Kept: either names the other; both are on one bus. Left out: VMD, which is on none."""
    return other.hw.bdf.devfn in one.dma_alias_mask or one.hw.bdf.devfn in other.dma_alias_mask


def pci_for_each_dma_alias(k: Kernel, dev: PciDev) -> Iterator[tuple[PciDev, Bdf]]:
    """drivers/pci/search.c, v3.16+. Yields the device on the path and each requester id that may stand for ``dev``.

    Kept: own id, alias ids, then up bus by bus: ports add nothing, bridges to conventional PCI take over, the walk
    ends at a bridge marked as the root of translation.
    """
    dev = pci_real_dma_dev(k, dev)
    bdf = dev.hw.bdf
    yield dev, bdf
    for devfn in sorted(dev.dma_alias_mask):
        yield dev, bdf._replace(device=devfn >> 3, function=devfn & 7)
    bridge = upstream_bridge(k, dev)
    while bridge is not None and not _has_flag(k, bridge, "translation_root"):
        alias = _bridge_alias(k, bridge)
        if alias is not None:
            yield bridge, alias
        bridge = upstream_bridge(k, bridge)


def _bridge_alias(k: Kernel, bridge: PciDev) -> Bdf | None:
    """Return the requester id of what comes from below a bridge; None when it leaves ids alone."""
    kind, bdf = bridge.hw.pcie_type, bridge.hw.bdf
    below = Bdf(bdf.segment, topology.bus_range(bridge.hw).start, 0, 0)
    if kind in _PASS_THROUGH:
        return None
    if kind == r.PCI_EXP_TYPE_PCI_BRIDGE:
        return None if _has_flag(k, bridge, "no_alias") else below
    if kind is None:
        return below if _has_flag(k, bridge, "bridge_alias") and below_pcie(bridge.hw) else bdf
    return bdf if kind == r.PCI_EXP_TYPE_PCIE_BRIDGE else None


def _has_flag(k: Kernel, bridge: PciDev, kind: str) -> bool:
    ids = bridge.hw.vendor, bridge.hw.device
    return any(quirk.kind == kind and quirk.covers(*ids) and knows(k, quirk) for quirk in DMA_ALIAS_QUIRKS)


# -- the search for a group --------------------------------------------------------------------------------------


def pci_device_group(k: Kernel, dev: PciDev) -> IommuGroup:
    """drivers/iommu/iommu.c, v3.17+. Kept: aliases, then isolation on the way up, then alias siblings and functions
    without isolation; the first group met wins, else a new one. v3.17 knew one bus-wide rule for aliases.
    """
    for holder, _ in pci_for_each_dma_alias(k, dev):
        dev = holder
        if dev.iommu_group is not None:
            return _group_of(dev)
    bridge = upstream_bridge(k, dev)
    while bridge is not None and not pci_acs_path_enabled(k, bridge):
        dev, bridge = bridge, upstream_bridge(k, bridge)
        if dev.iommu_group is not None:
            return _group_of(dev)
    if not k.has(changes.GROUP_LOOKUP_ALL_ALIASES):
        return _bus_or_slot_group(k, dev) or iommu_group_alloc(k)
    visited: set[int] = set()
    found = get_pci_alias_group(k, dev, visited) or get_pci_function_alias_group(k, dev, visited)
    return found or iommu_group_alloc(k)


def _group_of(dev: PciDev) -> IommuGroup:
    group = dev.iommu_group
    assert isinstance(group, IommuGroup)
    return group


def _same_bus(k: Kernel, dev: PciDev) -> Iterator[PciDev]:
    """Yield the other devices on the device's bus."""
    bus = dev.hw.bdf[:2]
    return (other for other in k.system.devices if other is not dev and other.hw.bdf[:2] == bus)


def get_pci_alias_group(k: Kernel, dev: PciDev, visited: set[int]) -> IommuGroup | None:
    """drivers/iommu/iommu.c, v3.18+. Kept: the group of the device, or of one on its bus that either side names as
    alias; devices seen before are passed over.
    """
    if dev.hw.bdf.devfn in visited:
        return None
    visited.add(dev.hw.bdf.devfn)
    if dev.iommu_group is not None:
        return _group_of(dev)
    for other in _same_bus(k, dev):
        if pci_devs_are_dma_aliases(dev, other):
            found = get_pci_alias_group(k, other, visited) or get_pci_function_alias_group(k, other, visited)
            if found is not None:
                return found
    return None


def get_pci_function_alias_group(k: Kernel, dev: PciDev, visited: set[int]) -> IommuGroup | None:
    """drivers/iommu/iommu.c, v3.18+. Kept: functions of a slot that are not isolated from each other share a group."""
    for other in _unisolated_siblings(k, dev):
        found = get_pci_alias_group(k, other, visited)
        if found is not None:
            return found
    return None


def _unisolated_siblings(k: Kernel, dev: PciDev) -> Iterator[PciDev]:
    if not pci_multifunction(dev) or pci_acs_enabled(k, dev):
        return
    for other in _same_bus(k, dev):
        if other.hw.bdf.device == dev.hw.bdf.device and not pci_acs_enabled(k, other):
            yield other


def _bus_or_slot_group(k: Kernel, dev: PciDev) -> IommuGroup | None:
    """v3.17. Kept: one alias quirk on a bus puts the whole bus into one group."""
    bus = [other for other in k.system.devices if other.hw.bdf[:2] == dev.hw.bdf[:2]]
    if any(other.dma_alias_mask for other in bus):
        groups = [_group_of(other) for other in bus if other.iommu_group is not None]
        if any(group is not groups[0] for group in groups):
            k.warn("WARNING: at drivers/iommu/iommu.c iommu_group_get_for_pci_dev")
        return groups[0] if groups else None
    siblings = (_group_of(other) for other in _unisolated_siblings(k, dev) if other.iommu_group is not None)
    return next(siblings, None)


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
