"""The store: kernels and what else is fetched or built, below the user's cache directory.

A kernel is a folder ``kernels/NAME-VERSION`` and a manifest ``kernels/NAME.json`` that names the folder. Writing the
manifest, which is one rename, is what publishes a kernel: before it nothing is visible, after it everything is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quiesce.snapshot.errors import BadInput
from quiesce.testbed.errors import Skipped

Say = Callable[[str], None]
"""Takes one line that tells how far a long operation is."""

LOCK_SECONDS = 3600.0
"""So long we wait for another process that fetches or builds the same thing."""

HEADERS = "headers"
"""The one folder of a kernel whose files have a checksum together, since there are some fifteen thousand."""


def quiet(line: str) -> None:
    """Say nothing."""


def cache_dir() -> Path:
    """Return the folder that everything fetched or built lies in; raises Skipped when it cannot be made."""
    chosen = os.environ.get("QUIESCE_CACHE")
    folder = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quiesce"
    return made(folder.absolute())


def made(folder: Path) -> Path:
    """Return the folder, made if it was not there; raises Skipped when it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Skipped(f"the folder {folder} cannot be made ({error.strerror})") from None
    return folder


def kernels_dir() -> Path:
    """Return the folder of the kernels."""
    return made(cache_dir() / "kernels")


def slug(name: str) -> str:
    """Return the name of a kernel as a file name: ``debian:6.12`` is ``debian-6.12``."""
    return re.sub(r"[^A-Za-z0-9._+~-]", "-", name)


@contextlib.contextmanager
def locked(what: str, say: Say = quiet) -> Iterator[None]:
    """Let one process at a time do something; the lock goes with the process that holds it."""
    path = made(cache_dir() / "locks") / f"{slug(what)}.lock"
    with path.open("w") as file:
        _wait_for(file.fileno(), what, say)
        yield


def _wait_for(lock: int, what: str, say: Say) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Skipped(f"{what}: another process has been at it for {LOCK_SECONDS:.0f} s") from None
        if not told:
            say(f"{what}: waiting for another process that is at it")
            told = True
        time.sleep(0.1)


@contextlib.contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """Give a folder that is gone afterwards; call it under the lock of ``name``, so that left ones can be swept."""
    prefix = f".unfinished-{slug(name)}."
    for left in made(parent).glob(prefix + "*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or what was there before."""
    made(path.parent)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(folder: Path) -> str:
    """Return one checksum over the names and contents of everything in a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            total.update(f"{path.relative_to(folder)} -> {os.readlink(path)}\n".encode())
        elif path.is_file():
            total.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return total.hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Return the checksum of every file of a kernel's folder, the headers as one."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name == HEADERS:
            found[HEADERS] = tree_sha256(path)
        else:
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            found |= {str(file.relative_to(folder)): sha256(file) for file in files}
    return found


def publish(name: str, version: str, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Put the finished folder of a kernel into the store; call it under the lock of ``name``.

    The version that this one takes the place of stays until the next time, because another process may be using it.
    """
    before = manifest(name)
    target = kernels_dir() / f"{slug(name)}-{slug(version)}"
    record = {
        "name": name,
        "version": version,
        "folder": target.name,
        "stored": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
        "files": checksums(folder),
    }
    _sweep(name, keep={before["folder"]} if before else set())
    with tempfile.TemporaryDirectory(prefix=f".unfinished-{slug(name)}.", dir=kernels_dir()) as aside:
        if target.exists():
            os.replace(target, Path(aside) / "old")
        folder.chmod(0o755)
        os.replace(folder, target)
        write_atomic(kernels_dir() / f"{slug(name)}.json", json.dumps(record, indent=1).encode() + b"\n")
    return record


def _sweep(name: str, keep: set[str]) -> None:
    """Remove the folders of a kernel's versions before the last one."""
    kept = keep | {record["folder"] for record in manifests()}
    for folder in kernels_dir().glob(f"{slug(name)}-*"):
        if folder.is_dir() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def manifest(name: str) -> dict[str, Any] | None:
    """Return what is known of a stored kernel, or None when it is not in the store."""
    path = kernels_dir() / f"{slug(name)}.json"
    return _read_manifest(path) if path.is_file() else None


def manifests() -> list[dict[str, Any]]:
    """Return what is known of every stored kernel."""
    return [_read_manifest(path) for path in sorted(kernels_dir().glob("*.json"))]


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or not {"name", "version", "folder", "files"} <= record.keys():
        raise BadInput(str(path), "", "the manifest of a kernel (remove the file and fetch the kernel again)")
    return record


def damaged(record: Mapping[str, Any]) -> list[str]:
    """Return the files of a stored kernel that are not as they were stored."""
    folder = kernels_dir() / record["folder"]
    now = checksums(folder) if folder.is_dir() else {}
    return sorted(name for name, sum_ in record["files"].items() if now.get(name) != sum_)


def remove(name: str) -> None:
    """Take a kernel out of the store."""
    with locked(name):
        record = manifest(name)
        if record is not None:
            (kernels_dir() / f"{slug(name)}.json").unlink()
            shutil.rmtree(kernels_dir() / record["folder"], ignore_errors=True)
