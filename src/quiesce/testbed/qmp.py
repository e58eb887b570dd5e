"""QEMU's own control connection, one command at a time, on an event loop that nothing else uses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from qemu.qmp import QMPClient

_SECONDS = 30.0
_CLOSE_SECONDS = 3.0


class Refused(Exception):
    """QEMU answered a command with an error; the text is QEMU's."""


class Lost(Exception):
    """QEMU does not answer any more."""


class Monitor:
    """A connection to QEMU."""

    def __init__(self, connection: socket.socket, timeout: float = _SECONDS) -> None:
        from qemu.qmp import EventListener, QMPClient

        self._loop = asyncio.new_event_loop()
        self._client: QMPClient = QMPClient()
        self._events = EventListener()
        self._client.register_listener(self._events)
        try:
            self._run(self._client.connect(connection), timeout)
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, arguments: dict[str, Any] | None = None, timeout: float = _SECONDS) -> Any:
        """Return what QEMU answers; raises Refused for an error, Lost when no answer comes."""
        return self._run(self._client.execute(command, arguments or None), timeout)

    def human(self, line: str) -> str:
        """Return what QEMU's console for people answers to a line."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def events(self) -> list[dict[str, Any]]:
        """Return what QEMU has reported since last asked."""
        self.execute("query-status")
        return [dict(message) for message in self._events.clear()]

    def close(self) -> None:
        """Let go of the connection; QEMU may be gone already."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), _CLOSE_SECONDS))
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any], timeout: float) -> Any:
        from qemu.qmp import ExecuteError, QMPError

        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout))
        except ExecuteError as error:
            raise Refused(str(error)) from None
        except TimeoutError:
            raise Lost(f"QEMU did not answer within {timeout:.0f} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise Lost(f"QEMU's control connection is gone ({error})") from None
