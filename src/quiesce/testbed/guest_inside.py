"""What the agent does in a guest for us: files, shell, programs, observations."""

from __future__ import annotations

import errno
from typing import Any

from quiesce.testbed.agent import DEADLINE, Reply
from quiesce.testbed.errors import GuestHung, Skipped
from quiesce.testbed.kernel_log import KernelLog
from quiesce.testbed.pci_state import parse_state
from quiesce.testbed.vm import VirtualMachine

_GRACE = 30.0
"""Seconds that the agent itself has to answer, beyond what it gives an operation: only a starved guest needs them."""
_SECONDS = 30.0
_SHELL_SECONDS = 60.0
_MODULES_SECONDS = 180.0
_ATTRIBUTE_SECONDS = 1.0
_SNAPSHOT_SECONDS = 120.0
_END_SECONDS = 10.0
_PIECE = 1 << 14
_MAKE_FAIL = "for f in /sys/kernel/debug/fail*/ignore-gfp-wait; do [ -e $f ] && echo N > $f; done;"
"""Without it only allocations that may not wait can fail."""
WHOLE_CONFIG = 4096


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))


class Inside:
    """Operations that a kernel in the guest must be alive for."""

    vm: VirtualMachine

    def __init__(self) -> None:
        self._log = KernelLog()
        self._unread: list[str] = []
        self._programs: set[str] = set()

    # -- files -----------------------------------------------------------------------------------------------

    def shell(self, script: str, timeout: float = _SHELL_SECONDS) -> tuple[int, str]:
        """Run a script by busybox; returns its exit status and what it wrote. Raises GuestHung if it does not end."""
        reply = self._timed("sh", timeout, script.encode(), f"sh: {script[:80]}")
        return reply.result, reply.text

    def read(self, path: str, timeout: float = _SECONDS) -> str | None:
        """Return what a file holds, without the newline at its end; None when it cannot be read."""
        reply = self._timed("rd", timeout, path.encode(), f"reading {path}")
        return None if reply.result else reply.text.rstrip("\n")

    def read_bytes(self, path: str, timeout: float = _SECONDS) -> bytes | None:
        """Return what a file holds; None when it cannot be read."""
        reply = self._timed("rd", timeout, path.encode(), f"reading {path}")
        return None if reply.result else reply.body

    def names(self, path: str, timeout: float = _SECONDS) -> list[str]:
        """Return what is in a folder, sorted; nothing when it is not there."""
        reply = self._timed("ls", timeout, path.encode(), f"listing {path}")
        return [] if reply.result else sorted(reply.text.split())

    def write(self, path: str, data: str | bytes, timeout: float = _SECONDS) -> int:
        """Write to a file in one call; returns the errno, 0 when it worked, 137 when the kernel oopsed over it.

        Raises GuestHung when the call does not return; ``write_behind`` is for writes that may do that.
        """
        return self._timed("wr", timeout, path.encode() + b"\n" + _bytes(data), f"writing to {path}").result

    def write_behind(self, path: str, data: str | bytes) -> int:
        """Write in a task of its own; returns a handle for ``poll``, which is also the task's number in the guest."""
        reply = self.vm.ask("wb", path.encode() + b"\n" + _bytes(data), _GRACE, f"writing behind to {path}")
        if reply.result:
            raise GuestHung(f"no more writes can be left behind ({errno.errorcode.get(reply.result)})")
        return int(reply.body)

    def poll(self, handle: int) -> int | None:
        """Return the errno of a write left behind, as ``write`` does, once; None while it has not come back."""
        reply = self.vm.ask("wp", b"%d" % handle, _GRACE, "a write left behind")
        if reply.result:
            raise KeyError(handle)
        word, _, result = reply.text.partition(" ")
        return int(result) if word == "ended" else None

    def put(self, path: str, data: bytes) -> None:
        """Make a file in the guest's own file system."""
        self.shell(f"rm -f {path}")
        for start in range(0, max(len(data), 1), _PIECE):
            piece = path.encode() + b"\n" + data[start : start + _PIECE]
            reply = self._timed("put", _SECONDS, piece, f"putting {path}")
            if reply.result:
                raise Skipped(f"{path} cannot be put into the guest ({errno.errorcode.get(reply.result)})")

    # -- observations ----------------------------------------------------------------------------------------

    def snapshot(self, only: str = "", config: int = WHOLE_CONFIG, attribute: float = _ATTRIBUTE_SECONDS) -> Any:
        """Return everything that sysfs shows of PCI, see ``pci_state``; of the devices named in ``only`` if given.

        ``config`` is how much of configuration space to read (0, 64, 256, 4096), ``attribute`` after how many seconds
        an attribute that does not come back is marked BLOCKED.
        """
        body = b"%s %d %s" % (_milliseconds(attribute), config, only.encode())
        return parse_state(self.vm.ask("snap", body, _SNAPSHOT_SECONDS, "a snapshot").text)

    def kernel_log(self) -> list[str]:
        """Return the kernel's messages since the last call, since boot (or since it was saved) at first."""
        self.fetch_log()
        lines, self._unread = self._unread, []
        return lines

    def fetch_log(self) -> None:
        """Take the kernel's messages over here, for the next ``kernel_log``."""
        self._unread += self._log.lines(self.vm.ask("kmsg", b"", _SECONDS, "the kernel log").text)

    # -- modules ---------------------------------------------------------------------------------------------

    def load_modules(self, timeout: float = _MODULES_SECONDS) -> None:
        """Load the modules the guest was started with, without binding any driver to any device by it."""
        autoprobe = "/sys/bus/pci/drivers_autoprobe"
        self.write(autoprobe, "0")
        said = self._timed("mods", timeout, b"", "loading modules").text
        self.write(autoprobe, "1")
        failed = [line for line in said.splitlines() if line.split()[1] not in ("0", str(errno.EEXIST))]
        if failed:
            names = (f"{name} ({errno.errorcode.get(int(code), code)})" for name, code in map(str.split, failed))
            raise Skipped("modules cannot be loaded: " + ", ".join(names))

    # -- programs --------------------------------------------------------------------------------------------

    def program(self, name: str, *words: str) -> int:
        """Start a program that is given lines, under a name; returns its number in the guest."""
        reply = self.vm.ask("co", "\n".join((name, *words)).encode(), _GRACE, f"starting {words[0]}")
        if reply.result:
            raise Skipped(f"{words[0]} cannot be started ({errno.errorcode.get(reply.result)})")
        self._programs.add(name)
        return int(reply.body)

    def tell(self, name: str, line: str, timeout: float = _SECONDS) -> tuple[int, str]:
        """Give a program a line; returns 0 and its answer, ETIMEDOUT when none comes in time, EPIPE when it has ended.

        An answer that comes later is returned for an empty line, or dropped before the next answer. Raises KeyError
        when no program has that name.
        """
        if name not in self._programs:
            raise KeyError(name)
        body = f"{name} {round(timeout * 1000)}\n{line}".encode()
        reply = self.vm.ask("cs", body, 2 * timeout + _GRACE, f"{name}: {line}")
        if reply.result == errno.EPIPE:
            self._programs.discard(name)
        return reply.result, reply.text

    def end(self, name: str, timeout: float = _END_SECONDS) -> int:
        """End a program; returns 0, or ETIMEDOUT when the kernel does not let go of it."""
        if name not in self._programs:
            return 0
        reply = self.vm.ask("ck", f"{name} {round(timeout * 1000)}".encode(), timeout + _GRACE, f"ending {name}")
        if not reply.result:
            self._programs.discard(name)
        return 0 if reply.result == errno.ESRCH else reply.result

    def poke(self, bdf: str, bar: int, offset: int, value: int | None = None) -> int | None:
        """Read, or write, a 32-bit register of a device; returns what was read, or written. None when it failed."""
        words = f"poke {bdf} {bar} {offset:#x}" + (f" {value:#x}" if value is not None else "")
        result, text = self.shell(words)
        if result:
            return None
        return int(text, 16) if value is None else value

    def write_failing(self, nth: int, path: str, data: str) -> tuple[int, bool]:
        """Write while the kernel fails the n-th allocation of the call; returns the errno, and whether there was one.

        Raises Skipped on a kernel without fault injection.
        """
        result, text = self.shell(f"{_MAKE_FAIL} fail_nth {nth} '{path}' '{data}'")
        words = text.split()
        if result or len(words) != 2:
            raise Skipped(f"allocations cannot be made to fail: {text.strip()}")
        return int(words[0]), words[1] == "1"

    # -- below -----------------------------------------------------------------------------------------------

    def _timed(self, op: str, timeout: float, body: bytes, what: str) -> Reply:
        """Run what the agent lets another process do; raises GuestHung when that does not end."""
        reply = self.vm.ask(op, _milliseconds(timeout) + b"\n" + body, timeout + _GRACE, what)
        if reply.result == DEADLINE:
            raise self.vm.hung(f"{what}: not done within {timeout:.0f} s")
        return reply

    def forget_inside(self) -> None:
        """Another kernel runs: its log begins anew and none of the programs is there."""
        self._log = KernelLog()
        self._unread.clear()
        self._programs.clear()


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
