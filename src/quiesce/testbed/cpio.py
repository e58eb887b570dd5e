"""Archives of the kind the kernel unpacks at boot: cpio in the "newc" format."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_MAGIC = b"070701"
_END = "TRAILER!!!"
_HEADER = len(_MAGIC) + 13 * 8
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive; ``mode`` says what it is, as in ``stat``."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Entry:
    """Return a folder."""
    return Entry(name, stat.S_IFDIR | 0o755)


def file(name: str, data: bytes, executable: bool = False) -> Entry:
    """Return a file."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)


def link(name: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int) -> Entry:
    """Return a device node."""
    return Entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))


def with_folders(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with the folders they lie in, which must come first, where those were missing."""
    found: dict[str, Entry] = {}
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.name).parents[:-1]):
            found.setdefault(str(parent), folder(str(parent)))
        found[entry.name] = entry
    return list(found.values())


def _padded(data: bytes, size: int = 4) -> bytes:
    return data + bytes(-len(data) % size)


def _packed(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    return _padded(_MAGIC + b"".join(b"%08x" % value for value in fields) + name) + _padded(entry.data)


def pack(entries: Iterable[Entry]) -> bytes:
    """Return the archive; the same entries give the same bytes."""
    parts = [_packed(number, entry) for number, entry in enumerate(entries, start=1)]
    parts.append(_packed(0, Entry(_END, 0)))
    return _padded(b"".join(parts), _BLOCK)


def unpack(archive: bytes) -> Iterator[Entry]:
    """Yield what an archive holds; of several one behind the other, all."""
    at = 0
    while archive[at : at + len(_MAGIC)] == _MAGIC:
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        start = at + _HEADER
        name = archive[start : start + fields[11] - 1].decode()
        data_start = _aligned(start + fields[11])
        at = _aligned(data_start + fields[6])
        if name == _END:
            at += -at % _BLOCK
        else:
            yield Entry(name, fields[1], archive[data_start : data_start + fields[6]], (fields[9], fields[10]))


def _aligned(position: int) -> int:
    return position + -position % 4
