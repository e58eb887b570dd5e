"""Makes one machine of several descriptions of it, and says where they contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import BootLog, FunctionDescription, MachineDescription
from quiesce.snapshot.overlay import differ, filled, weight

_SHOWN = 4
Groups = tuple[tuple[tuple[str, ...], ...] | None, tuple[str, ...]]


def combined(parts: Sequence[MachineDescription], name: str) -> MachineDescription:
    """Return one machine; of a function, the source that knows most of it counts, the others fill what it leaves open.

    Of what is stated once for a machine (tables, kernel, groups) the first source that states it counts.
    """
    if len(parts) == 1:
        return replace(parts[0], name=name or parts[0].name)
    conflicts: list[str] = []
    functions = _functions(parts, conflicts)
    groups, ungrouped = _groups(parts, functions, conflicts)
    kernel = _stated(parts, "kernel release", lambda part: part.kernel, conflicts)
    cmdline = _stated(parts, "kernel command line", lambda part: part.cmdline, conflicts)
    return MachineDescription(
        name=name,
        functions=functions,
        ivrs=_one_table(parts, "IVRS", lambda part: part.ivrs, conflicts),
        dmar=_one_table(parts, "DMAR", lambda part: part.dmar, conflicts),
        routing=next((part.routing for part in parts if part.routing), ()),
        source=", ".join(dict.fromkeys(part.source for part in parts)),
        notes=(*conflicts, *_labelled(parts)),
        recorded_groups=groups,
        recorded_ungrouped=ungrouped,
        tables=_tables(parts),
        kernel=kernel,
        cmdline=cmdline,
        iommu_hint=next((part.iommu_hint for part in parts if part.iommu_hint), None),
    )


def _labelled(parts: Sequence[MachineDescription]) -> Iterable[str]:
    """Say each note once, with the sources that it is about."""
    about: dict[str, list[str]] = {}
    for part in parts:
        for note in part.notes:
            about.setdefault(note, []).append(part.source)
    for note, sources in about.items():
        named = list(dict.fromkeys(filter(None, sources)))
        yield f"{_few(named)}: {note}" if named else note


# -- functions ----------------------------------------------------------------------------------------------------


Stated = list[tuple[FunctionDescription, MachineDescription]]


def _functions(parts: Sequence[MachineDescription], conflicts: list[str]) -> tuple[FunctionDescription, ...]:
    found: dict[Bdf, Stated] = {}
    for part in parts:
        for item in part.functions:
            found.setdefault(item.bdf, []).append((item, part))
    _forget_the_past(parts, found, conflicts)
    differences: dict[str, list[Bdf]] = {}
    merged = [_merge(found[bdf], differences) for bdf in sorted(found)]
    conflicts += (f"{_few(bdfs)}: {what}" for what, bdfs in differences.items())
    return tuple(_multifunction(merged))


def _forget_the_past(parts: Sequence[MachineDescription], found: dict[Bdf, Stated], conflicts: list[str]) -> None:
    """What only a log shows, and no listing of nearly the whole machine, is taken to be gone; and that a device has
    several functions does not follow from functions that are gone.
    """
    logged = {item.bdf for part in parts if isinstance(part, BootLog) for item in part.functions}
    listed = {item.bdf for part in parts if not isinstance(part, BootLog) for item in part.functions}
    past = sorted(bdf for bdf in logged - listed if any(item.present for item, _ in found[bdf]))
    if not past or len(listed & logged) * 4 < len(logged) * 3:
        return
    conflicts.append(f"{_few(past)}: in the log, not in the listing; taken to be no longer there")
    for bdf in past:
        found[bdf] = [(replace(item, present=False), part) for item, part in found[bdf]]
    slots = {bdf.slot for bdf in past}
    for bdf in listed & logged:
        if bdf.slot in slots:
            found[bdf] = [(_single(item) if isinstance(part, BootLog) else item, part) for item, part in found[bdf]]


def _single(item: FunctionDescription) -> FunctionDescription:
    """Return a function without the knowledge whether its device has others."""
    known = bytearray(item.known or b"")
    if known:
        known[r.PCI_HEADER_TYPE] &= r.PCI_HEADER_TYPE_MASK
    return replace(item, known=bytes(known) or None)


def _merge(stated: Stated, differences: dict[str, list[Bdf]]) -> FunctionDescription:
    if len(stated) == 1:
        return stated[0][0]
    by_weight = sorted(stated, key=lambda pair: (not isinstance(pair[1], BootLog), weight(pair[0])), reverse=True)
    result, first = by_weight[0]
    for item, part in by_weight[1:]:
        what = _difference(by_weight[0][0], item)
        if what is not None:
            text = f"{what} differ between {first.source} and {part.source}; the first counts"
            differences.setdefault(text, []).append(item.bdf)
        if what != "ids":
            result = filled(result, item)
    present = any(item.present for item, _ in stated)
    return result if result.present == present else replace(result, present=present)


def _difference(one: FunctionDescription, other: FunctionDescription) -> str | None:
    """Return what identifies a function and is stated differently; a virtual function reads as all ones."""
    if b"\xff\xff\xff\xff" in (one.config[:4], other.config[:4]):
        return None
    if differ(one, other, r.PCI_VENDOR_ID, 4):
        return "ids"
    bridges = one.config[r.PCI_HEADER_TYPE] & other.config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_BRIDGE
    return "bus numbers" if bridges and differ(one, other, r.PCI_SECONDARY_BUS, 2) else None


def _multifunction(functions: list[FunctionDescription]) -> Iterable[FunctionDescription]:
    """What one source shows of a device may be function 0 alone, and another source the others."""
    slots: dict[tuple[int, int, int], int] = {}
    for item in functions:
        if item.present and "virtual" not in item.attributes and item.config[:4] != b"\xff\xff\xff\xff":
            slots[item.bdf.slot] = slots.get(item.bdf.slot, 0) + 1
    for item in functions:
        at, bit = r.PCI_HEADER_TYPE, r.PCI_HEADER_TYPE_MFD
        if item.bdf.function == 0 and slots.get(item.bdf.slot, 0) > 1 and item.known and not item.known[at] & bit:
            config, known = bytearray(item.config), bytearray(item.known)
            config[at] |= bit
            known[at] |= bit
            yield replace(item, config=bytes(config), known=bytes(known))
        else:
            yield item


# -- what is stated once ------------------------------------------------------------------------------------------


def _tables(parts: Sequence[MachineDescription]) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, dict[bytes, None]] = {}
    for part in parts:
        for signature, tables in part.tables.items():
            found.setdefault(signature, {}).update(dict.fromkeys(tables))
    return {signature: tuple(tables) for signature, tables in found.items()}


def _one_table(
    parts: Sequence[MachineDescription],
    name: str,
    table: Callable[[MachineDescription], bytes | None],
    conflicts: list[str],
) -> bytes | None:
    stated = [(found, part) for part in parts if (found := table(part)) is not None]
    for found, part in stated[1:]:
        if found != stated[0][0]:
            conflicts.append(f"the {name} tables of {stated[0][1].source} and {part.source} differ; the first counts")
    return stated[0][0] if stated else None


def _stated(
    parts: Sequence[MachineDescription],
    what: str,
    value: Callable[[MachineDescription], str | None],
    conflicts: list[str],
) -> str | None:
    stated = [(found, part) for part in parts if (found := value(part)) is not None]
    for found, part in stated[1:]:
        if found != stated[0][0]:
            first, source = stated[0][0][:60], stated[0][1].source
            conflicts.append(f"the {what} is {first} in {source} and {found[:60]} in {part.source}; the first counts")
    return stated[0][0] if stated else None


def _groups(
    parts: Sequence[MachineDescription], functions: Sequence[FunctionDescription], conflicts: list[str]
) -> Groups:
    """Return the groups of the first source that states them; others are only compared with it."""
    stated = [part for part in parts if part.recorded_groups is not None]
    if not stated:
        return None, ()
    first = stated[0]
    for part in stated[1:]:
        if _common(first, part) != _common(part, first):
            conflicts.append(f"the groups of {first.source} and {part.source} differ; the first count")
    grouped = {bdf for group in first.recorded_groups or () for bdf in group}
    missing = sorted({*first.recorded_ungrouped} & {str(item.bdf) for item in functions} - grouped)
    return first.recorded_groups, tuple(missing)


def _common(one: MachineDescription, other: MachineDescription) -> list[list[str]]:
    """Return the groups of one, reduced to the functions that both have in groups."""
    both = {bdf for group in one.recorded_groups or () for bdf in group}
    both &= {bdf for group in other.recorded_groups or () for bdf in group}
    reduced = (sorted(both.intersection(group)) for group in one.recorded_groups or ())
    return sorted(group for group in reduced if group)


def _few(items: Sequence[object]) -> str:
    shown = ", ".join(map(str, items[:_SHOWN]))
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"
