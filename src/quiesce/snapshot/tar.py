"""The tar format (POSIX.1-2001 ustar and pax, GNU long names): a walk over the headers, much quicker than tarfile for
the tens of thousands of small files that a copy of /sys has. Owners, times and modes are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from quiesce.snapshot.tree import MemoryTree

_BLOCK = 512
_NAME, _SIZE, _KIND, _LINK = slice(0, 100), slice(124, 136), slice(156, 157), slice(157, 257)
_MAGIC, _PREFIX = slice(257, 265), slice(345, 500)
_POSIX = b"ustar\x0000"
_SPARSE_MORE, _SPARSE_NEXT = 482, 504
_LONG_NAME, _LONG_LINK = b"L", b"K"
_LONGEST = 8192


@dataclass
class _Pending:
    """What headers before a member said about it."""

    name: str = ""
    link: str = ""
    size: int | None = None


def read_tar(data: bytes, tree: MemoryTree, most: int) -> list[str]:
    """Put the members of a tar into a tree; returns notes on what was left out."""
    at, number, pending = 0, 0, _Pending()
    while at + _BLOCK <= len(data):
        header = data[at : at + _BLOCK]
        if header[:1] == b"\0":
            return []
        size = _number(header[_SIZE]) if pending.size is None else pending.size
        if size is None or header[257:262] != b"ustar":
            return [f"the archive is damaged {at} bytes into what it unpacks to; what came before that is read"]
        at = _after_sparse(data, at, header)
        body, kind = data[at : at + size], header[_KIND]
        at += -(-size // _BLOCK) * _BLOCK
        if kind in (b"x", _LONG_NAME, _LONG_LINK):
            _prepare(pending, kind, body[: 1 << 16])
            continue
        if len(body) < size and kind in (b"0", b"\0", b"7"):
            return ["the archive ends early; what came before that is read"]
        _add(tree, header, kind, body, pending)
        pending = _Pending()
        number += 1
        if number >= most:
            return [f"only the first {most} members of the archive are read"]
    return ["the archive ends early; what came before that is read"]


def _number(field: bytes) -> int | None:
    """Return an octal number, or one of GNU's in binary."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[4:], "big")
    text = field.strip(b"\0 ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return None


def _after_sparse(data: bytes, at: int, header: bytes) -> int:
    """Return where the data of a member begins: a sparse one may have blocks of its map in between."""
    at += _BLOCK
    more = header[_KIND] == b"S" and header[_SPARSE_MORE] != 0
    while more and at + _BLOCK <= len(data):
        more = data[at + _SPARSE_NEXT] != 0
        at += _BLOCK
    return at


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0][:_LONGEST].decode("utf-8", "replace")


def _prepare(pending: _Pending, kind: bytes, body: bytes) -> None:
    if kind == _LONG_NAME:
        pending.name = _text(body)
    elif kind == _LONG_LINK:
        pending.link = _text(body)
    else:
        _read_pax(pending, body)


def _read_pax(pending: _Pending, body: bytes) -> None:
    """Read records such as ``30 mtime=1350244992.023960108``."""
    at = 0
    while at < len(body):
        length, blank, _ = body[at : at + 12].partition(b" ")
        if not blank or not length.isdigit() or not int(length):
            return
        record = body[at + len(length) + 1 : at + int(length) - 1]
        name, _, value = record.partition(b"=")
        if name == b"path":
            pending.name = _text(value)
        elif name == b"linkpath":
            pending.link = _text(value)
        elif name == b"size" and value.isdigit():
            pending.size = int(value[:12])
        at += int(length)


def _add(tree: MemoryTree, header: bytes, kind: bytes, body: bytes, pending: _Pending) -> None:
    name = pending.name or _name(header)
    if kind == b"2":
        tree.add(name, link=pending.link or _text(header[_LINK]))
    elif kind == b"1":
        linked = tree.files.get((pending.link or _text(header[_LINK])).strip("/").removeprefix("./"))
        if linked is not None:
            tree.add(name, linked)
    elif kind == b"5":
        tree.add(name)
    elif kind in (b"0", b"\0", b"7"):
        tree.add(name, body)


def _name(header: bytes) -> str:
    name = _text(header[_NAME])
    prefix = _text(header[_PREFIX]) if header[_MAGIC] == _POSIX else ""
    return f"{prefix}/{name}" if prefix else name
