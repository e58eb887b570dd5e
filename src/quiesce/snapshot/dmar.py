"""The Intel DMAR table: which VT-d unit covers which device.

Intel Virtualization Technology for Directed I/O, chapter 8: DRHD, RMRR, ATSR, RHSA, ANDD and SATC structures. Others
are skipped and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.table import View, open_table, sealed, structures

_FIRST_STRUCTURE = 48
_DRHD, _RMRR, _ATSR, _RHSA, _ANDD, _SATC = range(6)
_SCOPE_KINDS = {1: "endpoint", 2: "bridge", 3: "ioapic", 4: "hpet", 5: "acpi"}

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


@dataclass(frozen=True, slots=True)
class Drhd:
    """A remapping hardware unit."""

    segment: int
    base: int
    include_all: bool
    """It covers every device of its segment that no other unit covers."""
    scopes: tuple[Scope, ...]
    flags: int = 0


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

    @property
    def interrupt_remapping(self) -> bool:
        """Whether the platform supports interrupt remapping."""
        return bool(self.flags & 0x01)

    def unit_of(self, path: Sequence[Bdf], secondary: SecondaryBus) -> Drhd | None:
        """Return the unit that covers a device; ``path`` is the device and the bridges above it, nearest first."""
        here = [unit for unit in self.units if unit.segment == path[0].segment]
        for unit in here:
            if any(scope_covers(scope, unit.segment, path, secondary) for scope in unit.scopes):
                return unit
        return next((unit for unit in here if unit.include_all), None)

    def reserved_for(self, path: Sequence[Bdf], secondary: SecondaryBus) -> tuple[Rmrr, ...]:
        """Return the reserved memory of a device."""
        return tuple(
            item
            for item in self.memory
            if item.segment == path[0].segment
            and any(scope_covers(scope, item.segment, path, secondary) for scope in item.scopes)
        )


def scope_covers(scope: Scope, segment: int, path: Sequence[Bdf], secondary: SecondaryBus) -> bool:
    """Whether a scope names the device at the start of ``path``, or a bridge above it."""
    if scope.kind not in ("endpoint", "bridge"):
        return False
    named = scope.resolve(segment, secondary)
    return named is not None and (named == path[0] or (scope.kind == "bridge" and named in path))


def read_dmar(data: bytes, file: str = "DMAR") -> Dmar:
    """Read a raw DMAR table; raises BadInput with the offset of what is wrong."""
    table = open_table(data, b"DMAR", file)
    found: dict[int, list[View]] = {kind: [] for kind in range(6)}
    skipped: list[int] = []
    for kind, view in structures(table, _FIRST_STRUCTURE, "a DMAR structure"):
        if kind in found:
            found[kind].append(view)
        else:
            skipped.append(kind)
    return Dmar(
        units=tuple(_read_drhd(view) for view in found[_DRHD]),
        memory=tuple(_read_rmrr(view) for view in found[_RMRR]),
        ats=tuple(Atsr(*_read_flagged(view)) for view in found[_ATSR]),
        satc=tuple(Satc(*_read_flagged(view)) for view in found[_SATC]),
        affinity=tuple((view.uint(8, 8, "a base address"), view.uint(16, 4, "a domain")) for view in found[_RHSA]),
        names=tuple(_read_andd(view) for view in found[_ANDD]),
        width=table.uint(36, 1, "the address width"),
        flags=table.uint(37, 1, "flags"),
        skipped=tuple(skipped),
    )


def _read_drhd(view: View) -> Drhd:
    flags = view.uint(4, 1, "flags")
    segment, base = view.uint(6, 2, "the segment"), view.uint(8, 8, "the base address")
    return Drhd(segment, base, bool(flags & 1), tuple(_read_scopes(view, 16)), flags)


def _read_rmrr(view: View) -> Rmrr:
    segment, base, limit = view.uint(6, 2, "the segment"), view.uint(8, 8, "the base"), view.uint(16, 8, "the limit")
    return Rmrr(segment, base, limit, tuple(_read_scopes(view, 24)))


def _read_flagged(view: View) -> tuple[int, bool, tuple[Scope, ...]]:
    segment, flags = view.uint(6, 2, "the segment"), view.uint(4, 1, "flags")
    return segment, bool(flags & 1), tuple(_read_scopes(view, 8))


def _read_andd(view: View) -> tuple[int, str]:
    name = view.raw(8, len(view) - 8, "a name") if len(view) > 8 else b""
    return view.uint(7, 1, "a device number"), name.split(b"\0")[0].decode("ascii", "replace")


def _read_scopes(view: View, at: int) -> Iterator[Scope]:
    while at < len(view):
        size = view.uint(at + 1, 1, "the length of a device scope")
        if size < 6 or size % 2:
            raise view.bad(at + 1, f"an even length of at least 6 for a device scope, found {size}")
        scope = view.part(at, size, "a device scope")
        kind = scope.uint(0, 1, "its type")
        steps = scope.raw(6, size - 6, "its path")
        yield Scope(
            _SCOPE_KINDS.get(kind, f"type-{kind}"),
            scope.uint(5, 1, "its start bus"),
            tuple(zip(steps[::2], steps[1::2], strict=True)),
            scope.uint(4, 1, "its enumeration id"),
        )
        at += size


# -- writing -----------------------------------------------------------------------------------------------------


def write_dmar(dmar: Dmar) -> bytes:
    """Return the raw table with the DRHD, RMRR and ATSR structures of ``dmar``."""
    body = bytes((dmar.width, dmar.flags)) + bytes(10)
    for unit in dmar.units:
        head = bytes((unit.flags | unit.include_all, 0)) + _number(unit.segment, 2) + _number(unit.base, 8)
        body += _structure(_DRHD, head, unit.scopes)
    for item in dmar.memory:
        head = bytes(2) + _number(item.segment, 2) + _number(item.base, 8) + _number(item.limit, 8)
        body += _structure(_RMRR, head, item.scopes)
    for ports in dmar.ats:
        body += _structure(_ATSR, bytes((ports.all_ports, 0)) + _number(ports.segment, 2), ports.scopes)
    return sealed(b"DMAR", body)


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _structure(kind: int, head: bytes, scopes: Sequence[Scope]) -> bytes:
    body = head + b"".join(_scope_bytes(scope) for scope in scopes)
    return _number(kind, 2) + _number(4 + len(body), 2) + body


def _scope_bytes(scope: Scope) -> bytes:
    kind = next(code for code, name in _SCOPE_KINDS.items() if name == scope.kind)
    steps = bytes(number for step in scope.path for number in step)
    return bytes((kind, 6 + len(steps), 0, 0, scope.number, scope.bus)) + steps
