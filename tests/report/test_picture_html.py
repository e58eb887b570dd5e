from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from drawn_machines import LISTING, SERVER, drawn, hostile, references, uncore
from quiesce.report.picture_html import page


class Structure(HTMLParser):
    """Counts elements and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in ("meta", "rect", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def facts_of(text: str) -> dict[str, dict[str, object]]:
    match = re.search(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    found: dict[str, dict[str, object]] = json.loads(match[1])
    return found


def test_the_page_is_whole_and_leaves_the_file_nowhere() -> None:
    for picture in (drawn(), drawn(LISTING), hostile()):
        structure = Structure()
        structure.feed(page(picture))
        assert structure.open == []
        assert structure.count["script"] == 2
        assert references(page(picture)) == set()


def test_every_function_can_be_reached_and_asked_about() -> None:
    picture = drawn(SERVER + uncore(20))
    text = page(picture)
    reached = " ".join(re.findall(r'data-bdf="([^"]*)"', text)).split()
    assert sorted(reached) == sorted(picture.parts) == sorted(facts_of(text)["parts"])
    assert text.count('role="button" tabindex="-1"') < len(picture.parts)


def test_a_long_root_bus_goes_on_in_another_sheet() -> None:
    wide = SERVER + "".join(f"00:{slot:02x}.0 ahci id=8086:{slot:04x}\n" for slot in range(3, 0x1D))
    assert page(drawn()).count('class="sheet"') == 1
    assert page(drawn(wide)).count('class="sheet"') == 3
    assert page(drawn(wide)).count("00, continued") == 2


def test_it_has_the_same_as_text() -> None:
    assert "├─ 0000:00:01.0" in page(drawn())
