from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from quiesce.testbed.agent import AgentLine, LineClosed, Reply


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def line_on(connection: socket.socket) -> AgentLine:
    return AgentLine(connection, lambda: None)


def test_requests_are_numbered_and_carry_their_length(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    assert [line.send("sh", b"a\nb"), line.send("ping")] == [1, 2]
    assert ends[1].recv(100) == b"1 sh 3\na\nb2 ping 0\n"


def test_a_reply_comes_in_pieces(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    number = line.send("rd", b"x")
    for piece in (b"1 2 1", b"0\n01234", b"56789"):
        assert line.peek(number) is None
        ends[1].sendall(piece)
    assert line.receive(number, 5) == Reply(2, b"0123456789")


def test_what_is_no_reply_is_passed_over(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    number = line.send("ping")
    ends[1].sendall(b"\xffnoise\nmore noise1 0 2\nok")
    assert line.receive(number, 5) == Reply(0, b"ok")


def test_a_reply_nobody_waits_for_any_more_is_dropped(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    late = line.send("sh", b"slow")
    assert line.receive(late, 0) is None
    number = line.send("ping")
    ends[1].sendall(b"1 0 4\nlate2 0 0\n")
    assert line.receive(number, 5) == Reply(0, b"")
    assert line.peek(late) is None


def test_a_kernel_that_comes_up_greets(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    assert not line.greeted()
    ends[1].sendall(b"0 0 4\n1.23")
    assert line.greeted()
    assert line.receive(0, 5) == Reply(0, b"1.23")
    assert not line.greeted()


def test_a_closed_line_is_noticed(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    number = line.send("ping")
    ends[1].close()
    with pytest.raises(LineClosed):
        line.receive(number, 5)


def test_while_waiting_the_watch_may_give_up(ends: tuple[socket.socket, socket.socket]) -> None:
    def watch() -> None:
        raise RuntimeError("gone")

    line = AgentLine(ends[0], watch)
    with pytest.raises(RuntimeError, match="gone"):
        line.receive(line.send("ping"), 60)


def test_a_large_body_is_sent_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    line = line_on(ends[0])
    received = bytearray()

    def read() -> None:
        while len(received) < 1 << 20:
            received.extend(ends[1].recv(1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    line.send("put", bytes(1 << 20))
    reader.join(30)
    assert received[:15] == b"1 put 1048576\n\0"
