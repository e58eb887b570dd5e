"""Machines made up by chance."""

from __future__ import annotations

import pytest

from quiesce.snapshot.description import MachineDescription
from quiesce.testbed.groups_check import predicted
from quiesce.testbed.random_topology import random_description
from quiesce.testbed.topology import qemu_machine

SEEDS = range(60)


def configs(description: MachineDescription) -> list[tuple[str, bytes]]:
    return [(str(item.bdf), item.config) for item in description.functions]


def test_a_seed_always_gives_the_same_machine() -> None:
    assert configs(random_description(7)) == configs(random_description(7))
    assert configs(random_description(7)) != configs(random_description(8))
    kinds = ({bdf for bdf, _ in configs(random_description(7, iommu=kind))} for kind in ("intel", "amd", "none"))
    intel, amd, none = kinds
    assert intel == none == amd - {"0000:00:01.0"}


@pytest.mark.parametrize("iommu", ["intel", "amd", "none"])
@pytest.mark.parametrize("virtual", [False, True])
def test_every_one_can_be_built_at_its_own_addresses(iommu: str, virtual: bool) -> None:
    for seed in SEEDS:
        machine = qemu_machine(random_description(seed, iommu=iommu, virtual_functions=virtual))
        assert machine.iommu == (None if iommu == "none" else iommu)
        assert machine.tables == {}
        assert all(here == there for here, there in machine.at.items()), seed


def test_all_kinds_of_topology_come_up() -> None:
    drivers: set[str] = set()
    arguments: list[str] = []
    several = 0
    for seed in SEEDS:
        machine = qemu_machine(random_description(seed, virtual_functions=True))
        drivers |= {device.driver for device in machine.devices}
        arguments += machine.arguments
        several += any(device.addr.endswith(".1") for device in machine.devices)
    bridges = {"pcie-root-port", "x3130-upstream", "xio3130-downstream", "pcie-pci-bridge", "pci-bridge"}
    assert drivers >= bridges | {"i82801b11-bridge", "pxb-pcie", "igb", "e1000e", "e1000", "edu", "nvme"}
    ports = [word for word in arguments if word.startswith("pcie-root-port")]
    assert 0 < sum("disable-acs=on" in word for word in ports) < len(ports)
    assert any("bypass_iommu=on" in word for word in arguments)
    assert several > 10


def test_what_bypasses_the_iommu_is_predicted_without_a_group() -> None:
    found = 0
    for seed in SEEDS:
        description = random_description(seed)
        machine = qemu_machine(description)
        bypassed = [dev.properties for dev in machine.devices if ("bypass_iommu", "on") in dev.properties]
        if not bypassed or found > 10:
            continue
        roots = {int(dict(properties)["bus_nr"]) for properties in bypassed}
        members = {bdf for group in predicted(description, "v6.12", "intel") for bdf in group}
        outside = {bdf for bdf in machine.at if int(bdf[5:7], 16) & 0xC0 in roots and int(bdf[5:7], 16) >= 0x40}
        assert not outside & members
        found += len(outside)
    assert found
