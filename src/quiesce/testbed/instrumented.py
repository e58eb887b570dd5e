"""The instrumented kernel: Linux 6.12 with checks built in and switches that bring old faults back.

The source is Debian's package linux-source-6.12. ``instrumented/`` holds the patch (GPL-2.0, see the README there) and
the settings.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from quiesce.snapshot.errors import BadInput
from quiesce.testbed import apt, module_files, processes, store
from quiesce.testbed.errors import Skipped
from quiesce.testbed.fetch import keep_kernel
from quiesce.testbed.images import INSTRUMENTED, KernelImage, image_of
from quiesce.testbed.kernel_headers import BUILD, leave_out_type_information

SUITE, SOURCE = "trixie", "linux-source-6.12"
BZIMAGE = "arch/x86/boot/bzImage"
BUILD_SECONDS, STEP_SECONDS = 6 * 3600, 1800

TOOLS = {
    "gcc": "gcc",
    "make": "make",
    "ld": "binutils",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "pahole": "dwarves",
    "patch": "patch",
    "tar": "tar",
    "xz": "xz-utils",
    "cpio": "cpio",
}
"""What the build calls, and the Debian package of each."""

HEADER_FILES = {"libelf.h": "libelf-dev", "openssl/opensslv.h": "libssl-dev"}


def build(
    *,
    tree: Path | None = None,
    mirror: str | None = None,
    jobs: int | None = None,
    say: store.Say = store.quiet,
) -> KernelImage:
    """Build the instrumented kernel and bring it into the store.

    ``tree`` is a Linux 6.12 source tree to build in, which may be patched or built already; without it the source is
    fetched, and what an interrupted build has done is used again.
    """
    own = None if tree is None else _source_tree(tree)
    require_tools()
    with store.locked(INSTRUMENTED, say):
        if own is not None:
            return _built_in(own, "", jobs, say)
        suite = apt.Suite(SUITE, mirror, say=lambda line: say(f"{INSTRUMENTED}: {line}"))
        suite.update()
        source = suite.newest(re.escape(SOURCE))
        place = _unpacked_source(suite, source, say)
        image = _built_in(place, source.version, jobs, say)
        shutil.rmtree(place, ignore_errors=True)
        return image


def require_tools() -> None:
    """Raise Skipped with the Debian packages to install when the build would lack something."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if "gcc" not in missing:
        missing += [package for header, package in HEADER_FILES.items() if not _has_header(header)]
    if missing:
        raise Skipped(f"to build a kernel install: {' '.join(sorted(set(missing)))}")


def _has_header(name: str) -> bool:
    text = f"#include <{name}>\n".encode()
    words = ["gcc", "-E", "-x", "c", "-"]
    return subprocess.run(words, input=text, capture_output=True, timeout=60, check=False).returncode == 0


def _source_tree(tree: Path) -> Path:
    if not (tree / "scripts/kconfig/merge_config.sh").is_file() or not (tree / "drivers/pci").is_dir():
        raise BadInput(str(tree), "", "a Linux source tree")
    return tree.resolve()


def _unpacked_source(suite: apt.Suite, source: apt.Package, say: store.Say) -> Path:
    place = store.made(store.cache_dir() / "build") / store.slug(f"{source.name}-{source.version}")
    if place.is_dir():
        return place
    with store.scratch(place.parent, INSTRUMENTED) as work:
        suite.say(f"{source}, {source.size / 1e6:.0f} MB")
        for file in suite.download([source.name], work / "debs"):
            apt.unpack(file, work / "root")
        suite.say("unpacking the source")
        archive = next(iter((work / "root/usr/src").glob("*.tar.xz")), None)
        if archive is None:
            raise Skipped(f"the package {source} holds no source where it is expected")
        fresh = store.made(work / "tree")
        _step(["tar", "-xf", str(archive), "--strip-components=1"], fresh)
        os.replace(fresh, place)
    return place


def _built_in(tree: Path, version: str, jobs: int | None, say: store.Say) -> KernelImage:
    patch_tree(tree)
    configure(tree)
    _make(tree, jobs or os.cpu_count() or 1, say)
    say(f"{INSTRUMENTED}: storing")
    with store.scratch(store.kernels_dir(), INSTRUMENTED) as work:
        facts = _keep(tree, store.made(work / "kernel"), work)
        if version:
            facts |= {"package": f"{SOURCE} {version}", "suite": SUITE, "packages": [f"{SOURCE} {version}"]}
        return image_of(store.publish(INSTRUMENTED, version or facts["release"], work / "kernel", facts))


@contextmanager
def _data(name: str) -> Iterator[Path]:
    with resources.as_file(resources.files("quiesce.testbed") / "instrumented" / name) as path:
        yield path.resolve()


def patch_tree(tree: Path) -> None:
    """Put the switches into a source tree, unless they are there already."""
    with _data("bug-switches.patch") as patch:
        words = ["patch", "-p1", "--batch", "--silent", "--input", str(patch)]
        if _tried([*words, "--reverse", "--dry-run", "--force"], tree):
            return
        if not _tried([*words, "--forward", "--dry-run"], tree):
            raise Skipped(f"the switches do not fit the source tree {tree}; they are made for Linux 6.12")
        _step([*words, "--forward"], tree)


def wanted_settings() -> list[str]:
    """Return the lines of the settings."""
    with _data("kernel.config") as path:
        return [line for line in path.read_text().splitlines() if line.startswith("CONFIG_")]


def is_configured(tree: Path) -> bool:
    """Tell whether a tree's settings have everything that is wanted."""
    path = tree / ".config"
    if not path.is_file():
        return False
    lines = set(path.read_text().splitlines())
    return all(_setting_holds(line, lines) for line in wanted_settings())


def _setting_holds(line: str, lines: set[str]) -> bool:
    name, _, value = line.partition("=")
    if value != "n":
        return line in lines
    return not any(f"{name}={other}" in lines for other in "ym")


def configure(tree: Path) -> None:
    """Give a tree the settings, unless it has them already."""
    if is_configured(tree):
        return
    _step(["make", "tinyconfig"], tree)
    with _data("kernel.config") as path:
        _step(["scripts/kconfig/merge_config.sh", "-m", ".config", str(path)], tree)
    _step(["make", "olddefconfig"], tree)
    if not is_configured(tree):
        lines = set((tree / ".config").read_text().splitlines())
        lost = [line for line in wanted_settings() if not _setting_holds(line, lines)]
        raise Skipped(f"the source tree {tree} does not take the setting {lost[0]}")


def _make(tree: Path, jobs: int, say: store.Say) -> None:
    """Build, and tell which file is at work; a failure is told by the first line that complains."""
    steps, complaint = 0, ""
    reader, writer = os.pipe()
    words = ["make", "-C", str(tree), "--no-print-directory", f"-j{jobs}", "bzImage", "modules"]
    process = processes.start(words, keep_open=(), errors=writer)
    os.close(writer)
    try:
        for line in _lines(reader, time.monotonic() + BUILD_SECONDS):
            steps += 1
            if not complaint and re.search(r"\berror\b|\*\*\*", line, re.IGNORECASE):
                complaint = line.strip()
            if line.startswith("  "):
                say(f"{INSTRUMENTED}: step {steps}: {line.strip()[:70]}")
        if process.wait(STEP_SECONDS):
            raise Skipped(f"the build in {tree} failed: {complaint or 'no reason given'}")
    finally:
        processes.end(process)
        os.close(reader)


def _lines(reader: int, deadline: float) -> Iterator[str]:
    """Yield what comes through a pipe until its other end is closed; raises Skipped at the deadline."""
    rest = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Skipped(f"the build took longer than {BUILD_SECONDS} s")
        data = os.read(reader, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)


def _keep(tree: Path, made: Path, work: Path) -> dict[str, Any]:
    modules = _stripped_modules(tree, store.made(work / "modules"))
    facts = keep_kernel(tree / BZIMAGE, made, None, tree / ".config")
    wanted = list(module_files.module_files(modules))
    facts["modules"] = module_files.keep(modules, made / "modules", wanted)
    facts["builtin"] = module_files.builtin_names(tree)
    _reduced_tree(tree, store.made(made / store.HEADERS / BUILD))
    return facts


def _stripped_modules(tree: Path, folder: Path) -> Path:
    """Return a folder with the modules of a tree, without what only debuggers read (nine tenths of them)."""
    for name, file in module_files.module_files(tree).items():
        _step(["strip", "--strip-debug", "-o", str(folder / f"{name}.ko"), str(file)], tree)
    return folder


def _reduced_tree(tree: Path, folder: Path) -> None:
    """Leave of a built tree what external modules need; the kernel has a script that knows."""
    script = f"$(srctree)/scripts/package/install-extmod-build {folder}"
    _step(["make", "run-command", f"KBUILD_RUN_COMMAND=+{script}"], tree)
    leave_out_type_information(folder)


def _tried(words: Sequence[str], folder: Path) -> bool:
    return _run(words, folder).returncode == 0


def _step(words: Sequence[str], folder: Path) -> None:
    done = _run(words, folder)
    if done.returncode:
        lines = (done.stderr + done.stdout).decode("utf-8", "replace").split("\n")
        raise Skipped(
            f"{words[0]} {words[1]} failed: {next((line for line in lines if line.strip()), 'no reason given')}"
        )


def _run(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=STEP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"{words[0]} took longer than {STEP_SECONDS} s") from None
    except OSError as error:
        raise Skipped(f"{words[0]} cannot be run ({error.strerror})") from None
