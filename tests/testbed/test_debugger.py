"""The debugger's protocol, against a stub that answers as QEMU does."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from quiesce.testbed.debugger import Debugger, DebuggerLost


def answered(*answers: bytes) -> tuple[Debugger, socket.socket]:
    """A debugger whose peer has sent everything already."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b"".join(answers))
    return Debugger(ours), theirs


def asked(peer: socket.socket) -> Sequence[bytes]:
    """The requests that reached the peer, without what acknowledges."""
    return [part.partition(b"#")[0] for part in peer.recv(4096).split(b"$")[1:]]


def test_a_stop_and_on() -> None:
    debugger, peer = answered(b"+$OK#9a", b"+", b"$T05thread:01;#07", b"+$OK#9a", b"+$OK#9a")
    debugger.stop_at(0xFFFFFFFF81000010)
    debugger.wait_stopped(1.0)
    debugger.let_go(0xFFFFFFFF81000010)
    assert asked(peer) == [b"Z0,ffffffff81000010,1", b"c", b"z0,ffffffff81000010,1", b"D"]


@pytest.mark.parametrize("answers", [(b"+$E22#a9",), (b"+$#00",), (b"+$W00#b7",)])
def test_a_refusal_is_an_error(answers: tuple[bytes, ...]) -> None:
    debugger, _ = answered(*answers)
    with pytest.raises(DebuggerLost):
        debugger.stop_at(1)


def test_a_guest_that_does_not_come_is_an_error() -> None:
    debugger, _ = answered(b"+")
    with pytest.raises(DebuggerLost):
        debugger.wait_stopped(0.01)


def test_a_closed_connection_is_an_error() -> None:
    debugger, peer = answered()
    peer.close()
    with pytest.raises(DebuggerLost):
        debugger.wait_stopped(1.0)
