"""The container's address space (drivers/vfio/vfio_iommu_type1.c): one domain per group, filled by user space."""

from __future__ import annotations

from errno import ENODEV, ENOMEM

from quiesce.kernel import iommu, vfio_intrs
from quiesce.kernel.iommu_group import IommuDomain, IommuGroup
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.vfio import VfioGroup, vfio_group_of
from quiesce.kernel.vfio_intrs import VfioPciDevice
from quiesce.machine import iommu as hardware

_PAGE = 0x1000


def attach_group(k: Kernel, group: VfioGroup, iommu_group: IommuGroup) -> int:
    """``vfio_iommu_type1_attach_group``. Kept: a domain of its own for the group; freed again when it can not be
    attached.

    Left out: a domain shared by groups, reserved regions, interrupt remapping as a condition.
    """
    domain = iommu.iommu_domain_alloc(k)
    if domain is None:
        return -ENOMEM
    error = iommu.iommu_attach_group(k, domain, iommu_group)
    if error:
        iommu.iommu_domain_free(k, domain)
        return error
    group.domain = domain
    return 0


def detach_group(k: Kernel, group: VfioGroup, iommu_group: IommuGroup) -> None:
    """``vfio_iommu_type1_detach_group``. Kept: all is unmapped with the last group, then the domain goes."""
    domain = group.domain
    if domain is None:
        return
    for iova in domain.page_table.mappings:
        _unmap(k, domain, iova)
    iommu.iommu_detach_group(k, domain, iommu_group)
    iommu.iommu_domain_free(k, domain)
    group.domain = None


def vfio_dma_map(k: Kernel, vdev: VfioPciDevice) -> int:
    """``vfio_dma_do_map``. Kept: one page at the lowest free address; pinning can fail."""
    domain = _domain(k, vdev)
    if domain is None:
        return -ENODEV
    if k.may_fail("vfio_dma_do_map"):
        return -ENOMEM
    iova = _PAGE
    while iova in domain.page_table.mappings:
        iova += _PAGE
    domain.page_table.mappings.add(iova)
    vdev.dma.append(iova)
    return 0


def vfio_dma_unmap(k: Kernel, vdev: VfioPciDevice) -> None:
    """``vfio_dma_do_unmap``. Kept: unmapped and invalidated before it returns."""
    domain = _domain(k, vdev)
    if domain is not None:
        for iova in vdev.dma:
            _unmap(k, domain, iova)
    vdev.dma.clear()


def _domain(k: Kernel, vdev: VfioPciDevice) -> IommuDomain | None:
    group = vfio_group_of(k, vfio_intrs.pdev(vdev))
    return None if group is None else group.domain


def _unmap(k: Kernel, domain: IommuDomain, iova: int) -> None:
    domain.page_table.mappings.discard(iova)
    hardware.invalidate(k.world, domain.number, iova)
