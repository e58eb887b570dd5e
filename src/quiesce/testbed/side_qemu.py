"""A newer QEMU beside the installed one: packages of a later release, unpacked into the cache, nothing installed.

It runs through its own loader with its own libraries, which are newer than this machine's.
"""

from __future__ import annotations

from pathlib import Path

from quiesce.testbed.errors import Skipped
from quiesce.testbed.store import Say, cache_dir, locked, quiet, scratch

PACKAGE = "qemu-system-x86"
SUITES = ("trixie", "sid")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADERS = ("usr/lib64/ld-linux-x86-64.so.2", f"{_LIBRARIES}/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2")
_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")


def unpacked() -> list[tuple[str, ...]]:
    """Return the commands of the QEMUs that were fetched."""
    folder = cache_dir() / "qemu"
    found = (command_in(root) for root in sorted(folder.glob("*")) if not root.name.startswith("."))
    return [command for command in found if command]


def command_in(root: Path) -> tuple[str, ...] | None:
    """Return the command of a QEMU unpacked below a folder; None when it is not all there."""
    program = root / "usr/bin/qemu-system-x86_64"
    loader = next((root / name for name in _LOADERS if (root / name).is_file()), None)
    if loader is None or not program.is_file():
        return None
    libraries = f"{root / _LIBRARIES}:{root / 'lib/x86_64-linux-gnu'}"
    data = [word for name in _DATA for word in ("-L", str(root / name))]
    modules = f"QEMU_MODULE_DIR={root / _LIBRARIES / 'qemu'}"
    return ("env", modules, str(loader), "--library-path", libraries, "--argv0", program.name, str(program), *data)


def fetch_qemu(suite: str = SUITES[0], say: Say = quiet) -> Path:
    """Fetch and unpack the QEMU of a suite; returns its folder. Raises Skipped when that cannot be done."""
    from quiesce.testbed.qemu import forget_candidates

    name = f"qemu-{suite}"
    root = cache_dir() / "qemu" / suite
    with locked(name, say):
        if command_in(root) is None:
            _fetch_into(suite, root, name, say)
    forget_candidates()
    return root


def _fetch_into(suite: str, root: Path, name: str, say: Say) -> None:
    from quiesce.testbed.apt import Suite, unpack

    with scratch(root.parent, name) as folder:
        tree = folder / "root"
        say(f"{name}: fetching {PACKAGE} and what it needs")
        for package in Suite(suite, say=say).download_with_dependencies(PACKAGE, folder / "packages"):
            unpack(package, tree)
        if command_in(tree) is None:
            raise Skipped(f"the packages of {suite} hold no QEMU that can be run")
        tree.rename(root)
