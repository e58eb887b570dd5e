"""QEMU: finding one that is new enough, and its command line for a guest."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quiesce.testbed.errors import Skipped

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 0)
_SECONDS = 30
DEBUGGER = "debugger"
"""The connection on which QEMU's debugger stub speaks once it is started."""

KERNEL_OPTIONS = (
    "console=ttyS0 loglevel=4 no_console_suspend log_buf_len=1M tsc=reliable lpj=4000000 no_timer_check nokaslr "
    "mitigations=off 8250.nr_uarts=2 random.trust_cpu=on cryptomgr.notests net.ifnames=0 iomem=relaxed panic=-1 "
    "initcall_blacklist=shpcd_init,jent_mod_init"
)
"""What makes an emulated kernel come up quickly, keeps its addresses constant, and keeps all it says.

``panic=-1`` resets the machine at once, which QEMU is told to answer by standing still. ``iomem=relaxed`` lets the
registers of a device be reached whose driver has claimed them; it changes nothing else. The hot-plug controller of
conventional bridges is kept out: its driver finds none of QEMU's slots free, and leaves the bridges enabled. So is the
self-test of a source of random numbers, which takes a tenth of a second.
"""

_BASE: Mapping[str, tuple[str, ...]] = {
    "-nodefaults": (),
    "-no-user-config": (),
    "-display": ("none",),
    "-machine": ("q35,accel=tcg,kernel-irqchip=off",),
    "-cpu": ("max",),
    "-smp": ("1",),
}
"""What every guest needs, where its machine does not say otherwise."""


class Arguments(Protocol):
    """What of a QemuMachine makes the command line."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Everything but what ``command_line`` adds."""

    @property
    def append(self) -> str:
        """The machine's part of the kernel's command line."""


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be run."""

    command: tuple[str, ...]
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"QEMU {self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Descriptors:
    """What QEMU inherits from us: the end of each connection, and files that exist in memory only."""

    agent: int
    monitor: int
    debugger: int
    console: int

    def all(self) -> tuple[int, ...]:
        """Return all of them."""
        return (self.agent, self.monitor, self.debugger, self.console)


def find_qemu(at_least: tuple[int, int] = OLDEST) -> Qemu:
    """Return the oldest QEMU here that is new enough: ``$QUIESCE_QEMU``, installed, or fetched side by side.

    Raises Skipped, with what to do, when there is none.
    """
    found = _candidates()
    enough = [qemu for qemu in found if qemu.version >= at_least]
    if enough:
        return enough[0]
    wanted = ".".join(map(str, at_least))
    if not found:
        raise Skipped("QEMU is missing: install qemu-system-x86")
    newest = max(found, key=lambda qemu: qemu.version)
    raise Skipped(f"this machine needs QEMU {wanted}, there is only {newest}; 'quiesce kernel fetch qemu' gets one")


@functools.cache
def _candidates() -> tuple[Qemu, ...]:
    from quiesce.testbed.side_qemu import unpacked

    chosen = os.environ.get("QUIESCE_QEMU")
    if chosen:
        return (qemu,) if (qemu := _asked(tuple(shlex.split(chosen)))) else ()
    commands = [*([(PROGRAM,)] if shutil.which(PROGRAM) else []), *unpacked()]
    found = [qemu for command in commands if (qemu := _asked(command))]
    return tuple(sorted(found, key=lambda qemu: qemu.version))


def forget_candidates() -> None:
    """Look again at the next question, because one was fetched."""
    _candidates.cache_clear()


def _asked(command: tuple[str, ...]) -> Qemu | None:
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"version (\d+)\.(\d+)", said.stdout)
    return Qemu(command, (int(version[1]), int(version[2]))) if version else None


def command_line(
    qemu: Qemu,
    machine: Arguments,
    kernel: Path,
    initramfs: Path,
    descriptors: Descriptors,
    *,
    append: str = "",
    memory: int = 256,
    incoming: str = "",
) -> list[str]:
    """Return the command that runs a guest; with ``incoming`` it waits for the state of a saved one."""
    line = [*qemu.command, *_base(machine.arguments), "-m", str(memory)]
    line += ["-action", "reboot=shutdown,shutdown=pause"]
    line += ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", kernel_options(machine, append)]
    line += ["-chardev", f"file,id=console,path=/dev/fd/{descriptors.console}"]
    line += ["-device", "isa-serial,chardev=console,index=0"]
    line += ["-chardev", f"socket,id=agent,fd={descriptors.agent}"]
    line += ["-device", "isa-serial,chardev=agent,index=1"]
    line += ["-chardev", f"socket,id=monitor,fd={descriptors.monitor}", "-mon", "chardev=monitor,mode=control"]
    line += ["-chardev", f"socket,id={DEBUGGER},fd={descriptors.debugger}"]
    line += machine.arguments
    return line + (["-incoming", incoming] if incoming else [])


def kernel_options(machine: Arguments, append: str) -> str:
    """Return the kernel's command line."""
    return " ".join(part for part in (KERNEL_OPTIONS, machine.append, append) if part)


def _base(given: Sequence[str]) -> list[str]:
    return [word for option, values in _BASE.items() if option not in given for word in (option, *values)]
