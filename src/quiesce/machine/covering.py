"""Which IOMMU covers a function, by the firmware's tables.

That is static, so it works on the functions of a world and on the light ones of ``quiesce.groups`` alike.
"""

from __future__ import annotations

from typing import Any

from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.requester import volume_manager
from quiesce.machine.view import SiliconView
from quiesce.snapshot.bdf import Bdf


def unit_number(m: Any, fn: Any) -> int:
    """Return the number of the unit that covers a function, -1 when none does; ``m`` and ``fn`` may be the light ones
    of ``quiesce.groups``.
    """
    if m.iommu == "amd":
        return -1 if fn.class_code >> 8 == r.PCI_CLASS_SYSTEM_IOMMU else _ivrs_unit_number(m, fn)
    if m.iommu == "intel":
        if m.dmar is None:
            return 0
        first = volume_manager(m, fn) or fn.physfn or fn
        path = (first.bdf, *(bridge.bdf for bridge in topology.chain(first)))
        covering = m.dmar.unit_of(path, lambda bdf: _secondary(m, bdf))
        return -1 if covering is None else m.dmar.units.index(covering)
    return -1


def _ivrs_unit_number(m: Any, fn: SiliconView) -> int:
    if m.ivrs is None:
        own = _iommu_functions(m).get(fn.bdf[:2])
        return 0 if own is None or fn.bdf > own else -1
    unit = m.ivrs.unit_of(fn.bdf.requester_id, fn.bdf.segment)
    return -1 if unit is None else m.ivrs.units.index(unit)


def _iommu_functions(m: Any) -> dict[tuple[int, ...], Bdf]:
    """Return the IOMMU's own function on each bus that has one."""
    known: dict[tuple[int, ...], Bdf] | None = m.__dict__.get("_iommu_functions")
    if known is None:
        found = (fn.bdf for fn in m.functions.values() if fn.class_code >> 8 == r.PCI_CLASS_SYSTEM_IOMMU)
        known = m.__dict__["_iommu_functions"] = {bdf[:2]: bdf for bdf in found}
    return known


def _secondary(m: Any, bdf: Bdf) -> int | None:
    fn = m.functions.get(str(bdf))
    return topology.bus_range(fn).start if fn is not None and fn.is_bridge else None
