"""Trees of small files: a folder, or what an archive holds, with links that never lead out of the tree.

Nothing that is no plain file is opened, so that a FIFO or a device does not hang, and nothing is read beyond a limit.
"""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path
from typing import Protocol

MOST_ENTRIES = 20_000
"""More entries than any folder that is read has; the rest is not looked at."""
SMALL = 1 << 16
_HOPS = 40


class Tree(Protocol):
    """Paths are relative to the top, with ``/`` between; the top itself is ``""``."""

    label: str

    def entries(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none where there is no folder."""
        ...

    def link(self, path: str) -> str | None:
        """Return what a symbolic link says, or None."""
        ...

    def read(self, path: str, limit: int = SMALL) -> bytes | None:
        """Return the first bytes of a plain file, or None."""
        ...

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder, not a link to one."""
        ...


def resolve(tree: Tree, path: str) -> str | None:
    """Return a path without links, or None when it leads out of the tree or in circles.

    Absolute links are taken to begin at the ``sys`` or ``proc`` of the tree, as they would where it was copied from.
    """
    todo = [part for part in path.split("/") if part and part != "."][::-1]
    done: list[str] = []
    hops = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if not done:
                return None
            done.pop()
            continue
        target = tree.link("/".join((*done, part)))
        if target is None:
            done.append(part)
            continue
        hops += 1
        if hops > _HOPS or len(todo) > 200:
            return None
        if target.startswith("/"):
            done = done[: next((at for at, name in enumerate(done) if name in ("sys", "proc")), 0)]
        todo += [item for item in target.split("/") if item and item != "."][::-1]
    return "/".join(done)


def last_of_link(tree: Tree, path: str) -> str | None:
    """Return the last part of what a link says: the name of a driver, the number of a group."""
    target = tree.link(path)
    return posixpath.basename(target.rstrip("/")) if target else None


class FolderTree:
    """A folder on disk."""

    def __init__(self, top: str | Path) -> None:
        self.top = str(top)
        self.label = self.top

    def _at(self, path: str) -> str:
        return os.path.join(self.top, path)

    def entries(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""
        names: list[str] = []
        try:
            with os.scandir(self._at(path)) as found:
                for item in found:
                    names.append(item.name)
                    if len(names) >= MOST_ENTRIES:
                        break
        except (OSError, ValueError):
            return []
        return sorted(names)

    def link(self, path: str) -> str | None:
        """Return what a symbolic link says."""
        try:
            return os.readlink(self._at(path))
        except (OSError, ValueError):
            return None

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder."""
        try:
            return stat.S_ISDIR(os.stat(self._at(path), follow_symlinks=not path).st_mode)
        except (OSError, ValueError):
            return False

    def read(self, path: str, limit: int = SMALL) -> bytes | None:
        """Return the first bytes of a plain file."""
        try:
            if not stat.S_ISREG(os.lstat(self._at(path)).st_mode):
                return None
            with open(os.open(self._at(path), os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
                return _read_all(file.fileno(), limit)
        except (OSError, ValueError):
            return None


def _read_all(descriptor: int, limit: int) -> bytes:
    """Read until nothing comes: files of the kernel may give a page at a time, config space 64 bytes to the many."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class MemoryTree:
    """What an archive held."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.folders: dict[str, set[str]] = {"": set()}

    def add(self, path: str, data: bytes | None = None, link: str | None = None) -> None:
        """Add a file, a link or (with neither) a folder; a name that leads out of the tree is left out."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts or not parts or len(parts) > 64:
            return
        for at in range(len(parts)):
            self.folders.setdefault("/".join(parts[:at]), set()).add(parts[at])
        clean = "/".join(parts)
        if link is not None:
            self.links[clean] = link
        elif data is not None:
            self.files[clean] = data
        else:
            self.folders.setdefault(clean, set())

    def entries(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(self.folders.get(path, ()))[:MOST_ENTRIES]

    def link(self, path: str) -> str | None:
        """Return what a symbolic link says."""
        return self.links.get(path)

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder."""
        return path in self.folders

    def read(self, path: str, limit: int = SMALL) -> bytes | None:
        """Return the first bytes of a file."""
        data = self.files.get(path)
        return None if data is None else data[:limit]
