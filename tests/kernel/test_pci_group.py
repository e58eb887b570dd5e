"""Requester id aliases and the search for a group (kernel/pci_group.py)."""

from __future__ import annotations

import pytest
from toyiommu import toy
from toykernel import device, make_kernel, texts

from quiesce.kernel import boot as kernel_boot
from quiesce.kernel import iommu, pci_group, pci_probe
from quiesce.kernel.iommu_checks import isolation_breaches
from quiesce.kernel.kernel import Kernel

__all__ = ["toy"]

pytestmark = pytest.mark.usefixtures("toy")


def scanned(version: str, machine: str, *changed: str) -> Kernel:
    """Return a kernel that has enumerated the machine and set up no IOMMU."""
    k = make_kernel(version, machine, changed=changed)
    pci_probe.pci_scan(k)
    k.start_event()
    return k


def grouped(version: str, machine: str, *changed: str) -> list[list[str]]:
    """Return the groups after boot, with short addresses."""
    k = make_kernel(version, machine, changed=changed)
    kernel_boot.boot(k)
    return [[bdf[5:] for bdf in group] for group in iommu.groups(k)]


# -- aliases -----------------------------------------------------------------------------------------------------

BRIDGES = """
machine bridges
00:01.0 root-port bus=01
00:1e.0 pci-bridge bus=05
01:00.0 pcie-to-pci bus=02
02:01.0 conventional
02:02.0 pci-bridge bus=03
03:01.0 conventional
05:01.0 conventional
iommu intel
"""


class TestAliases:
    @pytest.mark.parametrize(
        ("bdf", "expected"),
        [
            ("01:00.0", ["01:00.0"]),
            ("02:01.0", ["02:01.0", "02:00.0"]),
            ("03:01.0", ["03:01.0", "02:02.0", "02:00.0"]),
            ("05:01.0", ["05:01.0", "00:1e.0"]),
        ],
    )
    def test_on_the_way_up(self, bdf: str, expected: list[str]) -> None:
        k = scanned("v6.12", BRIDGES)
        assert [rid.short for _, rid in pci_group.pci_for_each_dma_alias(k, device(k, bdf))] == expected

    def test_own_aliases_come_after_the_own_id(self) -> None:
        k = scanned("v6.12", BRIDGES)
        dev = device(k, "05:01.0")
        pci_group.pci_add_dma_alias(k, dev, 0x10, 2)
        found = [(holder.bdf[5:], rid.short) for holder, rid in pci_group.pci_for_each_dma_alias(k, dev)]
        assert found == [
            ("05:01.0", "05:01.0"),
            ("05:01.0", "05:02.0"),
            ("05:01.0", "05:02.1"),
            ("00:1e.0", "00:1e.0"),
        ]

    def test_one_alias_before_v4_7_many_since(self) -> None:
        for version, expected in (("v4.6", (2,)), ("v4.7", (1, 2))):
            k = scanned(version, BRIDGES)
            for devfn in (1, 2):
                pci_group.pci_add_dma_alias(k, device(k, "05:01.0"), devfn)
            assert tuple(device(k, "05:01.0").dma_alias_mask) == expected
            assert texts(k)[-1] == "pci 0000:05:01.0: Enabling fixed DMA alias to 00.2"

    @pytest.mark.parametrize(("version", "expected"), [("v4.1", ()), ("v4.2", (1,))])
    def test_known_devices(self, version: str, expected: tuple[int, ...]) -> None:
        k = scanned(version, "00:01.0 root-port bus=01\n01:00.0 ahci id=1b4b:9120\niommu intel\n")
        dev = device(k, "01:00.0")
        dev.dma_alias_mask.clear()
        pci_group.pci_fixup_dma_alias(k, dev)
        assert tuple(dev.dma_alias_mask) == expected

    def test_boards_that_need_more_than_ids(self) -> None:
        k = scanned("v6.12", "00:01.0 root-port bus=01\n01:00.0 ahci id=9005:0285\niommu intel\n")
        pci_group.pci_fixup_dma_alias(k, device(k, "01:00.0"))
        assert not device(k, "01:00.0").dma_alias_mask

    def test_translation_root_ends_the_walk(self) -> None:
        k = scanned("v6.12", "00:01.0 pci-bridge id=14e4:9000 bus=01\n01:00.0 endpoint\niommu intel\n")
        assert [rid.short for _, rid in pci_group.pci_for_each_dma_alias(k, device(k, "01:00.0"))] == ["01:00.0"]

    def test_a_bridge_that_keeps_ids(self) -> None:
        machine = (
            "00:01.0 root-port bus=01\n01:00.0 pcie-to-pci id=1a03:1150 bus=02\n02:00.0 conventional\niommu intel\n"
        )
        for version, expected in (("v6.19", ["02:00.0", "02:00.0"]), ("v7.0", ["02:00.0"])):
            k = scanned(version, machine)
            assert [rid.short for _, rid in pci_group.pci_for_each_dma_alias(k, device(k, "02:00.0"))] == expected

    def test_a_bridge_of_the_other_direction(self) -> None:
        k = scanned("v6.12", "00:01.0 pci-to-pcie bus=01\n01:00.0 endpoint\niommu intel\n")
        assert [rid.short for _, rid in pci_group.pci_for_each_dma_alias(k, device(k, "01:00.0"))] == [
            "01:00.0",
            "00:01.0",
        ]

    def test_volume_manager(self) -> None:
        machine = "00:0e.0 endpoint id=8086:467f\n10000:e0:06.0 nvme\n"
        for version, expected in (("v5.5", "e0:06.0"), ("v5.6", "00:0e.0")):
            k = scanned(version, machine)
            dev = next(dev for dev in k.system.devices if dev.bdf == "10000:e0:06.0")
            assert pci_group.pci_real_dma_dev(k, dev).hw.bdf.short == expected


# -- groups ------------------------------------------------------------------------------------------------------

TREE = """
machine tree
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
00:02.0 root-port bus=02
00:03.0 conventional multifunction
00:03.1 conventional
00:1e.0 pci-bridge bus=05
01:00.0 endpoint multifunction
01:00.1 endpoint
02:00.0 endpoint
05:01.0 conventional
05:02.0 conventional
iommu intel
"""
TREE_GROUPS = [
    ["00:00.0"],
    ["00:01.0"],
    ["00:02.0", "02:00.0"],
    ["00:03.0", "00:03.1"],
    ["00:1e.0", "05:01.0", "05:02.0"],
    ["01:00.0", "01:00.1"],
]


class TestGroups:
    @pytest.mark.parametrize("version", ["v3.17", "v3.18", "v4.1", "v4.7", "v5.10", "v6.12", "v7.3"])
    def test_tree(self, version: str) -> None:
        assert grouped(version, TREE) == TREE_GROUPS

    @pytest.mark.parametrize("version", ["v3.6", "v3.10", "v3.11", "v3.16"])
    def test_old_vtd(self, version: str) -> None:
        assert grouped(version, TREE) == TREE_GROUPS

    def test_none_before_groups_were_objects(self) -> None:
        assert grouped("v3.5", TREE) == []

    def test_behind_a_bridge_that_is_an_alias(self) -> None:
        assert grouped("v6.12", BRIDGES) == [
            ["00:01.0", "01:00.0", "02:01.0", "02:02.0", "03:01.0"],
            ["00:1e.0", "05:01.0"],
        ]

    def test_an_alias_that_exists_merges(self) -> None:
        machine = "00:01.0 root-port bus=01 acs\n01:00.0 ahci id=1b4b:9123\n01:00.1 smbus\niommu intel\n"
        aliased = [["00:01.0"], ["01:00.0", "01:00.1"]]
        for version in ("v3.17", "v3.18", "v6.12"):
            k = make_kernel(version, machine)
            pci_probe.pci_scan(k)
            dev = device(k, "01:00.0")
            if not dev.dma_alias_mask:
                pci_group.pci_fixup_dma_alias(k, dev)
            iommu.iommu_init(k)
            assert [[bdf[5:] for bdf in group] for group in iommu.groups(k)] == aliased

    def test_alias_of_a_sibling_leads_through_a_slot(self) -> None:
        """An alias names a function of another slot, whose own functions are not isolated from each other."""
        machine = "00:03.0 conventional multifunction\n00:03.1 conventional\n00:04.0 conventional\niommu intel\n"
        k = scanned("v6.12", machine)
        pci_group.pci_add_dma_alias(k, device(k, "00:04.0"), 0x19)
        iommu.iommu_init(k)
        assert iommu.groups(k) == [["0000:00:03.0", "0000:00:03.1", "0000:00:04.0"]]

    def test_a_loop_of_aliases_ends(self) -> None:
        k = scanned("v6.12", "00:03.0 conventional\n00:04.0 conventional\niommu intel\n")
        pci_group.pci_add_dma_alias(k, device(k, "00:03.0"), 0x20)
        pci_group.pci_add_dma_alias(k, device(k, "00:04.0"), 0x18)
        iommu.iommu_init(k)
        assert iommu.groups(k) == [["0000:00:03.0", "0000:00:04.0"]]

    def test_v3_17_puts_a_bus_with_an_alias_into_one_group(self) -> None:
        machine = "00:03.0 conventional\n00:04.0 conventional\n00:05.0 conventional\niommu intel\n"
        for version, expected in (("v3.17", 1), ("v3.18", 3)):
            k = scanned(version, machine)
            pci_group.pci_add_dma_alias(k, device(k, "00:05.0"), 0x30)
            iommu.iommu_init(k)
            assert len(iommu.groups(k)) == expected

    def test_v3_17_warns_when_the_bus_was_split_before(self) -> None:
        k = scanned("v3.17", "00:03.0 conventional\n00:04.0 conventional\n00:05.0 conventional absent\niommu intel\n")
        iommu.iommu_init(k)
        k.machine.plug(k.machine.function("00:05.0"))
        pci_group.pci_add_dma_alias(k, device(k, "00:04.0"), 0x28)
        pci_probe.pci_scan(k)
        assert any("iommu_group_get_for_pci_dev" in text for text in texts(k, "WARN"))
        assert device(k, "00:05.0").iommu_group.number == 0

    def test_virtual_functions_of_an_isolated_port(self) -> None:
        from quiesce.kernel import iov

        k = make_kernel("v6.12", "00:01.0 root-port bus=01 acs\n01:00.0 igb sriov=2\niommu intel\n")
        kernel_boot.boot(k)
        assert iov.pci_enable_sriov(k, device(k, "01:00.0"), 2) == 0
        assert [len(group) for group in iommu.groups(k)] == [1, 1, 1, 1]


class TestOldVtd:
    def test_function_0_then_the_lowest_without_isolation(self) -> None:
        machine = "00:03.0 integrated acs multifunction\n00:03.1 integrated\n00:03.2 integrated\niommu intel\n"
        assert grouped("v3.10", machine) == [["00:03.0", "00:03.1", "00:03.2"]]
        assert grouped("v3.11", machine) == [["00:03.0"], ["00:03.1", "00:03.2"]]

    def test_dma_source(self) -> None:
        machine = "00:01.0 root-port bus=01 acs\n01:00.0 endpoint acs\n01:00.1 endpoint id=1180:e822 acs\niommu intel\n"
        assert grouped("v3.6", machine) == [["00:01.0"], ["01:00.0", "01:00.1"]]

    def test_a_conventional_device_behind_a_port_is_reported(self) -> None:
        k = make_kernel("v3.6", "00:01.0 root-port bus=01\n01:00.0 conventional\niommu intel\n")
        kernel_boot.boot(k)
        assert "WARNING: at drivers/pci/search.c pci_find_upstream_pcie_bridge" in texts(k, "WARN")

    def test_bridges(self) -> None:
        assert grouped("v3.6", BRIDGES) == [
            ["00:01.0", "01:00.0", "02:01.0", "02:02.0", "03:01.0"],
            ["00:1e.0", "05:01.0"],
        ]


PCH = """
machine pch
00:1c.0 root-port id=8086:1c10 bus=01 multifunction
00:1c.1 root-port id=8086:1c12 bus=02
01:00.0 endpoint
02:00.0 endpoint
iommu intel
"""


class TestOrder:
    """When ACS is switched on decides, and groups never form again."""

    def test_v7_0_switches_acs_on_before_it_groups(self) -> None:
        assert grouped("v7.0", TREE) == TREE_GROUPS

    def test_the_backport_to_older_kernels_grouped_first(self) -> None:
        merged = grouped("v6.12", TREE, "c41e2fb67e26")
        assert ["00:01.0", "01:00.0", "01:00.1"] in merged
        assert merged != TREE_GROUPS

    def test_pch_root_ports_by_version(self) -> None:
        apart = [["00:1c.0"], ["00:1c.1"], ["01:00.0"], ["02:00.0"]]
        together = [["00:1c.0", "00:1c.1", "01:00.0", "02:00.0"]]
        found = {version: grouped(version, PCH) for version in ("v6.10", "v6.11", "v6.12", "v7.0")}
        assert found == {"v6.10": apart, "v6.11": together, "v6.12": apart, "v7.0": apart}

    def test_first_group_wins(self) -> None:
        """A function that is plugged in later joins what is there; two groups are never merged."""
        machine = "00:03.0 conventional\n00:04.0 conventional\n00:05.0 conventional absent\niommu intel\n"
        k = make_kernel("v6.12", machine)
        kernel_boot.boot(k)
        k.machine.plug(k.machine.function("00:05.0"))
        for bdf in ("00:03.0", "00:04.0"):
            pci_group.pci_add_dma_alias(k, device(k, bdf), 0x28)
        pci_probe.pci_scan(k)
        assert iommu.groups(k) == [["0000:00:03.0", "0000:00:05.0"], ["0000:00:04.0"]]


class TestIsolationBreaches:
    PHANTOM = "00:03.0 endpoint\n00:04.0 endpoint\niommu amd\nalias 00:03.0-00:04.0 -> 00:1f.7\n"

    def test_a_phantom_alias_does_not_merge(self) -> None:
        k = make_kernel("v6.12", self.PHANTOM)
        kernel_boot.boot(k)
        why = "both send DMA under 0000:00:1f.7 but are in groups 0 and 1"
        assert isolation_breaches(k) == [("0000:00:03.0", "0000:00:04.0", why)]

    @pytest.mark.parametrize("kind", ["amd", "intel"])
    @pytest.mark.parametrize("version", ["v3.6", "v3.18", "v6.12", "v7.3"])
    def test_bridges_hide_nothing(self, kind: str, version: str) -> None:
        k = make_kernel(version, BRIDGES.replace("iommu intel", f"iommu {kind}"))
        kernel_boot.boot(k)
        assert iommu.groups(k)
        assert isolation_breaches(k) == []

    def test_a_quirk_the_kernel_does_not_know_yet(self) -> None:
        machine = (
            "00:01.0 root-port bus=01 acs\n01:00.0 ahci id=1b4b:9123 multifunction\n01:00.1 endpoint acs\niommu intel\n"
        )
        k = make_kernel("v6.12", machine, changed=["-dma-alias-marvell"])
        kernel_boot.boot(k)
        assert [(one, other) for one, other, _ in isolation_breaches(k)] == [("0000:01:00.0", "0000:01:00.1")]

    def test_other_segments_are_other_worlds(self) -> None:
        k = make_kernel("v6.12", "00:03.0 endpoint\n0001:00:03.0 endpoint\niommu amd\n")
        kernel_boot.boot(k)
        assert isolation_breaches(k) == []


def test_groups_do_not_depend_on_the_order_of_siblings() -> None:
    """Removing and re-adding a device gives the same partition back."""
    from quiesce.kernel import pci_remove

    k = make_kernel("v6.12", TREE)
    kernel_boot.boot(k)
    for bdf in ("00:03.0", "01:00.1", "05:01.0"):
        with pci_remove.pci_lock_rescan_remove(k):
            pci_remove.pci_stop_and_remove_bus_device(k, device(k, bdf))
            pci_probe.pci_scan(k)
    assert partition(iommu.groups(k)) == partition([[f"0000:{bdf}" for bdf in group] for group in TREE_GROUPS])


def partition(groups: list[list[str]]) -> list[list[str]]:
    return sorted(sorted(group) for group in groups)
