from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from fake_kernel import module
from quiesce.testbed.module_files import WANTED, builtin_names, in_load_order, keep, module_name, needs


@pytest.mark.parametrize(
    "file", ["kernel/drivers/vfio/pci/vfio-pci.ko.xz", "vfio_pci.ko", "vfio-pci", "vfio-pci.ko.zst"]
)
def test_a_module_is_named_as_the_kernel_does(file: str) -> None:
    assert module_name(file) == "vfio_pci"


def test_what_a_module_needs_is_read_from_it() -> None:
    assert needs(module("vfio-pci-core", "irqbypass")) == ["vfio_pci_core", "irqbypass"]
    assert needs(module()) == []
    assert needs(b"no module") == []


def test_only_wanted_modules_and_their_needs_are_kept_unpacked(tmp_path: Path) -> None:
    tree = tmp_path / "lib/modules/6.1/kernel"
    tree.mkdir(parents=True)
    (tree / "ahci.ko.xz").write_bytes(lzma.compress(module("libahci")))
    (tree / "libahci.ko.gz").write_bytes(gzip.compress(module("libata")))
    (tree / "libata.ko").write_bytes(module())
    (tree / "other.ko").write_bytes(module())
    (tree / "nvme.ko.xz").write_bytes(b"damaged")
    kept = keep(tmp_path, tmp_path / "out", ["ahci", "nvme", "not-there"])
    assert kept == {"ahci": ["libahci"], "libahci": ["libata"], "libata": []}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ahci.ko", "libahci.ko", "libata.ko"]
    assert (tmp_path / "out/ahci.ko").read_bytes() == module("libahci")


def test_load_order_has_every_need_first_and_each_once() -> None:
    needed = {"a": ["b", "c"], "b": ["c"], "c": [], "d": ["a"]}
    assert in_load_order(["d", "b", "x"], needed) == ["c", "b", "a", "d", "x"]


def test_modules_that_need_each_other_end() -> None:
    assert in_load_order(["a"], {"a": ["b"], "b": ["a"]}) == ["b", "a"]


def test_built_in_modules_are_listed(tmp_path: Path) -> None:
    assert builtin_names(tmp_path) == []
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/modules.builtin").write_text("kernel/drivers/pci/hotplug/shpchp.ko\nkernel/fs/x-y.ko\n")
    assert builtin_names(tmp_path) == ["shpchp", "x_y"]


def test_the_list_has_each_module_once_and_as_the_kernel_names_it() -> None:
    assert len(set(WANTED)) == len(WANTED)
    assert [name for name in WANTED if module_name(name) != name] == []
