from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess

import pytest

from fake_kernel import ELF, bzimage
from quiesce.snapshot.errors import BadInput
from quiesce.testbed.bzimage import BzImage, unpacked
from quiesce.testbed.errors import Skipped

PACKERS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_the_elf_file_comes_out(packer: str) -> None:
    assert BzImage(bzimage(payload=PACKERS[packer](ELF)), "x").vmlinux() == ELF


@pytest.mark.parametrize(("tool", "options"), [("zstd", []), ("lz4", ["-l"])])
def test_the_elf_file_comes_out_with_a_tool(tool: str, options: list[str]) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not here")
    packed = subprocess.run([tool, *options, "-c"], input=ELF, capture_output=True, check=True).stdout
    assert BzImage(bzimage(payload=packed), "x").vmlinux() == ELF


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Skipped, match="zstd"):
        unpacked(b"\x28\xb5\x2f\xfd" + b"\0" * 20)


def test_the_header_tells_release_and_relocatable() -> None:
    image = BzImage(bzimage("6.1.0-56-amd64"), "x")
    assert image.release == "6.1.0-56-amd64"
    assert image.relocatable
    assert not BzImage(bzimage(relocatable=False), "x").relocatable


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 5000, bzimage()[:3000], b"\x7fELF" + b"\0" * 5000, bzimage().replace(b"HdrS", b"HdrX")],
    ids=["empty", "zeros", "short", "elf", "magic"],
)
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="an x86 kernel"):
        BzImage(data, "x")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        gzip.compress(ELF)[:20],
        gzip.compress(b"no elf"),
        b"\xfd7zXZ\0broken",
        b"BZhbroken",
        b"\x5d\0\0",
    ],
    ids=["empty", "unknown", "cut", "no-elf", "xz", "bzip2", "lzma"],
)
def test_what_cannot_be_unpacked_is_refused(payload: bytes) -> None:
    with pytest.raises(BadInput, match="a kernel packed with"):
        BzImage(bzimage(payload=payload), "x").vmlinux()


def test_a_banner_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="the release"):
        BzImage(bzimage(""), "x").release  # noqa: B018
