"""The MCFG table: where the configuration space of each segment and bus is in memory.

PCI Firmware Specification, table 4-2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quiesce.snapshot.acpi_layout import Field, Layout, Notes, Part, View
from quiesce.snapshot.table import HEADER, head, open_table

_TABLE = HEADER.and_then(Field("reserved", 8, "bytes"))
_WINDOW = Layout(
    "window",
    Field("base", 8),
    Field("segment", 2),
    Field("first bus", 1),
    Field("last bus", 1),
    Field("reserved", 4, "bytes"),
)


@dataclass(frozen=True, slots=True)
class Window:
    """Some buses of a segment whose configuration space is in memory."""

    segment: int
    first_bus: int
    last_bus: int
    base: int
    """Address of the space of bus 0, even where ``first_bus`` is another."""


@dataclass(frozen=True, slots=True)
class Mcfg:
    """A whole MCFG table."""

    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()
    """What is wrong with the table, with offsets."""
    refused: str = ""
    """Why Linux uses nothing of it; empty when it does."""

    def window_of(self, segment: int, bus: int) -> Window | None:
        """Return the window in which a bus is; without one it has no extended configuration space."""
        here = (item for item in self.windows if item.segment == segment)
        return next((item for item in here if item.first_bus <= bus <= item.last_bus), None)


def parts_of(table: View, notes: Notes) -> Iterator[Part]:
    """Yield the header and the windows of an MCFG table."""
    yield head(table, _TABLE)
    for at in range(_TABLE.size, len(table), _WINDOW.size):
        if len(table) - at < _WINDOW.size:
            notes.add(at, f"{len(table) - at} bytes at the end are no window")
            return
        yield Part(_WINDOW, table.part(at, _WINDOW.size, "a window"))


def read_mcfg(data: bytes, file: str = "MCFG") -> Mcfg:
    """Read a raw MCFG table; raises BadInput with the offset when there is no such table in it."""
    notes = Notes()
    _, *parts = parts_of(open_table(data, b"MCFG", file, notes), notes)
    for part in parts:
        if part.number("first bus") > part.number("last bus"):
            notes.add(part.offset, "a window whose first bus is behind its last one")
    return Mcfg(tuple(_window(part) for part in parts), tuple(notes.lines), notes.refused)


def _window(part: Part) -> Window:
    return Window(part.number("segment"), part.number("first bus"), part.number("last bus"), part.number("base"))
