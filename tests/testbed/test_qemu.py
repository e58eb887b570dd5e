from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from quiesce.testbed import qemu as q
from quiesce.testbed.errors import Skipped
from quiesce.testbed.side_qemu import command_in


@dataclass(frozen=True)
class Machine:
    """The part of a machine that makes the command line."""

    arguments: tuple[str, ...] = ("-machine", "q35,sata=off", "-device", "edu")
    append: str = "intel_iommu=on"


DESCRIPTORS = q.Descriptors(agent=3, monitor=4, debugger=5, console=6)


def line(**options: object) -> list[str]:
    found = q.Qemu(("some-qemu",), (7, 2))
    return q.command_line(found, Machine(), Path("/k"), Path("/i"), DESCRIPTORS, **options)  # type: ignore[arg-type]


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


@pytest.fixture
def candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path on which nothing is found but what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUIESCE_QEMU", raising=False)
    (tmp_path / "bin").mkdir()
    q.forget_candidates()
    yield tmp_path
    q.forget_candidates()


def fake_qemu(path: Path, version: str) -> None:
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_kernel_and_its_command_line() -> None:
    words = line(append="extra=1")
    assert (after(words, "-kernel"), after(words, "-initrd")) == ("/k", "/i")
    options = after(words, "-append").split()
    assert {"nokaslr", "intel_iommu=on", "extra=1"} <= set(options)
    assert options.index("intel_iommu=on") < options.index("extra=1")


def test_what_a_machine_says_itself_is_not_said_before() -> None:
    words = line()
    assert words.count("-machine") == 1
    assert after(words, "-machine") == "q35,sata=off"
    assert after(words, "-cpu") == "max"


def test_connections_are_inherited_and_the_console_comes_first() -> None:
    words = line()
    assert "socket,id=agent,fd=3" in words
    assert "socket,id=monitor,fd=4" in words
    assert "file,id=console,path=/dev/fd/6" in words
    assert words.index("isa-serial,chardev=console,index=0") < words.index("isa-serial,chardev=agent,index=1")


def test_a_reset_stops_the_machine_and_only_a_restored_one_waits_for_its_state() -> None:
    assert after(line(), "-action") == "reboot=shutdown,shutdown=pause"
    assert "-incoming" not in line()
    assert after(line(incoming="file:/s"), "-incoming") == "file:/s"


def test_without_qemu_the_reason_says_what_to_install(candidates: Path) -> None:
    with pytest.raises(Skipped, match="install qemu-system-x86"):
        q.find_qemu()


def test_one_that_is_too_old_is_named(candidates: Path) -> None:
    fake_qemu(candidates / "bin" / q.PROGRAM, "7.2.22 (Debian)")
    assert q.find_qemu().version == (7, 2)
    with pytest.raises(Skipped, match=r"needs QEMU 8\.0, there is only QEMU 7\.2"):
        q.find_qemu((8, 0))


def test_the_oldest_that_is_new_enough_is_taken(candidates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(candidates / "bin" / q.PROGRAM, "7.2.22")
    fake_qemu(candidates / "newer", "10.0.2")
    monkeypatch.setattr("quiesce.testbed.side_qemu.unpacked", lambda: [(str(candidates / "newer"),)])
    assert q.find_qemu().version == (7, 2)
    assert q.find_qemu((8, 0)).version == (10, 0)


def test_a_chosen_one_is_the_only_one(candidates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(candidates / "mine", "9.1.0")
    fake_qemu(candidates / "bin" / q.PROGRAM, "7.2.22")
    monkeypatch.setenv("QUIESCE_QEMU", str(candidates / "mine"))
    assert q.find_qemu().version == (9, 1)


def test_an_unpacked_one_runs_through_its_own_loader(tmp_path: Path) -> None:
    assert command_in(tmp_path) is None
    for name in ("usr/bin/qemu-system-x86_64", "usr/lib64/ld-linux-x86-64.so.2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    command = command_in(tmp_path)
    assert command is not None
    assert command[2] == str(tmp_path / "usr/lib64/ld-linux-x86-64.so.2")
    assert str(tmp_path / "usr/bin/qemu-system-x86_64") in command
