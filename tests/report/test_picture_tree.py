from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from drawn_machines import SERVER, described, drawn, picture_of, uncore
from quiesce.report.picture_facts import NO_GROUP, Group, Part, Picture
from quiesce.report.picture_tree import Node, build, common_unit, group_words, split, walk


def shown(roots: Sequence[Node]) -> list[str]:
    return [part.bdf for node, _ in walk(roots) for part in node.parts]


def titles(roots: Sequence[Node]) -> dict[str, str]:
    return {node.title: node.words for node, _ in walk(roots)}


def part(number: int, parent: int | None, group: str, *, bridge: bool, virtual: bool, code: int) -> Part:
    bdf = f"0000:{number // 32:02x}:{number % 32:02x}.0"
    above = None if parent is None else f"0000:{parent // 32:02x}:{parent % 32:02x}.0"
    kind = "root port" if bridge else "endpoint"
    texts = {"kind": kind, "what": kind, "ids": "", "name": "", "driver": "", "acs": "", "acs_why": ""}
    return Part(bdf, above, class_code=code, group=group, unit=None, bridge=bridge, virtual=virtual, **texts)  # type: ignore[arg-type]


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    parts: dict[str, Part] = {}
    for number in range(draw(st.integers(0, 40))):
        parent = draw(st.none() | st.integers(0, number - 1)) if number else None
        key = draw(st.sampled_from((NO_GROUP, "0", "1", f"{number + 2}", f"{number + 2}")))
        code = draw(st.sampled_from((0x088000, 0x020000)))
        kind = draw(st.sampled_from(("bridge", "virtual", "", "")))
        item = part(number, parent, key, bridge=kind == "bridge", virtual=kind == "virtual", code=code)
        parts[item.bdf] = item
    keys = {item.group for item in parts.values()} - {NO_GROUP}
    members = {key: tuple(bdf for bdf, item in parts.items() if item.group == key) for key in keys}
    groups = {key: Group(key, bdfs, 0 if len(bdfs) > 1 else None) for key, bdfs in members.items()}
    return Picture("random", "v6.12", "intel", parts, groups, {}, ())


@given(pictures(), st.booleans())
def test_every_function_is_shown_once_or_counted_once(picture: Picture, collapse: bool) -> None:
    roots = build(picture, collapse)
    assert sorted(shown(roots)) == sorted(picture.parts)
    for node, parent in walk(roots):
        for item in node.parts:
            assert item.parent == (parent.parts[0].bdf if parent is not None and parent.parts else None)


@given(pictures())
def test_a_run_hides_no_sharing(picture: Picture) -> None:
    for node, _ in walk(build(picture)):
        if len(node.groups) > 1:
            inside = {item.bdf for item in node.parts}
            assert all(inside.issuperset(picture.groups[key].members) for key in node.groups if key != NO_GROUP)


@given(pictures(), st.integers(1, 8))
def test_pieces_of_a_tree_are_the_tree(picture: Picture, most: int) -> None:
    for root in build(picture):
        pieces = split(root, most)
        assert [child for piece in pieces for child in piece.children] == root.children
        assert all(piece.children for piece in pieces) or not root.children


def test_devices_of_little_interest_are_counted() -> None:
    roots = build(drawn(SERVER + uncore(20)))
    assert titles(roots)["0000:7f:00.0..13.0"] == "20 functions: system peripheral"
    assert len(shown(build(drawn(SERVER + uncore(20)), collapse=False))) == len(shown(roots))
    assert "0000:7f:00.0" in titles(build(drawn(SERVER + uncore(3))))


def test_empty_ports_are_counted_and_others_stay() -> None:
    text = SERVER + "".join(f"00:0{slot}.0 root-port bus={0x10 + slot:02x} acs\n" for slot in (4, 5, 6))
    words = titles(build(drawn(text)))
    assert words["0000:00:04.0..06.0"] == "3 empty root ports"
    assert words["0000:00:01.0"].startswith("root port -> 01")


def test_virtual_functions_hang_below_their_physical_one() -> None:
    found = described(SERVER + "01:01.0 endpoint\n01:01.1 endpoint\n")
    virtual = {"virtual": "0000:01:00.0"}
    functions = (
        replace(item, attributes=virtual) if item.bdf.device and item.bdf.bus == 1 else item for item in found.functions
    )
    roots = build(picture_of(replace(found, functions=tuple(functions))))
    assert titles(roots)["0000:01:01.0..01.1"] == "2 VFs"
    assert next(parent for node, parent in walk(roots) if node.words == "2 VFs").title == "0000:01:00.0"


def test_groups_in_few_words() -> None:
    items = [
        part(number, None, key, bridge=False, virtual=False, code=0)
        for number, key in enumerate(("3", "4", "5", "9", "?1"))
    ]
    assert group_words(Node(tuple(items), "", "")) == "3-5,9,?1"
    assert group_words(Node((), "", "")) == ""


def test_the_unit_of_most() -> None:
    assert common_unit(build(drawn())[0]) == "DRHD 1"
