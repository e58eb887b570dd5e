"""How ACPI structures are described: as rows of fields, from which both the reading and the account of every byte come.

A `Layout` names the fields of a structure. A `Part` is one structure found in a table, with the structures inside
it. The readers turn parts into dataclasses; `field_values` lists the same parts field by field with offsets, which is
what a listing of ``iasl`` is compared with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from quiesce.snapshot.errors import BadInput

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_MOST_NOTES = 50


class Bits(NamedTuple):
    """Some bits of a field that mean something by themselves."""

    name: str
    low: int
    width: int = 1

    def of(self, value: int) -> int:
        """Return these bits of a value of the field."""
        return value >> self.low & (1 << self.width) - 1


class Field(NamedTuple):
    """One field: its name, its size in bytes, and what it holds."""

    name: str
    size: int
    kind: str = "uint"
    """``uint`` (little-endian), ``text`` (ASCII, up to the first zero byte) or ``bytes``."""
    bits: tuple[Bits, ...] = ()


class FieldValue(NamedTuple):
    """One field as it was found in a table."""

    structure: str
    name: str
    offset: int
    size: int
    value: int | str | bytes
    bits: tuple[Bits, ...] = ()


@dataclass
class Notes:
    """Collects what is wrong with a table while it is read, with the offsets."""

    lines: list[str] = field(default_factory=list)
    refused: str = ""
    """Why Linux uses nothing of the table; empty when it does use it."""

    def add(self, offset: int, text: str, *, refused: bool = False) -> None:
        """Note something at an offset; ``refused`` when Linux throws the whole table away for it."""
        line = f"offset {offset:#x}: {text}"
        if len(self.lines) < _MOST_NOTES:
            self.lines.append(line)
        elif len(self.lines) == _MOST_NOTES:
            self.lines.append("there is more like this")
        if refused and not self.refused:
            self.refused = line


@dataclass(frozen=True, slots=True)
class View:
    """A span of a table; reading outside of it raises BadInput with the offset."""

    data: bytes
    start: int
    end: int
    file: str

    def uint(self, offset: int, size: int, what: str) -> int:
        """Return a little-endian number ``offset`` bytes into the span."""
        return int.from_bytes(self.raw(offset, size, what), "little")

    def raw(self, offset: int, size: int, what: str) -> bytes:
        """Return bytes ``offset`` bytes into the span."""
        at = self.start + offset
        if offset < 0 or at + size > self.end:
            raise self.bad(offset, f"{size} more bytes for {what}")
        return self.data[at : at + size]

    def bad(self, offset: int, expected: str) -> BadInput:
        """Return the error to raise for something wrong ``offset`` bytes into the span."""
        return BadInput(self.file, f"offset {self.start + offset:#x}", expected)

    def part(self, offset: int, size: int, what: str) -> View:
        """Return a part of the span."""
        if size < 0 or self.start + offset + size > self.end:
            raise self.bad(offset, f"{size} bytes of {what}")
        return View(self.data, self.start + offset, self.start + offset + size, self.file)

    def __len__(self) -> int:
        return self.end - self.start


class Layout:
    """The fields of one kind of structure, in order and without gaps."""

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = fields
        self.size = sum(item.size for item in fields)
        self._struct = struct.Struct("<" + "".join(_code(item) for item in fields))

    def values(self, view: View) -> Iterator[int | str | bytes]:
        """Yield the values of the fields at the start of a span, which must be long enough."""
        for item, value in zip(self.fields, self._struct.unpack_from(view.data, view.start), strict=True):
            yield _decoded(item, value)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(item.name for item in self.fields)

    def and_then(self, *fields: Field) -> Layout:
        """Return the layout with more fields behind it."""
        return _extended(self, fields)


@lru_cache(maxsize=1024)
def _extended(layout: Layout, fields: tuple[Field, ...]) -> Layout:
    return Layout(layout.name, *layout.fields, *fields)


def _code(item: Field) -> str:
    return _CODES[item.size] if item.kind == "uint" and item.size in _CODES else f"{item.size}s"


def _decoded(item: Field, value: int | bytes) -> int | str | bytes:
    if isinstance(value, int) or item.kind == "bytes":
        return value
    if item.kind == "text":
        return value.split(b"\0")[0].decode("latin-1")
    return int.from_bytes(value, "little")


@dataclass(frozen=True)
class Part:
    """A structure that was found in a table."""

    layout: Layout
    view: View
    parts: tuple[Part, ...] = ()

    @property
    def offset(self) -> int:
        """Where it starts in the table."""
        return self.view.start

    @cached_property
    def _values(self) -> dict[str, int | str | bytes]:
        return dict(zip(self.layout.names, self.layout.values(self.view), strict=True))

    def number(self, name: str) -> int:
        """Return a field that is a number; 0 when the structure is of an older form that ends before it."""
        value = self._values.get(name, 0)
        assert isinstance(value, int)
        return value

    def text(self, name: str) -> str:
        """Return a field that is text."""
        value = self._values.get(name, "")
        assert isinstance(value, str)
        return value

    def numbers(self) -> dict[str, int]:
        """Return all fields that are numbers."""
        return {name: value for name, value in self._values.items() if isinstance(value, int)}


def fitting(layout: Layout, view: View) -> Layout:
    """Return as many fields of a layout as a span has room for, as older forms of a structure end earlier."""
    if layout.size <= len(view):
        return layout
    return _first_fields(layout, len(view))


@lru_cache(maxsize=256)
def _first_fields(layout: Layout, room: int) -> Layout:
    taken: list[Field] = []
    for item in layout.fields:
        room -= item.size
        if room < 0:
            break
        taken.append(item)
    return Layout(layout.name, *taken)


def field_values(parts: Iterable[Part], table: View) -> Iterator[FieldValue]:
    """Yield every field of the parts of a table in order, and as ``unread`` the bytes that no field accounts for."""
    at = table.start
    for found in sorted(_fields_of(parts), key=lambda value: value.offset):
        if found.offset > at:
            yield _unread(table, at, found.offset)
        yield found
        at = max(at, found.offset + found.size)
    if at < table.end:
        yield _unread(table, at, table.end)


def _fields_of(parts: Iterable[Part]) -> Iterator[FieldValue]:
    waiting = list(parts)[::-1]
    while waiting:
        part = waiting.pop()
        at = part.offset
        for item, value in zip(part.layout.fields, part.layout.values(part.view), strict=True):
            if item.size:
                yield FieldValue(part.layout.name, item.name, at, item.size, value, item.bits)
            at += item.size
        waiting += part.parts[::-1]


def _unread(table: View, start: int, end: int) -> FieldValue:
    return FieldValue("", "unread", start, end - start, table.data[start:end])
