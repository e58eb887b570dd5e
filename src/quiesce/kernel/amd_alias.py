"""Under which requester id the AMD IOMMU driver takes a device's DMA to arrive (drivers/iommu/amd_iommu.c, later
drivers/iommu/amd/iommu.c).
"""

from __future__ import annotations

from quiesce.kernel import changes, pci_group
from quiesce.kernel.group_view import DeviceView, KernelView
from quiesce.snapshot.bdf import Bdf


def ivrs_alias(k: KernelView, bdf: Bdf) -> Bdf:
    """``amd_iommu_alias_table``: the requester id that firmware says a device uses; its own when it says nothing."""
    ivrs = k.machine.ivrs
    return bdf if ivrs is None else Bdf.from_devid(ivrs.alias_of(bdf.requester_id, bdf.segment), bdf.segment)


def last_alias(k: KernelView, dev: DeviceView) -> Bdf:
    """``__last_alias``: the requester id that PCI topology and quirks give a device at the root."""
    return [rid for _, rid in pci_group.pci_for_each_dma_alias(k, dev)][-1]


def get_alias(k: KernelView, dev: DeviceView) -> Bdf:
    """drivers/iommu/amd_iommu.c. Kept: the IVRS table alone up to v3.16; then the "showdown": an alias of the IVRS
    table wins over the one that PCI knows, which counts only when IVRS has none; v3.17 to v5.5 an IVRS alias on the
    device's bus becomes a PCI alias where PCI knows none, v5.6+ always.
    """
    bdf = dev.hw.bdf
    firmware = ivrs_alias(k, bdf)
    if not k.has(changes.CENTRAL_GROUP_LOOKUP):
        return firmware
    if k.has(changes.AMD_DTE_PER_ALIAS):
        if firmware != bdf and firmware[:2] == bdf[:2] and firmware.devfn not in dev.dma_alias_mask:
            pci_group.pci_add_dma_alias(k, dev, firmware.devfn)
        return firmware
    return _showdown(k, dev, firmware, last_alias(k, dev))


def _showdown(k: KernelView, dev: DeviceView, firmware: Bdf, topology: Bdf) -> Bdf:
    bdf = dev.hw.bdf
    if firmware in (topology, bdf):
        return topology
    ids = f"[{dev.hw.vendor:04x}:{dev.hw.device:04x}]"
    start = f"pci {bdf}: " if k.has(changes.IOMMU_DEV_PRINTK) else "AMD-Vi: "
    name = "device " if k.has(changes.IOMMU_DEV_PRINTK) else f"device {bdf}"
    k.printk(
        "info",
        f"{start}Using IVRS reported alias {firmware.short} for {name}{ids}, kernel reported alias {topology.short}",
    )
    if topology == bdf and firmware[:2] == bdf[:2]:
        pci_group.pci_add_dma_alias(k, dev, firmware.devfn)
        whose = "" if k.has(changes.IOMMU_DEV_PRINTK) else f" for {bdf}"
        k.printk("info", f"{start}Added PCI DMA alias {firmware.device:02x}.{firmware.function}{whose}")
    return firmware
