from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quiesce.testbed import processes
from quiesce.testbed.errors import Skipped
from quiesce.testbed.vm import VirtualMachine


def state(pid: int) -> str:
    """The letter for a process's state; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def gone(pid: int) -> bool:
    end = time.monotonic() + 30
    while state(pid) not in ("", "Z"):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_the_whole_group_ends() -> None:
    read, write = os.pipe()
    process = processes.start(["sh", "-c", "sleep 1000 & echo $!; wait"], keep_open=(), errors=write)
    child = int(os.read(read, 100))
    processes.end(process)
    assert process.poll() is not None
    assert gone(child)
    os.close(read)
    os.close(write)


def test_it_ends_when_its_starter_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from quiesce.testbed import processes\n"
        "print(processes.start(['sleep', '1000'], keep_open=(), errors=2).pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        assert state(child) not in ("", "Z")
        starter.send_signal(signal.SIGKILL)
    assert gone(child)


def test_it_ends_when_its_starter_comes_to_its_end() -> None:
    code = (
        "from quiesce.testbed import processes\n"
        "print(processes.start(['sleep', '1000'], keep_open=(), errors=2).pid, flush=True)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert gone(int(said.stdout))


def test_a_qemu_that_refuses_its_arguments_is_a_reason_to_skip() -> None:
    with pytest.raises(Skipped, match="no such device"):
        VirtualMachine(lambda descriptors: ["sh", "-c", "echo no such device >&2; exit 1"])


def test_a_qemu_that_is_not_there_is_a_reason_to_skip() -> None:
    with pytest.raises(Skipped, match="cannot be run"):
        VirtualMachine(lambda descriptors: ["/nonexistent/qemu"])
