"""What a guest boots into: busybox, the agent, its helpers, and the modules asked for, in one uncompressed archive.

Uncompressed, because the guest's processor is emulated and the archive is read once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from quiesce.testbed import cpio
from quiesce.testbed.helpers import PROGRAMS, busybox, busybox_applets, program
from quiesce.testbed.store import cache_dir, write_atomic

if TYPE_CHECKING:
    from quiesce.testbed.images import KernelImage

_Names: TypeAlias = tuple[str, ...]
_Modules: TypeAlias = Sequence[tuple[str, Path]]
_Contents: TypeAlias = tuple[tuple[str, bytes], ...]

FOLDERS = ("bin", "dev", "etc", "mod", "proc", "root", "run", "sys", "tmp")
TABLES = "kernel/firmware/acpi"
"""Where the kernel looks for ACPI tables that take the place of the firmware's."""
SCRIPTED = "qscript"
"""The module of the scripted drivers, which is no part of any kernel."""
_KEPT_SECONDS = 3 * 24 * 3600


def write_initramfs(
    image: KernelImage,
    modules: Sequence[str],
    *,
    unloaded: Sequence[str] = (),
    tables: Mapping[str, bytes] | None = None,
    files: Mapping[str, bytes] | None = None,
    helpers: bool = True,
) -> Path:
    """Return the archive for a kernel; ``modules`` are loaded at boot, ``unloaded`` only lie in ``/mod``.

    ``tables`` are ACPI tables by file name without its suffix, ``files`` anything else by path. Raises Skipped for a
    module that the kernel lacks. A kernel that only looks needs no ``helpers``.
    """
    more = (tuple(sorted((tables or {}).items())), tuple(sorted((files or {}).items())))
    key = (tuple(modules), tuple(unloaded), *more, helpers)
    path = _written(image, *key)
    if not path.is_file():
        _written.cache_clear()
        path = _written(image, *key)
    os.utime(path)
    return path


@functools.lru_cache(64)
def _written(
    image: KernelImage, modules: _Names, unloaded: _Names, tables: _Contents, files: _Contents, helpers: bool
) -> Path:
    loaded, lying = module_files(image, modules), module_files(image, unloaded)
    archive = early_archive(dict(tables)) + main_archive(loaded, lying, dict(files), helpers)
    path = cache_dir() / "initramfs" / f"{hashlib.sha256(archive).hexdigest()[:24]}.cpio"
    if not path.is_file():
        _sweep(path.parent)
        write_atomic(path, archive)
    return path


def _sweep(folder: Path) -> None:
    """Drop the archives that nobody has asked for in a while."""
    oldest = time.time() - _KEPT_SECONDS
    for path in folder.glob("*.cpio"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def module_files(image: KernelImage, names: Iterable[str]) -> list[tuple[str, Path]]:
    """Return name and file of modules in load order, that of the scripted drivers last."""
    wanted = list(dict.fromkeys(names))
    files = [(path.name, path) for path in image.modules([name for name in wanted if name != SCRIPTED])]
    if SCRIPTED in wanted:
        from quiesce.testbed.module_build import build

        files.append((f"{SCRIPTED}.ko", build(image)))
    return files


def early_archive(tables: Mapping[str, bytes]) -> bytes:
    """Return the archive of ACPI tables, which must come first; nothing when there are none."""
    if not tables:
        return b""
    entries = [cpio.file(f"{TABLES}/{name}.aml", data) for name, data in sorted(tables.items())]
    return cpio.pack(cpio.with_folders(entries))


def main_archive(loaded: _Modules, unloaded: _Modules, files: Mapping[str, bytes], helpers: bool = True) -> bytes:
    """Return the archive of everything else."""
    entries = [*map(cpio.folder, FOLDERS), cpio.character_device("dev/console", 5, 1)]
    entries += _programs(helpers)
    entries += [cpio.file(f"mod/{name}", path.read_bytes()) for name, path in dict((*loaded, *unloaded)).items()]
    entries.append(cpio.file("mod/order", "".join(f"{name}\n" for name, _ in loaded).encode()))
    entries += [cpio.file(name.lstrip("/"), data, executable=True) for name, data in sorted(files.items())]
    return cpio.pack(cpio.with_folders(entries))


def _programs(helpers: bool) -> list[cpio.Entry]:
    names = [name for name in PROGRAMS if helpers and name != "agent"]
    entries = [cpio.file("init", program("agent"), executable=True)]
    entries += [cpio.file(f"bin/{name}", program(name), executable=True) for name in names]
    entries.append(cpio.file("bin/busybox", busybox(), executable=True))
    return entries + [cpio.link(f"bin/{name}", "busybox") for name in busybox_applets() if name not in names]
