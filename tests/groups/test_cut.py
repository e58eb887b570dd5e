"""Changes that free a function: all are tried, and say what stays open."""

from __future__ import annotations

from quiesce.groups.conditions import Conditions
from quiesce.groups.cut import Cut, Cuts, cuts
from quiesce.groups.what_if import compare
from quiesce.kernel.changes import kernel
from quiesce.kernel.parameters import parse_parameters
from quiesce.snapshot.read import read_text

SHARED = """
00:00.0 host-bridge
00:1c.0 root-port bus=01 no-acs
00:1c.1 root-port bus=02 no-acs
00:1d.0 root-port bus=03 acs
01:00.0 nvme
02:00.0 e1000e
iommu intel
"""


def found(text: str, function: str, release: str = "v6.12") -> Cuts:
    return cuts(read_text(text, "test"), Conditions(kernel(release)), function)


def kinds(result: Cuts) -> list[str]:
    return [item.kind for item in result.found]


def group_with(text: str, item: Cut, function: str) -> tuple[str, ...]:
    """Return the group under the option that a cut names."""
    words = item.option.split()
    edits = [(word[2:], value) for word, value in zip(words[::2], words[1::2], strict=True) if word in EDITS]
    texts = [value for word, value in zip(words[::2], words[1::2], strict=True) if word == "--parameter"]
    base = Conditions(kernel("v6.12"))
    after = base.with_parameters(parse_parameters(texts))
    result = compare(read_text(text, "test"), edits, base, after)
    now = result.renamed.get(function, function)
    former = {new: old for old, new in result.renamed.items()}
    group = next(group for group in result.after.groups if now in group)
    return tuple(sorted(former.get(bdf, bdf) for bdf in group))


EDITS = ("--move", "--remove", "--acs")


def test_another_slot_removal_and_override() -> None:
    result = found(SHARED, "01:00.0")
    assert result.unwanted == ("0000:02:00.0",)
    assert kinds(result)[:2] == ["move", "remove"]
    assert "override" in kinds(result)


def test_every_cut_does_what_it_says() -> None:
    for item in found(SHARED, "01:00.0").found:
        assert group_with(SHARED, item, "0000:01:00.0") == item.group
        assert "0000:02:00.0" not in item.group


def test_an_override_draws_the_way_that_stays_open() -> None:
    item = next(item for item in found(SHARED, "01:00.0").found if item.option.endswith("=downstream"))
    assert [hop.function for hop in item.paths[0]] == [
        "0000:01:00.0",
        "0000:00:1c.0",
        "",
        "0000:00:1c.1",
        "0000:02:00.0",
    ]
    assert "no IOMMU is on this way" in item.paths[0][2].what


def test_below_a_conventional_bridge_nothing_helps_but_removal() -> None:
    text = "00:00.0 host-bridge\n00:1c.0 root-port bus=01 acs\n01:00.0 pcie-to-pci bus=02\n"
    text += "02:01.0 e1000\n02:02.0 e1000\niommu intel\n"
    assert kinds(found(text, "02:01.0")) == ["remove"]


def test_nothing_frees_a_function_from_what_cannot_be_taken_out() -> None:
    text = "00:00.0 host-bridge\n00:1e.0 pci-bridge bus=01\n00:1f.0 isa-bridge\n00:1f.3 smbus\niommu intel\n"
    result = found(text, "00:1f.3")
    assert result.found == () or result.nothing == ""


def test_alone_already() -> None:
    result = found(SHARED.replace("no-acs", "acs"), "01:00.0")
    assert result.found == ()
    assert "alone" in result.nothing


def test_a_slot_outside_the_ivrs_table_frees_nobody() -> None:
    text = "00:00.0 host-bridge\n00:01.0 root-port bus=01 acs\n00:02.0 root-port bus=02 acs\n"
    text += "01:00.0 endpoint no-acs\n01:00.1 endpoint no-acs\niommu amd 00:00.2\ncovers 00:00.3-02:00.0\n"
    assert not any(item.kind == "move" for item in found(text, "01:00.0").found)
