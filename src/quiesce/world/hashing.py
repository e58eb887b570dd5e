"""Stable 64-bit hashes of model values: the same in every process and on every machine."""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b
from typing import Any, TypeAlias

Value: TypeAlias = Any
"""An int, bool, str, bytes, Enum, None, a State handle, or a tuple or frozenset of these."""


def encode(value: Value) -> bytes:
    """Return bytes that are equal exactly for equal values (``True`` and ``1`` are equal in Python).

    Raises TypeError for a value that the model may not hold.
    """
    if value is None:
        return b"n"
    if isinstance(value, int):
        return b"i%d" % value
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"b" + value
    # After int and str: members of IntEnum and StrEnum are equal to plain values.
    if isinstance(value, Enum):
        return f"e{type(value).__module__}.{type(value).__qualname__}.{value.name}".encode()
    if isinstance(value, tuple):
        return b"t" + _join([encode(item) for item in value])
    if isinstance(value, frozenset):
        return b"f" + _join(sorted(encode(item) for item in value))
    path = getattr(value, "path", None)
    if isinstance(path, str):
        return b"r" + path.encode()
    raise TypeError(f"the model state cannot hold a {type(value).__name__}: {value!r}")


def _join(parts: list[bytes]) -> bytes:
    return b"".join(b"%d:" % len(part) + part for part in parts)


def stable_hash(salt: bytes, value: Value) -> int:
    """Return the 64-bit hash of ``value`` in the cell that ``salt`` names."""
    return int.from_bytes(blake2b(encode(value), digest_size=8, key=salt).digest(), "little")


def salt_of(path: str, field: str) -> bytes:
    """Return the salt of one field of one object."""
    return blake2b(f"{path}\0{field}".encode(), digest_size=16).digest()
