"""The AMD IVRS table: which IOMMU covers which requester ids, and under which other id a device's requests arrive.

AMD I/O Virtualization Technology (IOMMU) Specification, chapter 5: IVHD blocks of the types 10h, 11h and 40h with
all device entries, IVMD blocks. Blocks of other types are skipped and listed. What Linux makes of mistakes was read
in drivers/iommu/amd/init.c of v6.1; the notes say where they are, `Ivrs.refused` whether they make Linux run without
the IOMMU.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush

from quiesce.snapshot.acpi_layout import Notes, Part
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.ivrs_parts import (
    ALIAS,
    ALIAS_RANGE,
    ALL,
    EXT_RANGE,
    EXT_SELECT,
    HEADER_SIZES,
    HID,
    IVMD,
    IVMD_TYPES,
    KNOWN_ENTRIES,
    LAST_IVHD_TYPE,
    PAD,
    PAD_8,
    RANGE,
    RANGE_END,
    SELECT,
    SPECIAL,
    SPECIAL_KINDS,
    UNKNOWN,
    parts_of,
)
from quiesce.snapshot.table import open_table, sealed

_LAST_DEVID = 0xFFFF
_NO_ATS = 1 << 31
_LAST_SEEN = frozenset(("select", "range", "alias", "alias-range", "ext-select", "ext-range"))


@dataclass(frozen=True, slots=True)
class IvhdEntry:
    """One device entry; a start of range and its end are one entry."""

    kind: str
    """``all``, ``select``, ``range``, ``alias``, ``alias-range``, ``ext-select``, ``ext-range``, ``ioapic``, ``hpet``,
    ``special`` or ``hid``."""
    first: int
    last: int
    """Requester ids, both included."""
    flags: int = 0
    alias: int | None = None
    """The requester id under which the requests of these devices arrive."""
    extended: int = 0
    handle: int = 0
    """Number of the IO-APIC or HPET."""
    hid: str = ""
    uid: str = ""
    cid: str = ""
    """Compatible id of an ACPI device."""

    @property
    def ats_disabled(self) -> bool:
        """Whether firmware says that these devices must not use ATS."""
        return bool(self.extended & _NO_ATS)


@dataclass(frozen=True, slots=True)
class IvrsUnit:
    """One IVHD block: an IOMMU, with what it covers."""

    type: int
    flags: int
    devid: int
    """Requester id of the IOMMU's own PCI function."""
    capability: int
    """Offset of the IOMMU capability in its config space."""
    base: int
    segment: int
    info: int
    entries: tuple[IvhdEntry, ...]
    features: int = 0
    """Its extended feature register, in blocks of the types 11h and 40h."""
    attributes: int = 0
    """Feature bits in a block of type 10h, counters and the like in the others."""
    features2: int = 0

    @property
    def bdf(self) -> Bdf:
        """Address of the IOMMU's own PCI function."""
        return Bdf.from_devid(self.devid, self.segment)

    def covers(self, devid: int) -> bool:
        """Whether the unit translates for this requester id; targets of aliases are covered with their sources."""
        return any(entry.first <= devid <= entry.last or entry.alias == devid for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Ivmd:
    """Memory that devices use behind the operating system's back."""

    applies: str
    """``all``, ``device`` or ``range``."""
    first: int
    last: int
    start: int
    length: int
    flags: int
    segment: int = 0

    @property
    def unity(self) -> bool:
        """Whether the memory must be mapped one to one."""
        return bool(self.flags & 0x01)

    @property
    def exclusion(self) -> bool:
        """Whether accesses to it are not translated at all; Linux maps it one to one instead."""
        return bool(self.flags & 0x08)


@dataclass(frozen=True)
class Ivrs:
    """A whole IVRS table."""

    blocks: tuple[IvrsUnit, ...]
    """All IVHD blocks; firmware describes each IOMMU once per type it knows."""
    memory: tuple[Ivmd, ...] = ()
    info: int = 0
    skipped: tuple[int, ...] = ()
    """Types of blocks that were not understood."""
    notes: tuple[str, ...] = ()
    """What is wrong with the table, with offsets."""
    refused: str = ""
    """Why Linux uses nothing of it; empty when it does."""
    chosen: int | None = None
    """The type of block that Linux goes by, when it does not follow from ``blocks`` alone."""

    @cached_property
    def units(self) -> tuple[IvrsUnit, ...]:
        """One block per IOMMU: those of the last type that the first IOMMU is described with, as Linux chooses."""
        if not self.blocks:
            return ()
        target = self.chosen
        if target is None:
            target = [block.type for block in self.blocks if block.devid == self.blocks[0].devid][-1]
        return tuple(block for block in self.blocks if block.type == target)

    @cached_property
    def _owners(self) -> dict[int, _Last]:
        """By segment, the index in `units` of the unit that covers each requester id."""
        spans: dict[int, list[tuple[int, int, int]]] = {}
        for index, unit in enumerate(self.units):
            here = spans.setdefault(unit.segment, [])
            for entry in unit.entries:
                here.append((entry.first, entry.last, index))
                if entry.alias is not None:
                    here.append((entry.alias, entry.alias, index))
        return {segment: _Last(found) for segment, found in spans.items()}

    def unit_of(self, devid: int, segment: int = 0) -> IvrsUnit | None:
        """Return the IOMMU that covers a requester id; of several, the last one in the table."""
        owners = self._owners.get(segment)
        index = -1 if owners is None else owners.of(devid)
        return None if index < 0 else self.units[index]

    @cached_property
    def _aliases(self) -> dict[int, _Last]:
        """By segment, the alias of each requester id."""
        spans: dict[int, list[tuple[int, int, int]]] = {}
        for unit in self.units:
            found = ((entry.first, entry.last, entry.alias) for entry in unit.entries if entry.alias is not None)
            spans.setdefault(unit.segment, []).extend(found)
        return {segment: _Last(found) for segment, found in spans.items() if found}

    def alias_table(self, segment: int = 0) -> dict[int, int]:
        """Return requester id -> alias, for the ids whose alias is not themselves."""
        found = self._aliases.get(segment)
        return {} if found is None else {devid: alias for devid, alias in found.all() if alias != devid}

    def alias_of(self, devid: int, segment: int = 0) -> int:
        """Return the requester id under which the requests of ``devid`` arrive."""
        found = self._aliases.get(segment)
        alias = -1 if found is None else found.of(devid)
        return devid if alias < 0 else alias

    def alias_entry(self, devid: int, segment: int = 0) -> tuple[IvrsUnit, IvhdEntry] | None:
        """Return the block and the entry that give a requester id its alias."""
        for unit in reversed(self.units):
            for entry in reversed(unit.entries) if unit.segment == segment else ():
                if entry.alias is not None and entry.first <= devid <= entry.last:
                    return unit, entry
        return None

    def covered(self, segment: int = 0) -> frozenset[int]:
        """Return every requester id that some unit translates for."""
        owners = self._owners.get(segment)
        return frozenset(() if owners is None else (devid for devid, _ in owners.all()))

    def last_bdf(self, segment: int = 0) -> int | None:
        """Return the highest requester id that Linux makes room for; None when a block names none it looks at.

        As find_last_devid_from_ivhd (v6.1, per segment): neither targets of aliases nor special and ACPI devices
        count. Aliases beyond it are written outside of the kernel's tables.
        """
        last = 0
        for unit in self.units:
            if unit.segment == segment:
                found = [_last_looked_at(entry) for entry in unit.entries]
                if max(found, default=-1) < 0:
                    return None
                last = max(last, *found)
        return last

    def special(self, kind: str, segment: int = 0) -> tuple[IvhdEntry, ...]:
        """Return the entries of a kind (``ioapic``, ``hpet``, ``hid``) of a segment."""
        here = (unit for unit in self.units if unit.segment == segment)
        return tuple(entry for unit in here for entry in unit.entries if entry.kind == kind)

    def reserved_for(self, devid: int, segment: int = 0) -> tuple[Ivmd, ...]:
        """Return the reserved memory of a requester id that Linux maps (init_unity_map_range)."""
        here = (item for item in self.memory if item.segment == segment and (item.unity or item.exclusion))
        return tuple(item for item in here if item.first <= devid <= item.last)


def _last_looked_at(entry: IvhdEntry) -> int:
    if entry.kind == "all":
        return _LAST_DEVID
    return entry.last if entry.kind in _LAST_SEEN else -1


class _Last:
    """For every requester id the value of the last of some spans (first, last, value) that it is in, -1 for none.

    Kept as the ids at which the value changes, so that the cost follows the number of spans.
    """

    def __init__(self, spans: Sequence[tuple[int, int, int]]) -> None:
        self.starts: list[int] = [0]
        self.values: list[int] = [-1]
        events = sorted((edge, index) for index, span in enumerate(spans) for edge in (span[0], span[1] + 1))
        active: list[int] = []
        for edge, index in events:
            if edge == spans[index][0] <= spans[index][1]:
                heappush(active, -index)
            while active and spans[-active[0]][1] < edge:
                heappop(active)
            self._go_on(edge, spans[-active[0]][2] if active else -1)

    def _go_on(self, edge: int, value: int) -> None:
        if edge == self.starts[-1]:
            self.values[-1] = value
        elif value != self.values[-1]:
            self.starts.append(edge)
            self.values.append(value)

    def of(self, devid: int) -> int:
        """Return the value of an id."""
        return self.values[bisect_right(self.starts, devid) - 1] if devid >= 0 else -1

    def all(self) -> Iterator[tuple[int, int]]:
        """Yield the ids that have a value, with it."""
        for start, end, value in zip(self.starts, [*self.starts[1:], _LAST_DEVID + 1], self.values, strict=True):
            if value >= 0:
                yield from ((devid, value) for devid in range(start, end))


# -- reading -----------------------------------------------------------------------------------------------------


def read_ivrs(data: bytes, file: str = "IVRS") -> Ivrs:
    """Read a raw IVRS table; raises BadInput with the offset when there is no such table in it."""
    notes = Notes()
    table = open_table(data, b"IVRS", file, notes)
    if sum(data[: len(table)]) & 0xFF:
        notes.refused = "the checksum is wrong (check_ivrs_checksum)"
    header, *parts = parts_of(table, notes)
    blocks = [(part, part.number("type")) for part in parts]
    chosen = _chosen(blocks)
    return Ivrs(
        blocks=tuple(_unit(part, kind, kind == chosen, notes) for part, kind in blocks if kind in HEADER_SIZES),
        memory=tuple(_memory(part, IVMD_TYPES[kind]) for part, kind in blocks if kind in IVMD_TYPES),
        info=header.number("info"),
        skipped=tuple(kind for part, kind in blocks if part.layout is UNKNOWN),
        notes=tuple(notes.lines),
        refused=notes.refused,
        chosen=chosen,
    )


def _chosen(blocks: Sequence[tuple[Part, int]]) -> int | None:
    """Return the type of block that counts, as get_highest_supported_ivhd_type finds it: the last one, of those before
    the first type that Linux does not know, for the device id that the first block has. Memory blocks count as well.
    """
    chosen = blocks[0][1] if blocks else None
    for part, kind in blocks:
        if kind > LAST_IVHD_TYPE:
            break
        if part.layout is not UNKNOWN and _devid(part) == _devid(blocks[0][0]):
            chosen = kind
    return chosen


def _devid(part: Part) -> int:
    return part.number("first" if part.layout is IVMD else "devid")


def _unit(part: Part, kind: int, counts: bool, notes: Notes) -> IvrsUnit:
    return IvrsUnit(
        type=kind,
        flags=part.number("flags"),
        devid=part.number("devid"),
        capability=part.number("capability"),
        base=part.number("base"),
        segment=part.number("segment"),
        info=part.number("info"),
        entries=tuple(_entries(part.parts, kind, counts, notes)),
        features=part.number("features"),
        attributes=part.number("attributes"),
        features2=part.number("features2"),
    )


def _entries(parts: Iterable[Part], block: int, counts: bool, notes: Notes) -> Iterator[IvhdEntry]:
    """Yield the entries, each range as one; an end without a start goes on from the last start, as in Linux."""
    start, waiting = IvhdEntry("range", 0, 0), None
    for part in parts:
        kind = part.number("type")
        if kind == RANGE_END:
            last = part.number("devid")
            if waiting is None:
                notes.add(
                    part.offset, "an end of range that none was started for; Linux starts at the last start again"
                )
            if last >= start.first:
                yield replace(start, last=last)
            waiting = None
        elif kind in (RANGE, ALIAS_RANGE, EXT_RANGE):
            if waiting is not None:
                notes.add(waiting, "a start of range without an end; Linux ignores it")
            start, waiting = _entry(part, kind), part.offset
        elif kind in KNOWN_ENTRIES and kind not in (PAD, PAD_8):
            start = _leaking(start, part, kind)
            yield from _single(part, kind, block, counts, notes)
    if waiting is not None:
        notes.add(waiting, "a start of range without an end; Linux ignores it")


def _leaking(start: IvhdEntry, part: Part, kind: int) -> IvhdEntry:
    """Linux keeps the alias and the flags of a range where some entries between its start and end overwrite them."""
    if kind == ALIAS and start.alias is not None:
        return replace(start, alias=part.number("source"))
    return replace(start, flags=part.number("flags")) if kind == HID else start


def _single(part: Part, kind: int, block: int, counts: bool, notes: Notes) -> Iterator[IvhdEntry]:
    if kind == HID and (block != LAST_IVHD_TYPE or not part.text("hid")):
        notes.add(part.offset, "an ACPI device without a name, or outside of a block of type 0x40; Linux ignores it")
        return
    if kind == SPECIAL and part.number("variety") not in SPECIAL_KINDS:
        notes.add(part.offset, f"a special device of variety {part.number('variety')}", refused=counts)
    yield _entry(part, kind)


def _entry(part: Part, kind: int) -> IvhdEntry:
    devid, flags = part.number("devid"), part.number("flags")
    if kind == ALL:
        return IvhdEntry("all", 0, _LAST_DEVID, flags)
    if kind in (SELECT, RANGE):
        return IvhdEntry("select" if kind == SELECT else "range", devid, devid, flags)
    if kind in (ALIAS, ALIAS_RANGE):
        alias = part.number("source")
        return IvhdEntry("alias" if kind == ALIAS else "alias-range", devid, devid, flags, alias)
    if kind in (EXT_SELECT, EXT_RANGE):
        extended = part.number("extended")
        return IvhdEntry("ext-select" if kind == EXT_SELECT else "ext-range", devid, devid, flags, extended=extended)
    if kind == SPECIAL:
        source, variety = part.number("source"), part.number("variety")
        kind_name = SPECIAL_KINDS.get(variety, "special")
        return IvhdEntry(kind_name, source, source, flags, handle=part.number("handle"))
    return IvhdEntry("hid", devid, devid, flags, hid=part.text("hid"), uid=_uid(part), cid=part.text("cid"))


def _uid(part: Part) -> str:
    raw = part.view.data[part.offset + 22 : part.offset + part.layout.size]
    form = part.number("uid format")
    if form == 1:
        return str(int.from_bytes(raw, "little"))
    return raw.split(b"\0")[0].decode("latin-1") if form == 2 else ""


def _memory(part: Part, applies: str) -> Ivmd:
    first = part.number("first")
    return Ivmd(
        applies,
        0 if applies == "all" else first,
        {"all": _LAST_DEVID, "device": first}.get(applies, part.number("last")),
        part.number("start"),
        part.number("memory length"),
        part.number("flags"),
        part.number("segment"),
    )


# -- writing -----------------------------------------------------------------------------------------------------

_KIND_CODES = {
    "all": (ALL,),
    "select": (SELECT,),
    "range": (RANGE, RANGE_END),
    "alias": (ALIAS,),
    "alias-range": (ALIAS_RANGE, RANGE_END),
    "ext-select": (EXT_SELECT,),
    "ext-range": (EXT_RANGE, RANGE_END),
    "ioapic": (SPECIAL,),
    "hpet": (SPECIAL,),
}


def write_ivrs(ivrs: Ivrs) -> bytes:
    """Return the raw table; entries for ACPI devices and special devices other than IO-APIC and HPET are left out."""
    body = ivrs.info.to_bytes(4, "little") + bytes(8)
    body += b"".join(_ivhd_bytes(unit) for unit in ivrs.blocks)
    body += b"".join(_ivmd_bytes(item) for item in ivrs.memory)
    return sealed(b"IVRS", body, revision=2)


def _ivhd_bytes(unit: IvrsUnit) -> bytes:
    size = HEADER_SIZES[unit.type]
    entries = b"".join(_entry_bytes(entry) for entry in unit.entries)
    header = bytes((unit.type, unit.flags)) + (size + len(entries)).to_bytes(2, "little")
    header += unit.devid.to_bytes(2, "little") + unit.capability.to_bytes(2, "little") + unit.base.to_bytes(8, "little")
    header += unit.segment.to_bytes(2, "little") + unit.info.to_bytes(2, "little")
    header += unit.attributes.to_bytes(4, "little")
    if size > 24:
        header += unit.features.to_bytes(8, "little") + unit.features2.to_bytes(8, "little")
    return header + entries


def _entry_bytes(entry: IvhdEntry) -> bytes:
    codes = _KIND_CODES.get(entry.kind)
    if codes is None:
        return b""
    first, last, flags = entry.first.to_bytes(2, "little"), entry.last.to_bytes(2, "little"), bytes((entry.flags,))
    found = bytes(codes[:1]) + (b"\0\0" if codes[0] in (ALL, SPECIAL) else first) + flags
    if entry.alias is not None:
        found += b"\0" + entry.alias.to_bytes(2, "little") + b"\0"
    elif codes[0] in (EXT_SELECT, EXT_RANGE):
        found += entry.extended.to_bytes(4, "little")
    elif codes[0] == SPECIAL:
        found += bytes((entry.handle,)) + first + bytes((1 if entry.kind == "ioapic" else 2,))
    return found + (bytes((RANGE_END,)) + last + b"\0" if len(codes) > 1 else b"")


def _ivmd_bytes(item: Ivmd) -> bytes:
    kind = next(code for code, name in IVMD_TYPES.items() if name == item.applies)
    first, last = (0, 0) if item.applies == "all" else (item.first, item.last if item.applies == "range" else 0)
    header = bytes((kind, item.flags)) + (32).to_bytes(2, "little")
    header += first.to_bytes(2, "little") + last.to_bytes(2, "little")
    header += item.segment.to_bytes(2, "little") + bytes(6)
    return header + item.start.to_bytes(8, "little") + item.length.to_bytes(8, "little")
