"""Which functions meet an IOMMU (groups/coverage.py, covered.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quiesce.groups.conditions import Conditions
from quiesce.groups.predict import predict
from quiesce.groups.why import explain
from quiesce.kernel.changes import kernel
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.ivrs import read_ivrs, write_ivrs
from quiesce.snapshot.read import read_text

ZEN = read_text(
    "machine zen\n00:00.0 host-bridge id=1022:1480\n00:01.0 root-port bus=01 acs\n01:00.0 nvme\n"
    "iommu amd 00:00.2\ncovers 00:00.3-ff:1f.6\n",
    "zen",
)
HOST = "0000:00:00.0"
WITH_THE_MISTAKE = ["v6.14", "v6.15", "v6.16"]
WITHOUT = ["v5.10", "v6.12", "v6.13", "v6.17", "v7.2"]


def host_has_a_group(description: MachineDescription, version: str) -> bool:
    found = predict(description, kernel(version), iommu="amd")
    assert (HOST in found.ungrouped) != ((HOST,) in found.groups)
    return (HOST,) in found.groups


@pytest.mark.parametrize("version", [*WITH_THE_MISTAKE, *WITHOUT])
@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
def test_a_range_that_covers_an_alias_it_has_not(version: str, table: bool) -> None:
    """The host bridge of Zen machines lies before all entries: boot logs of 6.14 to 6.16 alone show it in a group."""
    description = ZEN if table else replace(ZEN, ivrs=None)
    assert host_has_a_group(description, version) is (version in WITH_THE_MISTAKE)


@pytest.mark.parametrize("version", ["v6.12", "v6.14"])
def test_the_reason_says_the_same(version: str) -> None:
    found = explain(ZEN, Conditions(kernel(version), iommu="amd"), ["00:00.0"], history=False)
    assert (found.verdict != "no group") is host_has_a_group(ZEN, version)
    steps = [step for answer in found.answers for step in answer.steps]
    assert any(step.change == "7bea695ada0e" for step in steps) is (version == "v6.14")


def test_the_alias_of_an_earlier_entry_takes_the_place_of_id_0() -> None:
    assert ZEN.ivrs is not None
    table = read_ivrs(ZEN.ivrs)
    before = replace(table.blocks[0].entries[0], kind="alias", first=0x0200, last=0x0200, alias=0x00A5)
    block = replace(table.blocks[0], entries=(before, *table.blocks[0].entries))
    other = replace(ZEN, ivrs=write_ivrs(replace(table, blocks=(block,))))
    assert not host_has_a_group(other, "v6.14")
    assert host_has_a_group(ZEN, "v6.14")
