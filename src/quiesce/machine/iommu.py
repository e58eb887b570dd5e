"""What the IOMMU silicon does: units, device table and context entries, page tables as sets of mappings, the IOTLB.

A page table is the set of IOVA tokens that it maps. The IOTLB is a set of its own, filled by accesses and emptied only
by invalidation, so that a translation can outlive its mapping. Entries live under the requester id as an address,
because the hardware knows no other name for a device; with ``amd`` the device table, with ``intel`` root and context
entries.
"""

from __future__ import annotations

from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.covering import unit_number
from quiesce.machine.function import Function
from quiesce.machine.machine import Machine
from quiesce.machine.requester import requester_ids
from quiesce.snapshot.bdf import Bdf
from quiesce.world import Field, State, StateSet, World


class IommuUnit(State):
    """One IOMMU; path ``iommu/N``, numbered as in the IVRS or DMAR table."""

    enabled: Field[bool] = Field(False)
    """It translates. Off, all DMA passes untranslated."""
    interrupt_remapping: Field[bool] = Field(False)
    """Software has switched interrupt remapping on; ``quiesce.machine.interrupts`` lets messages pass or not."""


class AmdDte(State):
    """One AMD device table entry; path ``amd/dte/BDF``."""

    valid: Field[bool] = Field(False)
    """Software has given it to a device. Until then it blocks, as Linux sets up the whole table."""
    domain: Field[int] = Field(-1)
    translated: Field[bool] = Field(False)
    """DMA goes through the page table of ``domain``; a valid entry without it lets all pass."""


class VtdContext(State):
    """One VT-d context entry; path ``vtd/context/BDF``."""

    present: Field[bool] = Field(False)
    domain: Field[int] = Field(-1)
    passthrough: Field[bool] = Field(False)
    """DMA passes untranslated (translation type 10b)."""


class PageTable(State):
    """What one domain maps; path ``pt/DOMAIN``."""

    mappings: StateSet[int] = StateSet()


class Iotlb(State):
    """Translations that units keep; path ``iotlb``."""

    entries: StateSet[tuple[int, int]] = StateSet()
    """(domain, IOVA)."""


# -- where things are --------------------------------------------------------------------------------------------


def units(m: Machine) -> tuple[IommuUnit, ...]:
    """Return the machine's IOMMUs; one that covers everything when no table describes them."""
    count = 0
    if m.iommu == "amd":
        count = len(m.ivrs.units) if m.ivrs is not None else 1
    elif m.iommu == "intel":
        count = len(m.dmar.units) if m.dmar is not None else 1
    return tuple(IommuUnit.get(m.world, f"iommu/{number}") for number in range(count))


def unit_of(m: Machine, fn: Function) -> IommuUnit | None:
    """Return the IOMMU that a function's DMA goes through; None when none covers it.

    An AMD IOMMU does not translate for its own function, whatever the IVRS table says. Without a table it is taken to
    cover what comes after it on its bus and all other buses, as firmware of Zen machines describes it.
    """
    known: dict[str, int] = m.__dict__.setdefault("_unit_of", {})
    if fn.path not in known:
        known[fn.path] = unit_number(m, fn)
    return None if known[fn.path] < 0 else IommuUnit.get(m.world, f"iommu/{known[fn.path]}")


def amd_dte(world: World, rid: Bdf) -> AmdDte:
    """Return the device table entry of a requester id."""
    return AmdDte.get(world, f"amd/dte/{rid}")


def vtd_context(world: World, rid: Bdf) -> VtdContext:
    """Return the context entry of a requester id."""
    return VtdContext.get(world, f"vtd/context/{rid}")


def page_table(world: World, domain: int) -> PageTable:
    """Return the page table of a domain."""
    return PageTable.get(world, f"pt/{domain}")


def iotlb(world: World) -> Iotlb:
    """Return the IOTLB."""
    return Iotlb.get(world, "iotlb")


# -- what goes through it ----------------------------------------------------------------------------------------


def invalidate(world: World, domain: int, iova: int | None = None) -> None:
    """Drop what the IOTLB keeps for a domain, or for one IOVA of it."""
    entries = iotlb(world).entries
    for entry in entries:
        if entry[0] == domain and iova in (None, entry[1]):
            entries.discard(entry)


def can_send(m: Machine, fn: Function) -> str:
    """Return why no memory request of the function reaches the IOMMU now; empty when one does.

    Kept: presence, power, D0 and Bus Master, of the function and of every bridge above it.
    """
    for part in (fn, *topology.chain(fn)):
        if not part.alive:
            return f"{part.bdf} is not there"
        if part.power_state != r.D0:
            return f"{part.bdf} sleeps"
        if not part.bus_master:
            return f"Bus Master is off at {part.bdf}"
    return ""


def dma_access(m: Machine, fn: Function, iova: int, requester: Bdf | None = None) -> str:
    """Let a function access memory at an IOVA; ``requester`` is another id to send under than the usual one.

    Returns ``ok``, ``stale`` (only the IOTLB still translates it), or ``fault:`` and the reason, in the words the
    kernel prints for it where the IOMMU reports one.
    """
    why = can_send(m, fn)
    if why:
        return f"fault:{why}"
    unit = unit_of(m, fn)
    if unit is None or not unit.enabled:
        return "ok"
    return translate(m, requester or requester_ids(m, fn)[0], iova)


def translate(m: Machine, rid: Bdf, iova: int) -> str:
    """Send one request with the given requester id through the tables."""
    if m.iommu == "amd":
        dte = amd_dte(m.world, rid)
        if not dte.valid:
            return "fault:IO_PAGE_FAULT"
        return _walk(m.world, dte.domain, iova, "IO_PAGE_FAULT") if dte.translated else "ok"
    context = vtd_context(m.world, rid)
    if not context.present:
        return "fault:Present bit in context entry is clear"
    return "ok" if context.passthrough else _walk(m.world, context.domain, iova, "PTE Write access is not set")


def _walk(world: World, domain: int, iova: int, reason: str) -> str:
    cache = iotlb(world).entries
    if iova in page_table(world, domain).mappings:
        cache.add((domain, iova))
        return "ok"
    return "stale" if (domain, iova) in cache else f"fault:{reason}"


def interrupt_remapping_capable(m: Machine) -> bool:
    """Whether the machine's IOMMU can remap interrupts; whether it does is in ``quiesce.machine.interrupts``."""
    if m.iommu == "amd":
        return True
    return m.iommu == "intel" and (m.dmar is None or m.dmar.interrupt_remapping)


def stale_translations(m: Machine) -> tuple[tuple[int, int], ...]:
    """Return what the IOTLB still translates though the page table does not map it any more: (domain, IOVA)."""
    entries = iotlb(m.world).entries
    return tuple(entry for entry in entries if entry[1] not in page_table(m.world, entry[0]).mappings)


def live_domain(m: Machine, rid: Bdf) -> int | None:
    """Return the domain that DMA with this requester id is translated by, -1 when it passes untranslated; None when
    it is blocked.
    """
    if m.iommu == "amd":
        dte = amd_dte(m.world, rid)
        return None if not dte.valid else dte.domain if dte.translated else -1
    context = vtd_context(m.world, rid)
    return None if not context.present else -1 if context.passthrough else context.domain
