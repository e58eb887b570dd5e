"""Memory that firmware wants mapped one to one for a device: RMRR of a DMAR table, unity mappings (IVMD) of an IVRS."""

from __future__ import annotations

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.plan import facts


def reserved(m: LightMachine, fn: LightFunction) -> tuple[tuple[int, int], ...]:
    """Return first and last address of each such range.

    VT-d: the RMRR structures whose scope names the function or a bridge above it. AMD: IVMD blocks for its id; those of
    exclusion count, because Linux makes unity mappings of them (drivers/iommu/amd/init.c ``init_unity_map_range``).
    """
    if m.iommu == "intel" and m.dmar is not None:
        path = (fn.bdf, *(bridge.bdf for bridge in facts.bridges(fn)))
        found = m.dmar.reserved_for(path, lambda bdf: facts.secondary_bus(m, bdf))
        return tuple((item.base, item.limit) for item in found)
    if m.iommu == "amd" and m.ivrs is not None:
        here = fn.bdf.requester_id
        blocks = (item for item in m.ivrs.memory if item.segment == fn.bdf.segment and (item.unity or item.exclusion))
        return tuple(
            (item.start, item.start + item.length - 1)
            for item in blocks
            if item.applies == "all" or item.first <= here <= item.last
        )
    return ()
