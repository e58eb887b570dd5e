"""How an IORT table is laid out: its nodes, their arrays and id mappings, and what is wrong with them.

Arm DEN 0049 (IO Remapping Table), issue E.f.
"""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.snapshot.acpi_layout import Bits, Field, Layout, Notes, Part, View, fitting
from quiesce.snapshot.table import HEADER, head

ITS, NAMED, ROOT_COMPLEX, SMMU, SMMU_V3, PMCG, RMR = range(7)

_TABLE = HEADER.and_then(Field("node count", 4), Field("node offset", 4), Field("reserved", 4))
_NODE = (
    Field("type", 1),
    Field("length", 2),
    Field("revision", 1),
    Field("identifier", 4),
    Field("mapping count", 4),
    Field("mapping offset", 4),
)
NODE_SIZE = 16
_MEMORY = (
    Field("coherent", 4),
    Field(
        "hints",
        1,
        bits=(Bits("transient", 0), Bits("write allocate", 1), Bits("read allocate", 2), Bits("override", 3)),
    ),
    Field("reserved", 2),
    Field("memory flags", 1, bits=(Bits("coherent path", 0), Bits("attributes", 1), Bits("coherent writes", 2))),
)
UNKNOWN = Layout("unknown", *_NODE)
LAYOUTS = {
    ITS: Layout("its group", *_NODE, Field("its count", 4)),
    NAMED: Layout("named component", *_NODE, Field("flags", 4), *_MEMORY, Field("address limit", 1)),
    ROOT_COMPLEX: Layout(
        "root complex",
        *_NODE,
        *_MEMORY,
        Field("ats", 4),
        Field("segment", 4),
        Field("address limit", 1),
        Field("pasid", 2),
        Field("reserved", 1),
        Field("flags", 4),
    ),
    SMMU: Layout(
        "smmu",
        *_NODE,
        Field("base", 8),
        Field("span", 8),
        Field("model", 4),
        Field("flags", 4, bits=(Bits("dvm", 0), Bits("coherent walk", 1))),
        Field("global offset", 4),
        Field("context count", 4),
        Field("context offset", 4),
        Field("pmu count", 4),
        Field("pmu offset", 4),
    ),
    SMMU_V3: Layout(
        "smmu v3",
        *_NODE,
        Field("base", 8),
        Field("flags", 4, bits=(Bits("cohacc", 0), Bits("httu", 1, 2), Bits("pxm", 3), Bits("deviceid", 4))),
        Field("reserved", 4),
        Field("vatos", 8),
        Field("model", 4),
        Field("event gsi", 4),
        Field("pri gsi", 4),
        Field("gerr gsi", 4),
        Field("sync gsi", 4),
        Field("domain", 4),
        Field("id mapping", 4),
    ),
    PMCG: Layout(
        "pmcg", *_NODE, Field("base", 8), Field("overflow gsi", 4), Field("node reference", 4), Field("page 1", 8)
    ),
    RMR: Layout("rmr", *_NODE, Field("flags", 4), Field("range count", 4), Field("range offset", 4)),
}
_LEAST = {ITS: 20, ROOT_COMPLEX: 32, SMMU_V3: 60, PMCG: 32}
"""Sizes of the oldest forms of nodes that grew."""

MAPPING = Layout(
    "mapping",
    Field("input base", 4),
    Field("id count", 4),
    Field("output base", 4),
    Field("output reference", 4),
    Field("flags", 4, bits=(Bits("single", 0),)),
)
ITS_ID = Layout("its id", Field("its", 4))
RANGE = Layout("range", Field("base", 8), Field("size", 8), Field("reserved", 4))
_GLOBAL = Layout(
    "global interrupts",
    Field("nsg irpt", 4),
    Field("nsg irpt flags", 4, bits=(Bits("edge", 0),)),
    Field("nsg cfg irpt", 4),
    Field("nsg cfg irpt flags", 4, bits=(Bits("edge", 0),)),
)
_CONTEXT = Layout("context interrupt", Field("context interrupt", 8))
_PMU = Layout("pmu interrupt", Field("pmu interrupt", 8))


def parts_of(table: View, notes: Notes) -> Iterator[Part]:
    """Yield the header and the nodes of an IORT table, with their arrays and mappings."""
    header = head(table, _TABLE)
    yield header
    at, left = header.number("node offset"), header.number("node count")
    if left and at < _TABLE.size:
        notes.add(40, f"nodes from offset {at:#x} on, inside of the header")
        return
    for _ in range(left):
        size = table.uint(at + 1, 2, "a length") if len(table) - at >= NODE_SIZE else 0
        if size < NODE_SIZE or size > len(table) - at:
            notes.add(at, f"a node of {size} bytes where {max(len(table) - at, 0)} are left; the others are not read")
            return
        yield _node(table.part(at, size, "a node"), notes)
        at += size
    if at < len(table):
        notes.add(at, f"{len(table) - at} bytes behind the nodes")


def _node(view: View, notes: Notes) -> Part:
    kind = view.uint(0, 1, "a type")
    layout = LAYOUTS.get(kind, UNKNOWN)
    least = _LEAST.get(kind, layout.size)
    if len(view) < least:
        notes.add(view.start, f"{layout.name} of {len(view)} bytes instead of at least {least}")
    if kind in LAYOUTS:
        layout = _bounded(layout, view)
    if kind == NAMED and layout.size == LAYOUTS[NAMED].size:
        layout = layout.and_then(*_name_and_padding(view))
    bare = Part(layout, view)
    return Part(layout, view, (*_arrays(bare, kind, notes), *_mappings(bare, notes)))


def _bounded(layout: Layout, view: View) -> Layout:
    """Return the fields that are in the node and in front of its mappings, as older forms of nodes end earlier."""
    mappings = view.uint(12, 4, "an offset") if view.uint(8, 4, "a count") else 0
    end = mappings if NODE_SIZE <= mappings < len(view) else len(view)
    return fitting(layout, view.part(0, end, "a node"))


def _name_and_padding(view: View) -> tuple[Field, ...]:
    """Return the fields for the name of a component, with its zero byte, and for what fills up to its mappings."""
    start = LAYOUTS[NAMED].size
    mappings = view.uint(12, 4, "an offset") if view.uint(8, 4, "a count") else 0
    end = mappings if start <= mappings <= len(view) else len(view)
    text = view.data[view.start + start : view.start + end]
    size = text.find(b"\0") + 1 or len(text)
    return Field("name", size, "text"), Field("padding", len(text) - size, "bytes")


def _arrays(node: Part, kind: int, notes: Notes) -> Iterator[Part]:
    if kind == ITS:
        yield from _array(node, ITS_ID, node.layout.size, node.number("its count"), notes)
    elif kind == SMMU:
        yield from _array(node, _GLOBAL, node.number("global offset"), 1, notes)
        yield from _array(node, _CONTEXT, node.number("context offset"), node.number("context count"), notes)
        yield from _array(node, _PMU, node.number("pmu offset"), node.number("pmu count"), notes)
    elif kind == RMR:
        yield from _array(node, RANGE, node.number("range offset"), node.number("range count"), notes)


def _mappings(node: Part, notes: Notes) -> Iterator[Part]:
    if node.number("mapping offset"):
        yield from _array(node, MAPPING, node.number("mapping offset"), node.number("mapping count"), notes)


def _array(node: Part, layout: Layout, at: int, count: int, notes: Notes) -> Iterator[Part]:
    """Yield the items of an array in a node. Linux does not look whether they are in it; here they must be."""
    room = max(len(node.view) - at, 0) // layout.size if at >= NODE_SIZE else 0
    if count > room:
        notes.add(node.offset, f"{count} items ({layout.name}) in a {node.layout.name} that has room for {room}")
    for index in range(min(count, room)):
        yield Part(layout, node.view.part(at + index * layout.size, layout.size, layout.name))
