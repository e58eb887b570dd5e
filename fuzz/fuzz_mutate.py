"""A plain mutator: changes bytes, or lines and words, of one input and mixes it with another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from fuzz_seeds import sealed

_BYTES = (0, 1, 2, 3, 4, 6, 8, 0x10, 0x11, 0x40, 0x42, 0x43, 0x7F, 0x80, 0xF0, 0xFF)
_WORDS = (
    b"00:00.0",
    b"ffff:ff:1f.7",
    b"Capabilities: [100 v1]",
    b"<access denied>",
    b"bus=",
    b"[8086:ffff]",
    b"IOMMU group: 99999999999",
    b"-",
    b"\t",
    b"> ",
    b"\r",
    b"\xc2\xa0",
    b"\xff",
    b"\0",
    b"9" * 400,
    b"0x",
    b"{",
    b"[" * 50,
    b"+-",
    b": ",
    b"=",
)
_LONGEST = 60_000


class Mutator:
    """Makes new inputs out of old ones; the same random numbers give the same inputs."""

    def __init__(self, seeds: Sequence[bytes], binary: bool, table: bool, random: Random) -> None:
        self.seeds = seeds
        self.table = table
        self.random = random
        self._steps = _BINARY if binary else _BINARY + _TEXT * 2

    def next(self) -> bytes:
        """Return the next input."""
        random = self.random
        data = random.choice(self.seeds)
        for _ in range(random.choice((1, 1, 2, 3, 5, 9))):
            data = random.choice(self._steps)(data, self.seeds, random)[:_LONGEST]
        return sealed(data) if self.table and random.random() < 0.8 else data


Step = Callable[[bytes, Sequence[bytes], Random], bytes]


def _set_byte(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    value = random.choice(_BYTES) if random.random() < 0.7 else random.randrange(256)
    return data[:at] + bytes((value,)) + data[at + 1 :]


def _flip_bit(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]


def _span(data: bytes, random: Random, most: int = 64) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randrange(most))


def _delete(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 30)) + data[end:]


def _truncate(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _noise(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    start, end = _span(data, random, 16)
    return data[:start] + random.randbytes(end - start) + data[end:]


def _splice(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(seeds)
    start, end = _span(other, random, 600)
    at = random.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at:]


def _lines(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """Drop, double, swap or move in one or more lines."""
    lines = data.split(b"\n")
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            del lines[at : at + random.choice((1, 1, 3, 10))]
        case 1:
            lines[at:at] = [lines[other]] * random.choice((1, 2, 20))
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)]
        case _:
            lines[at] = lines[at] + lines[other]
    return b"\n".join(lines)


def _word(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(_WORDS) + data[at:]


def _swap_words(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    words = data.split(b" ")
    at, other = random.randrange(len(words)), random.randrange(len(words))
    words[at], words[other] = words[other], words[at]
    return b" ".join(words)


def _damage(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """Do to the whole text what mail does."""
    old, new = random.choice(
        ((b"\n", b"\r\n"), (b"\n", b"\n> "), (b"\t", b""), (b"\t", b"  "), (b"  ", b" "), (b"\n", b" "))
    )
    return data.replace(old, new)


_BINARY: tuple[Step, ...] = (_set_byte, _set_byte, _flip_bit, _delete, _repeat, _truncate, _noise, _splice)
_TEXT: tuple[Step, ...] = (_lines, _lines, _word, _swap_words, _damage)
