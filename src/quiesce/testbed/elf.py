"""Sections of a 64-bit ELF file, read without reading the rest of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from quiesce.snapshot.errors import BadInput

_IDENTITY = b"\x7fELF\x02\x01"
_HEADER = 64
_SECTION = struct.Struct("<IIQQQQIIQQ")
_LIMIT = 1 << 28
"""No section that is larger is read."""


class Section(NamedTuple):
    """Where one section is in the file."""

    name: str
    offset: int
    size: int


def read_section(path: Path, name: str) -> bytes | None:
    """Return what is in a section, None when there is none of that name; raises BadInput for what is no such file."""
    try:
        with path.open("rb") as file:
            found = next((item for item in _sections(file, path) if item.name == name), None)
            return None if found is None else _read(file, found.offset, found.size, path)
    except OSError as error:
        raise BadInput(str(path), "", f"a readable ELF file ({error.strerror})") from None


def _sections(file: BinaryIO, path: Path) -> Iterator[Section]:
    header = _read(file, 0, _HEADER, path)
    if not header.startswith(_IDENTITY):
        raise BadInput(str(path), "", "a little-endian 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", header, 40)
    size, number, names = struct.unpack_from("<HHH", header, 58)
    if size != _SECTION.size or names >= number:
        raise BadInput(str(path), "section headers", "a table of sections with their names")
    entries = list(_SECTION.iter_unpack(_read(file, table, size * number, path)))
    strings = _read(file, entries[names][4], entries[names][5], path)
    for entry in entries:
        text = strings[entry[0] :].partition(b"\0")[0].decode("ascii", "replace")
        yield Section(text, entry[4], entry[5])


def _read(file: BinaryIO, offset: int, size: int, path: Path) -> bytes:
    if size > _LIMIT:
        raise BadInput(str(path), f"offset {offset:#x}", f"a section of at most {_LIMIT >> 20} MiB")
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise BadInput(str(path), f"offset {offset:#x}", f"{size} bytes")
    return data
