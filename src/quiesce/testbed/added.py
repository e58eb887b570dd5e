"""A user's own kernel into the store."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

from quiesce.snapshot.errors import BadInput, read_limited
from quiesce.testbed import store
from quiesce.testbed.bzimage import BzImage
from quiesce.testbed.fetch import keep_kernel
from quiesce.testbed.images import KernelImage, full_name, image_of
from quiesce.testbed.kernel_headers import BUILD

IN_TREE = ("arch/x86/boot/bzImage", "arch/x86_64/boot/bzImage")
SETTINGS_START, SETTINGS_END = b"IKCFG_ST", b"IKCFG_ED"


def add(
    path: Path,
    *,
    name: str | None = None,
    modules: Path | None = None,
    headers: Path | None = None,
    kernel_set: str = "",
) -> KernelImage:
    """Bring a kernel file, or what a kernel build tree has built, into the store and return it.

    Modules are copied; the headers, and of a tree the tree itself, are used where they lie. ``kernel_set`` is the
    model's kernel set for it; without one the release decides.
    """
    tree = path.resolve() if path.is_dir() else None
    file = _in_tree(tree) if tree else path
    kernel = BzImage(read_limited(file), str(path))
    whole = full_name(f"added:{kernel.release if name is None else name}")
    chosen = _checked_set(kernel_set)
    modules = _folder(modules, "--modules") or tree
    headers = _folder(headers, "--headers") or tree
    with store.locked(whole), store.scratch(store.kernels_dir(), whole) as work:
        made = store.made(work / "kernel")
        facts = keep_kernel(file, made, modules, _settings(file, tree, kernel.release))
        _keep_settings_inside(made)
        if headers is not None:
            store.made(made / store.HEADERS)
            (made / store.HEADERS / BUILD).symlink_to(headers)
        facts |= {"from": str(path.resolve()), "kernel_set": chosen}
        version = hashlib.sha256(kernel.data).hexdigest()[:12]
        return image_of(store.publish(whole, version, made, facts))


def _in_tree(tree: Path) -> Path:
    for place in IN_TREE:
        if (tree / place).is_file():
            return tree / place
    raise BadInput(str(tree), "", "a kernel file, or a build tree in which 'make bzImage' has run")


def _folder(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.is_dir():
        raise BadInput(str(path), option, "a folder")
    return path.resolve() if path else None


def _checked_set(text: str) -> str:
    if not text:
        return ""
    from quiesce.cases.case import parse_kernel

    return parse_kernel(text, "--kernel").name


def _settings(file: Path, tree: Path | None, release: str) -> Path | None:
    places = [tree / ".config"] if tree else [file.with_name(f"config-{release}"), file.with_name("config")]
    return next((place for place in places if place.is_file()), None)


def _keep_settings_inside(made: Path) -> None:
    """Take the settings out of a kernel that carries them (CONFIG_IKCONFIG), where no file brought them."""
    if (made / "config").exists():
        return
    elf = (made / "vmlinux").read_bytes()
    start, end = elf.find(SETTINGS_START), elf.find(SETTINGS_END)
    if 0 <= start < end:
        try:
            text = zlib.decompressobj(31).decompress(elf[start + len(SETTINGS_START) : end], 16 << 20)
        except zlib.error:
            return
        (made / "config").write_bytes(text)


def summary(image: KernelImage) -> dict[str, Any]:
    """Return what a list of kernels says of one."""
    size = sum(file.lstat().st_size for file in image.folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {
        "name": image.name,
        "release": image.release,
        "package": image.package,
        "version": image.version,
        "bytes": size,
        "modules": len(image.needed),
        "headers": image.headers is not None,
        "switches": image.switches,
        "relocatable": image.relocatable,
        "folder": str(image.folder),
    }
