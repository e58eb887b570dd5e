"""Building the module ``qscript`` for a kernel, once for each content of its source, each kernel and each compiler."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from quiesce.testbed import store
from quiesce.testbed.errors import Skipped
from quiesce.testbed.images import KernelImage

MODULE = "qscript"
SOURCE = Path(__file__).with_name("module")
_SECONDS = 300
_TAIL = 12
"""How many lines of a failed build are shown."""


def build(image: KernelImage) -> Path:
    """Return ``qscript.ko`` for a kernel; raises Skipped when it cannot be built here."""
    headers = image.headers
    if headers is None:
        raise Skipped(f"the kernel {image.name} has no headers to build the module {MODULE} with; fetch it again")
    for tool in ("make", "gcc", "strip"):
        if shutil.which(tool) is None:
            raise Skipped(f"{tool} is needed to build the module {MODULE}; install gcc and make")
    folder = store.cache_dir() / "modules"
    name = f"{MODULE}-{store.slug(image.release)}-{_key(image, headers)}"
    target = folder / f"{name}.ko"
    if not target.is_file():
        with store.locked(name):
            if not target.is_file():
                store.write_atomic(target, _make(image, headers, folder, name))
    return target


def _key(image: KernelImage, headers: Path) -> str:
    """What the module depends on: its source, what it may call and with which versions of it, and the release."""
    total = hashlib.sha256(f"{image.release} {image.version}\n".encode())
    symbols = headers / "Module.symvers"
    for path in (*sorted(SOURCE.iterdir()), symbols):
        if path.is_file():
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def _make(image: KernelImage, headers: Path, folder: Path, name: str) -> bytes:
    with store.scratch(folder, name) as place:
        for path in SOURCE.iterdir():
            if path.is_file():
                shutil.copy(path, place)
        _run(image, ["make", "-C", str(place), f"HEADERS={headers}", "HOSTCC=gcc"])
        module = place / f"{MODULE}.ko"
        _run(image, ["strip", "--strip-debug", str(module)])
        return module.read_bytes()


def _run(image: KernelImage, command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"building {MODULE} for {image.name} took more than {_SECONDS} s") from None
    if done.returncode:
        last = "\n".join(done.stdout.decode("utf-8", "replace").splitlines()[-_TAIL:])
        raise Skipped(f"{MODULE} cannot be built for {image.name} ({image.release}):\n{last}")
