"""One running QEMU: its process, its console, the line to the agent, its monitor; and how we notice that it is lost."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, NoReturn

from quiesce.testbed import processes
from quiesce.testbed.agent import AgentLine, LineClosed, Reply
from quiesce.testbed.errors import GuestDied, GuestHung, Skipped
from quiesce.testbed.qemu import Descriptors
from quiesce.testbed.qmp import Lost, Monitor, Refused

Command = Callable[[Descriptors], list[str]]

TAIL = 6000
"""So many characters of the console go with an error."""
_PANIC = b"Kernel panic - not syncing"
_OOPS = (b"BUG: ", b"Oops: ", b"general protection fault", b"kernel BUG at")
_STATUS_SECONDS = 1.0
_EXIT_SECONDS = 1.0
_STOPPED = ("shutdown", "internal-error", "guest-panicked")

_there: dict[VirtualMachine, int] = {}
"""Machines that were not stopped yet, and the process they belong to."""


class VirtualMachine:
    """A QEMU process and the connections to it. Nothing of it has a name in the file system."""

    def __init__(self, command: Command) -> None:
        self._console = os.memfd_create("console")
        self._output = os.memfd_create("output")
        self._window = os.memfd_create("window")
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        self._held = False
        self._asked_status = 0.0
        self.line = AgentLine(ours[0], self.check)
        self.monitor: Monitor | None = None
        self.debugger = ours[2]
        agent, monitor, debugger = (end.fileno() for end in theirs)
        descriptors = Descriptors(agent, monitor, debugger, self._console)
        try:
            keep = (*descriptors.all(), self._window)
            self.process = processes.start(command(descriptors), keep_open=keep, errors=self._output)
        except OSError as error:
            self._close()
            raise Skipped(f"QEMU cannot be run: {error.strerror}") from None
        finally:
            for end in theirs:
                end.close()
        _there[self] = os.getpid()
        self._connect(ours[1])

    def _connect(self, connection: socket.socket) -> None:
        try:
            self.monitor = Monitor(connection)
        except Lost as lost:
            why = self.output().strip().splitlines()
            self.stop()
            raise Skipped(f"QEMU does not take this machine: {why[-1] if why else lost}") from None

    # -- the end ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End QEMU and let go of everything; may be called again."""
        if self._console < 0:
            return
        _there.pop(self, None)
        processes.end(self.process)
        if self.monitor is not None:
            self.monitor.close()
        self._close()

    def _close(self) -> None:
        self.line.close()
        self.debugger.close()
        self._kept_console, self._kept_output = self.console(), self.output()
        for descriptor in (self._console, self._output, self._window):
            os.close(descriptor)
        self._console = -1

    @property
    def running(self) -> bool:
        """Whether QEMU is there."""
        return self._console >= 0 and self.process.poll() is None

    def cpu(self) -> float:
        """Return the processor seconds that QEMU has used."""
        return processes.cpu_seconds(self.process)

    def hold(self) -> None:
        """A reset is expected from now on; QEMU stands still at it."""
        self._held = True

    # -- what it says ----------------------------------------------------------------------------------------

    def console(self) -> str:
        """Return what the kernel wrote to its console."""
        return self._kept_console if self._console < 0 else _text(self._console)

    def output(self) -> str:
        """Return what QEMU itself said."""
        return self._kept_output if self._console < 0 else _text(self._output)

    def oops(self) -> str:
        """Return the console's first line that speaks of a fault in the kernel, or nothing."""
        lines = self.console().splitlines()
        return next((line for line in lines if any(mark.decode() in line for mark in _OOPS)), "")

    def check(self) -> None:
        """Raise GuestDied when the guest cannot answer any more."""
        if self.process.poll() is not None:
            raise self._died(f"QEMU ended with status {self.process.returncode}: {self.output().strip()[-300:]}")
        if _PANIC.decode() in self.console():
            raise self._died("the kernel panicked")
        if not self._held and time.monotonic() - self._asked_status > _STATUS_SECONDS:
            self._asked_status = time.monotonic()
            if (status := self.status()) in _STOPPED:
                raise self._died(f"the machine stands still ({status})")

    def _died(self, what: str) -> GuestDied:
        return GuestDied(what, self.console()[-TAIL:])

    def hung(self, what: str) -> GuestHung:
        """Return the error for a deadline that passed."""
        oops = self.oops()
        return GuestHung(f"{what}, after: {oops.strip()}" if oops else what, self.console()[-TAIL:])

    # -- the agent -------------------------------------------------------------------------------------------

    def request(self, op: str, body: bytes = b"") -> int:
        """Send a request to the agent; returns its number."""
        if not self.running:
            self._gone()
        if self._held and self.status() in _STOPPED:
            raise self._died("the machine is held at its reset")
        try:
            return self.line.send(op, body)
        except TimeoutError:
            raise self.hung(f"the agent does not take the request {op}") from None
        except LineClosed:
            self._gone()

    def reply(self, number: int, timeout: float, what: str) -> Reply:
        """Wait for the reply to a request; raises GuestHung, saying ``what`` did not answer, and GuestDied."""
        try:
            found = self.line.receive(number, timeout)
        except LineClosed:
            self._gone()
        if found is None:
            self.check()
            raise self.hung(f"{what}: no answer within {timeout:.0f} s")
        return found

    def greeted(self) -> bool:
        """Tell whether a kernel has come up since its greeting was last taken; raises GuestDied."""
        self.check()
        try:
            return self.line.greeted()
        except LineClosed:
            self._gone()

    def ask(self, op: str, body: bytes, timeout: float, what: str) -> Reply:
        """Send a request and wait for its reply."""
        return self.reply(self.request(op, body), timeout, what)

    def _gone(self) -> NoReturn:
        try:
            self.process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._died("QEMU closed the agent's line") from None
        raise self._died(f"QEMU ended with status {self.process.returncode}: {self.output().strip()[-300:]}")

    # -- the monitor -----------------------------------------------------------------------------------------

    def qmp(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Return QEMU's answer; raises Refused with QEMU's words, GuestDied when there is none."""
        if self.monitor is None or not self.running:
            raise self._died("QEMU is not running")
        try:
            return self.monitor.execute(command, arguments)
        except Lost as lost:
            raise self._died(str(lost)) from None

    def status(self) -> str:
        """Return what QEMU says of the machine: ``running``, ``suspended``, ``shutdown`` ..."""
        return str(self.qmp("query-status")["status"])

    def memory(self, command: str, address: int, length: int) -> bytes:
        """Return memory by ``pmemsave`` or ``memsave``; nothing where there is none."""
        arguments = {"val": _signed(address), "size": length, "filename": f"/dev/fd/{self._window}"}
        try:
            self.qmp(command, arguments)
        except Refused:
            return b""
        return os.pread(self._window, length, 0)


def _signed(address: int) -> int:
    """QMP has no unsigned numbers of 64 bits."""
    return address - (1 << 64) if address >> 63 else address


def stop_all() -> None:
    """Stop what this process has not stopped; a forked child of it does not stop its parent's."""
    for machine, owner in list(_there.items()):
        if owner == os.getpid():
            machine.stop()


atexit.register(stop_all)


def _text(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", "replace")
