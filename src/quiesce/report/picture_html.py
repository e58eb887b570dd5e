"""The picture as one offline HTML page: the drawing, details of what is pointed at, legend, notes, the same as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files

from quiesce.report.picture_details import facts
from quiesce.report.picture_facts import Picture
from quiesce.report.picture_svg import HATCH, Sheet, acs_class, drawing, legend, sheet, style
from quiesce.report.picture_text import text
from quiesce.report.picture_tree import build, split

PAGE_ROWS = 16
"""So many rows of boxes are kept together when the page is printed."""
PORTRAIT = 1000
"""A wider drawing is printed across."""


def page(picture: Picture, collapse: bool = True) -> str:
    """Return the whole page."""
    title = escape(f"{picture.name}  {picture.kernel}")
    pieces = [split(root, PAGE_ROWS) for root in build(picture, collapse)]
    sheets = [(sheet([root]), root is not roots[-1]) for roots in pieces for root in roots]
    width = max((drawn.width for drawn, _ in sheets), default=0)
    paper = "@page { size: landscape; }" if width > PORTRAIT else ""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title>\n<style>{style()}{_resource('picture_page.css')}{paper}</style>\n</head>\n<body>",
            f"<header><h1>{escape(picture.name)}</h1>",
            f"<p>Linux {escape(picture.kernel)}, IOMMU {escape(picture.iommu)}: {escape(picture.counts)}</p></header>",
            f'<svg width="0" height="0" aria-hidden="true">{HATCH}</svg>',
            '<main><div id="sheets">',
            *(_sheet(picture, drawn, width, goes_on) for drawn, goes_on in sheets),
            '</div><aside id="details" aria-live="polite"><p>Point at a function, or walk with Tab and the arrow keys.',
            "Enter or a click keeps it.</p></aside></main>",
            *_legend(picture, collapse),
            *_notes(picture),
            f"<details><summary>As text</summary><pre>{escape(text(picture, collapse=collapse))}</pre></details>",
            f'<script type="application/json" id="facts">{_facts(picture)}</script>',
            f"<script>{_resource('picture.js')}</script>\n</body>\n</html>\n",
        ]
    )


def _resource(name: str) -> str:
    return files("quiesce.report").joinpath(name).read_text(encoding="utf-8")


def _sheet(picture: Picture, drawn: Sheet, width: float, goes_on: bool) -> str:
    """Return one drawing; all of a page have the same width, so that print makes them smaller by the same factor."""
    size = f'width="{width:g}" height="{drawn.height:g}" viewBox="0 0 {width:g} {drawn.height:g}"'
    inside = drawing(picture, drawn, interactive=True, goes_on=goes_on)
    return f'<svg class="sheet" {size} role="group">{inside}</svg>'


def _legend(picture: Picture, collapse: bool) -> Iterator[str]:
    yield "<section><h2>Signs</h2><dl>"
    for term, words in legend(picture, collapse):
        yield f'<dt class="{acs_class(term)}">{escape(term)}</dt><dd>{escape(words)}</dd>'
    yield "</dl></section>"


def _notes(picture: Picture) -> Iterator[str]:
    if picture.notes:
        yield "<section><h2>Notes</h2><ul>"
        yield from (f"<li>{escape(note)}</li>" for note in picture.notes)
        yield "</ul></section>"


def _facts(picture: Picture) -> str:
    """Return what the page's script shows, as JSON that cannot end the element it stands in."""
    parts = {
        part.bdf: {
            "parent": part.parent,
            "group": part.group,
            "kind": part.kind,
            "what": part.what,
            "acs": part.acs,
            "facts": list(facts(picture, part)),
        }
        for part in picture.parts.values()
    }
    groups = {key: list(group.members) for key, group in picture.groups.items() if len(group.members) > 1}
    return json.dumps({"parts": parts, "groups": groups}).replace("<", "\\u003c")
