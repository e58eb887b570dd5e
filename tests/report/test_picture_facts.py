from __future__ import annotations

from dataclasses import replace

from drawn_machines import LISTING, SERVER, described, drawn, picture_of
from quiesce.report.picture_facts import NO_GROUP, printable


def test_every_function_has_its_place_its_group_and_its_unit() -> None:
    picture = drawn()
    part = picture.parts["0000:04:00.0"]
    assert (part.parent, part.kind, part.what) == ("0000:03:00.0", "endpoint", "NVMe")
    assert picture.groups[part.group].members == tuple(
        f"0000:{bdf}" for bdf in ("00:02.0", "02:00.0", "03:00.0", "03:01.0", "04:00.0")
    )
    assert (picture.parts["0000:00:1f.2"].unit, part.unit) == ("DRHD 0", "DRHD 1")
    assert "0x" in picture.units["DRHD 1"]


def test_isolation_in_words() -> None:
    words = {bdf[5:]: part.acs for bdf, part in drawn().parts.items()}
    assert (words["00:01.0"], words["00:02.0"], words["02:00.0"], words["00:1e.0"]) == ("ACS", "no ACS", "", "PCI")


def test_what_is_undecided_is_a_group_of_its_own_kind_and_says_why() -> None:
    picture = drawn(LISTING + "\n")
    group = picture.groups[picture.parts["0000:01:00.0"].group]
    assert group.undecided
    assert "not known" in group.why
    assert picture.parts["0000:00:01.0"].acs == "?"
    assert not any(group.undecided for group in drawn().groups.values())


def test_a_machine_without_an_iommu_has_no_groups_and_no_units() -> None:
    picture = drawn(SERVER.replace("iommu intel\nunit 00:1f.2\n", ""), iommu="none")
    assert {part.group for part in picture.parts.values()} == {NO_GROUP}
    assert picture.units == {}


def test_a_conventional_bridge_takes_over_ids() -> None:
    assert drawn().parts["0000:00:1e.0"].takes_over == "0000:00:1e.0"


def test_texts_of_a_dump_control_nothing() -> None:
    assert printable("a\x1b[31m\u202eb\0\tc") == "a\ufffd[31m\ufffdb\ufffd c"
    description = described(SERVER)
    first = replace(description.functions[0], attributes={"name": "\x1b]0;x\a", "driver": "\n"})
    picture = picture_of(replace(description, functions=(first, *description.functions[1:])))
    assert picture.parts["0000:00:00.0"].name.isprintable()
    assert picture.parts["0000:00:00.0"].driver.isprintable()


def test_a_long_list_of_reasons_is_cut_and_counted() -> None:
    group = drawn(LISTING).groups["?1"]
    many = replace(group, why="; ".join(str(number) for number in range(20)))
    assert many.why_in_short() == "0; 1; 2; 3; 4; 5; and 14 more"
    assert replace(group, why="0; 1").why_in_short() == "0; 1"
