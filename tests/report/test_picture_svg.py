from __future__ import annotations

import re
from xml.etree import ElementTree

from drawn_machines import LISTING, SERVER, drawn, hostile, references, uncore
from quiesce.report.picture_svg import sheet, svg
from quiesce.report.picture_tree import build


def test_it_is_well_formed_and_leaves_the_file_nowhere() -> None:
    for picture in (drawn(), drawn(LISTING), drawn(SERVER + uncore(20)), hostile()):
        text = svg(picture)
        ElementTree.fromstring(text)
        assert references(text) == set()


def test_texts_of_a_dump_stay_texts() -> None:
    root = ElementTree.fromstring(svg(hostile()))
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert "<script" not in svg(hostile())
    assert any("alert(1)" in (element.text or "") for element in root.iter())


def test_groups_that_are_shared_have_an_area_and_undecided_ones_are_hatched() -> None:
    assert 'class="hull g0"' in svg(drawn())
    assert 'class="hull open"' not in svg(drawn())
    assert 'class="hull open"' in svg(drawn(LISTING))


def test_no_two_boxes_overlap_and_all_are_on_the_sheet() -> None:
    placed = sheet(build(drawn(SERVER + uncore(20)), collapse=False))
    for number, box in enumerate(placed.boxes):
        assert box.right <= placed.width
        assert box.bottom <= placed.height
        for other in placed.boxes[:number]:
            assert box.y >= other.bottom or other.y >= box.bottom or box.x >= other.right or other.x >= box.right


def test_each_function_is_named_with_the_way_to_its_root() -> None:
    picture = drawn()
    text = svg(picture)
    assert all(bdf in text for bdf in picture.parts)
    tip = next(part for part in re.findall(r"<title>[^<]*</title>", text) if "<title>0000:04:00.0\n" in part)
    assert "0000:03:00.0 downstream port: ACS" in tip
    assert "0000:00:02.0 root port: no ACS" in tip
