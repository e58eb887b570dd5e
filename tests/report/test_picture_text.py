from __future__ import annotations

import re

from drawn_machines import LISTING, SERVER, described, drawn, picture_of, uncore
from quiesce.report.picture_text import WIDTH, text

ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}")


def tree(drawing: str) -> list[str]:
    return [line for line in drawing.splitlines() if re.match(r"[^a-z#?:A-Z]*[0-9a-f]{4}:[0-9a-f]{2}", line)]


def line_of(drawing: str, bdf: str) -> str:
    return next(line for line in drawing.splitlines() if bdf in line)


def test_each_function_has_a_line_with_its_address_and_what_matters() -> None:
    picture = drawn()
    lines = text(picture)
    assert all(bdf in lines for bdf in picture.parts)
    port = line_of(lines, "0000:00:02.0")
    assert "no ACS" in port
    assert "root port -> 02-05" in port
    assert "ids below become 00:1e.0" in line_of(lines, "0000:00:1e.0")
    assert "[DRHD 0]" in line_of(lines, "0000:00:1f.2")
    assert "[DRHD" not in line_of(lines, "0000:00:1f.0")


def test_it_fits_whatever_the_names_are() -> None:
    deep = "".join(f"{bus:02x}:00.0 switch-up bus={bus + 1:02x}-28\n" for bus in range(1, 0x28))
    picture = drawn(f"machine deep\n00:00.0 host-bridge\n00:01.0 root-port bus=01-28\n{deep}iommu intel\n")
    for drawing in (text(picture), text(drawn(LISTING)), text(picture_of(described(SERVER, "n" * 300)))):
        assert max(map(len, drawing.splitlines())) <= WIDTH
    assert all(bdf in text(picture) for bdf in picture.parts)


def test_ascii_only() -> None:
    drawing = text(picture_of(described(SERVER, "Gerät\x1b[0m")), ascii_only=True)
    assert drawing.isascii()
    assert "`- 0000:06:00.0" in drawing
    assert "└─ 0000:06:00.0" in text(drawn())


def test_colours_mark_shared_groups_and_only_when_asked() -> None:
    assert "\033[" not in text(drawn())
    coloured = text(drawn(), colour=True)
    assert "\033[" in line_of(coloured, "0000:04:00.0")
    assert re.sub(r"\033\[\d*m", "", coloured) == text(drawn())


def test_reasons_and_signs_are_below() -> None:
    drawing = text(drawn(LISTING))
    assert "?1:" in drawing
    assert "not known:" in drawing
    assert "\n?:" in drawing
    assert "\n?:" not in text(drawn())


def test_counted_functions_are_in_one_line() -> None:
    line = line_of(text(drawn(SERVER + uncore(20))), "7f:00.0")
    assert "20 functions" in line
    assert len(tree(text(drawn(SERVER + uncore(20)), collapse=False))) > 20
