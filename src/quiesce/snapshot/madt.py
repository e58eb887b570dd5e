"""The MADT (signature APIC): processors, interrupt controllers, and how legacy interrupts are wired to them.

ACPI specification 6.5, section 5.2.12. Entries of types that are reserved or the firmware maker's own are skipped and
listed. Linux: acpi_parse_entries_array in drivers/acpi/tables.c, v6.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quiesce.snapshot.acpi_layout import Field, Notes, Part, View, fitting
from quiesce.snapshot.madt_parts import ENTRIES, LEAST, LOCAL_SAPIC, TABLE, UNKNOWN
from quiesce.snapshot.table import head, open_table, structures


@dataclass(frozen=True, slots=True)
class IoApic:
    """An IO-APIC."""

    id: int
    address: int
    gsi_base: int
    """Number of the interrupt that its first input is."""


@dataclass(frozen=True, slots=True)
class Override:
    """An ISA interrupt that is wired to another input than its own number says."""

    source: int
    gsi: int
    flags: int = 0

    @property
    def active_low(self) -> bool:
        """Whether the input is active low; otherwise as the bus has it."""
        return self.flags & 0x3 == 0x3

    @property
    def level(self) -> bool:
        """Whether the input is level-triggered; otherwise as the bus has it."""
        return self.flags >> 2 & 0x3 == 0x3


@dataclass(frozen=True, slots=True)
class Its:
    """A GIC interrupt translation service, to which devices send their MSIs."""

    id: int
    base: int


@dataclass(frozen=True, slots=True)
class MadtEntry:
    """Any entry, with its numbers by name."""

    kind: str
    offset: int
    values: tuple[tuple[str, int], ...]

    def get(self, name: str) -> int:
        """Return a number, 0 when the entry does not have it."""
        return next((value for other, value in self.values if other == name), 0)


@dataclass(frozen=True, slots=True)
class Madt:
    """A whole MADT."""

    local_apic: int
    """Address of the local APICs."""
    flags: int
    entries: tuple[MadtEntry, ...]
    skipped: tuple[int, ...] = ()
    """Types of entries that were not understood."""
    notes: tuple[str, ...] = ()
    """What is wrong with the table, with offsets."""
    refused: str = ""
    """Why Linux uses nothing of it; empty when it does."""

    @property
    def dual_8259(self) -> bool:
        """Whether the machine has the two legacy interrupt controllers."""
        return bool(self.flags & 1)

    def of_kind(self, *kinds: str) -> tuple[MadtEntry, ...]:
        """Return the entries of some kinds, e.g. ``local apic``, ``x2apic``, ``gicc``."""
        return tuple(entry for entry in self.entries if entry.kind in kinds)

    @property
    def io_apics(self) -> tuple[IoApic, ...]:
        """The IO-APICs."""
        found = self.of_kind("io-apic")
        return tuple(IoApic(entry.get("id"), entry.get("address"), entry.get("gsi base")) for entry in found)

    @property
    def overrides(self) -> tuple[Override, ...]:
        """The ISA interrupts that are wired elsewhere."""
        found = self.of_kind("interrupt override")
        return tuple(Override(entry.get("source"), entry.get("gsi"), entry.get("flags")) for entry in found)

    @property
    def its(self) -> tuple[Its, ...]:
        """The GIC's interrupt translation services."""
        return tuple(Its(entry.get("id"), entry.get("base")) for entry in self.of_kind("gic its"))

    @property
    def processors(self) -> tuple[MadtEntry, ...]:
        """The processors that are enabled."""
        found = self.of_kind("local apic", "x2apic", "local sapic", "gicc", "core pic", "rintc")
        return tuple(entry for entry in found if entry.get("flags") & 1)


def parts_of(table: View, notes: Notes) -> Iterator[Part]:
    """Yield the header and the entries of a MADT."""
    yield head(table, TABLE)
    for view in structures(table, TABLE.size, "an entry", notes, sizes=(1, 1)):
        kind = view.uint(0, 1, "a type")
        layout = ENTRIES.get(kind, UNKNOWN)
        least = LEAST.get(kind, layout.size)
        if len(view) < least:
            notes.add(view.start, f"{layout.name} of {len(view)} bytes instead of at least {least}, not read")
        else:
            layout = fitting(layout, view)
            yield Part(layout.and_then(*_uid_text(view)) if kind == LOCAL_SAPIC else layout, view)


def _uid_text(view: View) -> tuple[Field, ...]:
    """Return the field for the text that may be behind a local SAPIC entry."""
    size = len(view) - ENTRIES[LOCAL_SAPIC].size
    return (Field("uid text", size, "text"),) if size > 0 else ()


def read_madt(data: bytes, file: str = "APIC") -> Madt:
    """Read a raw MADT; raises BadInput with the offset when there is no such table in it."""
    notes = Notes()
    header, *parts = parts_of(open_table(data, b"APIC", file, notes), notes)
    return Madt(
        local_apic=header.number("local apic"),
        flags=header.number("flags"),
        entries=tuple(_entry(part) for part in parts if part.layout is not UNKNOWN),
        skipped=tuple(part.number("type") for part in parts if part.layout is UNKNOWN),
        notes=tuple(notes.lines),
        refused=notes.refused,
    )


def _entry(part: Part) -> MadtEntry:
    numbers = part.numbers().items()
    values = tuple((name, value) for name, value in numbers if name not in ("type", "length", "reserved"))
    return MadtEntry(part.layout.name, part.offset, values)
