"""The programs that run in a guest: our own, in C, compiled static at first use and kept by what they are made of."""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from quiesce.testbed.errors import Skipped
from quiesce.testbed.store import cache_dir, write_atomic

PROGRAMS: dict[str, tuple[str, ...]] = {
    "agent": (
        "agent.c",
        "agent_wire.c",
        "agent_children.c",
        "agent_workers.c",
        "agent_files.c",
        "agent_programs.c",
        "agent_pci.c",
        "agent_board.c",
    ),
    "vfio": ("vfio.c", "vfio_open.c", "vfio_irq.c", "vfio_memory.c"),
    "kexec": ("kexec.c",),
    "poke": ("poke.c",),
    "fail_nth": ("fail_nth.c",),
}
"""Program to its sources."""

SOURCES = Path(__file__).parent / "guest_programs"
_FLAGS = ("-O2", "-static", "-Wall")
_SECONDS = 120
_ARCHITECTURE = "x86_64"


@functools.cache
def program(name: str) -> bytes:
    """Return a program as an executable file for the guest; raises Skipped when it cannot be compiled here."""
    kept = cache_dir() / "programs" / f"{name}-{_key(name)}"
    if not kept.is_file():
        write_atomic(kept, _compile(name))
    return kept.read_bytes()


@functools.cache
def busybox() -> bytes:
    """Return the static busybox of this machine; raises Skipped when there is none."""
    found = shutil.which("busybox")
    data = Path(found).read_bytes() if found else b""
    if not _is_static(data):
        raise Skipped("there is no static busybox here: install busybox-static")
    return data


@functools.cache
def busybox_applets() -> tuple[str, ...]:
    """Return the commands that busybox stands for."""
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    return tuple(sorted(name for name in listed.stdout.split() if name != "busybox"))


def _is_static(elf: bytes) -> bool:
    """An executable without the name of a loader in it (a PT_INTERP program header)."""
    if elf[:5] != b"\x7fELF\x02":
        return False
    start, size, count = (int.from_bytes(elf[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
    types = (int.from_bytes(elf[start + i * size :][:4], "little") for i in range(count))
    return 3 not in types


def _key(name: str) -> str:
    total = hashlib.sha256(_compiler().encode())
    total.update(" ".join(_FLAGS).encode())
    for path in (*(SOURCES / source for source in PROGRAMS[name]), *sorted(SOURCES.glob("*.h"))):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


@functools.cache
def _compiler() -> str:
    """Return what the compiler says of itself."""
    if platform.machine() != _ARCHITECTURE:
        raise Skipped(f"the programs for guests can only be compiled on {_ARCHITECTURE}")
    if not shutil.which("gcc"):
        raise Skipped("there is no compiler for the programs in the guest: install gcc and libc6-dev")
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True).stdout


def _compile(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / name
        sources = [str(SOURCES / source) for source in PROGRAMS[name]]
        command = ["gcc", *_FLAGS, "-o", str(output), *sources]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise Skipped(f"the guest's program {name} does not compile: {_first_error(done.stderr)}")
        return output.read_bytes()


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if "error" in line]
    return lines[0] if lines else text.strip()[-200:]
