"""Which IOMMU a function's DMA goes through, and which table says so."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.groups.coverage import BY_DRIVER, covered_by_mistake, meets_iommu
from quiesce.groups.kernel import LightKernel
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.step import Step
from quiesce.kernel import changes
from quiesce.kernel.parameters import Parameters
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.covering import unit_number
from quiesce.machine.requester import volume_manager
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.dmar import Cover
from quiesce.snapshot.ivrs import IvhdEntry, IvrsUnit

_SHOWN = 6


def coverage(k: LightKernel, m: LightMachine, fn: LightFunction) -> Step:
    """Say which unit covers a function, or why none does."""
    number = unit_number(m, fn)
    if m.iommu in BY_DRIVER:
        return _by_driver(k, m, fn)
    if number < 0 and covered_by_mistake(k, m, fn):
        fact = "counts as covered: this kernel takes the end of an IVRS range for the end of an alias to requester id 0"
        change = changes.AMD_RANGE_COVERS_ALIAS
        return Step("covered", fn.path, fn.path, fact, "no entry names it", change.id, change.since or "")
    if m.iommu == "amd":
        fact, evidence = _amd(m, fn, number)
    else:
        fact, evidence = _intel(m, fn, number)
    return Step("covered" if number >= 0 else "uncovered", fn.path, fn.path, fact, evidence)


def _by_driver(k: LightKernel, m: LightMachine, fn: LightFunction) -> Step:
    evidence = f"IOMMU: {m.iommu}"
    if not meets_iommu(k, m, fn):
        fact = "has no driver: this kernel asks firmware for the IOMMU of a function when a driver binds"
        change = changes.IOMMU_PROBE_IN_CORE
        return Step("uncovered", fn.path, fn.path, fact, evidence, change.id, change.since or "")
    return Step("covered", fn.path, fn.path, "is taken to be behind the IOMMU", evidence)


def _amd(m: LightMachine, fn: LightFunction, number: int) -> tuple[str, str]:
    if fn.class_code >> 8 == r.PCI_CLASS_SYSTEM_IOMMU:
        return "is the IOMMU's own function: it translates for others, not for itself", "class code 0806"
    if m.ivrs is None:
        if number >= 0:
            return "is taken to be behind the IOMMU: its address comes after it", "no IVRS table in the source"
        return "comes before the IOMMU's own function and is taken not to be covered", "no IVRS table in the source"
    if number < 0:
        return "is outside every entry of the IVRS table: its DMA is not translated", _ranges(m, fn.bdf.segment)
    unit = m.ivrs.units[number]
    entry = next(entry for entry in reversed(unit.entries) if _names(entry, fn.bdf.requester_id))
    return f"is behind the IOMMU {unit.bdf.short}", f"IVRS, IVHD {number} at {unit.base:#x}: {_entry(entry)}"


def _names(entry: IvhdEntry, devid: int) -> bool:
    return entry.first <= devid <= entry.last or entry.alias == devid


def _entry(entry: IvhdEntry) -> str:
    first, last = Bdf.from_devid(entry.first).short, Bdf.from_devid(entry.last).short
    text = f"{entry.kind} {first}" + (f"-{last}" if entry.last != entry.first else "")
    return text if entry.alias is None else f"{text} -> {Bdf.from_devid(entry.alias).short}"


def _ranges(m: LightMachine, segment: int) -> str:
    assert m.ivrs is not None
    units: list[IvrsUnit] = [unit for unit in m.ivrs.units if unit.segment == segment]
    found = [_entry(entry) for unit in units for entry in unit.entries if entry.kind not in ("ioapic", "hpet")]
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"IVRS covers {', '.join(found[:_SHOWN]) or 'nothing'}{more} of segment {segment:04x}"


def _intel(m: LightMachine, fn: LightFunction, number: int) -> tuple[str, str]:
    if m.dmar is None:
        return "is taken to be behind VT-d", "no DMAR table in the source"
    if number < 0:
        names = ", ".join(f"{unit.base:#x}" for unit in m.dmar.units if unit.segment == fn.bdf.segment)
        scope = f"DRHDs of segment {fn.bdf.segment:04x}: {names or 'none'}"
        return "is in the scope of no VT-d unit, and none of its segment takes the rest", scope
    manager: LightFunction | None = volume_manager(m, fn)
    first = manager or fn.physfn or fn
    cover = m.dmar.cover_of((first.bdf, *(bridge.bdf for bridge in topology.chain(first))))
    assert cover is not None
    return f"is behind VT-d unit {number} at {cover.unit.base:#x}", f"DMAR, DRHD {number}: {_scope(cover)}"


def _scope(cover: Cover) -> str:
    if cover.scope is None:
        return "INCLUDE_PCI_ALL: what no other unit names"
    steps = "/".join(f"{device:02x}.{function}" for device, function in cover.scope.path)
    return f"{cover.scope.kind} scope, start bus {cover.scope.bus:02x}, path {steps}"


def no_iommu(description: MachineDescription, parameters: Parameters, iommu: str | None) -> Iterator[Step]:
    """Say what is missing where no IOMMU is at work."""

    def step(fact: str, evidence: str) -> Step:
        return Step("nothing", "", "", fact, evidence)

    if iommu == "none":
        yield step("no IOMMU, as the command line of quiesce wants it", "--iommu none")
    if parameters.iommu_off:
        yield step("the kernel is told not to use the IOMMU", "intel_iommu=off, amd_iommu=off or iommu=off")
    if description.ivrs is None and description.dmar is None:
        yield step("firmware describes no IOMMU: it is switched off there, or not in the source", "no IVRS, no DMAR")
    elif not parameters.iommu_off and iommu is None:
        yield step("the source shows no IOMMU at work", "")
    words = (description.cmdline or "").split()
    if description.dmar is not None and words and not any(word.startswith("intel_iommu=") for word in words):
        yield step("VT-d stays off unless the kernel is built to switch it on or told so", "no intel_iommu=on")
