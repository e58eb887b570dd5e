"""DMA mappings and the addresses they get (drivers/iommu/iova.c, the core of dma-iommu.c).

An address is a token, one page each. Addresses behind an IOMMU start at 0x1000 in every domain; bus addresses without
translation start at 4 GiB and never coincide with those.
"""

from __future__ import annotations

from quiesce.kernel.iommu_group import IommuDomain
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.world import Field, State, StateList, StateSet

PAGE = 0x1000
DIRECT_BASE = 1 << 32
DIRECT = "direct"
"""``DmaMapping.how`` of memory that the device addresses without translation."""


class DmaMapping(State):
    """Memory that a driver has given to its device; path ``dma/N``. Lives until the driver takes it back."""

    mortal = True
    dev: Field[PciDev | None] = Field(None)
    tag: Field[str] = Field("")
    """What the memory is for."""
    iova: Field[int] = Field(0)
    """The address that the device uses."""
    coherent: Field[bool] = Field(False)
    how: Field[str] = Field("")
    """Which way made it: ``direct``, ``intel``, ``amd`` or ``iommu``."""
    domain: Field[IommuDomain | None] = Field(None)
    """The domain it is mapped in; None for a direct one, and once the domain has been freed."""


class DmaState(State):
    """All mappings; path ``dma``."""

    mappings: StateList[DmaMapping] = StateList()
    queue: StateSet[tuple[int, int]] = StateSet()
    """Flush queue: (domain, address) that are unmapped while the IOTLB may still have them."""


def dma_state(k: Kernel) -> DmaState:
    """Return the state of the DMA API."""
    return DmaState.get(k.world, "dma")


def new_mapping(k: Kernel, dev: PciDev, tag: str, how: str, domain: IommuDomain | None, coherent: bool) -> DmaMapping:
    """Make a mapping and enter it into the domain, if it has one."""
    mapping = DmaMapping.fresh(k.world, "dma", dev=dev, tag=tag, how=how, domain=domain, coherent=coherent)
    mapping.iova = DIRECT_BASE + PAGE * mapping.number if domain is None else map_page(k, domain)
    dma_state(k).mappings.replace((*mappings(k), mapping))
    return mapping


def end_mapping(k: Kernel, mapping: DmaMapping) -> None:
    """The driver has taken its memory back."""
    dma_state(k).mappings.remove(mapping)
    mapping.delete()


def mappings(k: Kernel) -> tuple[DmaMapping, ...]:
    """Return all mappings that drivers have, oldest first."""
    return tuple(mapping for mapping in dma_state(k).mappings if mapping.exists)


def mappings_of(k: Kernel, dev: PciDev) -> tuple[DmaMapping, ...]:
    """Return what a driver has mapped for a device and not taken back."""
    return tuple(mapping for mapping in mappings(k) if mapping.dev is dev)


# -- domains -----------------------------------------------------------------------------------------------------


def map_page(k: Kernel, domain: IommuDomain) -> int:
    """drivers/iommu/iova.c. Kept: the lowest address that is neither mapped nor waiting to be flushed."""
    used = domain.page_table.mappings
    waiting = dma_state(k).queue
    iova = PAGE
    while iova in used or (domain.number, iova) in waiting:
        iova += PAGE
    used.add(iova)
    return iova


def unmap_page(k: Kernel, domain: IommuDomain, iova: int) -> None:
    """drivers/iommu/dma-iommu.c, ``__iommu_dma_unmap``. Kept: unmapped, then invalidated at once, or entered into the
    flush queue of a domain that has one.
    """
    domain.page_table.mappings.discard(iova)
    if domain.flush_queue:
        dma_state(k).queue.add((domain.number, iova))
    else:
        hardware.invalidate(k.world, domain.number, iova)


def fq_flush_timeout(k: Kernel) -> None:
    """drivers/iommu/iova.c, later dma-iommu.c. Kept: everything that waits is invalidated, its addresses are free
    again.

    Left out: one queue per CPU, the limit of 256 entries that flushes before the timer does.
    """
    for number, iova in dma_state(k).queue:
        hardware.invalidate(k.world, number, iova)
    dma_state(k).queue.clear()


def is_mapped(mapping: DmaMapping) -> bool:
    """Whether the IOMMU still translates the mapping's address."""
    domain = mapping.domain
    return domain is not None and domain.exists and mapping.iova in domain.page_table.mappings


def forget_domain(k: Kernel, domain: IommuDomain) -> None:
    """The domain is being freed: what is mapped in it, and what waits in its flush queue, goes with it."""
    for mapping in mappings(k):
        if mapping.domain is domain:
            mapping.domain = None
    queue = dma_state(k).queue
    for entry in queue:
        if entry[0] == domain.number:
            queue.discard(entry)


def forget_queue(k: Kernel) -> None:
    """A kernel that starts has nothing in its flush queue."""
    dma_state(k).queue.clear()
