"""The bytes of one function that are exactly as ``lspci -x``, ``-xxx`` or ``-xxxx`` prints them, taken all at once."""

from __future__ import annotations

from functools import lru_cache

FULL_SIZES = (64, 256, 4096)
_DIGIT = 0xFF
"""The mark for a digit: no character that a text may have, and the byte itself is taken for another."""
_SHAPE = bytes(_DIGIT if chr(code) in "0123456789abcdef" else code % _DIGIT for code in range(256))
_SHORT, _LONG = 52, 53
"""Length of a line, with its end, whose offset has two or three digits."""
_LOW = 16 * _SHORT


@lru_cache(maxsize=16)
def _template(length: int) -> bytes | None:
    """Return the shape of the dump whose text has this length: ``_DIGIT`` for each digit."""
    size = next((size for size in FULL_SIZES if text_size(size) == length), 0)
    lines = (f"{at:02x}: {bytes(16).hex(' ')}\n" for at in range(0, size, 16))
    return "".join(lines).encode().translate(_SHAPE) if size else None


def _column(first: int, end: int, digit: int) -> bytes:
    return "".join(f"{at:02x}"[digit] for at in range(first, end, 16)).encode()


_LOW_DIGITS = _column(0, 256, 0)
_HIGH_DIGITS = (_column(256, 4096, 0), _column(256, 4096, 1))


def text_size(size: int) -> int:
    """Return the length of a dump of so many bytes, with the newline of its last line."""
    lines = size // 16
    return _SHORT * min(lines, 16) + _LONG * max(lines - 16, 0)


def whole_dump(text: bytes) -> bytes | None:
    """Return the bytes of a dump that is exactly as lspci prints it, of 64, 256 or 4096 bytes; else None.

    ``text`` begins with ``00: `` and ends with the newline of the last line.
    """
    shape = _template(len(text))
    if shape is None or text.translate(_SHAPE) != shape:
        return None
    low = min(len(text), _LOW)
    count, rest = low // _SHORT, max(len(text) - _LOW, 0) // _LONG
    if text[0:low:_SHORT] != _LOW_DIGITS[:count] or text[1:low:_SHORT].strip(b"0"):
        return None
    if text[_LOW::_LONG] != _HIGH_DIGITS[0][:rest] or text[_LOW + 1 :: _LONG] != _HIGH_DIGITS[1][:rest]:
        return None
    if text[_LOW + 2 :: _LONG].strip(b"0"):
        return None
    raw = bytearray(text)
    for column in range(3):
        raw[column:low:_SHORT] = b" " * count
    for column in range(4):
        raw[_LOW + column :: _LONG] = b" " * rest
    return bytes.fromhex(raw.decode("ascii"))
