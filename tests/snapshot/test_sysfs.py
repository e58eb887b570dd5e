import pytest

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.sysfs import find_root, read_tree
from quiesce.snapshot.tree import MemoryTree
from snapshot.trees import CARD, PORT, machine_tree

ABOVE = f"sys/devices/pci0000:00/{PORT}"


def test_all_of_a_tree() -> None:
    found = read_tree(machine_tree(), "", "m")
    port, card = found.functions
    assert [str(port.bdf), str(card.bdf)] == [PORT, CARD]
    assert (len(card.config), card.known) == (4096, None)
    assert card.attributes == {"driver": "igb", "numa": "0"}
    assert found.recorded_groups == ((PORT,), (CARD,))
    assert (found.kernel, found.iommu_hint) == ("6.1.0-x", "intel")
    assert found.cmdline is not None
    assert found.cmdline.endswith("intel_iommu=on")


@pytest.mark.parametrize("prefix", ["", "copy/", "a/b/"])
def test_the_tree_may_be_below(prefix: str) -> None:
    assert find_root(machine_tree(prefix)) == prefix


def test_a_tree_without_devices() -> None:
    tree = MemoryTree("t")
    tree.add("sys/bus/pci/devices/x", b"")
    assert find_root(tree) is None
    with pytest.raises(BadInput, match="folders of PCI functions"):
        read_tree(tree, "")


def test_without_config_the_other_files_count() -> None:
    found = read_tree(machine_tree(config=False), "")
    port, card = found.functions
    assert port.known is not None
    assert card.known is not None
    assert (port.config[:4].hex(), port.known[:4].hex()) == ("868010a1", "ffffffff")
    assert port.config[r.PCI_HEADER_TYPE] & port.known[r.PCI_HEADER_TYPE] == 1
    assert (port.config[r.PCI_SECONDARY_BUS], port.known[r.PCI_SECONDARY_BUS]) == (3, 0xFF)
    assert port.known[r.PCI_SUBORDINATE_BUS] == 0
    assert card.known[r.PCI_HEADER_TYPE] == 0x7F
    assert card.known[r.PCI_CAPABILITY_LIST] == 0
    assert any("no config file" in note for note in found.notes)


@pytest.mark.parametrize(("size", "length"), [(64, 64), (100, 64), (128, 64), (256, 256), (4096, 4096)])
def test_config_space_of_any_length(size: int, length: int) -> None:
    tree = machine_tree()
    tree.files[f"{ABOVE}/{CARD}/config"] = tree.files[f"{ABOVE}/{CARD}/config"][:size]
    found = read_tree(tree, "")
    assert len(found.functions[1].config) == length
    assert any("read as root" in note for note in found.notes) == (length == 64)


def test_too_little_config_space_is_not_used() -> None:
    tree = machine_tree()
    tree.files[f"{ABOVE}/{CARD}/config"] = b"\x86\x80"
    found = read_tree(tree, "")
    assert found.functions[1].known is not None
    assert any("2 bytes of config space are too few" in note for note in found.notes)


def test_a_virtual_function_and_its_physical_one() -> None:
    tree = machine_tree()
    folder = f"{ABOVE}/0000:03:10.0"
    tree.add(f"{folder}/config", b"\xff" * 4 + bytes(4092))
    tree.add(f"{folder}/vendor", b"0x8086\n")
    tree.add(f"{folder}/device", b"0x1520\n")
    tree.add(f"{folder}/physfn", link=f"../{CARD}")
    tree.add("sys/bus/pci/devices/0000:03:10.0", link=f"../../../devices/pci0000:00/{PORT}/0000:03:10.0")
    item = read_tree(tree, "").function(Bdf(0, 3, 0x10, 0))
    assert item is not None
    assert item.attributes == {"vendor": "8086", "device": "1520", "virtual": CARD}


def test_tables_that_are_there_and_that_cannot_be_read() -> None:
    tree = machine_tree()
    for name, data in (("APIC", b"a"), ("MCFG1", b"b"), ("MCFG2", b"c"), ("DMAR", b""), ("MSDM", b"key")):
        tree.add(f"sys/firmware/acpi/tables/{name}", data)
    found = read_tree(tree, "")
    assert found.tables == {"APIC": (b"a",), "MCFG": (b"b", b"c")}
    assert found.dmar is None
    assert any("DMAR is there but cannot be read" in note for note in found.notes)


@pytest.mark.parametrize(
    ("unit", "hint"),
    [("dmar3", "intel"), ("ivhd0", "amd"), ("smmu3.0x0000000009050000", "arm"), ("virtio2", "virtio"), ("x", None)],
)
def test_which_iommu_is_at_work(unit: str, hint: str | None) -> None:
    tree = machine_tree()
    tree.folders["sys/class/iommu"] = {unit}
    assert read_tree(tree, "").iommu_hint == hint


def test_that_there_is_no_iommu() -> None:
    tree = machine_tree()
    tree.folders["sys/class/iommu"] = set()
    assert read_tree(tree, "").iommu_hint == "none"
    del tree.folders["sys/class/iommu"]
    assert read_tree(tree, "").iommu_hint is None
