from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from fake_kernel import ELF, build_tree, bzimage
from quiesce.snapshot.errors import BadInput
from quiesce.testbed.added import add, summary
from quiesce.testbed.images import find_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))


def test_a_build_tree_brings_modules_settings_and_itself_as_headers(tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree")
    image = add(tree)
    assert image.name == "added:6.12.9-own"
    assert image.vmlinux.read_bytes() == ELF
    assert image.bzimage.read_bytes() == (tree / "arch/x86/boot/bzImage").read_bytes()
    assert image.config is not None
    assert image.config.read_text() == "CONFIG_PCI=y\n"
    assert image.headers is not None
    assert image.headers.resolve() == tree
    assert not image.switches


def test_a_file_alone_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "vmlinuz"
    file.write_bytes(bzimage("6.1.5-x"))
    image = add(file, name="lone")
    assert image.headers is None
    assert image.config is None
    assert image.modules([]) == []
    assert summary(image)["modules"] == 0


def test_settings_inside_the_kernel_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    file.write_bytes(bzimage(elf=ELF + b"IKCFG_ST" + gzip.compress(b"CONFIG_X=y\n") + b"IKCFG_ED"))
    config = add(file).config
    assert config is not None
    assert config.read_text() == "CONFIG_X=y\n"


def test_switches_are_found_in_the_kernel(tmp_path: Path) -> None:
    assert add(build_tree(tmp_path / "tree", elf=ELF + b"\0quiesce.bugs\0")).switches


def test_adding_again_takes_the_place(tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    for release in ("6.1.5-x", "6.1.6-x"):
        file.write_bytes(bzimage(release))
        add(file, name="mine")
    assert find_image("added:mine").release == "6.1.6-x"


def test_modules_and_headers_may_lie_elsewhere(tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree")
    file = tmp_path / "bzImage"
    file.write_bytes(bzimage())
    image = add(file, modules=tree, headers=tmp_path)
    assert image.has_module("vfio_pci")
    assert image.headers is not None
    assert image.headers.resolve() == tmp_path


@pytest.mark.parametrize("option", ["modules", "headers"])
def test_a_folder_that_is_none_is_refused(option: str, tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    file.write_bytes(bzimage())
    with pytest.raises(BadInput, match=f"--{option}"):
        add(file, modules=file if option == "modules" else None, headers=file if option == "headers" else None)


def test_what_cannot_be_added_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    file.write_bytes(bzimage())
    with pytest.raises(BadInput, match="a kernel file, or a build tree"):
        add(tmp_path)
    with pytest.raises(BadInput, match="a file"):
        add(tmp_path / "nothere")
    with pytest.raises(BadInput, match="the name of a kernel"):
        add(file, name="a/b")
    with pytest.raises(BadInput, match="--kernel"):
        add(file, kernel_set="v9.9")
