"""Viability and refusals; each refusal beside a machine that differs in that one point and is not refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plan.machines import AMD, DRIVERS, INTEL, SMALL, actions, codes, conditions, machine, plan, plan_of
from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.plan.make import make_plan
from quiesce.plan.model import CONDITIONAL, POSSIBLE, REFUSED
from quiesce.snapshot import pci_regs as r

RESERVED = "reserved 01:00.0 0x7b800000-0x7b8fffff\n"


@pytest.mark.parametrize("text", [INTEL, AMD])
def test_a_device_alone_in_its_group_is_possible(text: str) -> None:
    found = plan("01:00.0", text)
    assert (found.verdict, codes(found), conditions(found)) == (POSSIBLE, [], [])


def test_a_group_moves_together_and_the_port_stays() -> None:
    found = plan("02:00.0")
    assert found.verdict == CONDITIONAL
    assert actions(found) == {"00:02.0": "stays", "02:00.0": "bind", "02:00.1": "bind"}
    assert "group-members" in conditions(found)
    alone = plan("02:00.0", INTEL.replace("02:00.1 audio\n", ""))
    assert "group-members" not in conditions(alone)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ("00:02.0", "bridge"),
        ("00:00.0", "host-bridge"),
        ("00:1f.0", "isa-bridge"),
        ("04:00.0", "absent"),
    ],
)
def test_what_is_no_device_to_hand_over_is_refused(device: str, code: str) -> None:
    found = plan(device)
    assert found.verdict == REFUSED
    assert codes(found)[0] == code
    assert not any(one.steps for one in found.alternatives)


def test_the_iommu_itself_is_refused() -> None:
    assert codes(plan("00:00.2", AMD))[0] == "iommu-function"


def test_without_iommu_noiommu_is_named_with_its_risk() -> None:
    found = plan("01:00.0", SMALL)
    assert codes(found) == ["no-iommu"]
    assert "enable_unsafe_noiommu_mode" in found.refusals[0].text
    assert "all memory" in found.refusals[0].text


def test_a_function_that_no_iommu_covers_is_refused_and_its_neighbour_is_not() -> None:
    text = AMD + "covers 01:00.0\n"
    assert codes(plan("02:00.0", text)) == ["no-group"]
    assert codes(plan("01:00.0", text)) == []


@pytest.mark.parametrize(
    ("release", "text", "answer"),
    [
        ("v3.16", INTEL, ""),
        ("v5.10", INTEL, "EPERM"),
        ("v6.5", INTEL, "EPERM"),
        ("v6.12", INTEL, "EINVAL"),
        ("v5.10", AMD, ""),
        ("v6.12", AMD, "EINVAL"),
    ],
)
def test_reserved_memory_refuses_by_version_and_says_which(release: str, text: str, answer: str) -> None:
    found = plan("01:00.0", text + RESERVED, release)
    reasons = [reason for group in found.alternatives for reason in (*group.refusals, *group.conditions)]
    reason = next(item for item in reasons if item.code == "reserved-memory")
    assert "0x7b800000-0x7b8fffff" in reason.text
    assert answer in reason.text
    assert (found.verdict == REFUSED) is bool(answer)


@pytest.mark.parametrize("release", ["v5.10", "v6.12"])
def test_reserved_memory_of_graphics_is_let_go_on_vt_d_only(release: str) -> None:
    text = "reserved 02:00.0 0x7b800000-0x7b8fffff\n"
    assert plan("02:00.0", INTEL + text, release).verdict == CONDITIONAL
    assert ("reserved-memory" in codes(plan("02:00.0", AMD + text, release))) is (release == "v6.12")


def test_reserved_memory_of_another_member_refuses_too() -> None:
    found = plan("03:01.0", INTEL + "reserved 03:02.0 0x1000-0x1fff\n")
    assert codes(found) == ["reserved-memory"]
    assert found.alternatives[0].refusals[0].functions == ("0000:03:02.0",)
    assert codes(plan("03:01.0")) == []


def test_virtual_functions_that_are_on_keep_their_physical_one() -> None:
    text = SMALL.replace("01:00.0 nvme", "01:00.0 igb sriov=8") + "iommu intel\n"
    description = machine(text)
    assert plan_of(description, "01:00.0").verdict != REFUSED
    on = replace(description, functions=tuple(_with_vfs(item) for item in description.functions))
    found = plan_of(on, "01:00.0")
    assert codes(found) == ["virtual-functions-on"]
    assert "sriov_numvfs" in found.refusals[0].text


def _with_vfs(item):
    from quiesce.machine.topology import extended_capability_list

    at = extended_capability_list(item.config).get(r.PCI_EXT_CAP_ID_SRIOV)
    if not at:
        return item
    image = bytearray(item.config)
    image[at + r.PCI_SRIOV_CTRL] |= r.PCI_SRIOV_CTRL_VFE
    image[at + r.PCI_SRIOV_NUM_VF] = 2
    return replace(item, config=bytes(image))


def test_the_denylist_has_entries_by_version() -> None:
    text = INTEL.replace("01:00.0 nvme", "01:00.0 endpoint id=8086:37c8")
    assert codes(plan("01:00.0", text)) == ["denylist"]
    assert codes(plan("01:00.0", text, "v5.4")) == []


def test_a_function_that_answers_with_ones_is_refused() -> None:
    description = machine()
    gone = replace(
        description, functions=tuple(_dead(item) if item.bdf.bus == 1 else item for item in description.functions)
    )
    assert "unreachable" in codes(plan_of(gone, "01:00.0"))


def _dead(item):
    return replace(item, config=b"\xff" * len(item.config))


# -- who blocks ----------------------------------------------------------------------------------------------


def _blocking(found) -> dict[str, str]:
    return {item.bdf[5:]: item.blocks for item in found.alternatives[0].members}


def test_drivers_that_block_by_version() -> None:
    stub = DRIVERS | {"0000:02:00.1": "pci-stub", "0000:00:02.0": "shpchp"}
    before, after = (_blocking(plan("02:00.0", drivers=stub, release=release)) for release in ("v5.18", "v5.19"))
    assert before == {"00:02.0": "no", "02:00.0": "yes", "02:00.1": "no"}
    assert after == {"00:02.0": "yes", "02:00.0": "yes", "02:00.1": "no"}


def test_a_bridge_function_of_the_host_is_freed_not_bound() -> None:
    found = plan("00:1f.2")
    assert actions(found) == {"00:1f.0": "release", "00:1f.2": "bind", "00:1f.3": "bind"}
    assert "host-functions" in conditions(found)
    without = {bdf: name for bdf, name in DRIVERS.items() if bdf != "0000:00:1f.0"}
    assert actions(plan("00:1f.2", drivers=without))["00:1f.0"] == "stays"


def test_drivers_that_the_source_does_not_name_are_asked_for() -> None:
    assert "owner-unknown" in conditions(plan("02:00.0", drivers={}))
    assert "owner-unknown" not in conditions(plan("02:00.0"))
    description = machine(drivers={})
    held = {"0000:02:00.0": "nouveau", "0000:02:00.1": "snd_hda_intel", "0000:00:02.0": "pcieport"}
    k = kernel("v6.12")
    stated = make_plan(description, k, predict(description, k), "0000:02:00.0", drivers=held)
    assert "owner-unknown" not in conditions(stated)


# -- open groups ---------------------------------------------------------------------------------------------


def _vague(description, buses: tuple[int, ...]):
    """Forget what is behind the header of the ports that lead to some buses."""
    functions = []
    for item in description.functions:
        if item.config[r.PCI_SECONDARY_BUS] in buses and item.config[r.PCI_HEADER_TYPE] & 0x7F == 1:
            item = replace(item, known=b"\xff" * 0x40 + bytes(len(item.config) - 0x40))
        functions.append(item)
    return replace(description, functions=tuple(functions))


def test_an_open_group_gets_a_plan_for_each_possibility() -> None:
    text = INTEL.replace(
        "00:01.0 root-port bus=01 acs", "00:01.0 root-port bus=01 acs\n00:01.1 root-port bus=04 acs\n04:00.0 nvme"
    )
    found = plan_of(_vague(machine(text), (1, 4)), "01:00.0")
    assert len(found.alternatives) > 1
    assert found.missing
    groups = {tuple(item.bdf for item in one.members) for one in found.alternatives}
    assert ("0000:01:00.0",) in groups
    assert any("0000:04:00.0" in group for group in groups)
    assert len(plan_of(machine(text), "01:00.0").alternatives) == 1
