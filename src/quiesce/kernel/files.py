"""Open files on devices: what keeps a device's structure, and the driver's private data, beyond unbind and removal."""

from __future__ import annotations

from typing import Any

from quiesce.kernel.base_core import get_device, put_device
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.world import Field, State, StateList


class OpenFile(State):
    """One open file description (``struct file``); path ``file/N``. include/linux/fs.h."""

    mortal = True
    dev: Field[PciDev | None] = Field(None)
    kind: Field[str] = Field("")
    """Name of the driver whose file it is; it stays when the driver is unbound."""
    private: Field[Any] = Field(None)
    """``private_data``: what the driver keeps for the file."""


class FileTable(State):
    """All open files; path ``files``."""

    open: StateList[OpenFile] = StateList()


def _table(k: Kernel) -> FileTable:
    return FileTable.get(k.world, "files")


def open_file(k: Kernel, dev: PciDev, kind: str, private: Any = None) -> OpenFile:
    """fs/open.c. Kept: the file holds a reference on the device. Left out: descriptors, processes, ``dup``."""
    file = OpenFile.fresh(k.world, "file", dev=dev, kind=kind, private=private)
    _table(k).open.append(file)
    get_device(k, dev, file)
    return file


def close_file(k: Kernel, file: OpenFile) -> None:
    """fs/file_table.c, ``__fput``, after the driver's release. Kept: the reference on the device goes, which may end
    the device structure.
    """
    dev = file.dev
    _table(k).open.remove(file)
    file.delete()
    if dev is not None:
        put_device(k, dev, file)


def files_of(k: Kernel, dev: PciDev, kind: str) -> tuple[OpenFile, ...]:
    """Return the open files of one kind on this device structure, in the order in which they were opened."""
    return tuple(file for file in _table(k).open if file.dev is dev and file.kind == kind)


def open_files(k: Kernel) -> tuple[OpenFile, ...]:
    """Return all open files; through them one finds devices that left the bus but not the memory."""
    return _table(k).open.as_tuple()
