"""What QEMU is asked to build for a description."""

from __future__ import annotations

import pytest

from quiesce.cases.scenario import find_machine, shipped_machines
from quiesce.snapshot.ivrs import read_ivrs
from quiesce.snapshot.read import read_text
from quiesce.testbed.errors import Skipped
from quiesce.testbed.topology import Iommu, QemuMachine, qemu_machine

HEAD = "00:00.0 host-bridge\n00:1f.0 isa-bridge\n00:1f.2 ahci\n00:1f.3 smbus\n"


def machine(lines: str, iommu: Iommu = "same") -> QemuMachine:
    return qemu_machine(read_text("machine small\n" + HEAD + lines, "test"), iommu)


def options(found: QemuMachine, address: str) -> dict[str, str]:
    words = found.by_bdf[f"0000:{address}"].argument().split(",")
    return {"driver": words[0]} | {name: value for name, _, value in (word.partition("=") for word in words[1:])}


@pytest.mark.parametrize("name", shipped_machines())
def test_recorded_machines_come_out_at_their_own_addresses(name: str) -> None:
    description = find_machine(name)
    found = qemu_machine(description)
    assert found.iommu == name.rpartition("--")[2]
    assert found.differences == ()
    assert found.tables == {}
    assert set(found.at) == {str(item.bdf) for item in description.functions}
    assert all(here == there for here, there in found.at.items())


def test_a_recorded_topology_is_asked_for_again() -> None:
    found = qemu_machine(find_machine("sriov-igb-ari--612--intel"))
    assert found.needs == (8, 0)
    assert [device.driver for device in found.devices if device.bus] == [
        "pcie-root-port",
        "pcie-root-port",
        "igb",
        "x3130-upstream",
        "xio3130-downstream",
        "xio3130-downstream",
        "igb",
        "e1000e",
    ]
    assert options(found, "04:00.0")["bus"] == found.by_bdf["0000:03:00.0"].id


def test_the_iommu_can_be_chosen() -> None:
    description = find_machine("root-ports-acs--612--amd")
    assert "amd-iommu,intremap=on" in qemu_machine(description).arguments
    intel = qemu_machine(description, "intel")
    assert "intel-iommu,intremap=on" in intel.arguments
    assert intel.append == "intel_iommu=on"
    assert "0000:00:01.0" not in intel.at
    none = qemu_machine(description, "none")
    assert none.iommu is None
    assert not any("iommu" in word for word in none.arguments)


def test_acs_is_as_described() -> None:
    found = machine("00:02.0 root-port bus=01 acs\n00:03.0 root-port bus=02\n")
    assert "disable-acs" not in options(found, "00:02.0")
    assert options(found, "00:03.0")["disable-acs"] == "on"


def test_slots_and_chassis_differ() -> None:
    found = machine("00:02.0 root-port bus=01\n00:03.0 root-port bus=02\n00:04.0 pci-bridge bus=03\n")
    numbers = [dict(dev.properties).get("chassis") or dict(dev.properties).get("chassis_nr") for dev in found.devices]
    used = [number for number in numbers if number]
    assert len(used) == len(set(used)) == 3


def test_buses_are_numbered_as_firmware_does_it() -> None:
    found = machine(
        "00:02.0 root-port bus=20\n00:03.0 root-port bus=10\n20:00.0 switch-up bus=21\n21:00.0 switch-down bus=22\n"
        "22:00.0 e1000e\n10:00.0 nvme\n"
    )
    assert found.at["0000:22:00.0"] == "0000:03:00.0"
    assert found.at["0000:10:00.0"] == "0000:04:00.0"
    assert any("22:00.0 is at 03:00.0" in line for line in found.differences)


def test_a_further_root_bus_gets_an_expander() -> None:
    found = machine("00:05.0 expander\n40:00.0 root-port bus=41 acs\n41:00.0 e1000e\niommu intel\n")
    assert options(found, "00:05.0")["bus_nr"] == "64"
    assert options(found, "40:00.0")["bus"] == found.by_bdf["0000:00:05.0"].id
    assert found.differences == ()
    added = machine("40:00.0 root-port bus=41 acs\n")
    assert options(added, "00:1e.0")["driver"] == "pxb-pcie"
    assert any("expander" in line for line in added.differences)


def test_a_root_bus_that_no_iommu_covers_bypasses_it() -> None:
    lines = "00:05.0 expander\n40:00.0 root-port bus=41\n41:00.0 e1000e\niommu amd 00:01.0\n"
    assert "bypass_iommu" not in options(machine(lines), "00:05.0")
    found = machine(lines + "covers 00:00.0-3f:1f.7\n")
    assert options(found, "00:05.0")["bypass_iommu"] == "on"
    assert found.tables == {}


def test_the_amd_function_takes_the_first_free_slot() -> None:
    found = machine("00:01.0 edu\n00:02.0 edu\niommu amd 00:00.2\n")
    assert found.at["0000:00:00.2"] == "0000:00:03.0"
    words = found.arguments
    assert words.index("amd-iommu,intremap=on") > words.index(found.by_bdf["0000:00:02.0"].argument())


def test_an_alias_that_qemu_does_not_have_replaces_its_table() -> None:
    found = machine("00:03.0 edu\n00:04.0 edu\niommu amd 00:01.0\nalias 00:03.0-00:04.0 -> 00:1e.0\n")
    table = found.tables["IVRS"]
    assert (table[10:16], table[16:24], sum(table) % 256) == (b"BOCHS ", b"BXPC    ", 0)
    assert int.from_bytes(table[24:28], "little") == 2
    assert read_ivrs(table).alias_table() == {0x18: 0xF0, **dict.fromkeys(range(0x19, 0x21), 0xF0)}


def test_an_alias_moves_with_its_bus() -> None:
    found = machine("00:03.0 root-port bus=40\n40:00.0 edu\niommu amd 00:01.0\nalias 40:00.0 -> 40:1e.0\n")
    assert read_ivrs(found.tables["IVRS"]).alias_table() == {0x100: 0x1F0}


def test_reserved_memory_replaces_the_table() -> None:
    from quiesce.snapshot.dmar import read_dmar

    found = machine("00:03.0 root-port bus=40\n40:00.0 edu\niommu intel\nreserved 40:00.0 0x7d000000-0x7d7fffff\n")
    (item,) = read_dmar(found.tables["DMAR"]).memory
    assert (item.base, item.limit) == (0x7D000000, 0x7D7FFFFF)
    assert item.scopes[0].path == ((3, 0), (0, 0))
    assert "memmap=0x800000$0x7d000000" in found.append


def test_virtio_is_transitional_or_modern_as_described() -> None:
    found = machine(
        "00:02.0 root-port bus=01\n00:03.0 virtio-net\n00:04.0 virtio-net-transitional\n01:00.0 virtio-blk\n"
    )
    modes = [options(found, bdf)["disable-legacy"] for bdf in ("00:03.0", "00:04.0", "01:00.0")]
    assert modes == ["on", "off", "on"]
    assert any("null-co" in word for word in found.arguments)
    assert any(word.startswith("hubport") for word in found.arguments)
    assert not any(word.startswith("user") for word in found.arguments)


def test_other_functions_get_the_nearest_device() -> None:
    found = machine("00:02.0 gpu\n00:03.0 audio\n00:04.0 nvme id=144d:a808\n00:05.0 isa-bridge id=1022:780e\n")
    drivers = [options(found, f"00:0{slot}.0")["driver"] for slot in (2, 3, 4, 5)]
    assert drivers == ["edu", "ich9-intel-hda", "nvme", "pci-testdev"]
    assert any("edu stands for 8086:1912" in line for line in found.differences)


def test_functions_of_the_chipset_that_are_not_described_are_left_out() -> None:
    found = qemu_machine(read_text("machine bare\n00:00.0 host-bridge\n", "test"))
    assert any("sata=off,smbus=off" in word for word in found.arguments)
    assert any("00:1f.0: there, though not described" in line for line in found.differences)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("00:02.0 root-port bus=01\n01:03.0 edu\n", "slot 3 behind a port"),
        ("00:02.1 edu\n", "no function 0"),
        ("00:02.0 pci-to-pcie bus=01\n", "PCI Express type 8"),
        ("00:02.0 edu absent\n", "cannot plug it in"),
        ("0001:00:00.0 edu\n", "segment"),
        ("00:00.1 edu\n", "beside the host bridge"),
        ("40:00.0 edu\n", "nothing but bridges"),
    ],
)
def test_what_qemu_cannot_have_is_said(lines: str, reason: str) -> None:
    with pytest.raises(Skipped, match=reason):
        machine(lines)


def test_what_is_absent_waits_to_be_plugged() -> None:
    found = machine("00:02.0 root-port bus=01 hotplug\n01:00.0 e1000e absent\n")
    (device,) = found.absent
    assert device.hotpluggable
    assert device not in found.devices
    assert device.argument() not in found.arguments
    assert found.at["0000:01:00.0"] == "0000:01:00.0"


def test_qmp_gets_numbers_and_truth_values() -> None:
    found = machine("00:02.0 root-port bus=01\n01:00.0 virtio-net msix=8 ats\n01:00.1 edu\n")
    asked = found.by_bdf["0000:01:00.0"].qmp()
    assert {name: asked[name] for name in ("vectors", "ats", "multifunction", "disable-legacy", "addr")} == {
        "vectors": 8,
        "ats": True,
        "multifunction": True,
        "disable-legacy": "on",
        "addr": "0.0",
    }


def test_what_comes_back_blank_is_known() -> None:
    found = machine("00:02.0 root-port bus=01\n01:00.0 edu\n00:04.0 edu\n")
    assert found.snapshots
    assert set(found.blank) == {"0000:01:00.0", "0000:00:04.0"}


def test_what_nobody_wants_does_not_keep_a_machine_from_being_saved() -> None:
    text = "machine test\n00:00.0 host-bridge\n00:02.0 nvme\n00:04.0 edu\n00:1f.0 isa-bridge\niommu intel\n"
    found = qemu_machine(find_machine(text), wanted={"0000:00:04.0"})
    assert found.snapshots
    assert found.by_bdf["0000:00:02.0"].driver == "pci-testdev"
    assert any("0000:00:02.0" in line for line in found.differences)
    assert not qemu_machine(find_machine(text), wanted={"0000:00:02.0"}).snapshots
    assert qemu_machine(find_machine(text), "amd", wanted=()).by_bdf["0000:00:02.0"].driver == "nvme"


@pytest.mark.parametrize(
    ("lines", "saved"), [("00:04.0 nvme", False), ("iommu amd 00:01.0", False), ("iommu intel", True)]
)
def test_not_every_machine_can_be_saved(lines: str, saved: bool) -> None:
    assert machine(lines + "\n").snapshots is saved
