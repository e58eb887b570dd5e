"""The model's groups beside a real kernel's."""

from __future__ import annotations

import pytest

from quiesce.cases.scenario import find_machine, shipped_machines
from quiesce.snapshot.read import read_text
from quiesce.testbed import groups_check
from quiesce.testbed.errors import Skipped
from quiesce.testbed.groups_check import GroupsCheck, check_groups, compare, in_guest, partition, predicted
from quiesce.testbed.random_topology import random_description
from quiesce.testbed.topology import qemu_machine


def test_groups_on_one_side_only_are_named() -> None:
    expected = partition([["0000:00:01.0", "0000:00:02.0"], ["0000:00:03.0"]])
    real = partition([["0000:00:01.0"], ["0000:00:02.0"], ["0000:00:03.0"]])
    assert compare(expected, expected) == ()
    assert compare(expected, real) == ("predicted {00:01.0 00:02.0}", "real {00:01.0}", "real {00:02.0}")
    assert compare(expected, real, ["0000:00:01.0", "0000:00:03.0"]) == ()


@pytest.mark.parametrize("name", [name for name in shipped_machines() if "sriov" not in name])
def test_recorded_groups_are_predicted(name: str) -> None:
    description = find_machine(name)
    assert (
        compare(predicted(description, "v6.12", name.rpartition("--")[2]), partition(description.recorded_groups or ()))
        == ()
    )


def test_groups_move_with_the_buses() -> None:
    description = read_text("00:00.0 host-bridge\n00:02.0 root-port bus=20\n20:00.0 e1000e\niommu intel\n", "test")
    groups = in_guest(predicted(description, "v6.12", "intel"), qemu_machine(description))
    assert frozenset({"0000:00:02.0", "0000:01:00.0"}) in groups


def test_without_a_table_nothing_is_predicted() -> None:
    with pytest.raises(Skipped, match="no amd IOMMU"):
        predicted(find_machine("root-ports-acs--612--intel"), "v6.12", "amd")


def test_a_summary_counts_by_kernel_and_iommu() -> None:
    good = GroupsCheck("a", "debian:6.1", "amd", (), (), (), 1, 1)
    bad = GroupsCheck("b", "debian:6.1", "amd", ("predicted {}",), (), (), 1, 1)
    assert groups_check.summary([good, bad, good]) == {("debian:6.1", "amd"): (2, 3)}
    assert good.agrees
    assert "DIFFERS" in bad.line()


SLOW = [("alias", "00:03.0 edu\n00:04.0 edu\niommu amd 00:01.0\nalias 00:03.0-00:04.0 -> 00:1e.0\n")]
SLOW += [("gaps", "00:03.0 edu\n00:04.0 edu\niommu amd 00:01.0\ncovers 00:00.0-00:03.7 00:1f.0-00:1f.7\n")]
SLOW += [("reserved", "00:03.0 edu\niommu intel\nreserved 00:03.0 0x0e000000-0x0e0fffff\n")]
HEAD = "00:00.0 host-bridge\n00:1f.0 isa-bridge\n00:1f.2 ahci\n00:1f.3 smbus\n"


def on_real_kernel(description: object, kernel: str) -> GroupsCheck:
    from quiesce.snapshot.description import MachineDescription
    from quiesce.testbed.images import find_image

    assert isinstance(description, MachineDescription)
    try:
        return check_groups(description, find_image(kernel), qemu_machine(description))
    except Skipped as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["debian:6.1", "debian:6.12"])
@pytest.mark.parametrize("iommu", ["intel", "amd"])
@pytest.mark.parametrize("seed", [900, 901])
def test_a_random_machine_on_a_real_kernel(seed: int, iommu: str, kernel: str) -> None:
    found = on_real_kernel(random_description(seed, iommu=iommu), kernel)
    assert found.agrees, found.line()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lines"), SLOW, ids=[name for name, _ in SLOW])
def test_a_replaced_table_on_a_real_kernel(name: str, lines: str) -> None:
    found = on_real_kernel(read_text(f"machine {name}\n{HEAD}{lines}", name), "debian:6.12")
    assert found.agrees, found.line()


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_machines())
def test_a_shipped_machine_comes_out_as_recorded(name: str) -> None:
    found = on_real_kernel(find_machine(name), "debian:6.12")
    assert found.agrees, found.line()
    assert found.built_otherwise == ()
