"""Folders, archives, standard input, the running machine."""

import bz2
import gzip
import io
import json
import os
from pathlib import Path

import pytest

from quiesce.snapshot.collect import packed
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine, read_sources
from quiesce.snapshot.tree import MemoryTree
from snapshot.snapdata import SHARED, header, needs_shared, shared
from snapshot.trees import CARD, PORT, machine_tree

LOG = b"[    0.311234] pci 0000:00:1f.2: [8086:2922] type 00 class 0x010601\n"


def archive(**files: bytes) -> bytes:
    tree = MemoryTree("t")
    for name, data in files.items():
        tree.add(name.replace("__", "/").replace("_dot_", "."), data)
    return packed(tree)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_log_that_may_be_compressed(tmp_path: Path, pack: type[bytes]) -> None:
    (tmp_path / "dmesg.txt.gz").write_bytes(pack(LOG))
    found = read_machine(tmp_path / "dmesg.txt.gz")
    assert [str(item.bdf) for item in found.functions] == ["0000:00:1f.2"]


def test_an_archive_with_loose_files(tmp_path: Path) -> None:
    (tmp_path / "m.tar.gz").write_bytes(archive(a__dmesg_dot_txt=LOG, a__notes_dot_txt=b"nothing"))
    found = read_machine(tmp_path / "m.tar.gz")
    assert (found.name, len(found.functions)) == ("m", 1)
    assert any(note.startswith("not read: ") and "notes.txt" in note for note in found.notes)


def test_an_archive_of_a_tree_like_sys(tmp_path: Path) -> None:
    (tmp_path / "m.tar.gz").write_bytes(packed(machine_tree()))
    found = read_machine(tmp_path / "m.tar.gz")
    assert [str(item.bdf) for item in found.functions] == [PORT, CARD]
    assert found.iommu_hint == "intel"


def test_a_tree_with_a_log_beside_it(tmp_path: Path) -> None:
    tree = machine_tree()
    tree.add("dmesg.txt", LOG.replace(b"00:1f.2", b"00:1c.0") + b"[ 0.4] Kernel command line: x\n")
    (tmp_path / "m.tar.gz").write_bytes(packed(tree))
    found = read_machine(tmp_path / "m.tar.gz")
    assert any("ids differ" in note for note in found.notes)
    assert any("kernel command line" in note for note in found.notes)


def test_a_compressed_file_in_a_compressed_file_is_not_gone_into(tmp_path: Path) -> None:
    (tmp_path / "m.gz").write_bytes(gzip.compress(gzip.compress(LOG)))
    with pytest.raises(BadInput):
        read_machine(tmp_path / "m.gz")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LOG)))
    found = read_sources(["-"])
    assert [str(item.bdf) for item in found.functions] == ["0000:00:1f.2"]


def test_the_running_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.read._LIVE", str(tmp_path))
    with pytest.raises(BadInput, match="PCI functions of the running machine"):
        read_sources([])
    folder = tmp_path / "sys/bus/pci/devices/0000:00:1f.2"
    folder.mkdir(parents=True)
    (folder / "config").write_bytes(header())
    found = read_sources([])
    assert (found.name, len(found.functions)) == ("live", 1)


def test_a_folder_with_things_that_must_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to("..")
    (tmp_path / "truth.json").write_text("{}")
    assert [str(item.bdf) for item in read_machine(tmp_path).functions] == ["0000:00:1f.2"]


def test_the_number_of_loose_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.folder._LOOSE_FILES", 2)
    for number in range(4):
        (tmp_path / f"log{number}").write_bytes(LOG.replace(b"1f.2", b"1f.%d" % number))
    assert len(read_machine(tmp_path).functions) == 2


FOLDERS = sorted({path.parent for path in shared("machines/*/*")})
NOT_IN_IT = {"hisi-d05-module", "x99-5.9"}
"""Two kernels on one machine lie in one folder; the groups of the first count."""


@needs_shared
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_machine_of_the_corpus(folder: Path) -> None:
    found = read_machine(folder)
    bdfs = {str(item.bdf) for item in found.functions}
    for path in folder.glob("*truth.json"):
        truth = json.loads(path.read_text())
        assert {bdf for group in truth["groups"] for bdf in group} <= bdfs
        if truth["functions"]:
            assert sum(item.present for item in found.functions) == truth["functions"]
        if truth["id"] not in NOT_IN_IT:
            assert sorted(map(sorted, truth["groups"])) == sorted(map(sorted, found.recorded_groups or ()))


@needs_shared
@pytest.mark.parametrize(("name", "functions"), [("32em64t", 137), ("40intel64", 37)])
def test_archives_of_other_tools(name: str, functions: int) -> None:
    (path,) = (SHARED / "sysfs").glob(f"hwloc-{name}*")
    found = read_machine(path)
    assert len(found.functions) == functions
    assert {len(item.config) for item in found.functions} == {64}
