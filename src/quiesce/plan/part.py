"""The part of a machine that the lifecycle model runs on: a group, the bridges above, who shares a slot or a wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.machine import pci_regs as r
from quiesce.plan import facts
from quiesce.plan.interrupts import wire_of
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.dmar import Dmar, Drhd, write_dmar
from quiesce.snapshot.ivrs import IvhdEntry, Ivrs, IvrsUnit, write_ivrs

_USUAL_IOMMU = 0x0002
"""Requester id of 00:00.2."""
MOST_FUNCTIONS = 64
"""The search is for no larger group; others that share an interrupt wire are left out beyond this."""


@dataclass(frozen=True, slots=True)
class Part:
    """A machine to run on, or why there is none."""

    description: MachineDescription
    notes: tuple[str, ...] = ()
    why_not: str = ""


def part_of(description: MachineDescription, iommu: str | None, group: Sequence[str]) -> Part:
    """Cut a machine down to what the devices of a group can meet, with the tables that the model needs."""
    if iommu not in ("intel", "amd"):
        return Part(description, why_not=f"the model knows Intel and AMD IOMMUs, not {iommu}")
    if len(group) > MOST_FUNCTIONS:
        return Part(description, why_not=f"the group has {len(group)} members, more than {MOST_FUNCTIONS}")
    m = LightMachine(description, iommu)
    kept = _kept(m, [m.functions[bdf] for bdf in group])
    vague = [fn.bdf.short for fn in kept if not _complete(fn)]
    if vague:
        return Part(
            description, why_not=f"the source does not tell all of configuration space of {' '.join(vague[:6])}"
        )
    names = {fn.bdf for fn in kept}
    functions = tuple(item for item in description.functions if item.bdf in names)
    dmar, ivrs, note = _tables(description, iommu)
    return Part(replace(description, functions=functions, dmar=dmar, ivrs=ivrs), (note,) if note else ())


def _kept(m: LightMachine, group: list[LightFunction]) -> list[LightFunction]:
    slots: dict[tuple[int, int, int], list[LightFunction]] = {}
    for fn in m.functions.values():
        slots.setdefault(fn.bdf.slot, []).append(fn)
    keep = dict.fromkeys(fn for member in group for fn in _around(slots, member))
    for bridge in [fn for fn in keep if fn.is_bridge]:
        keep.update(dict.fromkeys(slots[bridge.bdf.slot]))
    wires = {wire for fn in group if (wire := wire_of(fn)) is not None}
    for fn in m.functions.values():
        if len(keep) < MOST_FUNCTIONS and wire_of(fn) in wires:
            keep.update(dict.fromkeys((fn, *facts.bridges(fn))))
    for fn in m.functions.values():
        if facts.class_code(fn) == r.PCI_CLASS_SYSTEM_IOMMU:
            keep[fn] = None
    return list(keep)


def _around(slots: Mapping[tuple[int, int, int], list[LightFunction]], fn: LightFunction) -> Iterator[LightFunction]:
    """Yield a function, those of its slot, on all of which its isolation depends, and what is above it."""
    yield fn
    yield from (other for other in slots[fn.bdf.slot] if not other.is_virtfn)
    yield from facts.bridges(fn)
    if fn.physfn is not None:
        yield fn.physfn


def _complete(fn: LightFunction) -> bool:
    return fn.knows.complete or (fn.is_virtfn and fn.knows.type_known and fn.knows.acs is not None)


def _tables(description: MachineDescription, iommu: str) -> tuple[bytes | None, bytes | None, str]:
    """Return DMAR and IVRS, made up where the source has none: one unit that covers everything."""
    if iommu == "intel":
        made = description.dmar or write_dmar(Dmar((Drhd(0, 0xFED90000, True, ()),), flags=1))
        note = (
            "" if description.dmar else "no DMAR table in the source: one unit with interrupt remapping stands for it"
        )
        return made, None, note
    made = description.ivrs or write_ivrs(_everything(description))
    note = "" if description.ivrs else "no IVRS table in the source: one unit without aliases stands for it"
    return None, made, note


def _everything(description: MachineDescription) -> Ivrs:
    own = next((item.bdf.requester_id for item in description.functions if _is_iommu(item)), _USUAL_IOMMU)
    entries = (IvhdEntry("all", 0, 0xFFFF), IvhdEntry("ioapic", 0x00A0, 0x00A0))
    return Ivrs((IvrsUnit(0x10, 0, own, 0x40, 0xFEB80000, 0, 0, entries),))


def _is_iommu(item: FunctionDescription) -> bool:
    return (
        int.from_bytes(item.config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2], "little") == r.PCI_CLASS_SYSTEM_IOMMU
    )
