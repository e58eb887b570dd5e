from pathlib import Path

import pytest

from quiesce.snapshot.errors import BadInput
from quiesce.testbed.btf import Btf, Place, cached_layouts, layouts_of
from quiesce.testbed.elf import read_section
from testbed import synthetic_btf as make


def _device() -> bytes:
    """struct dev { int irq; struct { unsigned a:3; unsigned b:1; }; typedef'd struct list { ptr } list; flags[1] }."""
    btf = make.BtfMaker()
    word, long = btf.integer("int", 4), btf.integer("long", 8)
    pointer = btf.refer(make.PTR, word)
    inner = btf.structure("list", 16, [("next", pointer, 0, 0), ("prev", pointer, 64, 0)])
    alias = btf.refer(make.TYPEDEF, inner, "list_t")
    bits = btf.structure("", 4, [("a", word, 0, 3), ("b", word, 3, 1)])
    btf.enum("dev_flags", {"FLAG_READY": 0, "FLAG_DMA": 2})
    btf.structure("dev", 32, [("irq", word, 0, 0), ("", bits, 32, 0), ("list", alias, 64, 0), ("flags", long, 192, 0)])
    data: bytes = btf.data()
    return data


WANTED = {"dev": ("irq", "b", "list.prev", "flags#FLAG_DMA", "flags#FLAG_NEW", "gone", "irq.nothing"), "none": ("x",)}


def test_fields_through_typedefs_unnamed_members_and_bitmaps() -> None:
    layout = layouts_of(_device(), WANTED)["dev"]
    assert layout.size == 32
    assert layout.fields == {
        "irq": Place(0, 32),
        "b": Place(35, 1),
        "list.prev": Place(128, 64),
        "flags#FLAG_DMA": Place(194, 1),
    }


def test_structures_and_fields_that_a_kernel_does_not_have() -> None:
    found = layouts_of(_device(), WANTED)
    assert "none" not in found
    assert found["dev"].value(bytes(32), "gone") is None


def test_values() -> None:
    layout = layouts_of(_device(), WANTED)["dev"]
    data = (25).to_bytes(4, "little") + bytes([0b1111]) + bytes(3) + bytes(16) + (4).to_bytes(8, "little")
    assert [layout.value(data, name) for name in ("irq", "b", "flags#FLAG_DMA")] == [25, 1, 1]
    assert layout.value(bytes(32), "flags#FLAG_DMA") == 0


def test_layouts_are_kept_by_what_they_were_made_of(tmp_path: Path) -> None:
    first = cached_layouts(_device(), WANTED, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert cached_layouts(_device(), WANTED, tmp_path) == first
    kept.write_text("{")
    assert cached_layouts(_device(), WANTED, tmp_path) == first
    cached_layouts(_device(), {"dev": ("irq",)}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("data", [b"", b"no", b"\0" * 64, _device()[:-30], _device()[:40]])
def test_what_is_no_type_information_is_told(data: bytes) -> None:
    with pytest.raises(BadInput):
        Btf(data)


def test_sections_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "vmlinux"
    file.write_bytes(make.elf({".BTF": _device(), ".notes": b"build"}))
    assert read_section(file, ".BTF") == _device()
    assert read_section(file, ".notes") == b"build"
    assert read_section(file, ".none") is None


@pytest.mark.parametrize("data", [b"", b"MZ" * 64, b"\x7fELF\x01\x01" + bytes(90), b"\x7fELF\x02\x01" + b"\xff" * 90])
def test_what_is_no_elf_file_is_told(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "vmlinux"
    file.write_bytes(data)
    with pytest.raises(BadInput):
        read_section(file, ".BTF")


def test_a_cut_elf_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "vmlinux"
    file.write_bytes(make.elf({".BTF": _device()})[:-70])
    with pytest.raises(BadInput):
        read_section(file, ".BTF")
    with pytest.raises(BadInput):
        read_section(tmp_path / "missing", ".BTF")
