"""Processes that never outlive us: each leads its own group, and the kernel kills it when we die, however we die."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence

_PR_SET_PDEATHSIG = 1
_END_SECONDS = 10.0

_running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
"""Process number -> (who started it, the process); a forked child of ours must not end what is not its own."""


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a child does before it becomes the program. Everything it needs is loaded before the fork."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def start(command: Sequence[str], *, keep_open: Iterable[int], errors: int) -> subprocess.Popen[bytes]:
    """Start a program with the given descriptors open and its output going to ``errors``.

    Call it in a thread that outlives the program: to the kernel, the thread that started it is its parent.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        pass_fds=tuple(keep_open),
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()),
    )
    _running[process.pid] = (os.getpid(), process)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all of its group, and wait until it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
    _running.pop(process.pid, None)


def end_all() -> None:
    """Kill whatever this process has started and not ended."""
    for starter, process in list(_running.values()):
        if starter == os.getpid():
            end(process)


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Return the processor time a program has used, which a busy machine does not distort as it does wall time."""
    try:
        with open(f"/proc/{process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


atexit.register(end_all)
