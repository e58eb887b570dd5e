"""What is said about one place of a picture when someone asks: ids, group, isolation of every hop to the root."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.report.picture_facts import NO_GROUP, Group, Part, Picture
from quiesce.report.picture_tree import Node

SHOWN = 24
"""How many members of a run or of a group a tooltip names."""


def facts(picture: Picture, part: Part) -> Iterator[tuple[str, str]]:
    """Yield what is known of a function, term by term."""
    yield "what", f"{part.kind}, {part.what}" if part.kind != part.what else part.what
    yield from ((term, text) for term, text in (("ids", part.ids), ("name", part.name)) if text)
    yield "driver", part.driver or "not known, or none"
    yield "group", group_sentence(picture, part.group)
    yield "IOMMU", unit_sentence(picture, part)
    yield "isolation", f"{part.acs or 'alone'}: {part.acs_why}"
    if part.buses:
        yield "buses below", part.buses
    if part.takes_over:
        yield "requester ids", f"everything below arrives at the IOMMU as {part.takes_over}"
    if part.sends_as:
        yield "sends also as", " ".join(part.sends_as)


def unit_sentence(picture: Picture, part: Part) -> str:
    """Return which IOMMU unit covers a function."""
    if part.unit is None:
        return "not known"
    return f"{part.unit}: {picture.units[part.unit]}" if part.unit else "none covers it"


def group_sentence(picture: Picture, key: str) -> str:
    """Return with whom a function is."""
    if key == NO_GROUP:
        return "none"
    group = picture.groups[key]
    if group.undecided:
        return f"{key}, undecided: {group.why_in_short()}"
    return f"{key}, alone" if len(group.members) == 1 else f"{key}, {len(group.members)} functions"


def hops(picture: Picture, part: Part) -> Iterator[Part]:
    """Yield the function and everything above it, up to the root bus."""
    at: Part | None = part
    while at is not None:
        yield at
        at = picture.parts[at.parent] if at.parent is not None else None


def tooltip(picture: Picture, node: Node) -> str:
    """Return all about a node as lines of text."""
    if not node.parts:
        return f"{node.words} {node.title}"
    if len(node.parts) > 1:
        lines = [f"{part.bdf}  group {part.group}  {part.what}  {part.ids}" for part in node.parts[:SHOWN]]
        more = len(node.parts) - SHOWN
        return "\n".join([node.words, *lines, *([f"and {more} more"] if more > 0 else [])])
    part = node.parts[0]
    lines = [part.bdf, *(f"{term}: {text}" for term, text in facts(picture, part))]
    way = [f"{hop.bdf} {hop.kind}: {hop.acs or 'no peers'}" for hop in hops(picture, part)]
    group = picture.groups.get(part.group)
    return "\n".join([*lines, *(members_line(group) if group else []), "way to the root:", *way])


def members_line(group: Group) -> list[str]:
    """Return who is in a group, shortened."""
    if len(group.members) == 1:
        return []
    more = len(group.members) - SHOWN
    return [f"with: {' '.join(group.members[:SHOWN])}{f' and {more} more' if more > 0 else ''}"]
