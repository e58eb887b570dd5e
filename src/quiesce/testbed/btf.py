"""Where the fields of kernel structures are, from the type information (BTF) that a kernel carries about itself."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from quiesce.snapshot.errors import BadInput
from quiesce.testbed.store import write_atomic

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_POINTER_SIZE = 8
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC_PROTO, _VAR, _DATASEC = 8, 9, 10, 11, 13, 14, 15
_FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = 16, 17, 18, 19
_FIXED_EXTRA = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EXTRA_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_TRANSPARENT = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
_SIZED = (_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64)
_BIT_OFFSET = 0xFFFFFF
_DEEPEST = 64
"""Names upon names of one type; more is a circle."""


class Place(NamedTuple):
    """Where a field is within its structure."""

    bit: int
    bits: int

    @property
    def byte(self) -> int:
        """Offset of the byte it begins in."""
        return self.bit // 8

    def value(self, structure: bytes) -> int:
        """Return the field's value in the bytes of a structure."""
        data = int.from_bytes(structure[self.byte : self.byte + 9], "little")
        return data >> self.bit % 8 & (1 << self.bits) - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """One structure: its size, and the fields it has of those that were asked for."""

    size: int
    fields: Mapping[str, Place]

    def value(self, structure: bytes, name: str) -> int | None:
        """Return a field's value; None when this kernel has no such field."""
        place = self.fields.get(name)
        return None if place is None else place.value(structure)


Layouts = Mapping[str, Layout]
"""Layouts by the name of the structure; one that a kernel does not have is not there."""


class _Type(NamedTuple):
    kind: int
    name: int
    number: int
    """How many members it has."""
    bitfields: bool
    size: int
    """In bytes, or the type it refers to."""
    at: int
    """Offset of what follows."""


_DAMAGED = (struct.error, ValueError, IndexError, RecursionError)


def _bad() -> BadInput:
    return BadInput("BTF", "", "the type information of a kernel")


class Btf:
    """The types of one kernel."""

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, header, type_at, type_size, text_at, text_size = _HEADER.unpack_from(data)
            self._data = data[header + type_at : header + type_at + type_size]
            self._text = data[header + text_at : header + text_at + text_size]
            if magic != _MAGIC or len(self._text) < text_size:
                raise ValueError
            self._types = [_Type(0, 0, 0, False, 0, 0), *self._read()]
            self._structures = self._named_structures()
        except _DAMAGED:
            raise _bad() from None

    def _named_structures(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, item in enumerate(self._types):
            if item.kind == _STRUCT and item.name:
                found.setdefault(self._string(item.name), number)
        return found

    def _read(self) -> Iterator[_Type]:
        at = 0
        while at < len(self._data):
            name, info, size = _TYPE.unpack_from(self._data, at)
            at += _TYPE.size
            kind, number = info >> 24 & 31, info & 0xFFFF
            yield _Type(kind, name, number, bool(info >> 31), size, at)
            at += _FIXED_EXTRA.get(kind, 0) + _EXTRA_EACH.get(kind, 0) * number

    def layout(self, structure: str, paths: Sequence[str]) -> Layout | None:
        """Return a structure with those of the fields that it has; None without it.

        A field is named ``dev.kobj.name``, or ``dev.flags#DEV_FLAG_OFFLINE`` for the bit of a bitmap whose number is a
        member of an enumeration.
        """
        number = self._structures.get(structure)
        if number is None:
            return None
        places = {path: self._place(number, path) for path in paths}
        return Layout(self._types[number].size, {path: place for path, place in places.items() if place is not None})

    def _place(self, number: int, path: str) -> Place | None:
        path, _, mark = path.partition("#")
        place = self._member(number, path)
        if place is None or not mark:
            return place
        value = self._enumerators.get(mark)
        return None if value is None else Place(place.bit + value, 1)

    @cached_property
    def _enumerators(self) -> dict[str, int]:
        """Values of the members of all enumerations; kernels keep the names apart."""
        found: dict[str, int] = {}
        for item in self._types:
            if item.kind == _ENUM:
                for index in range(item.number):
                    name, value = struct.unpack_from("<Ii", self._data, item.at + _EXTRA_EACH[_ENUM] * index)
                    found.setdefault(self._string(name), value)
        return found

    def _member(self, number: int, path: str) -> Place | None:
        bit = bits = 0
        for name in path.split("."):
            found = self._find(self._plain(number), name)
            if found is None:
                return None
            number, offset, bits = found
            bit += offset
        return Place(bit, bits or 8 * self._size(number))

    def _find(self, number: int, name: str) -> tuple[int, int, int] | None:
        """Return type, bit offset and bit-field width of a member, looking into members without name."""
        for member, kind, offset, bits in self._members(number):
            if member == name:
                return kind, offset, bits
            if not member:
                inner = self._find(self._plain(kind), name)
                if inner is not None:
                    return inner[0], inner[1] + offset, inner[2]
        return None

    def _members(self, number: int) -> Iterator[tuple[str, int, int, int]]:
        item = self._types[number]
        if item.kind not in (_STRUCT, _UNION):
            return
        for index in range(item.number):
            name, kind, offset = _MEMBER.unpack_from(self._data, item.at + _MEMBER.size * index)
            bits = offset >> 24 if item.bitfields else 0
            yield self._string(name), kind, offset & _BIT_OFFSET if item.bitfields else offset, bits

    def _plain(self, number: int) -> int:
        for _ in range(_DEEPEST):
            if self._types[number].kind not in _TRANSPARENT:
                return number
            number = self._types[number].size
        raise ValueError

    def _size(self, number: int) -> int:
        item = self._types[self._plain(number)]
        if item.kind == _PTR:
            return _POINTER_SIZE
        return item.size if item.kind in _SIZED else 0

    def _string(self, at: int) -> str:
        return self._text[at : self._text.index(b"\0", at)].decode("ascii", "replace")


def layouts_of(data: bytes, wanted: Mapping[str, Sequence[str]]) -> Layouts:
    """Return the layouts of the structures that a kernel has, by its BTF; raises BadInput."""
    btf = Btf(data)
    try:
        found = {name: btf.layout(name, paths) for name, paths in wanted.items()}
    except _DAMAGED:
        raise _bad() from None
    return {name: layout for name, layout in found.items() if layout is not None}


def cached_layouts(data: bytes, wanted: Mapping[str, Sequence[str]], folder: Path) -> Layouts:
    """Return the same, from a file in ``folder`` where that was asked before: parsing takes a third of a second."""
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True, default=list).encode() + data).hexdigest()
    file = folder / f"layouts-{key[:32]}.json"
    try:
        return _from_json(file.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        found = layouts_of(data, wanted)
        write_atomic(file, json.dumps({name: [item.size, item.fields] for name, item in found.items()}).encode())
        return found


def _from_json(text: str) -> Layouts:
    return {
        name: Layout(size, {path: Place(*place) for path, place in fields.items()})
        for name, (size, fields) in json.loads(text).items()
    }
