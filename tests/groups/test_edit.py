"""Machines that might be."""

from __future__ import annotations

from pathlib import Path

import pytest

from quiesce.groups.conditions import Conditions
from quiesce.groups.edit import removed, with_acs
from quiesce.groups.knowledge import Knowledge
from quiesce.groups.move import moved
from quiesce.kernel.changes import kernel
from quiesce.machine import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine, read_text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "machines"
ALL = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
MACHINE = """
00:00.0 host-bridge
00:01.0 root-port bus=01 no-acs
00:02.0 root-port bus=02 acs
00:03.0 root-port bus=06 acs
01:00.0 nvme
02:00.0 switch-up bus=03
03:00.0 switch-down bus=04 acs
03:01.0 switch-down bus=05 acs
04:00.0 nvme
05:00.0 e1000e
05:00.1 e1000e
iommu intel
"""
WHOLE = read_text(MACHINE, "test")


def groups(description: object) -> set[tuple[str, ...]]:
    return set(Conditions(kernel("v6.12")).predict(description).groups)  # type: ignore[arg-type]


def addresses(description: object) -> list[str]:
    return [item.bdf.short for item in description.functions]  # type: ignore[attr-defined]


def test_a_capability_comes_and_goes() -> None:
    assert ("0000:00:01.0", "0000:01:00.0") in groups(WHOLE)
    with_it = with_acs(WHOLE, "0000:00:01.0", ALL)
    assert ("0000:01:00.0",) in groups(with_it)
    assert groups(with_acs(with_it, "0000:00:01.0", None)) == groups(WHOLE)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real machines in ../shared/data")
def test_other_extended_capabilities_stay() -> None:
    description = read_machine(DATA / "x99-huananzhi-qd4")
    changed = with_acs(description, "0000:05:00.0", ALL)
    item = changed.function(Bdf.parse("05:00.0"))
    before = description.function(Bdf.parse("05:00.0"))
    assert item is not None
    assert before is not None
    from quiesce.machine.topology import extended_capability_list

    found = extended_capability_list(item.config)
    assert found.keys() == extended_capability_list(before.config).keys() | {r.PCI_EXT_CAP_ID_ACS}
    assert Knowledge(item).acs == found[r.PCI_EXT_CAP_ID_ACS]


def test_conventional_pci_has_no_acs() -> None:
    with pytest.raises(BadInput, match="conventional PCI has no ACS"):
        with_acs(read_text("00:00.0 host-bridge\n00:05.0 e1000\niommu intel\n", "test"), "0000:00:05.0", ALL)


def test_removed_with_all_below() -> None:
    edited = removed(WHOLE, "02:00")
    assert edited.gone == {f"0000:{bdf}" for bdf in ("02:00.0", "03:00.0", "03:01.0", "04:00.0", "05:00.0", "05:00.1")}
    assert addresses(edited.description) == ["00:00.0", "00:01.0", "00:02.0", "00:03.0", "01:00.0"]


def test_function_0_takes_its_slot_along() -> None:
    assert removed(WHOLE, "05:00.0").gone == {"0000:05:00.0", "0000:05:00.1"}
    assert removed(WHOLE, "05:00.1").gone == {"0000:05:00.1"}


def test_moved_into_a_free_slot() -> None:
    edited = moved(WHOLE, "01:00.0", "00:03.0")
    assert edited.renamed == {"0000:01:00.0": "0000:06:00.0"}
    assert ("0000:06:00.0",) in groups(edited.description)


def test_a_card_with_buses_of_its_own_gets_free_numbers() -> None:
    edited = moved(WHOLE, "02:00.0", "00:03.0")
    assert edited.renamed["0000:02:00.0"] == "0000:06:00.0"
    assert edited.renamed["0000:03:01.0"] == "0000:07:01.0"
    assert len(groups(edited.description)) == len(groups(WHOLE))


def test_cards_are_exchanged() -> None:
    edited = moved(WHOLE, "01:00.0", "03:01.0")
    assert edited.renamed == {
        "0000:01:00.0": "0000:05:00.0",
        "0000:05:00.0": "0000:01:00.0",
        "0000:05:00.1": "0000:01:00.1",
    }


def test_there_and_back() -> None:
    there = moved(WHOLE, "01:00.0", "00:03.0").description
    assert groups(moved(there, "06:00.0", "00:01.0").description) == groups(WHOLE)


@pytest.mark.parametrize(
    ("place", "port"),
    [
        ("04:00.0", "00:02.0"),
        ("00:01.0", "00:03.0"),
        ("01:00.0", "05:00.0"),
        ("02:00.0", "03:00.0"),
        ("01:00.0", "00:01.0"),
        ("09:00.0", "00:01.0"),
        ("01:00.0", "zz"),
    ],
)
def test_moves_that_cannot_be(place: str, port: str) -> None:
    with pytest.raises(BadInput):
        moved(WHOLE, place, port)
