"""DMA mappings and the addresses they get (drivers/iommu/iova.c, the core of dma-iommu.c).

An address is a token, one page each. Addresses behind an IOMMU start at 0x1000 in every domain; bus addresses without
translation start at 4 GiB and never coincide with those.
"""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.kernel.iommu_group import IommuDomain
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev, address_of
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf
from quiesce.world import Field, State, StateList, StateSet

PAGE = 0x1000
DIRECT_BASE = 1 << 32
DIRECT = "direct"
"""``DmaMapping.how`` of memory that the device addresses without translation."""


class DmaMapping(State):
    """Memory that a driver has given to its device; path ``dma/BDF/N``. Lives until the driver takes it back."""

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


class DeviceMappings(State):
    """What drivers have mapped for the functions at one address; path ``dma/BDF``."""

    mappings: StateList[DmaMapping] = StateList()

    @classmethod
    def at(cls, k: Kernel, bdf: str) -> DeviceMappings:
        """Return what is mapped for an address."""
        return cls.get(k.world, f"dma/{bdf}")


class DmaState(State):
    """The DMA API as a whole; path ``dma``."""

    queue: StateSet[tuple[int, int]] = StateSet()
    """Flush queue: (domain, address) that are unmapped while the IOTLB may still have them."""


def dma_state(k: Kernel) -> DmaState:
    """Return the state of the DMA API."""
    return DmaState.get(k.world, "dma")


def new_mapping(k: Kernel, dev: PciDev, tag: str, how: str, domain: IommuDomain | None, coherent: bool) -> DmaMapping:
    """Make a mapping and enter it into the domain, if it has one."""
    bdf = address_of(dev)
    mapping = DmaMapping.fresh(k.world, f"dma/{bdf}", dev=dev, tag=tag, how=how, domain=domain, coherent=coherent)
    DeviceMappings.at(k, bdf).mappings.append(mapping)
    if domain is None:
        mapping.iova = direct_base(Bdf.parse(bdf)) + PAGE * mapping.number
    else:
        mapping.iova = map_page(k, domain)
        domain.dma_mappings.append(mapping)
    return mapping


def direct_base(bdf: Bdf) -> int:
    """Return where the memory begins that the functions at an address are given without translation."""
    return DIRECT_BASE + (bdf.requester_id << 20)


def end_mapping(k: Kernel, mapping: DmaMapping) -> None:
    """The driver has taken its memory back."""
    DeviceMappings.at(k, mapping.path.split("/")[1]).mappings.remove(mapping)
    leave_domain(mapping)
    mapping.delete()


def leave_domain(mapping: DmaMapping) -> None:
    """The domain does not know the mapping any more."""
    domain = mapping.domain
    if domain is not None and domain.exists:
        domain.dma_mappings.remove(mapping)
    mapping.domain = None


def mappings(k: Kernel) -> tuple[DmaMapping, ...]:
    """Return all mappings that drivers have, those of one address oldest first."""
    return tuple(mapping for bdf in k.machine.functions for mapping in mappings_at(k, bdf))


def mappings_at(k: Kernel, bdf: str) -> Iterator[DmaMapping]:
    """Yield what drivers have mapped for the functions at an address, oldest first."""
    return (mapping for mapping in DeviceMappings.at(k, bdf).mappings if mapping.exists)


def mappings_of(k: Kernel, dev: PciDev) -> tuple[DmaMapping, ...]:
    """Return what a driver has mapped for a device and not taken back."""
    return tuple(mapping for mapping in mappings_at(k, address_of(dev)) if mapping.dev is dev)


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
    for mapping in domain.dma_mappings:
        mapping.domain = None
    domain.dma_mappings.clear()
    queue = dma_state(k).queue
    for entry in queue:
        if entry[0] == domain.number:
            queue.discard(entry)


def forget_queue(k: Kernel) -> None:
    """A kernel that starts has nothing in its flush queue."""
    dma_state(k).queue.clear()
