"""Inputs of 10 MB: what a hostile or broken file of that size can look like in each format."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz_formats import Format
from fuzz_seeds import sealed

SIZE = 10_000_000
_TABLE = 1 << 18


def large_inputs(chosen: Format) -> Iterator[tuple[str, bytes]]:
    """Yield inputs of 10 MB with what they are; tables also at the largest size that is read."""
    seeds = sorted(chosen.seeds(), key=len)
    middle, longest = seeds[len(seeds) // 2], seeds[-1]
    if chosen.table:
        for seed in (seeds[0], middle, longest):
            yield "table, structures again and again", _grown(seed, _TABLE)
        for filler in (b"\0", b"\1\x08", b"\1\0\4\0", b"\x10\0\x18\0" + bytes(20), b"\0\x10\0\1" + bytes(12)):
            yield f"table, filled with {filler[:4].hex()}", _filled(seeds[0], filler)
    for name, data in (("a short seed", seeds[0]), ("a middle seed", middle), ("the longest seed", longest)):
        yield f"{name} again and again", (data * (SIZE // max(len(data), 1) + 1))[:SIZE]
    lines = middle.split(b"\n")
    for line in sorted(set(lines), key=len)[-3:]:
        yield f"one line again and again: {line[:30]!r}", ((line + b"\n") * (SIZE // (len(line) + 1) + 1))[:SIZE]
    yield "one line", middle.replace(b"\n", b" ") * (SIZE // max(len(middle), 1))
    for byte in (b"\n", b" ", b"\t", b"0", b"[", b"{", b"-", b">", b"\0", b"\xff", b":"):
        yield f"all {byte!r}", byte * SIZE
    yield "a seed and then blanks", middle + b" " * (SIZE - len(middle))
    yield "a seed and then digits", middle.rstrip() + b"0" * (SIZE - len(middle))
    yield "opened and never closed", b'{"a":' * (SIZE // 5)


def _grown(seed: bytes, size: int) -> bytes:
    """Repeat what is behind the header of a table."""
    body = seed[48:] or b"\0"
    return sealed((seed[:48] + body * (size // len(body)))[:size])


def _filled(seed: bytes, filler: bytes) -> bytes:
    return sealed((seed[:48] + filler * (_TABLE // len(filler)))[:_TABLE])
