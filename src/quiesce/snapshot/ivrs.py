"""The AMD IVRS table: which IOMMU covers which requester ids, and under which other id a device's requests arrive.

AMD I/O Virtualization Technology (IOMMU) Specification, chapter 5: IVHD blocks of the types 10h, 11h and 40h with
all device entries, IVMD blocks. Blocks of other types are skipped and listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.table import View, open_table, sealed, structures

_FIRST_BLOCK = 48
_HEADER_SIZES = {0x10: 24, 0x11: 40, 0x40: 40}
_IVMD_TYPES = {0x20: "all", 0x21: "device", 0x22: "range"}
_LAST_DEVID = 0xFFFF

_ALL, _SELECT, _RANGE, _RANGE_END = 0x01, 0x02, 0x03, 0x04
_ALIAS, _ALIAS_RANGE, _EXT_SELECT, _EXT_RANGE, _SPECIAL, _HID = 0x42, 0x43, 0x46, 0x47, 0x48, 0xF0
_SPECIAL_KINDS = {1: "ioapic", 2: "hpet"}


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
        """Whether accesses to it are not translated at all."""
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

    @cached_property
    def units(self) -> tuple[IvrsUnit, ...]:
        """One block per IOMMU: those of the last type that the first IOMMU is described with, as Linux chooses."""
        if not self.blocks:
            return ()
        target = [block.type for block in self.blocks if block.devid == self.blocks[0].devid][-1]
        return tuple(block for block in self.blocks if block.type == target)

    def unit_of(self, devid: int, segment: int = 0) -> IvrsUnit | None:
        """Return the IOMMU that covers a requester id; of several, the last one in the table."""
        found = [unit for unit in self.units if unit.segment == segment and unit.covers(devid)]
        return found[-1] if found else None

    @cached_property
    def _aliases(self) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for unit in self.units:
            for entry in unit.entries:
                if entry.alias is not None:
                    for devid in range(entry.first, entry.last + 1):
                        found[unit.segment, devid] = entry.alias
        return found

    def alias_table(self, segment: int = 0) -> dict[int, int]:
        """Return requester id -> alias, for the ids whose alias is not themselves."""
        return {devid: alias for (where, devid), alias in self._aliases.items() if where == segment and alias != devid}

    def alias_of(self, devid: int, segment: int = 0) -> int:
        """Return the requester id under which the requests of ``devid`` arrive."""
        return self._aliases.get((segment, devid), devid)

    def covered(self, segment: int = 0) -> frozenset[int]:
        """Return every requester id that some unit translates for."""
        found: set[int] = set()
        for unit in self.units:
            if unit.segment == segment:
                for entry in unit.entries:
                    found.update(range(entry.first, entry.last + 1))
                    found.update(() if entry.alias is None else (entry.alias,))
        return frozenset(found)


def read_ivrs(data: bytes, file: str = "IVRS") -> Ivrs:
    """Read a raw IVRS table; raises BadInput with the offset of what is wrong."""
    table = open_table(data, b"IVRS", file)
    blocks: list[IvrsUnit] = []
    memory: list[Ivmd] = []
    skipped: list[int] = []
    for kind_and_flags, view in structures(table, _FIRST_BLOCK, "an IVRS block"):
        kind = kind_and_flags & 0xFF
        if kind in _HEADER_SIZES:
            blocks.append(_read_ivhd(view, kind))
        elif kind in _IVMD_TYPES:
            memory.append(_read_ivmd(view, _IVMD_TYPES[kind]))
        else:
            skipped.append(kind)
    return Ivrs(tuple(blocks), tuple(memory), table.uint(36, 4, "IVinfo"), tuple(skipped))


def _read_ivhd(view: View, kind: int) -> IvrsUnit:
    size = _HEADER_SIZES[kind]
    if len(view) < size:
        raise view.bad(2, f"a length of at least {size} for an IVHD block of type {kind:#x}, found {len(view)}")
    return IvrsUnit(
        type=kind,
        flags=view.uint(1, 1, "flags"),
        devid=view.uint(4, 2, "the IOMMU's device id"),
        capability=view.uint(6, 2, "the capability offset"),
        base=view.uint(8, 8, "the base address"),
        segment=view.uint(16, 2, "the segment"),
        info=view.uint(18, 2, "IOMMU info"),
        entries=tuple(_read_entries(view, size)),
        features=view.uint(24, 8, "the feature register") if size > 24 else 0,
    )


def _read_entries(view: View, at: int) -> Iterator[IvhdEntry]:
    start: IvhdEntry | None = None
    while at < len(view):
        kind = view.uint(at, 1, "the type of a device entry")
        size = 22 + view.uint(at + 21, 1, "the length of a UID") if kind == _HID else 4 << (kind >> 6)
        entry = view.part(at, size, "a device entry")
        if kind == _RANGE_END:
            if start is None:
                raise view.bad(at, "a start of range before this end of range")
            last = entry.uint(1, 2, "a device id")
            if last >= start.first:
                yield IvhdEntry(start.kind, start.first, last, start.flags, start.alias, start.extended)
            start = None
        elif kind in (_RANGE, _ALIAS_RANGE, _EXT_RANGE):
            start = _read_entry(entry, kind)
        else:
            found = _read_entry(entry, kind)
            if found is not None:
                yield found
        at += size
    if start is not None:
        raise view.bad(at, "an end of range for the range that was started")


def _read_entry(entry: View, kind: int) -> IvhdEntry | None:
    devid = entry.uint(1, 2, "a device id")
    flags = entry.uint(3, 1, "data settings")
    if kind == _ALL:
        return IvhdEntry("all", 0, _LAST_DEVID, flags)
    if kind in (_SELECT, _RANGE):
        return IvhdEntry("select" if kind == _SELECT else "range", devid, devid, flags)
    if kind in (_ALIAS, _ALIAS_RANGE):
        alias = entry.uint(5, 2, "the alias")
        return IvhdEntry("alias" if kind == _ALIAS else "alias-range", devid, devid, flags, alias)
    if kind in (_EXT_SELECT, _EXT_RANGE):
        extended = entry.uint(4, 4, "extended settings")
        return IvhdEntry("ext-select" if kind == _EXT_SELECT else "ext-range", devid, devid, flags, extended=extended)
    if kind == _SPECIAL:
        source, variety = entry.uint(5, 2, "the device id"), entry.uint(7, 1, "the variety")
        return IvhdEntry(
            _SPECIAL_KINDS.get(variety, "special"), source, source, flags, handle=entry.uint(4, 1, "the handle")
        )
    if kind == _HID:
        return _read_hid(entry, devid, flags)
    return None


def _read_hid(entry: View, devid: int, flags: int) -> IvhdEntry:
    hid = entry.raw(4, 8, "the hardware id").rstrip(b"\0").decode("ascii", "replace")
    uid_format, size = entry.uint(20, 1, "the UID format"), entry.uint(21, 1, "the UID length")
    raw = entry.raw(22, size, "the UID")
    uid = str(int.from_bytes(raw, "little")) if uid_format == 1 else raw.rstrip(b"\0").decode("ascii", "replace")
    return IvhdEntry("hid", devid, devid, flags, hid=hid, uid=uid if uid_format else "")


def _read_ivmd(view: View, applies: str) -> Ivmd:
    first = view.uint(4, 2, "a device id")
    last = view.uint(6, 2, "the last device id") if applies == "range" else first
    return Ivmd(
        applies,
        0 if applies == "all" else first,
        _LAST_DEVID if applies == "all" else last,
        view.uint(16, 8, "the start of the memory"),
        view.uint(24, 8, "the length of the memory"),
        view.uint(1, 1, "flags"),
    )


# -- writing -----------------------------------------------------------------------------------------------------

_KIND_CODES = {
    "all": (_ALL,),
    "select": (_SELECT,),
    "range": (_RANGE, _RANGE_END),
    "alias": (_ALIAS,),
    "alias-range": (_ALIAS_RANGE, _RANGE_END),
    "ext-select": (_EXT_SELECT,),
    "ext-range": (_EXT_RANGE, _RANGE_END),
    "ioapic": (_SPECIAL,),
    "hpet": (_SPECIAL,),
}


def write_ivrs(ivrs: Ivrs) -> bytes:
    """Return the raw table; entries for ACPI devices and special devices other than IO-APIC and HPET are left out."""
    body = ivrs.info.to_bytes(4, "little") + bytes(8)
    body += b"".join(_ivhd_bytes(unit) for unit in ivrs.blocks)
    body += b"".join(_ivmd_bytes(item) for item in ivrs.memory)
    return sealed(b"IVRS", body, revision=2)


def _ivhd_bytes(unit: IvrsUnit) -> bytes:
    size = _HEADER_SIZES[unit.type]
    entries = b"".join(_entry_bytes(entry) for entry in unit.entries)
    header = bytes((unit.type, unit.flags)) + (size + len(entries)).to_bytes(2, "little")
    header += unit.devid.to_bytes(2, "little") + unit.capability.to_bytes(2, "little") + unit.base.to_bytes(8, "little")
    header += unit.segment.to_bytes(2, "little") + unit.info.to_bytes(2, "little") + bytes(4)
    if size > 24:
        header += unit.features.to_bytes(8, "little") + bytes(8)
    return header + entries


def _entry_bytes(entry: IvhdEntry) -> bytes:
    codes = _KIND_CODES.get(entry.kind)
    if codes is None:
        return b""
    first, last, flags = entry.first.to_bytes(2, "little"), entry.last.to_bytes(2, "little"), bytes((entry.flags,))
    found = bytes(codes[:1]) + (b"\0\0" if codes[0] in (_ALL, _SPECIAL) else first) + flags
    if entry.alias is not None:
        found += b"\0" + entry.alias.to_bytes(2, "little") + b"\0"
    elif codes[0] in (_EXT_SELECT, _EXT_RANGE):
        found += entry.extended.to_bytes(4, "little")
    elif codes[0] == _SPECIAL:
        found += bytes((entry.handle,)) + first + bytes((1 if entry.kind == "ioapic" else 2,))
    return found + (bytes((_RANGE_END,)) + last + b"\0" if len(codes) > 1 else b"")


def _ivmd_bytes(item: Ivmd) -> bytes:
    kind = next(code for code, name in _IVMD_TYPES.items() if name == item.applies)
    first, last = (0, 0) if item.applies == "all" else (item.first, item.last if item.applies == "range" else 0)
    header = bytes((kind, item.flags)) + (32).to_bytes(2, "little")
    header += first.to_bytes(2, "little") + last.to_bytes(2, "little") + bytes(8)
    return header + item.start.to_bytes(8, "little") + item.length.to_bytes(8, "little")
