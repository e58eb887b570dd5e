"""What frees a function from its group, in text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from quiesce.groups.cut import RISKS, Cut, Cuts
from quiesce.groups.peer_path import Hop
from quiesce.report.names import describe
from quiesce.report.why import short
from quiesce.snapshot.description import MachineDescription

_PATHS = 3
"""So many open ways are drawn for one change."""
_OVERRIDE = "the parameter changes no hardware: it only makes the kernel believe; this way stays open:"


def cuts(description: MachineDescription, found: Cuts, form: str) -> str:
    """Return changes as text or JSON."""
    return json.dumps(as_json(found), indent=1) if form == "json" else "\n".join(_lines(description, found))


def as_json(found: Cuts) -> dict[str, object]:
    """Return changes as plain data; the keys are stable."""
    data = asdict(found)
    data["found"] = [asdict(item) | {"risk": RISKS[item.risk]} for item in found.found]
    return data


def _lines(description: MachineDescription, found: Cuts) -> Iterator[str]:
    names = {str(item.bdf): describe(item) for item in description.functions}
    yield f"# {short(found.function)}: {len(found.found)} changes free it from others of its group  ({found.kernel})"
    for bdf in found.group:
        mark = "unwanted" if bdf in found.unwanted else "itself" if bdf == found.function else "bridge"
        yield f"{mark:<10} {short(bdf):<10} {names[bdf]}"
    if len(found.group) > 1 and not found.unwanted:
        yield "note       all others are bridges, which VFIO tolerates (v4.4+): it can be handed over as it is"
    for number, item in enumerate(found.found, start=1):
        yield from _cut_lines(number, item, found)
    if found.nothing:
        yield f"nothing    {found.nothing}"


def _cut_lines(number: int, item: Cut, found: Cuts) -> Iterator[str]:
    left = [bdf for bdf in item.group if bdf in found.unwanted]
    result = "free" if not left else f"still with {' '.join(short(bdf) for bdf in left)}"
    yield f"{item.kind:<10} {number:<3} {item.what}" + (f"  [{item.option}]" if item.option else "")
    yield f"           {number:<3} result: {result}; size {item.size}; risk: {RISKS[item.risk]}"
    for path in item.paths[:_PATHS]:
        yield f"           {number:<3} {_OVERRIDE}"
        yield from (f"           {number:<3} {line}" for line in _drawn(path))
    if len(item.paths) > _PATHS:
        yield f"           {number:<3} and {len(item.paths) - _PATHS} more such ways (--format json has them)"


def _drawn(path: Sequence[Hop]) -> Iterator[str]:
    for number, hop in enumerate(path):
        arrow = "   " if not number else "-> "
        evidence = f"  [{hop.evidence}]" if hop.evidence else ""
        yield f"{arrow}{short(hop.function) if hop.function else '.......':<8} {hop.what}{evidence}"
