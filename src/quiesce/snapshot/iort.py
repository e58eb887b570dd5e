"""The IORT table: which SMMU and which interrupt translation service the devices of an ARM machine are behind.

Arm DEN 0049 (IO Remapping Table): all node types. Linux: drivers/acpi/arm64/iort.c, v6.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from quiesce.snapshot.acpi_layout import Notes, Part
from quiesce.snapshot.iort_parts import ITS_ID, LAYOUTS, MAPPING, RANGE, parts_of
from quiesce.snapshot.table import open_table

_SINGLE_SOURCES = ("named component", "root complex")
_SMMUS = ("smmu", "smmu v3")


@dataclass(frozen=True, slots=True)
class Mapping:
    """How ids that leave a node become ids at another node."""

    input_base: int
    count: int
    """Number of ids, minus one."""
    output_base: int
    output: int
    """Offset of the other node in the table."""
    flags: int = 0

    @property
    def single(self) -> bool:
        """Whether it maps whatever comes to ``output_base``."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    kind: str
    """``its group``, ``named component``, ``root complex``, ``smmu`` (v1 and v2), ``smmu v3``, ``pmcg`` or ``rmr``."""
    offset: int
    """Where it is in the table, by which mappings refer to it."""
    revision: int
    identifier: int
    values: tuple[tuple[str, int], ...]
    """Its numbers by name."""
    mappings: tuple[Mapping, ...] = ()
    name: str = ""
    """ACPI path of a named component."""
    its: tuple[int, ...] = ()
    """Ids of the translation services of a group, as in the MADT."""
    memory: tuple[tuple[int, int], ...] = ()
    """(base, length) of the reserved ranges of an RMR node."""

    def get(self, name: str) -> int:
        """Return a number, 0 when the node does not have it."""
        return next((value for other, value in self.values if other == name), 0)

    @property
    def ats(self) -> bool:
        """Whether a root complex supports ATS."""
        return bool(self.get("ats") & 1)

    @property
    def special_mapping(self) -> int:
        """Index of the mapping that is for the node's own interrupts, -1 for none (iort_get_id_mapping_index)."""
        if self.kind == "smmu v3" and self.revision >= 1:
            gsis = [self.get(f"{name} gsi") for name in ("event", "pri", "gerr", "sync")]
            index = self.get("id mapping")
            return -1 if all(gsis) or index >= len(self.mappings) else index
        return 0 if self.kind == "pmcg" and self.mappings and not self.get("overflow gsi") else -1


@dataclass(frozen=True)
class Iort:
    """A whole IORT table."""

    nodes: tuple[Node, ...]
    skipped: tuple[int, ...] = ()
    """Types of nodes that were not understood."""
    notes: tuple[str, ...] = ()
    """What is wrong with the table, with offsets."""
    refused: str = ""
    """Why Linux uses nothing of it; empty when it does."""

    @cached_property
    def _at(self) -> dict[int, Node]:
        return {node.offset: node for node in self.nodes}

    def of_kind(self, *kinds: str) -> tuple[Node, ...]:
        """Return the nodes of some kinds."""
        return tuple(node for node in self.nodes if node.kind in kinds)

    def root_complex(self, segment: int) -> Node | None:
        """Return the root complex of a segment; Linux takes the first."""
        found = self.of_kind("root complex")
        return next((node for node in found if node.get("segment") == segment), None)

    def follow(self, node: Node, number: int, *kinds: str) -> tuple[Node, int] | None:
        """Return the first node of some kinds that an id which leaves ``node`` comes to, and the id there.

        As iort_node_map_id, which would not return from mappings that lead in a circle.
        """
        here: Node | None = node
        for _ in range(len(self.nodes) + 1):
            if here is None:
                return None
            if here.kind in kinds:
                return here, number
            found = _mapped(here, number)
            if found is None:
                return None
            here, number = self._at.get(found[0]), found[1]
        return None

    def smmu_of(self, devid: int, segment: int = 0) -> tuple[Node, int] | None:
        """Return the SMMU of a requester id and the stream id there; None when it is behind none."""
        node = self.root_complex(segment)
        return None if node is None else self.follow(node, devid, *_SMMUS)

    def its_of(self, devid: int, segment: int = 0) -> tuple[Node, int] | None:
        """Return the group of interrupt translation services of a requester id, and the device id there."""
        node = self.root_complex(segment)
        return None if node is None else self.follow(node, devid, "its group")

    def smmu_of_acpi(self, name: str) -> tuple[tuple[Node, int], ...]:
        """Return the SMMUs of a device of the ACPI name space with the stream ids there (iort_nc_iommu_map)."""
        node = next((node for node in self.of_kind("named component") if node.name == name), None)
        found: list[tuple[Node, int]] = []
        for mapping in () if node is None else node.mappings:
            parent = self._at.get(mapping.output) if mapping.single else None
            there = None if parent is None else self.follow(parent, mapping.output_base, *_SMMUS)
            if there is None:
                break
            found.append(there)
        return tuple(found)

    def reserved_for(self, smmu: Node, stream: int) -> tuple[tuple[int, int], ...]:
        """Return (base, length) of the memory that a stream id of an SMMU uses behind the operating system's back."""
        return tuple(
            span
            for node in self.of_kind("rmr")
            if any(_reaches(mapping, smmu, stream) for mapping in node.mappings)
            for span in node.memory
        )


def _reaches(mapping: Mapping, smmu: Node, stream: int) -> bool:
    last = mapping.output_base + (0 if mapping.single else mapping.count)
    return mapping.output == smmu.offset and mapping.output_base <= stream <= last


def _mapped(node: Node, number: int) -> tuple[int, int] | None:
    """Return where an id goes to from a node: the offset of the next node and the id there.

    A match at the very end of a range gives way to another that begins there: some firmware writes the number of ids
    where the number minus one belongs (iort_id_map).
    """
    special, at_end = node.special_mapping, None
    for index, mapping in enumerate(node.mappings):
        if not mapping.output:
            return None if index == 0 else at_end
        if index == special:
            continue
        if mapping.single:
            if node.kind in _SINGLE_SOURCES:
                return mapping.output, mapping.output_base
            continue
        inside = mapping.input_base <= number <= mapping.input_base + mapping.count
        if not inside or (at_end is not None and number != mapping.input_base):
            continue
        found = mapping.output, mapping.output_base + number - mapping.input_base
        if not mapping.count or number != mapping.input_base + mapping.count:
            return found
        at_end = found
    return at_end


def read_iort(data: bytes, file: str = "IORT") -> Iort:
    """Read a raw IORT table; raises BadInput with the offset when there is no such table in it."""
    notes = Notes()
    _, *parts = parts_of(open_table(data, b"IORT", file, notes), notes)
    known = [part for part in parts if part.number("type") in LAYOUTS]
    nodes = tuple(_node(part) for part in known)
    _check(nodes, notes)
    return Iort(
        nodes,
        tuple(part.number("type") for part in parts if part.number("type") not in LAYOUTS),
        tuple(notes.lines),
        notes.refused,
    )


def _node(part: Part) -> Node:
    numbers = part.numbers()
    return Node(
        kind=part.layout.name,
        offset=part.offset,
        revision=numbers["revision"],
        identifier=numbers["identifier"],
        values=tuple(numbers.items()),
        mappings=tuple(_mapping(item) for item in part.parts if item.layout is MAPPING),
        name=part.text("name"),
        its=tuple(item.number("its") for item in part.parts if item.layout is ITS_ID),
        memory=tuple((item.number("base"), item.number("size")) for item in part.parts if item.layout is RANGE),
    )


def _mapping(part: Part) -> Mapping:
    return Mapping(
        *(part.number(name) for name in ("input base", "id count", "output base", "output reference", "flags"))
    )


def _check(nodes: tuple[Node, ...], notes: Notes) -> None:
    offsets = {node.offset for node in nodes}
    for node in nodes:
        for mapping in _lost(node, offsets):
            notes.add(node.offset, f"a mapping to offset {mapping.output:#x}, where there is no node")


def _lost(node: Node, offsets: set[int]) -> Iterator[Mapping]:
    return (mapping for mapping in node.mappings if mapping.output not in offsets)
