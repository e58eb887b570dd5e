"""Explanations in text and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from quiesce.groups.step import Step
from quiesce.groups.why import Answer, Explanation
from quiesce.report.names import describe
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription

_SEGMENT_0 = re.compile(r"\b0000:(?=[0-9a-f]{2}:[0-9a-f]{2}\.)")
_VERDICTS = {
    "together": "one group",
    "apart": "different groups",
    "alone": "a group of its own",
    "shared": "shares its group",
    "no group": "no group",
    "undecided": "undecided",
}


def explanation(description: MachineDescription, found: Explanation, form: str) -> str:
    """Return an explanation as text or JSON."""
    return json.dumps(as_json(found), indent=1) if form == "json" else "\n".join(_lines(description, found))


def as_json(found: Explanation) -> dict[str, object]:
    """Return an explanation as plain data; the keys are stable."""
    return {
        "functions": list(found.functions),
        "verdict": found.verdict,
        "kernel": found.kernel,
        "iommu": found.iommu,
        "answers": [_answer_json(answer) for answer in found.answers],
        "missing": list(found.missing),
        "complete": found.complete,
        "history": [asdict(step) for step in found.history],
        "notes": list(found.notes),
    }


def _answer_json(answer: Answer) -> dict[str, object]:
    steps = [asdict(step) for step in answer.steps]
    groups = {"group": list(answer.group), "other": list(answer.other)}
    return {"verdict": answer.verdict, **groups, "steps": steps, "assumed": list(answer.assumed)}


def _lines(description: MachineDescription, found: Explanation) -> Iterator[str]:
    names = {str(item.bdf): describe(item) for item in description.functions}
    title = " and ".join(short(bdf) for bdf in found.functions)
    yield f"# {title}: {_VERDICTS[found.verdict]}  ({found.kernel}, IOMMU {found.iommu or 'none'})"
    yield from (f"function   {short(bdf):<10} {names[bdf]}" for bdf in found.functions)
    for number, answer in enumerate(found.answers, start=1):
        if len(found.answers) > 1:
            condition = "; ".join(answer.assumed) or "the rest of what is possible"
            yield f"possible {number} {_VERDICTS[answer.verdict]}, for example if {condition}"
        yield from _members(found, answer, names)
        yield from step_lines(answer.steps)
    yield from (f"missing    {text}" for text in found.missing)
    if not found.complete:
        yield "missing    more than could be tried: there may be further answers"
    yield from step_lines(found.history)
    yield from (f"note: {note}" for note in found.notes)


def _members(found: Explanation, answer: Answer, names: dict[str, str]) -> Iterator[str]:
    groups = [answer.group] if answer.group == answer.other else [answer.group, answer.other]
    for owner, group in zip(found.functions, groups, strict=False):
        for bdf in group if len(group) > 1 else ():
            yield f"group of   {short(owner):<10} {short(bdf):<10} {names[bdf]}"


def step_lines(steps: Iterable[Step]) -> list[str]:
    """Return one aligned line per step: what, whose search, about which function, fact, evidence, commit."""
    return [_step_line(step) for step in dict.fromkeys(steps)]


def _step_line(step: Step) -> str:
    mark = "*" if step.decisive else ""
    where = [short(bdf) if bdf else "-" for bdf in (step.subject, step.function)]
    if step.kind in ("since", "change"):
        return f"{step.kind:<10} {step.change}  {step.since}  {step.fact}" + (
            f"  ({step.evidence})" * bool(step.evidence)
        )
    parts = [f"{step.kind + mark:<10} {where[0]:<10} {where[1]:<10} {_shortened(step.fact)}"]
    if step.evidence:
        parts.append(f"[{_shortened(step.evidence)}]")
    if step.change:
        parts.append(f"{step.change} ({step.since})")
    return "  ".join(parts)


def short(bdf: str) -> str:
    """Return an address without segment 0."""
    parsed = Bdf.parse(bdf)
    return parsed.short if parsed.segment == 0 else str(parsed)


def _shortened(text: str) -> str:
    return _SEGMENT_0.sub("", text)
