"""The DMA API: which way a mapping is made and unmade depends on version, IOMMU and the life of the device
(kernel/dma/mapping.c, before v4.19 include/linux/dma-mapping.h and arch/x86).

=========  ===============================================  ===================================================
IOMMU      the way of a device                              once the device has been released
=========  ===============================================  ===================================================
VT-d       own, for every device (up to v5.7)               own: BUG_ON(!domain)
VT-d       own, per device (v5.8 to v5.10)                  direct
VT-d       dma-iommu, per device (v5.11 to v6.11)           direct
AMD-Vi     own, per device (up to v5.4)                     own up to v4.1, direct from v4.2 on
AMD-Vi     dma-iommu, per device (v5.5 to v6.11)            dma-iommu: NULL dereference
both       dma-iommu by a flag (v6.12 to v6.14)             dma-iommu: NULL dereference
both       dma-iommu by a flag (v6.15+)                     direct
=========  ===============================================  ===================================================

Left out: scatter lists, masks, bounce buffers, the sync calls, reserved coherent memory.
"""

from __future__ import annotations

import errno

from quiesce.kernel import amd_iommu, changes, intel_iommu
from quiesce.kernel.dma_iova import (
    DIRECT,
    DmaMapping,
    DmaState,
    dma_state,
    end_mapping,
    fq_flush_timeout,
    is_mapped,
    mappings,
    mappings_of,
    new_mapping,
    unmap_page,
)
from quiesce.kernel.iommu import iommu_get_dma_domain
from quiesce.kernel.iommu_group import DMA, IommuDomain
from quiesce.kernel.kernel import Gfp, Kernel
from quiesce.kernel.objects import PciDev

__all__ = [
    "DmaMapping",
    "DmaState",
    "dma_alloc_coherent",
    "dma_free_coherent",
    "dma_map_single",
    "dma_path",
    "dma_state",
    "dma_unmap_single",
    "fq_flush_timeout",
    "mappings",
    "mappings_of",
]

AMD, INTEL, DMA_IOMMU = "amd", "intel", "iommu"
"""``DmaMapping.how`` besides ``direct``: the drivers' own operations, and dma-iommu."""


def dma_path(k: Kernel, dev: PciDev) -> str:
    """``get_dma_ops``, ``use_dma_iommu``. Kept: the way that a call would go now."""
    if k.machine.iommu == "intel" and not k.has(changes.VTD_DMA_OPS_PER_DEVICE):
        return INTEL if intel_iommu.vtd(k).registered else DIRECT
    if k.has(changes.DMA_IOMMU_FLAG):
        return DMA_IOMMU if dev.dma_iommu else DIRECT
    return dev.dma_ops or DIRECT


# -- mapping -----------------------------------------------------------------------------------------------------


def dma_map_single(k: Kernel, dev: PciDev, tag: str) -> DmaMapping | None:
    """kernel/dma/mapping.c. Kept: the mapping can fail, for want of addresses or because the device is in no domain of
    the DMA API; None then. May be called in any context.
    """
    if _has_no_data(k, dev):
        return None
    if k.may_fail(f"dma_map_single of {tag}"):
        return None
    return _map(k, dev, tag, coherent=False)


def dma_alloc_coherent(k: Kernel, dev: PciDev, tag: str, gfp: Gfp = Gfp.KERNEL) -> DmaMapping | None:
    """kernel/dma/mapping.c ``dma_alloc_attrs``. Kept: memory that can fail, mapped like any other; None on failure."""
    if _has_no_data(k, dev):
        return None
    if not k.alloc(f"dma_alloc_coherent of {tag}", gfp):
        return None
    return _map(k, dev, tag, coherent=True)


def _has_no_data(k: Kernel, dev: PciDev) -> bool:
    """The instrumented kernel with its switch ``no-data``: nothing can be mapped at an address released before."""
    if not (k.has(changes.SWITCH_NO_DATA) and dev.iommu_attached and str(dev.hw.bdf) in intel_iommu.vtd(k).released):
        return False
    why = f"{dev.bdf} had been released before; what is there now counts as having no data and cannot map anything"
    k.find("iommu/device-without-data", why, "dma_map_page_attrs")
    return True


def _map(k: Kernel, dev: PciDev, tag: str, coherent: bool) -> DmaMapping | None:
    path = dma_path(k, dev)
    error, domain = _domain_for_map(k, dev, path)
    if error == -errno.EINVAL:
        path = DIRECT
    elif error:
        return None
    return new_mapping(k, dev, tag, path, domain, coherent)


def _domain_for_map(k: Kernel, dev: PciDev, path: str) -> tuple[int, IommuDomain | None]:
    """Return 0 and the domain to map in, -EINVAL for none because the device addresses memory itself, or an error."""
    if path == AMD:
        return amd_iommu.get_domain(k, dev)
    if path == INTEL:
        return intel_iommu.domain_for_map(k, dev)
    if path == DMA_IOMMU:
        return _dma_domain(k, dev, "map", "iommu_dma_map_page")
    return -errno.EINVAL, None


def _dma_domain(k: Kernel, dev: PciDev, verb: str, function: str) -> tuple[int, IommuDomain | None]:
    """``iommu_get_dma_domain`` as dma-iommu uses it: through the device's group, without a test."""
    if dev.iommu_group is None:
        raise k.crash(
            f"iommu/{verb}-without-group",
            "BUG: kernel NULL pointer dereference",
            f"{verb} for {dev.bdf} goes to dma-iommu, but the device has left its group: dev->iommu_group is NULL",
            function,
        )
    domain = iommu_get_dma_domain(dev)
    return (0, domain) if domain is not None else (-errno.ENOMEM, None)


# -- unmapping ---------------------------------------------------------------------------------------------------


def dma_unmap_single(k: Kernel, dev: PciDev, mapping: DmaMapping) -> None:
    """kernel/dma/mapping.c. Kept: **the way is chosen anew**, by what the device is now, not by how the mapping was
    made.
    """
    _check_domain_left(k, dev, "dma_unmap_page_attrs")
    _unmap(k, dev, mapping, "iommu_dma_unmap_page")
    _forget(k, dev, mapping)


def dma_free_coherent(k: Kernel, dev: PciDev, mapping: DmaMapping) -> None:
    """kernel/dma/mapping.c ``dma_free_attrs``. Kept: not with interrupts off; unmapped; the memory freed. Since v5.5
    the direct way computes which pages to free from the address that the device used, and takes an IOVA for one.
    """
    _check_domain_left(k, dev, "dma_free_attrs")
    if k.irqs_off:
        why = f"{mapping.tag} of {dev.bdf} is freed with interrupts off; freeing may have to sleep"
        k.warn("WARNING: at kernel/dma/mapping.c dma_free_attrs", "context/dma-free-irqs-off", why, "dma_free_attrs")
    path = dma_path(k, dev)
    _unmap(k, dev, mapping, "iommu_dma_free")
    if path == DIRECT and mapping.how != DIRECT and k.has(changes.DMA_DIRECT_FREES_BY_HANDLE):
        why = f"{mapping.tag} of {dev.bdf} is freed by its IOVA {mapping.iova:#x}, taken for a physical address"
        k.find("memory/free-wrong-pages", why, "dma_direct_free")
    _forget(k, dev, mapping)


def _check_domain_left(k: Kernel, dev: PciDev, function: str) -> None:
    """The instrumented kernel with its switch ``unmap-bug``: BUG_ON for a device that was released and has no group."""
    if not (k.has(changes.SWITCH_UNMAP_BUG) and str(dev.hw.bdf) in intel_iommu.vtd(k).released):
        return
    if dev.iommu_group is None:
        raise k.crash(
            "iommu/unmap-without-domain",
            "kernel BUG at kernel/dma/mapping.c!",
            f"a mapping of {dev.bdf} is given back after the device has left its domain",
            function,
        )


def _forget(k: Kernel, dev: PciDev, mapping: DmaMapping) -> None:
    end_mapping(k, mapping)
    if k.machine.iommu == "intel":
        intel_iommu.unmapped(k, dev)


def _unmap(k: Kernel, dev: PciDev, mapping: DmaMapping, function: str) -> None:
    path = dma_path(k, dev)
    error, domain = _domain_for_unmap(k, dev, mapping, path, function)
    if domain is not None:
        _unmap_in(k, mapping, domain, path)
    elif error != -errno.ENOENT:
        _check_leak(k, mapping, path)


def _domain_for_unmap(
    k: Kernel, dev: PciDev, mapping: DmaMapping, path: str, function: str
) -> tuple[int, IommuDomain | None]:
    """Return as ``_domain_for_map``; -ENOENT when what there was to say has been said."""
    if path == AMD:
        return amd_iommu.get_domain(k, dev)
    if path == INTEL:
        return intel_iommu.domain_for_unmap(k, dev, mapping)
    if path == DMA_IOMMU:
        return _dma_domain(k, dev, "unmap", function)
    return -errno.EINVAL, None


def _unmap_in(k: Kernel, mapping: DmaMapping, domain: IommuDomain, path: str) -> None:
    """Unmap in the domain the device is in now, which need not be the one the mapping was made in. VT-d's own way
    (up to v5.10, read there) does not survive that in a domain of user space's.
    """
    if mapping.domain is domain:
        unmap_page(k, domain, mapping.iova)
        return
    if mapping.iova in domain.page_table.mappings:
        unmap_page(k, domain, mapping.iova)
        why = f"{mapping.iova:#x} is unmapped in domain {domain.number}, where it is not {mapping.tag} but another's"
    else:
        why = f"{mapping.tag} is unmapped in domain {domain.number}, where {mapping.iova:#x} is not mapped"
    k.warn("WARNING: DMA unmap of an address that is not mapped", "dma/unmap-not-mapped", why, "dma_unmap_page_attrs")
    if path == INTEL and domain.type != DMA:
        raise k.crash(
            "iommu/unmap-in-foreign-domain",
            "BUG: kernel NULL pointer dereference",
            f"{why}; a domain that is not for DMA has no IOMMU to flush, says intel_unmap, and flushes it",
            "iommu_flush_iotlb_psi",
        )
    _check_leak(k, mapping, path)


def _check_leak(k: Kernel, mapping: DmaMapping, path: str) -> None:
    """The driver takes its memory back; if the IOMMU translates its address on, nobody will ever stop that."""
    if is_mapped(mapping):
        domain = mapping.domain
        assert domain is not None
        why = f"{mapping.tag} is given back on the {path} way, but {mapping.iova:#x} stays in domain {domain.number}"
        k.find("leak/dma-mapping", why, "dma_unmap_page_attrs")
