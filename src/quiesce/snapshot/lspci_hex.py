"""Bytes in the form of ``lspci -x``: whole dumps at once where they are as lspci prints them, else line by line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FULL_SIZES = (64, 256, 4096)
_SHAPE = bytes(0xFF if chr(code) in "0123456789abcdef" else code for code in range(256))
_SHORT, _LONG = 52, 53
"""Length of a line, with its end, whose offset has two or three digits."""
_LOW = 16 * _SHORT
_LINE = re.compile(r"[ \t]*([0-9a-fA-F]{2,3}):((?:[ \t]+[0-9a-fA-F]{2})*)[ \t]*")
_RUN = re.compile(r"(?<![0-9a-fA-F:.])([0-9a-fA-F]{2,3}):((?:[ \t]+[0-9a-fA-F]{2}){1,16})(?![0-9a-fA-F:.])")
_MEANT = re.compile(r"[ \t]*[0-9a-fA-F]{1,3}:(?:[ \t]+\S{1,3}){8,17}[ \t]*")
"""A line that was one of bytes before something happened to it."""
_BARE = re.compile(r"[ \t]*[0-9a-fA-F]{2}(?:[ \t]+[0-9a-fA-F]{2}){0,15}[ \t]*")


def _template(size: int) -> bytes:
    lines = (f"{at:02x}: {bytes(16).hex(' ')}\n" for at in range(0, size, 16))
    return "".join(lines).encode().translate(_SHAPE)


def _column(first: int, end: int, digit: int) -> bytes:
    return "".join(f"{at:02x}"[digit] for at in range(first, end, 16)).encode()


_TEMPLATES = {len(shape): shape for shape in map(_template, FULL_SIZES)}
_LOW_DIGITS = _column(0, 256, 0)
_HIGH_DIGITS = (_column(256, 4096, 0), _column(256, 4096, 1))


def whole_dump(text: str) -> bytes | None:
    """Return the bytes of a dump that is exactly as lspci prints it, of 64, 256 or 4096 bytes; else None.

    ``text`` begins with ``00: `` and ends with the newline of the last line.
    """
    shape = _TEMPLATES.get(len(text))
    if shape is None or not text.isascii():
        return None
    raw = bytearray(text.encode("ascii"))
    if raw.translate(_SHAPE) != shape:
        return None
    low = min(len(raw), _LOW)
    count = low // _SHORT
    if raw[0:low:_SHORT] != _LOW_DIGITS[:count] or raw[1:low:_SHORT].strip(b"0"):
        return None
    if raw[_LOW::_LONG] != _HIGH_DIGITS[0][: len(raw[_LOW::_LONG])]:
        return None
    if raw[_LOW + 1 :: _LONG] != _HIGH_DIGITS[1][: len(raw[_LOW::_LONG])] or raw[_LOW + 2 :: _LONG].strip(b"0"):
        return None
    for column in range(3):
        raw[column:low:_SHORT] = b" " * count
    for column in range(4):
        rest = len(raw[_LOW + column :: _LONG])
        raw[_LOW + column :: _LONG] = b" " * rest
    return bytes.fromhex(raw.decode("ascii"))


@dataclass
class Bytes:
    """Bytes of one function that were found so far, and which of them: ``seen`` holds ff where a byte is known."""

    data: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    end: int = 0
    """Where the next line is expected to go on."""
    notes: list[str] = field(default_factory=list)

    def put(self, offset: int, found: bytes, number: int) -> None:
        """Add bytes from line ``number``; what is there already stays."""
        self.end = offset + len(found)
        missing = self.end - len(self.data)
        if missing > 0:
            self.data += bytes(missing)
            self.seen += bytes(missing)
        if any(self.seen[offset : self.end]):
            there = zip(self.data[offset : self.end], found, self.seen[offset : self.end], strict=True)
            if any(old != new for old, new, seen in there if seen):
                self.notes.append(f"line {number}: bytes at {offset:02x} stated twice and differently; the first count")
            return
        self.data[offset : self.end] = found
        self.seen[offset : self.end] = b"\xff" * len(found)

    def gaps(self) -> list[tuple[int, int]]:
        """Return first and last offset of each range that is missing before the last byte."""
        found: list[tuple[int, int]] = []
        at = self.seen.find(0)
        while at >= 0:
            end = self.seen.find(0xFF, at)
            found.append((at, (len(self.seen) if end < 0 else end) - 1))
            at = self.seen.find(0, end) if end >= 0 else -1
        return found

    def in_full(self) -> tuple[bytes, bytes | None]:
        """Return the bytes, filled with zero to one of the usual sizes, and the mask of those that are known."""
        size = next((size for size in FULL_SIZES if size >= len(self.data)), FULL_SIZES[-1])
        known = bytes(self.seen).ljust(size, b"\0")
        return bytes(self.data).ljust(size, b"\0"), None if 0 not in known else known


def is_hex(line: str, expected: int | None) -> bool:
    """Whether a line holds bytes; ``expected`` is where the bytes before it ended, None when there were none."""
    match = _LINE.match(line)
    if match is not None and match[2]:
        offset = int(match[1], 16)
        return offset % 16 == 0 and not (len(match[1]) == 3 and match[1][0] == "0")
    if _MEANT.fullmatch(line):
        return True
    return expected is not None and expected % 16 != 0 and _BARE.fullmatch(line) is not None


def read_line(into: Bytes, line: str, number: int) -> None:
    """Take the bytes out of a line that ``is_hex``: one line, several in one, or the rest of a wrapped one."""
    if _BARE.fullmatch(line):
        rest = bytes.fromhex(line)[: 16 - into.end % 16]
        into.put(into.end, rest, number)
        return
    end = 0
    for match in _RUN.finditer(line):
        offset = int(match[1], 16)
        if offset % 16 == 0:
            into.put(offset, bytes.fromhex(match[2]), number)
        end = match.end()
    if line[end:].strip():
        into.notes.append(f"line {number}: not 16 bytes in hex; what is missing is unknown")
