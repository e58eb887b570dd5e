"""What all raw ACPI tables have in common: the header, and structures read with bounds checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quiesce.snapshot.errors import BadInput

HEADER_SIZE = 36


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


def open_table(data: bytes, signature: bytes, file: str) -> View:
    """Check the header of a table and return all of it."""
    whole = View(data, 0, len(data), file)
    found = whole.raw(0, 4, "the table's signature")
    if found != signature:
        raise whole.bad(0, f"the signature {signature.decode()}, found {found!r}")
    length = whole.uint(4, 4, "the table's length")
    if not HEADER_SIZE <= length <= len(data):
        raise whole.bad(4, f"a table length from {HEADER_SIZE} to the {len(data)} bytes there are, found {length}")
    return View(data, 0, length, file)


def structures(table: View, first: int, what: str) -> Iterator[tuple[int, View]]:
    """Yield type and span of each structure with a 16-bit type and a 16-bit length, from offset ``first`` on."""
    at = first
    while at < len(table):
        kind = table.uint(at, 2, f"the type of {what}")
        size = table.uint(at + 2, 2, f"the length of {what}")
        if size < 4:
            raise table.bad(at + 2, f"a length of at least 4 for {what}, found {size}")
        yield kind, table.part(at, size, what)
        at += size


def sealed(signature: bytes, body: bytes, revision: int = 1) -> bytes:
    """Return a table with header and checksum around ``body``."""
    length = (HEADER_SIZE + len(body)).to_bytes(4, "little")
    table = bytearray(signature + length + bytes((revision, 0)) + b"QUIESCQUIESCE " + bytes(4) + b"QSCE" + bytes(4))
    table += body
    table[9] = -sum(table) & 0xFF
    return bytes(table)
