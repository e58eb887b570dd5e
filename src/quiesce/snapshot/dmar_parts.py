"""How a DMAR table is laid out: its structures, their device scopes, and what is wrong with them.

Intel Virtualization Technology for Directed I/O, chapter 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from quiesce.snapshot.acpi_layout import Bits, Field, Layout, Notes, Part, View
from quiesce.snapshot.table import HEADER, head, structures

_FIRST_STRUCTURE = 48
DRHD, RMRR, ATSR, RHSA, ANDD, SATC, SIDP = range(7)

_TABLE = HEADER.and_then(
    Field("width", 1),
    Field("flags", 1, bits=(Bits("interrupt remapping", 0), Bits("x2apic opt out", 1), Bits("dma opt in", 2))),
    Field("reserved", 10, "bytes"),
)
_START = (Field("type", 2), Field("length", 2))
_WITH_FLAGS = (*_START, Field("flags", 1), Field("reserved", 1), Field("segment", 2))
LAYOUTS = {
    DRHD: Layout(
        "drhd",
        *_START,
        Field("flags", 1, bits=(Bits("include all", 0),)),
        Field("size", 1, bits=(Bits("pages", 0, 4),)),
        Field("segment", 2),
        Field("base", 8),
    ),
    RMRR: Layout("rmrr", *_START, Field("reserved", 2), Field("segment", 2), Field("base", 8), Field("limit", 8)),
    ATSR: Layout("atsr", *_WITH_FLAGS),
    RHSA: Layout("rhsa", *_START, Field("reserved", 4), Field("base", 8), Field("domain", 4)),
    ANDD: Layout("andd", *_START, Field("reserved", 3), Field("number", 1)),
    SATC: Layout("satc", *_WITH_FLAGS),
    SIDP: Layout("sidp", *_START, Field("reserved", 2), Field("segment", 2)),
}
SCOPE = Layout(
    "scope",
    Field("type", 1),
    Field("length", 1),
    Field("flags", 1),
    Field("reserved", 1),
    Field("number", 1),
    Field("bus", 1),
)
_STEP = Field("step", 2, "bytes")
_WITH_SCOPES = frozenset((DRHD, RMRR, ATSR, SATC, SIDP))
UNKNOWN = Layout("unknown", *_START)


@lru_cache(maxsize=256)
def _scope_layout(size: int) -> Layout:
    """Return the layout of a scope of ``size`` bytes; half a step at its end is no part of it."""
    return SCOPE.and_then(*[_STEP] * ((size - SCOPE.size) // 2))


def parts_of(table: View, notes: Notes) -> Iterator[Part]:
    """Yield the header and the structures of a DMAR table, with their scopes."""
    yield head(table, _TABLE)
    for view in structures(table, _FIRST_STRUCTURE, "a structure", notes):
        kind = view.uint(0, 2, "a type")
        layout = LAYOUTS.get(kind, UNKNOWN)
        if len(view) < layout.size:
            notes.add(view.start, f"{layout.name} of {len(view)} bytes instead of at least {layout.size}, not read")
        elif kind in _WITH_SCOPES:
            yield Part(layout, view, tuple(_scope_parts(view, layout.size, notes)))
        elif kind == ANDD:
            yield Part(layout.and_then(Field("name", _name_size(view, notes), "text")), view)
        else:
            yield Part(layout, view)


def _name_size(view: View, notes: Notes) -> int:
    """Return the size of an ACPI name with its zero byte; Linux refuses a table where that is missing."""
    name = view.data[view.start + 8 : view.end]
    if b"\0" not in name:
        notes.add(view.start, "the name of an ACPI device has no end", refused=True)
        return len(name)
    return name.index(b"\0") + 1


def _scope_parts(view: View, at: int, notes: Notes) -> Iterator[Part]:
    while at < len(view):
        left = len(view) - at
        size = view.uint(at + 1, 1, "a length") if left > 1 else 0
        if size < SCOPE.size or size > left:
            notes.add(
                view.start + at,
                f"a device scope of {size} bytes where {left} are left; it and those behind it are not read",
                refused=size == 0,
            )
            return
        if size % 2 or size == SCOPE.size:
            notes.add(view.start + at, f"a device scope with a path of {size - SCOPE.size} bytes")
        yield Part(_scope_layout(size), view.part(at, size, "a device scope"))
        at += size
