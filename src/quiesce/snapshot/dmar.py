"""The Intel DMAR table: which VT-d unit covers which device.

Intel Virtualization Technology for Directed I/O, chapter 8: DRHD, RMRR, ATSR, RHSA, ANDD, SATC and SIDP structures.
Others are skipped and listed. What Linux makes of mistakes was read in drivers/iommu/intel/dmar.c and iommu.c of
v6.1; the notes say where they are, `Dmar.refused` whether they make Linux run without VT-d.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from quiesce.snapshot.acpi_layout import Notes, Part
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.dmar_parts import (
    ANDD,
    ATSR,
    DRHD,
    LAYOUTS,
    RHSA,
    RMRR,
    SATC,
    SCOPE,
    SIDP,
    UNKNOWN,
    parts_of,
)
from quiesce.snapshot.table import open_table, sealed

_SCOPE_KINDS = {1: "endpoint", 2: "bridge", 3: "ioapic", 4: "hpet", 5: "acpi"}
_LEAST_WIDTH = 11
"""Linux takes no host address width below that of a page."""

SecondaryBus = Callable[[Bdf], int | None]
"""Gives the bus below a bridge, None when there is no such bridge."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One device scope entry: a path of (device, function) pairs from a start bus down."""

    kind: str
    """``endpoint``, ``bridge`` (and all below it), ``ioapic``, ``hpet``, ``acpi`` or ``type-N``."""
    bus: int
    path: tuple[tuple[int, int], ...]
    number: int = 0
    """Enumeration id: number of the IO-APIC, HPET or ACPI device."""
    flags: int = 0

    def resolve(self, segment: int, secondary: SecondaryBus) -> Bdf | None:
        """Follow the path through the bridges; None when one of them is not there."""
        bus: int | None = self.bus
        found = None
        for device, function in self.path:
            if found is not None:
                bus = secondary(found)
            if bus is None:
                return None
            found = Bdf(segment, bus, device, function)
        return found

    def names(self, path: Sequence[Bdf]) -> bool:
        """Whether it names the first function of ``path``, which goes on with the bridges above, up to a root bus.

        As dmar_match_pci_path: the start bus is a root bus and every hop agrees. A path of one hop is also taken for
        the plain address of a function anywhere, which Linux calls a broken entry and accepts.
        """
        if self.kind not in ("endpoint", "bridge"):
            return False
        if self.bus == path[-1].bus and self.path == tuple((step.device, step.function) for step in reversed(path)):
            return True
        return self.path == (path[0][2:],) and self.bus == path[0].bus


@dataclass(frozen=True, slots=True)
class Drhd:
    """A remapping hardware unit."""

    segment: int
    base: int
    include_all: bool
    """It covers every device of its segment that no other unit covers."""
    scopes: tuple[Scope, ...]
    flags: int = 0
    size: int = 0
    """Pages of its register set, as a power of two."""


@dataclass(frozen=True, slots=True)
class Rmrr:
    """Memory that devices use behind the operating system's back."""

    segment: int
    base: int
    limit: int
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class Atsr:
    """Root ports below which ATS may be used."""

    segment: int
    all_ports: bool
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class Satc:
    """Integrated devices with an address translation cache."""

    segment: int
    required: bool
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class Sidp:
    """Integrated devices with properties that software could not find out otherwise; they are in the scopes' flags."""

    segment: int
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class Cover:
    """Which unit covers a device, and by what."""

    unit: Drhd
    scope: Scope | None = None
    """The entry that names it or a bridge above it; None when the unit covers all that no other does."""
    named: Bdf | None = None
    """The function that the entry names."""


@dataclass(frozen=True, slots=True)
class Dmar:
    """A whole DMAR table."""

    units: tuple[Drhd, ...]
    memory: tuple[Rmrr, ...] = ()
    ats: tuple[Atsr, ...] = ()
    satc: tuple[Satc, ...] = ()
    affinity: tuple[tuple[int, int], ...] = ()
    """(base address of a unit, proximity domain), from RHSA structures."""
    names: tuple[tuple[int, str], ...] = ()
    """(device number, ACPI name), from ANDD structures."""
    width: int = 38
    """Host address width minus one."""
    flags: int = 0
    skipped: tuple[int, ...] = ()
    """Types of structures that were not understood."""
    properties: tuple[Sidp, ...] = ()
    notes: tuple[str, ...] = ()
    """What is wrong with the table, with offsets."""
    refused: str = ""
    """Why Linux uses nothing of it; empty when it does."""

    @property
    def interrupt_remapping(self) -> bool:
        """Whether the platform supports interrupt remapping."""
        return bool(self.flags & 0x01)

    @property
    def x2apic_opt_out(self) -> bool:
        """Whether firmware asks for x2APIC mode not to be used."""
        return bool(self.flags & 0x02)

    @property
    def dma_opt_in(self) -> bool:
        """Whether firmware asks for DMA remapping to be used against untrusted devices from boot on."""
        return bool(self.flags & 0x04)

    def cover_of(self, path: Sequence[Bdf]) -> Cover | None:
        """Return the unit that covers a device; ``path`` is the device and all bridges above it, nearest first.

        Units are asked in Linux's order: those with scopes from the last in the table to the first, then those that
        cover all the rest (dmar_register_drhd_unit). For a virtual function ask with its physical function's path.
        """
        here = [unit for unit in self.units if unit.segment == path[0].segment]
        for unit in reversed(here):
            found = None if unit.include_all else _naming(unit.scopes, path)
            if found is not None:
                return Cover(unit, *found)
        return next((Cover(unit) for unit in here if unit.include_all), None)

    def unit_of(self, path: Sequence[Bdf], secondary: SecondaryBus | None = None) -> Drhd | None:
        """Return the unit that covers a device; see `cover_of`."""
        found = self.cover_of(path)
        return None if found is None else found.unit

    def unit_of_acpi(self, name: str) -> Drhd | None:
        """Return the unit that covers a device which only the ACPI name space has."""
        numbers = {number for number, other in self.names if other == name}
        return next((unit for unit in self.units for scope in unit.scopes if _is_acpi(scope, numbers)), None)

    def reserved_for(self, path: Sequence[Bdf], secondary: SecondaryBus | None = None) -> tuple[Rmrr, ...]:
        """Return the reserved memory of a device; ``path`` as for `cover_of`."""
        here = (item for item in self.memory if item.segment == path[0].segment)
        return tuple(item for item in here if _naming(item.scopes, path) is not None)


def _is_acpi(scope: Scope, numbers: set[int]) -> bool:
    return scope.kind == "acpi" and scope.number in numbers


def _naming(scopes: Iterable[Scope], path: Sequence[Bdf]) -> tuple[Scope, Bdf] | None:
    """Return the scope that names the device at the start of ``path`` or a bridge above it, and which."""
    for scope in scopes:
        steps = range(len(path)) if scope.kind == "bridge" else range(1)
        for step in steps:
            if scope.names(path[step:]):
                return scope, path[step]
    return None


def ignored_units(dmar: Dmar, devices: Sequence[tuple[Sequence[Bdf], int]], graphics: bool = True) -> frozenset[int]:
    """Return the indices of the units that Linux leaves alone (init_no_remapping_devices).

    ``devices`` are the path of each physical function, as for `Dmar.cover_of`, and its class code (24 bits). A unit
    of whose scopes no device is there is ignored; with ``graphics=False`` (intel_iommu=igfx_off, or a chipset quirk)
    also one that has nothing but graphics. What such a unit covers has no IOMMU.
    """
    found: set[int] = set()
    for index, unit in enumerate(dmar.units):
        if unit.include_all:
            continue
        named = _classes_named(unit, devices)
        acpi = any(scope.kind == "acpi" for scope in unit.scopes)
        only_graphics = all(code >> 16 == 0x03 for code in named) and not acpi
        if (not named and not acpi) or (only_graphics and not graphics):
            found.add(index)
    return frozenset(found)


def _classes_named(unit: Drhd, devices: Sequence[tuple[Sequence[Bdf], int]]) -> list[int]:
    here = ((path, code) for path, code in devices if path[0].segment == unit.segment)
    return [code for path, code in here if any(scope.names(path) for scope in unit.scopes)]


def mismatched_scope(dmar: Dmar, path: Sequence[Bdf], header_type: int, class_code: int) -> Scope | None:
    """Return the entry that names a device and calls it the wrong kind (dmar_insert_dev_scope), if there is one.

    An endpoint must have a header of type 0, a bridge one of type 1 or a class of bridges. Linux gives up VT-d when
    it meets such an entry at boot.
    """
    units = [unit.scopes for unit in reversed(dmar.units) if unit.segment == path[0].segment and not unit.include_all]
    named: tuple[Rmrr | Atsr | Satc, ...] = (*dmar.memory, *dmar.ats, *dmar.satc)
    others = [item.scopes for item in named if item.segment == path[0].segment]
    for scopes in (*units, *others):
        scope = next((scope for scope in scopes if scope.names(path)), None)
        if scope is not None:
            plain = header_type & 0x7F == 0
            wrong = not plain if scope.kind == "endpoint" else plain and class_code >> 16 != 0x06
            if wrong:
                return scope
    return None


# -- reading -----------------------------------------------------------------------------------------------------


def read_dmar(data: bytes, file: str = "DMAR") -> Dmar:
    """Read a raw DMAR table; raises BadInput with the offset when there is no such table in it."""
    notes = Notes()
    table = open_table(data, b"DMAR", file, notes)
    parts = list(parts_of(table, notes))
    found: dict[int, list[Part]] = {kind: [] for kind in LAYOUTS}
    for part in parts[1:]:
        found.setdefault(part.number("type"), []).append(part)
    _check(parts[0], found, notes)
    return Dmar(
        units=tuple(_drhd(part) for part in _first_of_each(found[DRHD], notes)),
        memory=tuple(
            Rmrr(part.number("segment"), part.number("base"), part.number("limit"), _scopes(part))
            for part in found[RMRR]
        ),
        ats=tuple(Atsr(part.number("segment"), bool(part.number("flags") & 1), _scopes(part)) for part in found[ATSR]),
        satc=tuple(Satc(part.number("segment"), bool(part.number("flags") & 1), _scopes(part)) for part in found[SATC]),
        affinity=tuple((part.number("base"), part.number("domain")) for part in found[RHSA]),
        names=tuple((part.number("number"), part.text("name")) for part in found[ANDD]),
        width=parts[0].number("width"),
        flags=parts[0].number("flags"),
        skipped=tuple(part.number("type") for part in parts[1:] if part.layout is UNKNOWN),
        properties=tuple(Sidp(part.number("segment"), _scopes(part)) for part in found[SIDP]),
        notes=tuple(notes.lines),
        refused=notes.refused,
    )


def _drhd(part: Part) -> Drhd:
    flags = part.number("flags")
    segment, base = part.number("segment"), part.number("base")
    return Drhd(segment, base, bool(flags & 1), _scopes(part), flags, part.number("size") & 0x0F)


def _scopes(part: Part) -> tuple[Scope, ...]:
    return tuple(_scope(scope) for scope in part.parts)


def _scope(part: Part) -> Scope:
    kind = part.number("type")
    at = part.view.start + SCOPE.size
    steps = part.view.data[at : part.view.start + part.layout.size]
    return Scope(
        _SCOPE_KINDS.get(kind, f"type-{kind}"),
        part.number("bus"),
        tuple(zip(steps[::2], steps[1::2], strict=True)),
        part.number("number"),
        part.number("flags"),
    )


def _first_of_each(units: Iterable[Part], notes: Notes) -> Iterator[Part]:
    """Leave out what describes a unit a second time, as dmar_find_dmaru does."""
    seen: set[tuple[int, int]] = set()
    for part in units:
        key = part.number("segment"), part.number("base")
        if key in seen:
            notes.add(part.offset, f"the unit at {key[1]:#x} is described a second time; the first counts")
            continue
        seen.add(key)
        yield part


def _check(header: Part, found: dict[int, list[Part]], notes: Notes) -> None:
    """Note what is well-formed and makes no sense."""
    if header.number("width") < _LEAST_WIDTH:
        notes.add(36, f"a host address width of {header.number('width') + 1}", refused=True)
    for part in found[DRHD]:
        if not part.number("base"):
            notes.add(part.offset, "a unit without a register base address", refused=True)
        for scope in part.parts:
            if scope.number("type") not in _SCOPE_KINDS:
                notes.add(scope.offset, f"a device scope of the reserved type {scope.number('type')}")
    bases = {part.number("base") for part in found[DRHD]}
    for part in found[RHSA]:
        if part.number("base") not in bases:
            notes.add(part.offset, f"there is no unit at {part.number('base'):#x}")
    for part in found[RMRR]:
        base, limit = part.number("base"), part.number("limit")
        if base & 0xFFF or limit & 0xFFF != 0xFFF or limit <= base:
            notes.add(part.offset, f"reserved memory {base:#x}-{limit:#x} is not a range of whole pages")


# -- writing -----------------------------------------------------------------------------------------------------


def write_dmar(dmar: Dmar) -> bytes:
    """Return the raw table with the DRHD, RMRR and ATSR structures of ``dmar``."""
    body = bytes((dmar.width, dmar.flags)) + bytes(10)
    for unit in dmar.units:
        start = bytes((unit.flags | unit.include_all, unit.size)) + _number(unit.segment, 2) + _number(unit.base, 8)
        body += _structure(DRHD, start, unit.scopes)
    for item in dmar.memory:
        start = bytes(2) + _number(item.segment, 2) + _number(item.base, 8) + _number(item.limit, 8)
        body += _structure(RMRR, start, item.scopes)
    for ports in dmar.ats:
        body += _structure(ATSR, bytes((ports.all_ports, 0)) + _number(ports.segment, 2), ports.scopes)
    return sealed(b"DMAR", body)


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _structure(kind: int, start: bytes, scopes: Sequence[Scope]) -> bytes:
    body = start + b"".join(_scope_bytes(scope) for scope in scopes)
    return _number(kind, 2) + _number(4 + len(body), 2) + body


def _scope_bytes(scope: Scope) -> bytes:
    kind = next(code for code, name in _SCOPE_KINDS.items() if name == scope.kind)
    steps = bytes(number for step in scope.path for number in step)
    return bytes((kind, 6 + len(steps), scope.flags, 0, scope.number, scope.bus)) + steps
