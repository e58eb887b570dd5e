"""Folders and archives: a tree like that of the kernel, or files of one machine, or both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from quiesce.snapshot import sysfs
from quiesce.snapshot.contents import Contents, checked, config_address
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci_verbose import Ids
from quiesce.snapshot.read import read_data
from quiesce.snapshot.tree import Tree, resolve

_LOOSE_FILES = 1024
_LOOSE_BYTES = 48 << 20
_DEPTH = 3
_IDS_BESIDE = "ids-from-names.json"
_NO_SOURCE = re.compile(r".*(?:truth\.json|\.dsl|\.png|\.jpe?g|\.svg|\.html?|\.pdf|\.py|\.sh)", re.IGNORECASE)
_SYSTEM = {"sys", "proc", "dev", "run"}


def read_tree(tree: Tree, name: str) -> list[MachineDescription]:
    """Read a folder or archive: a tree like that of the kernel, or files of one machine, or both."""
    parts: list[MachineDescription] = []
    prefix = sysfs.find_root(tree)
    if prefix is not None:
        parts.append(checked(sysfs.read_tree(tree, prefix, name), tree.label))
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
            read_data(found, data, f"{tree.label}/{path}", name, ids)
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
    if config_address(name) is not None:
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
