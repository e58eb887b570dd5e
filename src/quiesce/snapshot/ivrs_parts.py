"""How an IVRS table is laid out: its blocks, their device entries, and what is wrong with them.

AMD I/O Virtualization Technology (IOMMU) Specification, chapter 5; lengths of entries as in drivers/iommu/amd/init.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from quiesce.snapshot.acpi_layout import Bits, Field, Layout, Notes, Part, View
from quiesce.snapshot.table import HEADER, head, structures

_FIRST_BLOCK = 48
HEADER_SIZES = {0x10: 24, 0x11: 40, 0x40: 40}
LAST_IVHD_TYPE = 0x40
IVMD_TYPES = {0x20: "all", 0x21: "device", 0x22: "range"}

PAD, ALL, SELECT, RANGE, RANGE_END = range(5)
PAD_8 = 0x40
ALIAS, ALIAS_RANGE, EXT_SELECT, EXT_RANGE, SPECIAL, HID = 0x42, 0x43, 0x46, 0x47, 0x48, 0xF0
SPECIAL_KINDS = {1: "ioapic", 2: "hpet"}

_TABLE = HEADER.and_then(Field("info", 4), Field("reserved", 8, "bytes"))
_START = (Field("type", 1), Field("flags", 1), Field("length", 2))
_CONTROLS = (Bits("HtTunEn", 0), Bits("PassPW", 1), Bits("ResPassPW", 2), Bits("Isoc", 3), Bits("Iotlb", 4))
_IVHD = Layout(
    "ivhd",
    Field("type", 1),
    Field("flags", 1, bits=(*_CONTROLS, Bits("Coherent", 5), Bits("PreF", 6), Bits("PPR", 7))),
    Field("length", 2),
    Field("devid", 2),
    Field("capability", 2),
    Field("base", 8),
    Field("segment", 2),
    Field("info", 2),
    Field("attributes", 4),
)
_IVHD_LONG = _IVHD.and_then(Field("features", 8), Field("features2", 8))
IVMD = Layout(
    "ivmd",
    Field("type", 1),
    Field("flags", 1, bits=(Bits("unity", 0), Bits("readable", 1), Bits("writable", 2), Bits("exclusion", 3))),
    Field("length", 2),
    Field("first", 2),
    Field("last", 2),
    Field("segment", 2),
    Field("reserved", 6, "bytes"),
    Field("start", 8),
    Field("memory length", 8),
)
_SETTINGS = (Bits("INITPass", 0), Bits("EIntPass", 1), Bits("NMIPass", 2), Bits("reserved", 3), Bits("SysMgt", 4, 2))
_ENTRY = Layout(
    "entry",
    Field("type", 1),
    Field("devid", 2),
    Field("flags", 1, bits=(*_SETTINGS, Bits("LINT0", 6), Bits("LINT1", 7))),
)
_ALIAS_ENTRY = _ENTRY.and_then(Field("reserved", 1), Field("source", 2), Field("reserved", 1))
_EXT_ENTRY = _ENTRY.and_then(Field("extended", 4))
_SPECIAL_ENTRY = _ENTRY.and_then(Field("handle", 1), Field("source", 2), Field("variety", 1))
_HID_ENTRY = _ENTRY.and_then(
    Field("hid", 8, "text"), Field("cid", 8, "text"), Field("uid format", 1), Field("uid length", 1)
)
_ENTRIES = {
    PAD_8: _EXT_ENTRY,
    ALIAS: _ALIAS_ENTRY,
    ALIAS_RANGE: _ALIAS_ENTRY,
    EXT_SELECT: _EXT_ENTRY,
    EXT_RANGE: _EXT_ENTRY,
    SPECIAL: _SPECIAL_ENTRY,
}
KNOWN_ENTRIES = frozenset((PAD, ALL, SELECT, RANGE, RANGE_END, HID, *_ENTRIES))
UNKNOWN = Layout("unknown", *_START)


def parts_of(table: View, notes: Notes) -> Iterator[Part]:
    """Yield the header and the blocks of an IVRS table, with their device entries."""
    yield head(table, _TABLE)
    for view in structures(table, _FIRST_BLOCK, "a block", notes):
        kind = view.uint(0, 1, "a type")
        layout = UNKNOWN
        if kind in HEADER_SIZES:
            layout = _IVHD if HEADER_SIZES[kind] == _IVHD.size else _IVHD_LONG
        elif kind in IVMD_TYPES:
            layout = IVMD
        if len(view) < layout.size:
            notes.add(view.start, f"{layout.name} of {len(view)} bytes instead of at least {layout.size}, not read")
        elif kind in HEADER_SIZES:
            yield Part(layout, view, tuple(_entry_parts(view, layout.size, notes)))
        else:
            yield Part(layout, view)


def _entry_parts(view: View, at: int, notes: Notes) -> Iterator[Part]:
    """Yield the device entries of a block. Linux does not get past one whose length it does not know."""
    while at < len(view):
        kind, left = view.data[view.start + at], len(view) - at
        size = _entry_size(view, at, kind)
        if not 0 < size <= left:
            text = f"a device entry of the reserved type {kind:#x}, whose length nobody knows"
            if size:
                text = f"a device entry of {size} bytes, but only {left} are left in its block"
            notes.add(view.start + at, f"{text}; the rest of the block is not read", refused=not size)
            return
        if kind not in KNOWN_ENTRIES:
            notes.add(view.start + at, f"a device entry of the reserved type {kind:#x}")
        yield Part(_entry_layout(kind, size), view.part(at, size, "a device entry"))
        at += size


def _entry_size(view: View, at: int, kind: int) -> int:
    """Return the size of a device entry, as ivhd_entry_length does; 0 when it is not known."""
    if kind < 0x80:
        return 4 << (kind >> 6)
    if kind != HID:
        return 0
    length = view.start + at + 21
    return 22 + view.data[length] if length < view.end else 1 << 16


@lru_cache(maxsize=1024)
def _entry_layout(kind: int, size: int) -> Layout:
    if kind == HID:
        return _HID_ENTRY.and_then(Field("uid", size - 22, "bytes"))
    return _ENTRIES.get(kind, _ENTRY)
