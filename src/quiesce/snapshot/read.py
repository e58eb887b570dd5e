"""Reads one machine from whatever it was recorded in, choosing the format by content.

A source is a file, a folder with several files of one machine, an archive, ``-`` for standard input, or nothing at all
for the running machine. ``contents`` reads one file, ``sysfs`` trees like /sys, ``combine`` puts together what several
sources say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quiesce.snapshot import contents, sysfs
from quiesce.snapshot.archive import is_archive, open_archive
from quiesce.snapshot.combine import combined
from quiesce.snapshot.contents import Contents
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import SIZE_LIMIT, BadInput, read_limited
from quiesce.snapshot.lspci_verbose import Ids
from quiesce.snapshot.tree import FolderTree, Tree, resolve

_LIVE = "/"
_LIVE_DEVICES = "/sys/bus/pci/devices"
_LOOSE_FILES = 1024
_LOOSE_BYTES = 48 << 20
_DEPTH = 3
_IDS_BESIDE = "ids-from-names.json"
_NO_SOURCE = re.compile(r".*(?:truth\.json|\.dsl|\.png|\.jpe?g|\.svg|\.html?|\.pdf|\.py|\.sh)", re.IGNORECASE)
_SYSTEM = {"sys", "proc", "dev", "run"}


def read_machine(source: str | Path) -> MachineDescription:
    """Read a machine from one source, or from text that has more than one line; raises BadInput."""
    if isinstance(source, str) and "\n" in source:
        return read_text(source, "text")
    return read_sources([source])


def read_sources(sources: Sequence[str | Path]) -> MachineDescription:
    """Read one machine from several sources; without any, the running machine. Raises BadInput."""
    if not sources:
        return _read_live()
    parts = [part for source in sources for part in _read_source(source)]
    if not any(part.functions for part in parts):
        tables = "tables of a machine, but none of its functions" if parts else "a machine"
        raise BadInput(", ".join(map(str, sources)), "", f"the functions of a machine (found {tables})")
    return _finished(combined(parts, _name_of(sources[0])), parts)


def read_text(content: str, file: str, name: str = "") -> MachineDescription:
    """Read a machine from text of any of the formats; ``file`` names it in errors."""
    found = Contents()
    contents.read_text(found, content, file, name)
    return combined(found.machines, found.machines[0].name)


def _name_of(source: str | Path) -> str:
    path = Path(source)
    if str(source) == "-":
        return "standard-input"
    return path.resolve().name if path.is_dir() else re.sub(r"\.(?:tar|tgz|tbz2?|txz)$", "", path.stem)


def _finished(found: MachineDescription, parts: Sequence[MachineDescription]) -> MachineDescription:
    """A machine whose source gives it a name keeps it, and a single source is named alone."""
    named = [part.name for part in parts if part.functions]
    return replace(found, name=named[0] or found.name if len(named) == 1 else found.name)


# -- one source ---------------------------------------------------------------------------------------------------


def _read_live() -> MachineDescription:
    tree = FolderTree(_LIVE)
    if not tree.entries(sysfs.DEVICES):
        raise BadInput(_LIVE_DEVICES, "", "PCI functions of the running machine; name a file or folder instead")
    tree.label = "the running machine"
    return contents.checked(sysfs.read_tree(tree, "", "live"), tree.label)


def _read_source(source: str | Path) -> list[MachineDescription]:
    found = Contents()
    if str(source) == "-":
        data = sys.stdin.buffer.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise BadInput("standard input", "", f"at most {SIZE_LIMIT >> 20} MiB")
        _read_data(found, data, "standard input", "standard-input")
        return found.gathered("standard-input", "standard input")
    path = Path(source)
    try:
        folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise BadInput(repr(str(path)), "", f"a file or folder that can be read ({error})") from None
    if not folder:
        _read_data(found, read_limited(path), str(path), _name_of(path))
        return found.gathered(_name_of(path), str(path))
    if path.resolve() == Path(_LIVE_DEVICES).resolve():
        return [_read_live()]
    return _read_tree(FolderTree(path), path.resolve().name)


def _read_data(
    found: Contents, data: bytes, label: str, name: str, ids: Mapping[str, Ids] | None = None, inner: bool = False
) -> None:
    """Take what is in one file, whatever it is."""
    bdf = contents.config_address(label.rpartition("/")[2])
    if is_archive(data) and not inner:
        _read_packed(found, data, label, name, ids)
    elif contents.is_table(data) or contents.looks_like_table(data):
        contents.read_tables(found, data, label)
    elif bdf is not None:
        contents.read_config(found, data, bdf, label)
    else:
        contents.read_text(found, _decoded(data, label), label, name, ids)


def _decoded(data: bytes, label: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if data[:4096].count(0) > len(data[:4096]) // 4:
        raise BadInput(label, "", "text, a raw ACPI table or an archive; these bytes are none of them")
    return data.decode("utf-8", "replace")


def _read_packed(found: Contents, data: bytes, label: str, name: str, ids: Mapping[str, Ids] | None) -> None:
    opened = open_archive(data, label)
    if isinstance(opened, bytes):
        _read_data(found, opened, label.removesuffix(".gz"), name, ids, inner=True)
        return
    tree, notes = opened
    parts = _read_tree(tree, name)
    found.machines += [replace(parts[0], notes=(*parts[0].notes, *notes)), *parts[1:]]


# -- folders and archives -----------------------------------------------------------------------------------------


def _read_tree(tree: Tree, name: str) -> list[MachineDescription]:
    """Read a folder or archive: a tree like that of the kernel, or files of one machine, or both."""
    parts: list[MachineDescription] = []
    prefix = sysfs.find_root(tree)
    if prefix is not None:
        parts.append(contents.checked(sysfs.read_tree(tree, prefix, name), tree.label))
    elif sysfs.has_devices(tree):
        parts.append(sysfs.read_devices(tree, name))
    parts += _read_loose(tree, name, prefix)
    if not parts:
        raise BadInput(
            tree.label, "", "a folder or archive with lspci output, a boot log, ACPI tables or a copy of /sys in it"
        )
    return parts


def _read_loose(tree: Tree, name: str, prefix: str | None) -> list[MachineDescription]:
    found = Contents()
    ids = _ids_beside(tree)
    for path, data in _loose_files(tree, prefix):
        try:
            _read_data(found, data, f"{tree.label}/{path}", name, ids)
        except BadInput as error:
            found.refused.append(error)
    parts = found.gathered(name, tree.label)
    if found.refused and not parts:
        raise found.refused[0]
    if found.refused:
        parts[0] = replace(parts[0], notes=(*parts[0].notes, *_refusals(found.refused)))
    return parts


def _refusals(refused: Sequence[BadInput]) -> Iterator[str]:
    for error in refused[:8]:
        yield f"not read: {error}"
    if len(refused) > 8:
        yield f"not read: {len(refused) - 8} more files"


def _loose_files(tree: Tree, prefix: str | None) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a folder that may say something, with those of its folders, but no copy of /sys."""
    number = size = 0
    todo = [("", 0)]
    while todo:
        folder, depth = todo.pop()
        deeper: list[tuple[str, int]] = []
        for name in tree.entries(folder):
            path = f"{folder}/{name}" if folder else name
            place = resolve(tree, path)
            if place is None or name.startswith(".") or number >= _LOOSE_FILES or size >= _LOOSE_BYTES:
                continue
            if tree.is_folder(place):
                if depth < _DEPTH and not tree.link(path) and not _is_system(path, name, prefix):
                    deeper.append((path, depth + 1))
                continue
            data = None if name == _IDS_BESIDE or _NO_SOURCE.fullmatch(name) else tree.read(place, _LOOSE_BYTES - size)
            if data:
                number, size = number + 1, size + len(data)
                yield path, data
        todo += deeper[::-1]


def _is_system(path: str, name: str, prefix: str | None) -> bool:
    """Whether a folder belongs to a copy of the kernel's own trees."""
    if contents.config_address(name) is not None:
        return True
    return prefix is not None and path.startswith(prefix) and path.removeprefix(prefix) in _SYSTEM


def _ids_beside(tree: Tree) -> dict[str, Ids]:
    """Return the ids that were recovered for a listing with names only."""
    data = tree.read(_IDS_BESIDE, 1 << 20)
    if data is None:
        return {}
    try:
        entries = json.loads(data.decode("utf-8", "replace")).items()
        stated = {bdf: str(item.get("id")) for bdf, item in entries}
    except (ValueError, AttributeError, RecursionError):
        label = f"{tree.label}/{_IDS_BESIDE}"
        raise BadInput(label, "", 'JSON such as {"0000:00:1f.2": {"id": "8086:2922"}}') from None
    pairs = ((bdf, re.fullmatch(r"([0-9a-f]{4}):([0-9a-f]{4})", text)) for bdf, text in stated.items())
    return {bdf: (int(match[1], 16), int(match[2], 16)) for bdf, match in pairs if match}
