"""Reports for machines: stable JSON."""

from __future__ import annotations

from typing import Any

from quiesce.cases.verdict import Verdict
from quiesce.explore.replay import Played
from quiesce.kernel.kernel import Finding, Message
from quiesce.report.text import value_text

FORMAT = 1
"""Version of the JSON layout; it grows when a field changes its meaning or goes."""


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """Return the record of one case on one kernel set."""
    words = verdict.kernel.split()
    signs = list(zip(words[1::2], words[2::2], strict=True))
    first = verdict.first
    return {
        "format": FORMAT,
        "case": verdict.case.name,
        "kernel": words[0],
        "with": [name for sign, name in signs if sign == "+"],
        "without": [name for sign, name in signs if sign == "-"],
        "verdict": verdict.verdict,
        "rule": first.finding.rule if first else None,
        "steps": len(first.steps) if first else None,
        "states": verdict.result.states,
        "transitions": verdict.result.transitions,
        "seconds": round(verdict.result.seconds, 4),
        "first_seconds": round(first.seconds, 4) if first else None,
        "bound": verdict.result.bound,
        "rules": {rule: len(found.steps) for rule, found in sorted(verdict.result.violations.items())},
        "missing": list(verdict.missing),
        "observation": verdict.observation,
    }


def step_record(one: Played) -> dict[str, Any]:
    """Return the record of one replayed step."""
    outputs = one.outcome.outputs
    return {
        "event": one.step.event,
        "choices": [{"what": what, "option": option} for what, option in one.step.choices],
        "answer": one.outcome.answer,
        "enabled": one.outcome.enabled,
        "crashed": one.outcome.crashed,
        "messages": [{"level": m.level, "text": m.text} for m in outputs if isinstance(m, Message)],
        "findings": [{"rule": f.rule, "why": f.why} for f in outputs if isinstance(f, Finding)],
        "changes": [
            {"object": c.path, "field": c.field, "old": value_text(c.old), "new": value_text(c.new), "site": c.site}
            for c in one.changes
        ],
    }
