"""Raw ACPI tables out of what people have them in: files of raw tables one after another, or the text of ``acpidump``.

The text is a line ``DMAR @ 0x000000007A5E3000`` per table and then lines of an offset and up to 16 bytes in hex. What
mail and forums do to it is undone: carriage returns, quoting marks, lost or added blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quiesce.snapshot.acpi_layout import Notes
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.table import HEADER_SIZE

_HEAD = re.compile(r"([!-~]{4}) @ (?:0x)?[0-9A-Fa-f]{1,16}\s*$")
_SIGNATURE = re.compile(rb"[A-Z][A-Z0-9_!]{3}")
_HEX = frozenset("0123456789abcdefABCDEF")
_MARKS = " \t>|\ufeff\xa0"
_LONGEST_LINE = 200
_BYTES_PER_LINE = 16
_LISTING = ("Intel ACPI Component Architecture", "DefinitionBlock", "[000h 0000")


@dataclass(frozen=True, slots=True)
class AcpiTables:
    """Raw tables by signature."""

    tables: Mapping[str, tuple[bytes, ...]]
    notes: tuple[str, ...] = ()
    """What was left out, and why."""

    def first(self, signature: str) -> bytes | None:
        """Return the first table with a signature; that is the one the kernel takes."""
        return next(iter(self.tables.get(signature, ())), None)


def is_acpidump(text: str) -> bool:
    """Whether some line of a text begins a table as acpidump prints it, with bytes behind it."""
    lines = _lines(text)
    return any(_HEAD.match(line) and _row(next(lines, "")) is not None for line in lines)


def read_acpi(data: bytes, file: str) -> AcpiTables:
    """Read raw tables or the text of acpidump; raises BadInput when there is no table in it."""
    if _is_raw(data, 0):
        found, notes = _raw_tables(data)
    else:
        text = data.decode("utf-8", "replace")
        if not any(_HEAD.match(line) for line in _lines(text)):
            raise BadInput(file, "", _instead(text))
        found, notes = _dumped_tables(text)
    if not found:
        raise BadInput(file, "", "a whole ACPI table" + (f"; {notes.lines[0]}" if notes.lines else ""))
    by_signature: dict[str, dict[bytes, None]] = {}
    for table in found:
        by_signature.setdefault(table[:4].decode("latin-1"), {})[table] = None
    return AcpiTables({name: tuple(tables) for name, tables in by_signature.items()}, tuple(notes.lines))


def _instead(text: str) -> str:
    wanted = "raw ACPI tables (/sys/firmware/acpi/tables/DMAR, IVRS...) or the text that acpidump prints"
    if any(mark in text[:4000] for mark in _LISTING):
        return f"{wanted}; this is a listing made by iasl -d: give the file that it was made from"
    return wanted


# -- raw ---------------------------------------------------------------------------------------------------------


def _is_raw(data: bytes, at: int) -> bool:
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    return _SIGNATURE.match(data, at) is not None and HEADER_SIZE <= length <= len(data) - at


def _raw_tables(data: bytes) -> tuple[list[bytes], Notes]:
    found: list[bytes] = []
    notes, at = Notes(), 0
    while at < len(data):
        if not _is_raw(data, at):
            notes.add(at, f"no table; {len(data) - at} bytes from there on are not read")
            break
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        found.append(data[at : at + length])
        at += length
    return found, notes


# -- text --------------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[str]:
    """Yield the lines without marks of quoting in front; none is longer than a line of a dump can be."""
    return (line[:_LONGEST_LINE].lstrip(_MARKS) for line in text.splitlines())


def _row(line: str) -> tuple[int, bytes] | None:
    """Return offset and bytes of a line such as ``0010: 49 4E 54 45 4C 20 20 20``; None when it is none."""
    offset, colon, rest = line.partition(":")
    if not colon or not 2 <= len(offset) <= 8 or not _HEX.issuperset(offset):
        return None
    words: list[str] = []
    for word in rest.split()[:_BYTES_PER_LINE]:
        if len(word) != 2 or not _HEX.issuperset(word):
            break
        words.append(word)
    return (int(offset, 16), bytes.fromhex("".join(words))) if words else None


def _dumped_tables(text: str) -> tuple[list[bytes], Notes]:
    found: list[bytes] = []
    notes = Notes()
    name, start, table, broken = "", 0, bytearray(), ""
    for number, line in enumerate(_lines(text), 1):
        head = _HEAD.match(line)
        if head:
            _finish(found, notes, name, start, table, broken)
            name, start, table, broken = head[1], number, bytearray(), ""
        elif name and not broken:
            row = _row(line)
            if row is not None and row[0] == len(table):
                table += row[1]
            elif row is not None:
                broken = f"its line for offset {row[0]:#x} comes after {len(table)} bytes"
    _finish(found, notes, name, start, table, broken)
    return found, notes


def _finish(found: list[bytes], notes: Notes, name: str, start: int, table: bytearray, broken: str) -> None:
    """Keep a table that is whole, note one that is not. The words behind its last bytes may have looked like bytes."""
    if not name:
        return
    length = int.from_bytes(table[4:8], "little")
    if broken:
        notes.lines.append(f"line {start}: {name} is left out: {broken}")
    elif bytes(table[:4]) != name.encode("latin-1"):
        notes.lines.append(f"line {start}: {name} is left out: its bytes do not begin with its name")
    elif not HEADER_SIZE <= length <= len(table):
        notes.lines.append(f"line {start}: {name} is left out: {len(table)} bytes are there, it says {length}")
    else:
        found.append(bytes(table[:length]))
