from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from shutil import which

import pytest

from quiesce.testbed import cpio

ENTRIES = [
    cpio.folder("bin"),
    cpio.file("bin/a", b"odd length!", executable=True),
    cpio.file("empty", b""),
    cpio.link("bin/b", "a"),
    cpio.character_device("console", 5, 1),
]


def test_what_is_packed_is_unpacked() -> None:
    assert list(cpio.unpack(cpio.pack(ENTRIES))) == ENTRIES


def test_archives_one_behind_the_other_give_all_their_entries() -> None:
    both = cpio.pack(ENTRIES[:2]) + cpio.pack(ENTRIES[2:])
    assert list(cpio.unpack(both)) == ENTRIES


def test_the_same_entries_give_the_same_bytes_in_whole_blocks() -> None:
    assert cpio.pack(ENTRIES) == cpio.pack(ENTRIES)
    assert len(cpio.pack(ENTRIES)) % 512 == 0


def test_missing_folders_come_before_what_lies_in_them() -> None:
    entries = cpio.with_folders([cpio.file("a/b/c", b"x"), cpio.folder("a/d"), cpio.file("a/b/e", b"y")])
    assert [entry.name for entry in entries] == ["a", "a/b", "a/b/c", "a/d", "a/b/e"]
    assert [stat.S_ISDIR(entry.mode) for entry in entries] == [True, True, False, True, False]


def test_of_two_entries_with_a_name_the_last_counts() -> None:
    assert [entry.data for entry in cpio.with_folders([cpio.file("a", b"1"), cpio.file("a", b"2")])] == [b"2"]


@pytest.mark.skipif(which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    archive = cpio.pack([entry for entry in ENTRIES if not stat.S_ISCHR(entry.mode)])
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "bin" / "b").read_bytes() == b"odd length!"
