"""Groups before and after."""

from __future__ import annotations

import pytest

from quiesce.groups.conditions import Conditions
from quiesce.groups.what_if import apply, compare, differences, parse_bits
from quiesce.kernel.changes import kernel
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_text

TEXT = """
00:00.0 host-bridge
00:01.0 root-port bus=01 no-acs
00:02.0 root-port bus=02 acs
01:00.0 nvme
iommu intel
"""
MACHINE = read_text(TEXT, "test")
NOW = Conditions(kernel("v6.12"))


def kinds(*edits: tuple[str, str]) -> list[str]:
    return [item.kind for item in compare(MACHINE, edits, NOW, NOW).differences]


def test_no_change_no_difference() -> None:
    assert kinds() == []


def test_acs_splits_and_its_loss_merges() -> None:
    assert kinds(("acs", "00:01.0=SV,RR,CR,UF")) == ["splits"]
    with_card = (("move", "01:00.0=00:02.0"), ("acs", "00:02.0=none"))
    assert kinds(*with_card) == ["regroups"]


def test_a_card_that_goes() -> None:
    assert kinds(("remove", "01:00.0")) == ["loses"]


def test_addresses_are_those_of_now_in_every_change() -> None:
    edited = apply(MACHINE, [("move", "01:00.0=00:02.0"), ("remove", "01:00.0")])
    assert edited.gone == {"0000:01:00.0"}


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ((("a", "b"),), (("a",), ("b",)), "splits"),
        ((("a",), ("b",)), (("a", "b"),), "merges"),
        ((), (("a",),), "appears"),
        ((("a",),), (), "disappears"),
        ((("a", "b"), ("c",)), (("a",), ("b", "c")), "regroups"),
        ((("a",),), (("a", "b"),), "gains"),
    ],
)
def test_kinds(before: tuple[tuple[str, ...], ...], after: tuple[tuple[str, ...], ...], kind: str) -> None:
    assert [item.kind for item in differences(before, after)] == [kind]


def test_bits() -> None:
    assert parse_bits("none") is None
    assert parse_bits("sv,RR") == 0x05
    with pytest.raises(BadInput):
        parse_bits("XX")
