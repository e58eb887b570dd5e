"""Reads one machine from whatever it was recorded in, choosing the format by content.

A source is a file, a folder with several files of one machine, an archive, ``-`` for standard input, or nothing at all
for the running machine. ``contents`` reads one file, ``folder`` folders and archives, ``sysfs`` trees like /sys,
``combine`` puts together what several sources say; each is imported when there is something for it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from quiesce.snapshot import contents
from quiesce.snapshot.contents import Contents
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import SIZE_LIMIT, BadInput, read_limited

if TYPE_CHECKING:
    from pathlib import Path

    from quiesce.snapshot.lspci_verbose import Ids

_LIVE = "/"
_LIVE_DEVICES = "/sys/bus/pci/devices"


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
    return _finished(_combined(parts, _name_of(sources[0])), parts)


def read_text(content: str, file: str, name: str = "") -> MachineDescription:
    """Read a machine from text of any of the formats; ``file`` names it in errors."""
    found = Contents()
    if not content.isascii() or not contents.read_dump(found, content.encode("ascii"), file, name):
        contents.read_text(found, content, file, name)
    return _combined(found.machines, found.machines[0].name)


def _combined(parts: Sequence[MachineDescription], name: str) -> MachineDescription:
    if len(parts) == 1:
        return replace(parts[0], name=name or parts[0].name)
    from quiesce.snapshot.combine import combined

    return combined(parts, name)


def _name_of(source: str | Path) -> str:
    if str(source) == "-":
        return "standard-input"
    if os.path.isdir(source):
        return os.path.basename(os.path.realpath(source))
    stem, suffix = os.path.splitext(os.path.basename(os.path.normpath(source)))
    packed = suffix and stem.endswith((".tar", ".tgz", ".tbz", ".tbz2", ".txz"))
    return stem.rpartition(".")[0] if packed else stem


def _finished(found: MachineDescription, parts: Sequence[MachineDescription]) -> MachineDescription:
    """A machine whose source gives it a name keeps it, and a single source is named alone."""
    named = [part.name for part in parts if part.functions]
    return replace(found, name=named[0] or found.name if len(named) == 1 else found.name)


# -- one source ---------------------------------------------------------------------------------------------------


def _read_live() -> MachineDescription:
    from quiesce.snapshot import sysfs
    from quiesce.snapshot.tree import FolderTree

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
        read_data(found, data, "standard input", "standard-input")
        return found.gathered("standard-input", "standard input")
    if not _is_folder(source):
        label, name = str(source), _name_of(source)
        read_data(found, read_limited(source), label, name)
        return found.gathered(name, label)
    from pathlib import Path

    path = Path(source)
    if path.resolve() == Path(_LIVE_DEVICES).resolve():
        return [_read_live()]
    from quiesce.snapshot.folder import read_tree
    from quiesce.snapshot.tree import FolderTree

    return read_tree(FolderTree(path), path.resolve().name)


def _is_folder(source: str | Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(source).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BadInput(repr(str(source)), "", f"a file or folder that can be read ({error})") from None
    except ValueError:
        return False


def read_data(
    found: Contents, data: bytes, label: str, name: str, ids: Mapping[str, Ids] | None = None, inner: bool = False
) -> None:
    """Take what is in one file, whatever it is."""
    bdf = contents.config_address(label.rpartition("/")[2])
    if contents.is_archive(data) and not inner:
        _read_packed(found, data, label, name, ids)
    elif contents.is_table(data) or contents.looks_like_table(data):
        contents.read_tables(found, data, label)
    elif bdf is not None:
        contents.read_config(found, data, bdf, label)
    elif not contents.read_dump(found, data, label, name):
        contents.read_text(found, _decoded(data, label), label, name, ids)


def _decoded(data: bytes, label: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if data[:4096].count(0) > len(data[:4096]) // 4:
        raise BadInput(label, "", "text, a raw ACPI table or an archive; these bytes are none of them")
    return data.decode("utf-8", "replace")


def _read_packed(found: Contents, data: bytes, label: str, name: str, ids: Mapping[str, Ids] | None) -> None:
    from quiesce.snapshot.archive import open_archive
    from quiesce.snapshot.folder import read_tree

    opened = open_archive(data, label)
    if isinstance(opened, bytes):
        read_data(found, opened, label.removesuffix(".gz"), name, ids, inner=True)
        return
    tree, notes = opened
    parts = read_tree(tree, name)
    found.machines += [replace(parts[0], notes=(*parts[0].notes, *notes)), *parts[1:]]
