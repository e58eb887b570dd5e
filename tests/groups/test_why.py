"""Reasons: each names what decides, and taking that away changes the answer as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quiesce.groups.conditions import Conditions
from quiesce.groups.why import Explanation, explain
from quiesce.kernel.changes import kernel
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine, read_text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "machines"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real machines in ../shared/data")

PORTS = """
00:00.0 host-bridge
00:1c.0 root-port bus=01 no-acs
00:1c.1 root-port bus=02 no-acs
00:1d.0 root-port bus=03 acs
00:1e.0 root-port bus=04 acs
01:00.0 nvme
02:00.0 e1000e
03:00.0 nvme
04:00.0 pcie-to-pci bus=05
05:01.0 e1000
05:02.0 e1000
"""


def why(text: str, *functions: str, release: str = "v6.12", order: tuple[str, ...] = ()) -> Explanation:
    conditions = Conditions(kernel(release), order=order)
    return explain(read_text(text, "test"), conditions, functions)


def facts(found: Explanation) -> list[str]:
    steps = [*found.answers[0].steps, *found.history]
    return [f"{step.kind} {step.subject} {step.function} {step.fact} [{step.evidence}] {step.change}" for step in steps]


def said(found: Explanation, *words: str) -> bool:
    return any(all(word in fact for word in words) for fact in facts(found))


INTEL = PORTS + "iommu intel\n"


def test_ports_without_acs_put_what_is_below_them_together() -> None:
    found = why(INTEL, "01:00.0", "02:00.0")
    assert found.verdict == "together"
    assert said(found, "climbs 0000:01:00.0 0000:00:1c.0", "ACSCap: no capability")
    assert said(found, "beside 0000:00:1c.1 0000:00:1c.0")
    assert said(found, "joins 0000:02:00.0 0000:00:1c.1")


def test_a_port_with_acs_isolates() -> None:
    found = why(INTEL, "03:00.0", "00:1d.0")
    assert found.verdict == "apart"
    assert said(found, "isolates 0000:03:00.0 0000:00:1d.0", "ACSCtl at", "SV+ RR+ CR+ UF+")
    assert [step.function for step in found.answers[0].steps if step.decisive] == ["0000:00:1d.0"]


def test_a_bridge_to_conventional_pci_takes_over_ids() -> None:
    found = why(INTEL, "05:01.0", "05:02.0")
    assert found.verdict == "together"
    assert said(found, "alias 0000:05:01.0 0000:04:00.0", "arrive as 05:00.0")


def test_alone() -> None:
    found = why(INTEL, "03:00.0")
    assert found.verdict == "alone"
    assert said(found, "single 0000:03:00.0 0000:03:00.0")


def test_different_segments_and_slots_are_joined_by_nothing() -> None:
    found = why(INTEL, "01:00.0", "03:00.0")
    assert found.verdict == "apart"
    assert said(found, "nothing", "root complex")


def test_no_iommu() -> None:
    found = explain(read_text(PORTS, "test"), Conditions(kernel("v6.12"), iommu="none"), ["01:00.0"])
    assert found.verdict == "no group"
    assert found.iommu is None


def test_an_amd_iommu_does_not_translate_for_itself() -> None:
    found = why(PORTS + "iommu amd 00:00.2\n", "00:00.2")
    assert found.verdict == "no group"
    assert said(found, "uncovered", "own function")


def test_outside_every_ivrs_entry() -> None:
    found = why(PORTS + "iommu amd 00:00.2\ncovers 00:1d.0-05:1f.7\n", "00:1c.0")
    assert found.verdict == "no group"
    assert said(found, "outside every entry of the IVRS table", "IVRS covers range 00:1d.0-05:1f.7")


def test_ivrs_alias() -> None:
    text = "00:00.0 host-bridge\n00:03.0 root-port bus=01 acs\n01:00.0 nvme\n01:00.1 nvme acs\niommu amd 00:00.2\n"
    found = why(text + "alias 01:00.1 -> 01:00.0\n", "01:00.0", "01:00.1")
    assert found.verdict == "together"
    assert said(found, "own-alias 0000:01:00.1", "IVRS alias entry 01:00.1-01:00.1 -> 01:00.0")


def test_an_address_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="function that the machine has"):
        why(INTEL, "09:00.0")


@needs_data
def test_the_quirk_that_5_9_lost_is_named() -> None:
    description = read_machine(DATA / "x99-huananzhi-qd4")
    found = explain(description, Conditions(kernel("v5.9")), ["00:1c.0", "00:1c.2"])
    assert found.verdict == "together"
    turns = [(step.change, step.since) for step in found.history if step.kind == "since"]
    assert ("52fbf5bdeeef", "v5.9-rc1") in turns
    assert ("462b58fb0339", "v5.10-rc3") in turns
    assert said(found, "change", "--without 52fbf5bdeeef")
    assert said(found, "beside", "d99321b63b1f")


@needs_data
def test_and_5_8_has_it() -> None:
    found = explain(read_machine(DATA / "x99-huananzhi-qd4"), Conditions(kernel("v5.8")), ["00:1c.0", "00:1c.2"])
    assert found.verdict == "apart"
    assert said(found, "isolates", "d99321b63b1f")


@needs_data
def test_listings_of_the_x99_board_name_the_change() -> None:
    description = read_machine(DATA / "x99-5.8-vs-5.9" / "iommu-groups-5.9.txt")
    found = explain(description, Conditions(kernel("v5.9"), iommu="intel"), ["00:1c.0", "00:1c.4"])
    assert found.verdict == "undecided"
    assert {answer.verdict for answer in found.answers} == {"together", "apart"}
    assert found.missing
    assert said(found, "--without 52fbf5bdeeef")
    assert any("suppose" in note for note in found.notes)


@needs_data
def test_the_two_recordings_of_the_d05_name_the_order() -> None:
    description = read_machine(DATA / "hisi-d05" / "lspci-tv.txt")
    names = ["000a:11:00.0", "000a:10:00.0"]
    found = explain(description, Conditions(kernel("v5.3"), iommu="arm"), names)
    assert {answer.verdict for answer in found.answers} == {"together", "apart", "no group"}
    assert any("meets the IOMMU before what is below it" in words for words in found.missing)
    built_in = Conditions(kernel("v5.3"), iommu="arm", order=("000a:11:00.0", "000a:11:00.1"))
    first = explain(description, built_in, names, history=False)
    assert first.verdict == "apart"
    assert said(first, "order 000a:11:00.0 000a:10:00.0", "met the IOMMU after")


@needs_data
def test_power_groups_by_bus() -> None:
    description = read_machine(DATA / "power-ppc-bar")
    conditions = Conditions(kernel("v6.12"), iommu="power")
    group = conditions.predict(description).groups[0]
    found = explain(description, conditions, [group[0]])
    assert found.answers[0].group == tuple(group)
    assert said(found, "covered", "partitionable endpoint")
