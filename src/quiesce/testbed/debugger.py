"""QEMU's debugger connection, as far as it takes to stand still once at a function of the guest's kernel."""

from __future__ import annotations

import socket
import time

_SECONDS = 10.0
_STOP_SIGNALS = (b"T05", b"S05")


class DebuggerLost(Exception):
    """QEMU does not answer as a debugger's stub does."""


class Debugger:
    """One end of the connection; the guest stands still from the moment that QEMU's end is opened."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""

    def stop_at(self, address: int) -> None:
        """Let the guest run until it is about to execute an address."""
        self._ask(f"Z0,{address:x},1")
        self._send("c")

    def wait_stopped(self, timeout: float) -> None:
        """Wait until the guest has come to the address; raises DebuggerLost."""
        answer = self._packet(timeout)
        if not answer.startswith(_STOP_SIGNALS):
            raise DebuggerLost(f"the guest stands still for another reason: {answer!r}")

    def let_go(self, address: int) -> None:
        """Forget the address and let the guest run on."""
        self._ask(f"z0,{address:x},1")
        self._ask("D")

    def _ask(self, request: str) -> None:
        self._send(request)
        answer = self._packet(_SECONDS)
        if answer != b"OK":
            raise DebuggerLost(f"{request} is answered by {answer!r}")

    def _send(self, request: str) -> None:
        body = request.encode()
        self._connection.sendall(b"$%s#%02x" % (body, sum(body) % 256))

    def _packet(self, timeout: float) -> bytes:
        """Return the next packet, acknowledged."""
        end = time.monotonic() + timeout
        while (found := _first_packet(self._read)) is None:
            self._connection.settimeout(max(end - time.monotonic(), 0.001))
            try:
                more = self._connection.recv(4096)
            except (TimeoutError, OSError) as error:
                raise DebuggerLost(str(error)) from None
            if not more:
                raise DebuggerLost("the connection is closed")
            self._read += more
        packet, self._read = found
        self._connection.sendall(b"+")
        return packet


def _first_packet(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the first whole ``$...#xx`` and what is behind it."""
    start = data.find(b"$")
    end = data.find(b"#", start)
    if start < 0 or end < 0 or len(data) < end + 3:
        return None
    return data[start + 1 : end], data[end + 3 :]
