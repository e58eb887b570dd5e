import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.archive import open_archive
from quiesce.snapshot.contents import is_archive
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.tree import MemoryTree
from snapshot.snapdata import steady

LONG = "d/" * 45 + "x" * 120


def tar(shape: int = tarfile.GNU_FORMAT, **extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=shape) as archive:
        for name, data in {"top/a": b"one", LONG: b"two", **extra}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("top/l")
        link.type, link.linkname = tarfile.SYMTYPE, "y" * 130
        archive.addfile(link)
        hard = tarfile.TarInfo("top/h")
        hard.type, hard.linkname = tarfile.LNKTYPE, "top/a"
        archive.addfile(hard)
        folder = tarfile.TarInfo("top/empty")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        device = tarfile.TarInfo("top/dev")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/a", b"one")
        archive.writestr(LONG, b"two")
        link = zipfile.ZipInfo("top/l")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "y" * 130)
        archive.writestr("top/h", b"one")
        archive.writestr("top/empty/", b"")
    return buffer.getvalue()


def opened(data: bytes) -> tuple[MemoryTree, list[str]]:
    found = open_archive(data, "t")
    assert not isinstance(found, bytes)
    return found


@pytest.mark.parametrize("shape", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gz", "bz2", "xz"])
def test_every_kind_of_tar(shape: int, pack: Callable[[bytes], bytes]) -> None:
    data = pack(tar(shape))
    assert is_archive(data)
    check(*opened(data))


def test_a_ustar_with_a_prefix() -> None:
    buffer = io.BytesIO()
    name = "p/" * 60 + "x"
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    assert opened(buffer.getvalue())[0].files == {name: b"x"}


def test_a_zip() -> None:
    check(*opened(zipped()))


def check(tree: MemoryTree, notes: list[str]) -> None:
    assert tree.files == {"top/a": b"one", LONG: b"two", "top/h": b"one"}
    assert tree.links == {"top/l": "y" * 130}
    assert tree.is_folder("top/empty")
    assert notes == []


def test_names_that_lead_out_are_left_out() -> None:
    tree, _ = opened(tar(**{"../evil": b"x", "/etc/passwd": b"x", "a/../../evil": b"x"}))
    assert sorted(tree.files) == sorted(["top/a", LONG, "top/h", "etc/passwd"])


def test_a_single_compressed_file_is_given_back() -> None:
    assert open_archive(gzip.compress(b"text"), "t") == b"text"


@pytest.mark.parametrize("size", [900, 1500, 5000])
def test_what_ends_early_gives_what_came_before(size: int) -> None:
    tree, notes = opened(tar()[:size])
    assert tree.files["top/a"] == b"one"
    assert len(notes) == 1


def test_damage_in_the_compressed_data_is_said() -> None:
    data = bytearray(gzip.compress(tar() + bytes(100)))
    tree, notes = opened(bytes(data[:-9]))
    assert tree.files["top/a"] == b"one"
    assert any("ends early" in note for note in notes)


def test_what_unpacks_to_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.archive.MOST_BYTES", 4096)
    tree, notes = opened(gzip.compress(tar(big=bytes(9 << 20))))
    assert tree.files["top/a"] == b"one"
    assert any("are read" in note for note in notes)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"one")
        archive.writestr("b", bytes(1 << 20))
    tree, notes = opened(buffer.getvalue())
    assert tree.files["a"] == b"one"
    assert len(tree.files["b"]) <= 4097
    assert any("are read" in note for note in notes)


def test_too_many_members_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.archive.MOST_MEMBERS", 2)
    tree, notes = opened(tar())
    assert (len(tree.files), len(notes)) == (2, 1)


@pytest.mark.parametrize("data", [b"\x1f\x8b", b"BZh9" + bytes(99), b"\xfd7zXZ\0x", b"PK\3\4" + bytes(99)])
def test_an_archive_without_anything_readable_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="an archive that can be read"):
        open_archive(data, "t")


SEEDS = [tar(), tar(tarfile.PAX_FORMAT), zipped(), gzip.compress(tar()), bz2.compress(tar())]


@steady
@given(st.sampled_from(SEEDS), st.data())
def test_no_change_to_an_archive_breaks_reading(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        open_archive(bytes(changed), "t")
    except BadInput:
        return
