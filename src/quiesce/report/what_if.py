"""Groups before and after a change, in text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from quiesce.groups.what_if import Comparison, Groups
from quiesce.report import groups as groups_report
from quiesce.report.why import short


def comparison(found: Comparison, form: str) -> str:
    """Return a comparison as text or JSON."""
    return json.dumps(as_json(found), indent=1) if form == "json" else "\n".join(_lines(found))


def as_json(found: Comparison) -> dict[str, object]:
    """Return a comparison as plain data; the keys are stable. Differences use the addresses of before."""
    return {
        "before": groups_report.as_json(found.before),
        "after": groups_report.as_json(found.after),
        "differences": [{"kind": item.kind, "before": item.before, "after": item.after} for item in found.differences],
        "renamed": dict(found.renamed),
        "gone": sorted(found.gone),
    }


def _lines(found: Comparison) -> Iterator[str]:
    counts = len(found.before.groups), len(found.after.groups)
    kernels = dict.fromkeys((found.before.kernel, found.after.kernel))
    yield f"# {counts[0]} groups before, {counts[1]} after, {found.same} as they were  ({' -> '.join(kernels)})"
    yield from (f"moved      {short(old):<10} is {short(new)} now" for old, new in sorted(found.renamed.items()))
    yield from (f"removed    {short(bdf)}" for bdf in sorted(found.gone))
    for item in found.differences:
        yield f"{item.kind:<10} {_text(item.before)} -> {_text(item.after)}"
    for bdf in sorted(set(found.after.ungrouped) - set(found.before.ungrouped)):
        yield f"no group   {short(bdf)} after"
    for bdf in sorted(set(found.before.ungrouped) - set(found.after.ungrouped) - found.gone):
        yield f"no group   {short(bdf)} before"
    if not found.differences:
        yield "same       the groups stay as they are"
    for name, prediction in (("before", found.before), ("after", found.after)):
        for open_ in prediction.undecided:
            count = f"{len(open_.alternatives)}{'' if open_.complete else ' or more'}"
            yield f"undecided  {name}: {len(open_.functions)} functions, {count} possibilities; not known: {open_.why}"


def _text(groups: Groups) -> str:
    return "  ".join("{" + " ".join(short(bdf) for bdf in group) + "}" for group in groups) or "nothing"
