from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fake_kernel import build_tree
from quiesce.snapshot.errors import BadInput
from quiesce.testbed.added import add
from quiesce.testbed.errors import Skipped
from quiesce.testbed.images import KernelImage, find_image, full_name, installed


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def image(tmp_path: Path) -> KernelImage:
    return add(build_tree(tmp_path / "tree"), name="mine", kernel_set="v6.12")


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("6.1", "debian:6.1"),
        ("debian:5.10", "debian:5.10"),
        ("newest", "debian:newest"),
        ("instrumented", "instrumented"),
        ("added:my-6.12+x", "added:my-6.12+x"),
    ],
)
def test_names(name: str, whole: str) -> None:
    assert full_name(name) == whole


@pytest.mark.parametrize("name", ["", "6.2", "debian:", "debian:sid", "added:", "added:../x", "added:-x", "x", "6.1\n"])
def test_nonsense_is_no_name(name: str) -> None:
    with pytest.raises(BadInput, match="the name of a kernel"):
        find_image(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("6.1", "quiesce kernel fetch debian:6.1"),
        ("instrumented", "quiesce kernel build"),
        ("added:x", "quiesce kernel add PATH --name x"),
    ],
)
def test_a_kernel_that_is_not_there_is_skipped_with_what_to_do(name: str, hint: str) -> None:
    with pytest.raises(Skipped, match=hint):
        find_image(name)


def test_a_damaged_kernel_is_skipped(image: KernelImage) -> None:
    image.vmlinux.unlink()
    with pytest.raises(Skipped, match="damaged"):
        find_image("added:mine")


def test_a_kernel_in_the_store_is_found(image: KernelImage) -> None:
    assert find_image("added:mine") == image
    assert installed() == [image]
    assert image.release == "6.12.9-own"
    assert image.point_release == "6.12.9"
    packaged = replace(image, release="6.1.0-56-amd64", package="linux-image-6.1.0-56-amd64 6.1.192-2")
    assert packaged.point_release == "6.1.192"
    assert image.kernel_set == "v6.12"


def test_modules_come_in_load_order_without_built_in_ones(image: KernelImage) -> None:
    files = image.modules(["acpiphp", "vfio-pci", "vfio"])
    assert [file.name for file in files] == ["vfio.ko", "irqbypass.ko", "vfio_pci_core.ko", "vfio_pci.ko"]
    assert all(file.is_file() for file in files)
    assert image.builtin("acpiphp")
    assert not image.builtin("vfio-pci")
    assert image.has_module("vfio-pci")
    assert not image.has_module("unwanted")


def test_a_missing_module_is_skipped_by_name(image: KernelImage) -> None:
    with pytest.raises(Skipped, match="has no module unwanted"):
        image.modules(["vfio", "unwanted"])


def test_a_kernel_can_be_used_as_a_key(image: KernelImage) -> None:
    assert {image: 1}[find_image("added:mine")] == 1
