from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from quiesce.testbed import cpio, initramfs
from quiesce.testbed.errors import Skipped
from quiesce.testbed.initramfs import write_initramfs


@dataclass(frozen=True)
class Image:
    """A kernel whose modules are files in a folder."""

    folder: Path

    def modules(self, names: Iterable[str]) -> list[Path]:
        files = [self.folder / f"{name.replace('-', '_')}.ko" for name in names]
        missing = [file.stem for file in files if not file.exists()]
        if missing:
            raise Skipped(f"no module {missing[0]}")
        return files


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(initramfs, "program", lambda name: b"program " + name.encode())
    monkeypatch.setattr(initramfs, "busybox", lambda: b"busybox")
    monkeypatch.setattr(initramfs, "busybox_applets", lambda: ("sh", "poke", "ls"))
    for name in ("one", "two_three"):
        (tmp_path / f"{name}.ko").write_bytes(b"module " + name.encode())
    return Image(tmp_path)


def contents(path: Path) -> dict[str, cpio.Entry]:
    return {entry.name: entry for entry in cpio.unpack(path.read_bytes())}


def test_the_agent_is_init_and_the_helpers_are_there(image: Image) -> None:
    there = contents(write_initramfs(image, []))  # type: ignore[arg-type]
    assert there["init"].data == b"program agent"
    assert there["bin/vfio"].data == b"program vfio"
    assert there["bin/busybox"].data == b"busybox"
    assert there["bin/sh"].data == b"busybox"
    assert stat.S_ISLNK(there["bin/sh"].mode)
    assert there["dev/console"].device == (5, 1)
    assert {"proc", "sys", "dev", "tmp", "run", "mod"} <= {n for n, e in there.items() if stat.S_ISDIR(e.mode)}


def test_no_applet_takes_the_place_of_a_helper(image: Image) -> None:
    there = contents(write_initramfs(image, []))  # type: ignore[arg-type]
    assert there["bin/poke"].data == b"program poke"


def test_modules_are_there_and_the_order_names_those_to_load(image: Image) -> None:
    there = contents(write_initramfs(image, ["two-three"], unloaded=["one"]))  # type: ignore[arg-type]
    assert there["mod/order"].data == b"two_three.ko\n"
    assert there["mod/one.ko"].data == b"module one"
    assert there["mod/two_three.ko"].data == b"module two_three"


def test_a_module_that_is_missing_is_a_reason_to_skip(image: Image) -> None:
    with pytest.raises(Skipped, match="no module four"):
        write_initramfs(image, ["four"])  # type: ignore[arg-type]


def test_tables_come_first_in_an_archive_of_their_own(image: Image) -> None:
    path = write_initramfs(image, [], tables={"ivrs": b"IVRS table"})  # type: ignore[arg-type]
    entries = list(cpio.unpack(path.read_bytes()))
    assert [entry.name for entry in entries[:4]] == [
        "kernel",
        "kernel/firmware",
        "kernel/firmware/acpi",
        "kernel/firmware/acpi/ivrs.aml",
    ]
    assert entries[3].data == b"IVRS table"
    assert path.read_bytes().index(b"TRAILER!!!") < path.read_bytes().index(b"program agent")


def test_files_are_put_where_they_are_named(image: Image) -> None:
    there = contents(write_initramfs(image, [], files={"/some/where": b"x"}))  # type: ignore[arg-type]
    assert there["some/where"].data == b"x"
    assert stat.S_ISDIR(there["some"].mode)


def test_it_is_kept_by_content(image: Image) -> None:
    first = write_initramfs(image, ["one"])  # type: ignore[arg-type]
    assert write_initramfs(image, ["one"]) == first  # type: ignore[arg-type]
    assert write_initramfs(image, ["one"], files={"a": b""}) != first  # type: ignore[arg-type]
    first.unlink()
    assert write_initramfs(image, ["one"]).is_file()  # type: ignore[arg-type]


def test_what_nobody_has_asked_for_in_a_while_goes(image: Image) -> None:
    old = write_initramfs(image, ["one"])  # type: ignore[arg-type]
    used = write_initramfs(image, ["two-three"])  # type: ignore[arg-type]
    for path in (old, used):
        os.utime(path, (0, 0))
    assert write_initramfs(image, ["two-three"]) == used  # type: ignore[arg-type]
    write_initramfs(image, [], files={"a": b""})  # type: ignore[arg-type]
    assert not old.exists()
    assert used.exists()
