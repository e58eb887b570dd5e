"""The host's end of the serial line to the agent in a guest.

A request is ``ID OP LENGTH\\nBODY``, a reply ``ID RESULT LENGTH\\nBODY``; the agent greets with a reply to request 0
when a kernel has come up. What a reset leaves on the line, and replies that nobody waits for any more, are passed over.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

DEADLINE = 1000
"""The result of what did not end in the time the agent gave it."""
KILLED = 128
"""Added to the signal that ended what the agent ran in a child; 9 is what a kernel that oopsed leaves."""
GREETING = 0
_HEAD = re.compile(rb"(\d+) (\d+) (\d+)$")
_SLICE = 0.25
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Reply:
    """What the agent answers."""

    result: int
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


class LineClosed(Exception):
    """QEMU has closed its end of the line."""


class AgentLine:
    """Requests and replies. ``watch`` is called now and then while waiting; it raises when waiting is in vain."""

    def __init__(self, connection: socket.socket, watch: Callable[[], None]) -> None:
        self._socket = connection
        self._watch = watch
        self._received = bytearray()
        self._replies: dict[int, Reply] = {}
        self._awaited: set[int] = {GREETING}
        self._number = 0

    def send(self, op: str, body: bytes = b"", timeout: float = 30.0) -> int:
        """Send a request; returns its number."""
        self._number += 1
        self._awaited.add(self._number)
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(b"%d %s %d\n" % (self._number, op.encode(), len(body)) + body)
        except TimeoutError:
            raise
        except OSError:
            raise LineClosed from None
        return self._number

    def receive(self, number: int, timeout: float) -> Reply | None:
        """Wait for the reply to a request; None when the time has passed, and the reply, should it come, is dropped."""
        end = time.monotonic() + timeout
        while (reply := self.peek(number)) is None:
            left = end - time.monotonic()
            if left <= 0:
                self._awaited.discard(number)
                return None
            self._wait(min(left, _SLICE))
        return reply

    def peek(self, number: int) -> Reply | None:
        """Return the reply to a request if it is there."""
        self._take_in()
        reply = self._replies.pop(number, None)
        if reply is not None and number != GREETING:
            self._awaited.discard(number)
        return reply

    def greeted(self) -> bool:
        """Tell whether a kernel has come up since the last greeting was received."""
        self._take_in()
        return GREETING in self._replies

    def skip_numbers(self, numbers: int) -> None:
        """Leave out request numbers that an agent which was saved may still answer."""
        self._number += numbers

    def close(self) -> None:
        """Close the line."""
        self._socket.close()

    def _wait(self, seconds: float) -> None:
        if not select.select([self._socket], [], [], seconds)[0]:
            self._watch()

    def _take_in(self) -> None:
        while select.select([self._socket], [], [], 0)[0]:
            try:
                data = self._socket.recv(_CHUNK)
            except OSError:
                data = b""
            if not data:
                raise LineClosed
            self._received += data
        while self._one_reply():
            pass

    def _one_reply(self) -> bool:
        """Take one whole reply, or one line that is none, off what was received."""
        stop = self._received.find(b"\n")
        if stop < 0:
            return False
        head = _HEAD.search(self._received[:stop])
        if head is None:
            del self._received[: stop + 1]
            return True
        number, result, length = map(int, head.groups())
        if len(self._received) < stop + 1 + length:
            return False
        body = bytes(self._received[stop + 1 : stop + 1 + length])
        del self._received[: stop + 1 + length]
        if number in self._awaited:
            self._replies[number] = Reply(result, body)
        return True
