"""Groups in text and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from quiesce.snapshot.bdf import Bdf

if TYPE_CHECKING:
    from quiesce.groups.agree import Agreement
    from quiesce.groups.predict import Prediction, Undecided
    from quiesce.snapshot.description import MachineDescription

SHOWN = 12
"""How many alternatives of an open question the text shows."""


def groups(description: MachineDescription, found: Prediction, form: str) -> str:
    """Return a prediction as text or JSON."""
    return _dumped(as_json(found)) if form == "json" else "\n".join(_lines(description, found))


def _dumped(data: dict[str, object]) -> str:
    import json

    return json.dumps(data, indent=1)


def as_json(found: Prediction) -> dict[str, object]:
    """Return a prediction as plain data; the keys are stable."""
    return {
        "groups": [list(group) for group in found.groups],
        "ungrouped": list(found.ungrouped),
        "undecided": [_undecided_json(item) for item in found.undecided],
        "kernel": found.kernel,
        "iommu": found.iommu,
        "notes": list(found.notes),
    }


def _undecided_json(item: Undecided) -> dict[str, object]:
    return {
        "why": item.why,
        "functions": list(item.functions),
        "alternatives": [[list(group) for group in groups] for groups in item.alternatives],
        "ungrouped": [list(alone) for alone in item.ungrouped],
        "conditions": [list(words) for words in item.conditions],
        "complete": item.complete,
    }


def _lines(description: MachineDescription, found: Prediction) -> Iterator[str]:
    from quiesce.report.names import describe

    names = {str(item.bdf): describe(item) for item in description.functions}
    yield f"# {description.name}  {found.kernel}  IOMMU {found.iommu or 'none'}  {_count(found)}"
    for number, group in enumerate(found.groups):
        for bdf in group:
            yield f"group {number:<3} {bdf}  {names[bdf]}"
    for bdf in found.ungrouped:
        yield f"no group  {bdf}  {names[bdf]}"
    for item in found.undecided:
        yield from _undecided_lines(item)
    yield from (f"note: {note}" for note in found.notes)


def _count(found: Prediction) -> str:
    parts = [f"{len(found.groups)} groups"]
    if found.ungrouped:
        parts.append(f"{len(found.ungrouped)} functions without one")
    if found.undecided:
        parts.append(f"{sum(len(item.functions) for item in found.undecided)} functions undecided")
    return ", ".join(parts)


def _undecided_lines(item: Undecided) -> Iterator[str]:
    count = f"{len(item.alternatives)}{'' if item.complete else ' or more'} possibilities"
    yield f"undecided {item.functions[0]} and {len(item.functions) - 1} more: {count}; not known: {item.why}"
    for groups, words in list(zip(item.alternatives, item.conditions, strict=True))[:SHOWN]:
        text = "  ".join("{" + " ".join(Bdf.parse(bdf).short for bdf in group) + "}" for group in groups)
        yield f"          {text}" + (f"   if {'; '.join(words)}" if words else "")
    if len(item.alternatives) > SHOWN:
        yield f"          ... {len(item.alternatives) - SHOWN} more (--format json has them)"


def recorded(description: MachineDescription, form: str) -> str:
    """Return the groups that the source states."""
    stated = description.recorded_groups
    if form == "json":
        return _dumped({"groups": stated, "ungrouped": description.recorded_ungrouped})
    if stated is None:
        return "the source states no groups"
    lines = [f"group {number:<3} {bdf}" for number, group in enumerate(stated) for bdf in group]
    return "\n".join([*lines, *(f"no group  {bdf}" for bdf in description.recorded_ungrouped)])


def comparison(description: MachineDescription, found: Prediction) -> tuple[list[str], bool]:
    """Compare a prediction with the groups that the source states: lines, and whether they differ."""
    if description.recorded_groups is None:
        return ["nothing to compare with: the source states no groups"], False
    from quiesce.groups.agree import allowed

    differing = [tuple(sorted(group)) for group in description.recorded_groups if not allowed(found, group)]
    lines = [f"recorded otherwise: {' '.join(group)}" for group in differing]
    return lines or ["as recorded"], bool(differing)


def agreement_line(found: Agreement) -> str:
    """Return one machine's comparison in a line."""
    parts = [f"{found.name:<42} {found.kernel:<8} {found.verdict:<9}", f"{found.decided}/{found.functions} decided"]
    if found.unseen:
        parts.append(f"{found.unseen} not in the source")
    if found.incomplete:
        parts.append(f"{found.incomplete} questions with too many alternatives")
    if found.wrong:
        shown = "; ".join(" ".join(group) for group in found.wrong[:3])
        parts.append(f"ruled out: {shown}" + (f" and {len(found.wrong) - 3} more" if len(found.wrong) > 3 else ""))
    return "  ".join(parts)


def agreement_total(verdicts: Mapping[tuple[str, str], int]) -> list[str]:
    """Return the table of verdicts by what the sources tell."""
    columns = ("equal", "possible", "open", "wrong", "unreadable")
    lines = ["", f"{'groups':<50}" + "".join(f"{name:>11}" for name in columns)]
    for quality in sorted({quality for quality, _ in verdicts}):
        lines.append(f"{quality:<50}" + "".join(f"{verdicts.get((quality, name), 0):>11}" for name in columns))
    return lines
