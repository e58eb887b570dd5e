from pathlib import Path

import pytest

from quiesce.testbed.btf import Layout, Place
from quiesce.testbed.errors import Skipped
from quiesce.testbed.structures import WANTED, Knowledge, Structures, Torn

ROOT, BUS, FIRST, SECOND, DRIVER, NAME, GROUP, DOMAIN, RECORD, KSET = (0x1000 * n for n in range(1, 11))
RELEASE, GROUPS, TAINT = 0x90000, 0xA0000, 0xB0000


def _layout(structure: str, size: int, without: tuple[str, ...] = ()) -> Layout:
    """Every field 8 bytes after the one before, 16 for the head of a list."""
    places, at = {}, 0
    for name in WANTED[structure]:
        if name not in without:
            places[name] = Place(8 * at, 64)
        at += 16
    assert at <= size
    return Layout(size, places)


LAYOUTS = {
    "pci_bus": _layout("pci_bus", 96),
    "pci_dev": _layout("pci_dev", 512, without=("match_driver", "dev.driver_override.name")),
    "device_driver": _layout("device_driver", 16),
    "devres_node": _layout("devres_node", 32),
    "devres": _layout("devres", 64, without=("release",)),
    "iommu_group": _layout("iommu_group", 128),
    "iommu_domain": _layout("iommu_domain", 16),
    "kobject": _layout("kobject", 32),
    "kset": _layout("kset", 16),
}
SYMBOLS = {ROOT: "pci_root_buses", GROUPS: "iommu_group_kset", TAINT: "tainted_mask", RELEASE: "pcim_release"}


class Memory:
    """Words at addresses; everything else reads as nothing."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.pages: set[int] = set()
        self.reads = 0

    def put(self, structure: str, base: int, **values: int) -> None:
        for name, value in values.items():
            self.words[base + LAYOUTS[structure].fields[name].byte] = value

    def __call__(self, address: int, length: int) -> bytes:
        self.reads += 1
        data = bytearray(length)
        for at, value in self.words.items():
            if address <= at < address + length:
                data[at - address : at - address + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")
        return bytes(data[:length])


def field(structure: str, name: str) -> int:
    return LAYOUTS[structure].fields[name].byte


def machine() -> Memory:
    """One bus with two devices: one bound and in a group, one that was left a record."""
    memory = Memory()
    links = [BUS + field("pci_bus", "devices"), FIRST, SECOND]
    memory.words[ROOT] = BUS
    memory.put("pci_bus", BUS, node=ROOT, children=BUS + field("pci_bus", "children"), devices=FIRST, number=2)
    memory.put("pci_dev", FIRST, bus_list=SECOND, devfn=0x28, irq=25)
    memory.put("pci_dev", SECOND, bus_list=links[0], devfn=0x29)
    memory.words[FIRST + field("pci_dev", "dev.driver")] = DRIVER
    memory.words[FIRST + field("pci_dev", "dev.iommu_group")] = GROUP
    for dev in (FIRST, SECOND):
        memory.words[dev + field("pci_dev", "dev.devres_head")] = dev + field("pci_dev", "dev.devres_head")
    memory.words[SECOND + field("pci_dev", "dev.devres_head")] = RECORD
    memory.put("devres_node", RECORD, entry=SECOND + field("pci_dev", "dev.devres_head"), release=RELEASE)
    memory.put("device_driver", DRIVER, name=NAME)
    memory.words[NAME] = int.from_bytes(b"ahci", "little")
    memory.put("iommu_group", GROUP, id=7, domain=DOMAIN, default_domain=DOMAIN, owner_cnt=1)
    memory.put("iommu_domain", DOMAIN, type=11)
    memory.words[TAINT] = 1 << 9
    return memory


def with_groups(*kobjects: int) -> Memory:
    memory = machine()
    memory.words[GROUPS] = KSET
    for here, following in zip((KSET, *kobjects), (*kobjects, KSET), strict=True):
        memory.words[here] = following
    return memory


def test_devices_with_driver_group_and_records() -> None:
    memory = machine()
    seen = Structures(memory, Knowledge(LAYOUTS, SYMBOLS)).look()
    first, second = seen.devices["0000:02:05.0"], seen.devices["0000:02:05.1"]
    assert (first.driver, first.values["irq"], first.devres) == ("ahci", 25, ())
    assert (second.driver, second.group, second.devres) == ("", None, ("pcim_release",))
    assert first.group is not None
    assert (first.group.number, first.group.type, first.group.domain, first.group.users) == (7, "DMA", "default", 1)


def test_fields_that_this_kernel_does_not_have_are_none() -> None:
    memory = machine()
    seen = Structures(memory, Knowledge(LAYOUTS, SYMBOLS)).look().devices["0000:02:05.0"]
    assert seen.values["match_driver"] is None
    assert seen.override == ""


def test_one_read_for_each_bus_and_device() -> None:
    memory = machine()
    reader = Structures(memory, Knowledge(LAYOUTS, SYMBOLS))
    reader.look()
    assert reader.reads == memory.reads
    assert memory.reads < 16


@pytest.mark.parametrize("kobjects", [(), (0x100000,), (0x100000, 0x110000)])
def test_all_groups_are_counted(kobjects: tuple[int, ...]) -> None:
    seen = Structures(with_groups(*kobjects), Knowledge(LAYOUTS, SYMBOLS)).look()
    assert (seen.groups, seen.taint) == (len(kobjects), 1 << 9)


def test_what_a_kernel_has_no_symbol_for_is_not_known() -> None:
    seen = Structures(machine(), Knowledge(LAYOUTS, {ROOT: "pci_root_buses"})).look()
    assert (seen.groups, seen.taint) == (None, None)
    assert seen.devices["0000:02:05.1"].devres == ("unknown",)


def test_a_list_without_end_is_torn() -> None:
    memory = machine()
    memory.words[SECOND + field("pci_dev", "bus_list")] = FIRST
    with pytest.raises(Torn):
        Structures(memory, Knowledge(LAYOUTS, SYMBOLS)).look()


def test_memory_that_is_not_there_is_torn() -> None:
    with pytest.raises(Torn):
        Structures(lambda address, length: b"", Knowledge(LAYOUTS, SYMBOLS)).look()


def test_a_kernel_that_does_not_tell_its_addresses_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="pci_root_buses"):
        Structures(machine(), Knowledge(LAYOUTS, {}))
