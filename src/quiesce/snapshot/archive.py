"""Archives (tar, plain or compressed by gzip, bzip2 or xz, and zip), read into memory and never written to disk.

Names that lead out of the archive are left out. What it unpacks to, the number of its members and the size of each are
bounded; an archive that ends early or is damaged gives what came before that, with a note.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import zipfile
import zlib
from typing import Protocol

from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.tar import read_tar
from quiesce.snapshot.tree import MemoryTree

MOST_MEMBERS = 40_000
MOST_BYTES = 32 << 20
"""What an archive may unpack to."""
_BROKEN = (EOFError, IndexError, OSError, ValueError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_TAR_MAGIC = slice(257, 262)
_PIECE = 1 << 20


class _Readable(Protocol):
    def read1(self, size: int = -1, /) -> bytes: ...


def _decompressor(data: bytes) -> _Readable | None:
    raw = io.BytesIO(data)
    if data[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if data[:3] == b"BZh":
        return bz2.BZ2File(raw)
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.LZMAFile(raw)
    return None


def open_archive(data: bytes, label: str) -> tuple[MemoryTree, list[str]] | bytes:
    """Return the tree in an archive and notes on what was left out, or the bytes of a single compressed file.

    Raises BadInput when nothing in it can be read.
    """
    tree, notes = MemoryTree(label), list[str]()
    if data[:4] == b"PK\3\4":
        _unzip(data, tree, notes)
    else:
        plain = _unpacked(data, notes)
        if plain[_TAR_MAGIC] != b"ustar" and plain:
            return plain
        notes += read_tar(plain, tree, MOST_MEMBERS)
    if not tree.files and not tree.links:
        raise BadInput(label, "", "an archive that can be read" + (f" ({notes[0]})" if notes else ""))
    return tree, notes


def _unpacked(data: bytes, notes: list[str]) -> bytes:
    inner = _decompressor(data)
    if inner is None:
        return data
    parts: list[bytes] = []
    size = 0
    try:
        while part := inner.read1(_PIECE):
            parts.append(part)
            size += len(part)
            if size >= MOST_BYTES:
                notes.append(f"only the first {MOST_BYTES >> 20} MiB of what it unpacks to are read")
                break
    except _BROKEN as error:
        notes.append(f"it is damaged or ends early ({_said(error)}); what came before that is read")
    return b"".join(parts)


def _unzip(data: bytes, tree: MemoryTree, notes: list[str]) -> None:
    members = data.count(b"PK\1\2")
    if members > MOST_MEMBERS:
        notes.append(f"it has more than {MOST_MEMBERS} members")
        return
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                size = min(member.file_size, left + 1)
                left -= _add_zipped(archive, member, tree, size)
                if left < 0:
                    notes.append(f"only the first {MOST_BYTES >> 20} MiB of what the archive unpacks to are read")
                    return
    except (*_BROKEN, RuntimeError, NotImplementedError) as error:
        notes.append(f"the archive is damaged or cannot be unpacked ({_said(error)}); what came before that is read")


def _add_zipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, tree: MemoryTree, size: int) -> int:
    if member.is_dir():
        tree.add(member.filename)
        return 0
    with archive.open(member) as file:
        data = file.read(size)
    if stat.S_ISLNK(member.external_attr >> 16):
        tree.add(member.filename, link=data[:4096].decode("utf-8", "replace"))
    else:
        tree.add(member.filename, data)
    return len(data)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
