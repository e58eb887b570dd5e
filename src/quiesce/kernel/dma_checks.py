"""What must hold of DMA mappings; pure functions over the state, for the rules."""

from __future__ import annotations

from quiesce.kernel.dma_iova import DIRECT, DIRECT_BASE, DmaMapping, dma_state, mappings_at, mappings_of
from quiesce.kernel.iommu_group import DMA, IommuDomain
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.machine.function import Function
from quiesce.machine.requester import requester_ids


def pending_mappings(k: Kernel, dev: PciDev) -> list[str]:
    """Return what a device still has mapped; after unbind that should be nothing (``CONFIG_DMA_API_DEBUG`` says so)."""
    return [f"{mapping.tag} at {mapping.iova:#x} ({mapping.how})" for mapping in mappings_of(k, dev)]


def stale_iotlb(k: Kernel) -> list[str]:
    """Return what the IOTLB still translates though it is neither mapped nor waiting in a flush queue: nothing will
    ever invalidate it.
    """
    waiting = dma_state(k).queue
    return [
        f"domain {number} still translates {iova:#x}, which is not mapped any more"
        for number, iova in hardware.stale_translations(k.machine)
        if (number, iova) not in waiting
    ]


def awaiting_flush(k: Kernel) -> list[str]:
    """Return what devices can reach although its driver got it back, until the flush queue is flushed."""
    entries = hardware.iotlb(k.world).entries
    return [
        f"domain {number} translates {iova:#x} until it is flushed"
        for number, iova in dma_state(k).queue
        if (number, iova) in entries
    ]


def writes_after_unmap(k: Kernel) -> list[tuple[str, str]]:
    """Return (address, why) of each function that can write, right now, to memory that its driver has taken back."""
    found = []
    for bdf, fn in k.machine.functions.items():
        if fn.dma_target and fn.behaviour.can_dma(fn) and not hardware.can_send(k.machine, fn):
            found += [(bdf, why) for why in (_reaches_freed(k, fn, iova) for iova in fn.dma_target) if why]
    return found


def _reaches_freed(k: Kernel, fn: Function, iova: int) -> str:
    """Return why a write would hit memory that is not the device's; empty when it is, or the write is blocked."""
    domain = _translating_domain(k, fn)
    if domain is None:
        return ""
    if domain < 0:
        if iova >= DIRECT_BASE and _is_direct(k, fn, iova):
            return ""
        what = (
            "a freed buffer" if iova >= DIRECT_BASE else f"physical address {iova:#x}, an IOVA that nothing translates"
        )
        return f"{fn.bdf} writes to {what}; no IOMMU is in the way"
    if iova in hardware.page_table(k.world, domain).mappings:
        return "" if _has_owner(k, domain, iova) else f"{fn.bdf} writes to {iova:#x}, which domain {domain} still maps"
    if (domain, iova) in hardware.iotlb(k.world).entries:
        return f"{fn.bdf} writes to {iova:#x}, which the IOTLB still has for domain {domain}"
    return ""


def _translating_domain(k: Kernel, fn: Function) -> int | None:
    """Return the domain that translates for a function, -1 where nothing does; None when it is blocked."""
    unit = hardware.unit_of(k.machine, fn)
    if unit is None or not unit.enabled:
        return -1
    return hardware.live_domain(k.machine, requester_ids(k.machine, fn)[0])


def _is_direct(k: Kernel, fn: Function, iova: int) -> bool:
    return any(item.how == DIRECT and item.iova == iova and _is_for(item, fn) for item in mappings_at(k, str(fn.bdf)))


def _is_for(mapping: DmaMapping, fn: Function) -> bool:
    dev = mapping.dev
    return dev is not None and dev.exists and dev.hw is fn


def _has_owner(k: Kernel, number: int, iova: int) -> bool:
    """Whether some driver, firmware, or user space through its own domain, has the page mapped."""
    domain = IommuDomain.get(k.world, f"domain/{number}")
    if not domain.exists or domain.type != DMA:
        return domain.exists
    return _is_reserved(k, iova) or any(item.iova == iova for item in domain.dma_mappings)


def _is_reserved(k: Kernel, iova: int) -> bool:
    """Whether firmware asked for the page to be mapped for ever."""
    ivrs, dmar = k.machine.ivrs, k.machine.dmar
    if ivrs is not None and any(item.start == iova for item in ivrs.memory):
        return True
    return dmar is not None and any(item.base == iova for item in dmar.memory)
