"""The topology as SVG: boxes in a tree, groups as coloured areas behind them. No reference leaves the file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from quiesce.report.picture_details import tooltip
from quiesce.report.picture_facts import ACS_WORDS, NO_GROUP, Picture
from quiesce.report.picture_layout import Box, tidy
from quiesce.report.picture_tree import CONTINUED, ROOT_BUS, Node, build, common_unit, group_words, walk

BOX, ROOT, HEIGHT = 260, 112, 48
_GAP, _COLUMN_GAP, _PAD, _MARGIN = 14, 60, 5, 14
_EDGE = _GAP // 2
"""Room above and below a sheet, so that two sheets below each other look like one."""
_SMALL = 6.9
"""Width of a letter of the small font: a generous one, as fonts differ."""
COLOURS = 10
HATCH = (
    '<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch" width="4" height="8"/></pattern></defs>'
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """One drawing: nodes with their parents' numbers and boxes."""

    nodes: tuple[Node, ...]
    parents: tuple[int | None, ...]
    boxes: tuple[Box, ...]
    units: tuple[str, ...]
    """The IOMMU unit to name in each box, empty for none."""

    @property
    def width(self) -> float:
        """Everything fits into this width."""
        return max((box.right for box in self.boxes), default=0) + _MARGIN

    @property
    def height(self) -> float:
        """Everything fits into this height."""
        return max((box.bottom for box in self.boxes), default=0) + _EDGE


def sheet(roots: Sequence[Node]) -> Sheet:
    """Place the trees below each other."""
    nodes: list[Node] = []
    parents: list[int | None] = []
    units: list[str] = []
    for root in roots:
        common = common_unit(root)
        numbers: dict[int, int] = {}
        for node, parent in walk([root]):
            numbers[id(node)] = len(nodes)
            nodes.append(node)
            parents.append(None if parent is None else numbers[id(parent)])
            units.append(_unit_tag(node, common))
    sizes = [(BOX if node.parts else ROOT, HEIGHT) for node in nodes]
    boxes = [box._replace(x=box.x + _MARGIN, y=box.y + _EDGE) for box in tidy(parents, sizes, _GAP, _COLUMN_GAP)]
    return Sheet(tuple(nodes), tuple(parents), tuple(boxes), tuple(units))


def _unit_tag(node: Node, common: str | None) -> str:
    if not node.parts:
        return common or ""
    return "" if node.unit == common or node.unit is None else node.unit or "no IOMMU"


# -- the whole file ----------------------------------------------------------------------------------------------


def svg(picture: Picture, collapse: bool = True) -> str:
    """Return a complete SVG file, with legend and notes."""
    drawn = sheet(build(picture, collapse))
    width = max(drawn.width, 900)
    texts = list(_text_lines(picture, collapse, int(width / _SMALL) - 6))
    height = 70 + drawn.height + 18 * len(texts) + _MARGIN
    head = f"{picture.name}, Linux {picture.kernel}, IOMMU {picture.iommu}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="paper" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(head)}">',
            f"<title>{escape(head)}</title>",
            f"<style>{style()}</style>",
            HATCH,
            f'<rect class="back" width="{width:g}" height="{height:g}"/>',
            f'<text class="head" x="{_MARGIN}" y="30">{escape(head)}</text>',
            f'<text class="small" x="{_MARGIN}" y="52">{escape(picture.counts)}</text>',
            f'<g transform="translate(0 62)">{drawing(picture, drawn)}</g>',
            *_written(texts, 62 + drawn.height + 18),
            "</svg>\n",
        ]
    )


def style() -> str:
    """Return the style sheet that SVG and HTML share."""
    return files("quiesce.report").joinpath("picture.css").read_text(encoding="utf-8")


def _text_lines(picture: Picture, collapse: bool, width: int) -> Iterator[tuple[str, str]]:
    """Yield the lines below a drawing, each with its class."""
    for term, words in legend(picture, collapse):
        for number, line in enumerate(textwrap.wrap(words, max(width - 16, 40))):
            yield "small", f"{term if not number else '':\u00a0<12}{line}"
    for note in picture.notes:
        yield from (("small faint", line) for line in textwrap.wrap(f"note: {note}", max(width, 40)))


def legend(picture: Picture, collapse: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the signs that the picture uses and what they mean."""
    used = {node.acs for node, _ in walk(build(picture, collapse))} | {part.acs for part in picture.parts.values()}
    yield "number", "IOMMU group; a colour behind boxes: they share one group; hatched: their groups are undecided"
    yield from ((word, words) for word, words in ACS_WORDS.items() if word in used)
    yield from picture.units.items()
    for key, group in picture.groups.items():
        if group.undecided:
            yield key, f"{len(group.members)} functions: {group.why_in_short()}"


def _written(lines: Iterable[tuple[str, str]], top: float) -> Iterator[str]:
    for number, (kind, line) in enumerate(lines):
        term, words = (line[:12], line[12:]) if kind == "small" else ("", line)
        y = top + 18 * number
        if term.strip("\u00a0"):
            yield f'<text class="small strong" x="{_MARGIN}" y="{y:g}">{escape(term.rstrip(chr(0xA0)))}</text>'
        left = _MARGIN + (84 if kind == "small" else 0)
        yield f'<text class="{kind}" x="{left}" y="{y:g}">{escape(words)}</text>'


# -- one drawing -------------------------------------------------------------------------------------------------


def drawing(picture: Picture, drawn: Sheet, *, interactive: bool = False, goes_on: bool = False) -> str:
    """Return groups, edges and boxes; ``interactive`` boxes can be reached by keyboard; ``goes_on``: the first root has
    more children on the next sheet.
    """
    parts = [*_hulls(picture, drawn), *_edges(drawn, goes_on)]
    parts += [_box(picture, drawn, number, interactive) for number in range(len(drawn.nodes))]
    return "\n".join(parts)


def group_class(picture: Picture, node: Node) -> str:
    """Return the class for the colour of a node's group; empty for nodes that share none."""
    keys = node.groups
    group = picture.groups.get(keys[0]) if len(keys) == 1 else None
    if group is None or group.colour is None:
        return ""
    return "open" if group.undecided else f"g{group.colour % COLOURS}"


def _hulls(picture: Picture, drawn: Sheet) -> Iterator[str]:
    """Yield one area for each group with more than one function: its boxes, and the ways between those that touch."""
    members: dict[str, list[int]] = {}
    for number, node in enumerate(drawn.nodes):
        if group_class(picture, node):
            members.setdefault(node.groups[0], []).append(number)
    before = _elder_siblings(drawn)
    for key, numbers in members.items():
        inside = set(numbers)
        shapes = [_rect(drawn.boxes[number].grown(_PAD), 9) for number in numbers]
        for number in numbers:
            above, beside = drawn.parents[number], before.get(number)
            if above is not None and above in inside:
                way = _way(drawn.boxes[above], drawn.boxes[number])
                shapes.append(f'<path class="link" d="{way}"/>')
            if beside is not None and beside in inside and (above not in inside or _near(drawn, beside, number)):
                shapes.append(_bar(drawn.boxes[beside], drawn.boxes[number]))
        kind = group_class(picture, drawn.nodes[numbers[0]])
        yield f'<g class="hull {kind}" data-group="{escape(key)}">{"".join(shapes)}</g>'


def _elder_siblings(drawn: Sheet) -> dict[int, int]:
    last: dict[int | None, int] = {}
    found: dict[int, int] = {}
    for number, parent in enumerate(drawn.parents):
        if parent in last:
            found[number] = last[parent]
        last[parent] = number
    return found


def _rect(box: Box, radius: float) -> str:
    return f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="{radius:g}"/>'


def _near(drawn: Sheet, upper: int, lower: int) -> bool:
    return drawn.boxes[lower].y - drawn.boxes[upper].bottom <= _GAP


def _bar(upper: Box, lower: Box) -> str:
    """Return what joins two siblings: as wide as they are when they touch, else a narrow bar."""
    near = lower.y - upper.bottom <= _GAP
    left, width = (upper.x - _PAD, upper.width + 2 * _PAD) if near else (upper.x + 8, 28.0)
    return _rect(Box(left, upper.bottom, width, lower.y - upper.bottom), 0)


def _way(above: Box, below: Box) -> str:
    """Return the path of an edge: out of the parent, down its bus, into the child."""
    if above.y == below.y:
        return f"M{above.right:g} {above.middle:g}H{below.x:g}"
    return f"M{above.right:g} {above.middle:g}H{_trunk(above):g}V{below.middle:g}H{below.x:g}"


def _edges(drawn: Sheet, goes_on: bool) -> Iterator[str]:
    labelled: set[int] = set()
    for number, parent in enumerate(drawn.parents):
        if parent is None:
            continue
        above, node = drawn.boxes[parent], drawn.nodes[parent]
        continued = node.words == CONTINUED and not node.parts
        way = _way_from_above(above, drawn.boxes[number]) if continued else _way(above, drawn.boxes[number])
        yield f'<path class="edge" d="{way}"/>'
        words = _edge_words(node, drawn.nodes[number])
        if words and parent not in labelled:
            labelled.add(parent)
            yield f'<text class="mono faint" x="{above.right + 5:g}" y="{above.y + 11:g}">{escape(words)}</text>'
    if goes_on and len(drawn.nodes) > 1:
        yield f'<path class="edge" d="M{_trunk(drawn.boxes[0]):g} {drawn.boxes[0].middle:g}V{drawn.height:g}"/>'


def _trunk(above: Box) -> float:
    return above.right + _COLUMN_GAP - 14


def _way_from_above(above: Box, below: Box) -> str:
    """Return the edge to a child whose parent is on the sheet before."""
    return f"M{_trunk(above):g} 0V{below.middle:g}H{below.x:g}"


def _edge_words(above: Node, below: Node) -> str:
    if below.parts and below.parts[0].virtual:
        return "VFs"
    return above.parts[0].buses if above.parts else ""


def _box(picture: Picture, drawn: Sheet, number: int, interactive: bool) -> str:
    node, box = drawn.nodes[number], drawn.boxes[number]
    if not node.parts and node.words == CONTINUED:
        words = f"{short(picture, node.title)}, {CONTINUED}"
        return f'<text class="small faint" x="{box.x:g}" y="{box.y + 18:g}">{escape(words)}</text>'
    kind = "node" + ("" if node.parts else " bus")
    behind = f'<rect class="behind" x="4" y="4" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
    return "".join(
        [
            f'<g class="{kind}" transform="translate({box.x:g} {box.y:g})" {_attributes(node, interactive)}>',
            f"<title>{escape(tooltip(picture, node))}</title>",
            behind if len(node.parts) > 1 else "",
            _rect(Box(0, 0, box.width, box.height), 6),
            *_box_texts(picture, node, drawn.units[number], box.width),
            "</g>",
        ]
    )


def _attributes(node: Node, interactive: bool) -> str:
    state = f", group {group_words(node)}, {node.acs or 'no peers'}" if node.parts else ""
    label = f'aria-label="{escape(f"{node.title} {node.words}{state}")}"'
    if not (interactive and node.parts):
        return label
    bdfs = " ".join(part.bdf for part in node.parts)
    return f'{label} role="button" tabindex="-1" data-bdf="{bdfs}" data-group="{escape(" ".join(node.groups))}"'


def _box_texts(picture: Picture, node: Node, unit: str, width: float) -> Iterator[str]:
    if not node.parts:
        yield from _root_texts(picture, node, unit, width)
        return
    yield f'<text class="mono strong" x="9" y="19">{escape(short(picture, node.title))}</text>'
    words = _cut(group_words(node), 11)
    group = "no group" if words == NO_GROUP else words
    yield _chip(width - 6, 6, group, f"badge {group_class(picture, node)}".strip())
    if node.acs:
        yield _chip(width - 11 - _chip_width(group), 6, node.acs, f"acs {acs_class(node.acs)}")
    room = width - 14
    if unit:
        yield _chip(width - 6, 27, unit, "unit" + (" none" if unit == "no IOMMU" else ""))
        room -= _chip_width(unit) + 5
    yield f'<text class="small" x="9" y="39">{escape(_cut(_words(node), int(room / _SMALL)))}</text>'


def _root_texts(picture: Picture, node: Node, unit: str, width: float) -> Iterator[str]:
    name = short(picture, node.title)
    known = node.words == ROOT_BUS
    title = f"root bus {name}" if known and len(name) == 2 else f"bus {name}"
    yield f'<text class="mono strong" x="9" y="19">{escape(title)}</text>'
    if not known:
        yield '<text class="small" x="9" y="39">place unknown</text>'
    elif unit:
        yield _chip(width - 6, 27, unit, "unit")


def _words(node: Node) -> str:
    """Return the second line of a box: without the buses, which stand at the edge."""
    words = node.words.replace("ids below become", "ids as")
    return words.replace(f" -> {node.parts[0].buses}", "", 1) if node.parts and node.children else words


def acs_class(word: str) -> str:
    """Return the class for the colour of an isolation word."""
    if word in ("ACS", "quirk", "override"):
        return "yes" if word == "ACS" else "said"
    return "no" if word in ("no ACS", "ACS off") else "unknown" if word in ("?", "mixed") else "other"


def short(picture: Picture, title: str) -> str:
    """Return an address without its segment when all are in segment 0."""
    return title if any(not bdf.startswith("0000:") for bdf in picture.parts) else title.removeprefix("0000:")


def _chip_width(text: str) -> float:
    return 12 + 7.4 * len(text)


def _chip(right: float, top: float, text: str, kind: str) -> str:
    width = _chip_width(text)
    rect = _rect(Box(right - width, top, width, 17), 8)
    return f'<g class="chip {kind}">{rect}<text x="{right - width / 2:g}" y="{top + 13:g}">{escape(text)}</text></g>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"
