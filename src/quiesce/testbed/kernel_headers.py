"""A distribution's kernel headers as one movable folder in which an external module builds on this machine.

``make -C HEADERS/build M=DIR modules`` works with any gcc that this machine has: the build tools of a newer suite need
a newer C library than this machine may have, so they run through the loader and the libraries of their own suite, and a
compiler in front of gcc leaves out the options that only a newer gcc knows.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from quiesce.testbed.apt import LOADER, collect_libraries
from quiesce.testbed.errors import Skipped

BUILD, COMMON, KBUILD, LIBRARIES, COMPILER = "build", "common", "kbuild", "lib", "cc"
"""What lies in the folder."""

NEWER_OPTIONS = ("-fmin-function-alignment=*", "-fdiagnostics-show-context*", "-fzero-init-padding-bits=*")
"""Options of kernels built with gcc 14 and newer; a module does without them."""

COMPILER_TEXT = """#!/bin/sh
# gcc without the options that only a newer gcc knows
count=$#
while [ "$count" -gt 0 ]; do
    word=$1
    shift
    case $word in
    {options}) ;;
    *) set -- "$@" "$word" ;;
    esac
    count=$((count - 1))
done
# Some headers use attributes that an older gcc says it leaves alone.
exec gcc "$@" -Wno-attributes
"""

TOOL_TEXT = """#!/bin/sh
# runs the tool beside this file with the C library it was made for
lib=${{0%/*}}/{libraries}
exec "$lib/{loader}" --library-path "$lib" "$0.elf" "$@"
"""

VARIABLES_TEXT = """override ARCH = x86
override KERNELRELEASE = {release}
override CROSS_COMPILE =
DEBIAN_KERNEL_NO_CC_VERSION_CHECK = y
CC := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))../cc
"""


def write_compiler(folder: Path) -> None:
    """Write the compiler that leaves out what the gcc of this machine may not know."""
    _write_program(folder / COMPILER, COMPILER_TEXT.format(options=" | ".join(NEWER_OPTIONS)))


def from_packages(unpacked: Path, release: str, folder: Path) -> None:
    """Make the folder from the unpacked packages linux-headers, linux-headers-common, linux-kbuild and libraries."""
    sources = unpacked / "usr/src"
    common = next(iter(sources.glob("linux-headers-*-common")), None)
    tools = next(iter((unpacked / "usr/lib").glob("linux-kbuild-*")), None)
    build = sources / f"linux-headers-{release}"
    if common is None or tools is None or not build.is_dir():
        raise Skipped(f"the packages of the kernel headers of {release} are not laid out as expected")
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((build, BUILD), (common, COMMON), (tools, KBUILD)):
        os.replace(source, folder / name)
    collect_libraries(unpacked, folder / LIBRARIES)
    _connect(folder, release, common.name)
    _leave_out(folder)
    settle_tools(folder / KBUILD)
    wrap_tools(folder / KBUILD, folder / LIBRARIES)
    write_compiler(folder)


def _connect(folder: Path, release: str, common: str) -> None:
    """Let the parts find each other wherever the folder lies; Debian's name full paths."""
    for part in (BUILD, COMMON):
        for name in ("scripts", "tools"):
            (folder / part / name).unlink(missing_ok=True)
            (folder / part / name).symlink_to(f"../{KBUILD}/{name}")
    makefile = folder / BUILD / "Makefile"
    text = makefile.read_text()
    for package, part in ((common, COMMON), (f"linux-headers-{release}", BUILD)):
        text = text.replace(f"/usr/src/{package}", f"$(here)../{part}")
    makefile.write_text(f"here := $(dir $(abspath $(firstword $(MAKEFILE_LIST))))\n{text}")
    (folder / BUILD / ".kernelvariables").write_text(VARIABLES_TEXT.format(release=release))


def _leave_out(folder: Path) -> None:
    """Remove what no module for x86 needs."""
    for path in (folder / COMMON / "arch").iterdir():
        if path.is_dir() and path.name != "x86":
            shutil.rmtree(path)
    (folder / BUILD / "vmlinux").unlink(missing_ok=True)
    leave_out_type_information(folder / BUILD)


def leave_out_type_information(build: Path) -> None:
    """Let modules be made without type information of their own, for which vmlinux and pahole would be needed."""
    settings = build / "include/config/auto.conf"
    lines = settings.read_text().splitlines()
    settings.write_text("".join(line + "\n" for line in lines if not line.startswith("CONFIG_DEBUG_INFO_BTF_MODULES=")))


def settle_tools(tools: Path) -> None:
    """Keep the x86 form of the tools that Debian ships for several processors; the chooser goes by its own name."""
    for path in sorted(tools.rglob("*.real-*")):
        if path.name.endswith((".real-x86", ".real-lsb-64")):
            path.rename(path.with_name(path.name.split(".real-")[0]))
        else:
            path.unlink()


def wrap_tools(tools: Path, libraries: Path) -> None:
    """Put a script in the place of every program below a folder, which runs it with the libraries given."""
    for path in sorted(tools.rglob("*")):
        if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
            continue
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        way = os.path.relpath(libraries, path.parent)
        path.rename(path.with_name(path.name + ".elf"))
        _write_program(path, TOOL_TEXT.format(libraries=way, loader=LOADER))


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
