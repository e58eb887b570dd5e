"""A guest to a file and back, by QEMU's migration."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from pathlib import Path

from quiesce.testbed.errors import Skipped
from quiesce.testbed.qemu import Qemu
from quiesce.testbed.qmp import Refused
from quiesce.testbed.vm import VirtualMachine

_FILES_SINCE = (8, 2)
"""The first QEMU that migrates to and from a file by itself; the others do it through a program."""
_SECONDS = 120.0
_POLL = 0.005
_BANDWIDTH = 1 << 40
_RESUMABLE = ("paused", "postmigrate", "prelaunch")


def incoming(path: Path, qemu: Qemu) -> str:
    """Return the ``-incoming`` argument that restores a file."""
    return f"file:{path}" if qemu.version >= _FILES_SINCE else f"exec:exec cat {shlex.quote(str(path))}"


def save(vm: VirtualMachine, path: Path, qemu: Qemu) -> None:
    """Save a machine, whole or not at all, and let it run on; raises Skipped when QEMU refuses."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    outgoing = f"file:{partial}" if qemu.version >= _FILES_SINCE else f"exec:exec cat > {shlex.quote(str(partial))}"
    vm.qmp("stop")
    try:
        vm.qmp("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
        vm.qmp("migrate", {"uri": outgoing})
        _wait_saved(vm)
        partial.rename(path)
    except Refused as refused:
        raise Skipped(f"QEMU does not save this machine: {refused}") from None
    finally:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(Refused):
            vm.qmp("cont")


def _wait_saved(vm: VirtualMachine) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        state = vm.qmp("query-migrate")
        if state.get("status") == "completed":
            return
        if state.get("status") in ("failed", "cancelled"):
            raise Skipped(f"QEMU could not save this machine: {state.get('error-desc', 'no reason given')}")
        if time.monotonic() > end:
            raise vm.hung("saving the machine")
        vm.check()
        time.sleep(_POLL)


def finish_restore(vm: VirtualMachine) -> None:
    """Wait until a machine has its saved state, and let it run."""
    end = time.monotonic() + _SECONDS
    while (status := vm.status()) == "inmigrate":
        if time.monotonic() > end:
            raise vm.hung("restoring the machine")
        time.sleep(_POLL)
    if status in _RESUMABLE:
        vm.qmp("cont")
    vm.line.skip_numbers(1 << 20)
