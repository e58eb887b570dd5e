"""The expected outcome that lies beside each shipped case: the verdict of every row of its page, with exact counts."""

from __future__ import annotations

from pathlib import Path

from quiesce.cases.case import Case
from quiesce.cases.verdict import Verdict, rows, run


def expected_path(case: Case) -> Path:
    """Return the file beside the page."""
    return Path(case.path).with_suffix(".expected")


def expected_text(case: Case) -> str:
    """Run every row and return the table."""
    return "".join(row_text(run(case.on(row.kernel))) for row in rows(case))


def row_text(verdict: Verdict) -> str:
    """Return the block of one row: kernel, verdict, counts, and each broken rule with its shortest life."""
    lines = [f"{verdict.kernel}: {verdict.verdict}, {verdict.result.states} states, ended by {verdict.result.bound}"]
    for rule, violation in sorted(verdict.result.violations.items()):
        life = ", ".join(step.event for step in violation.steps)
        lines.append(f"  {rule} in {len(violation.steps)}: {life}")
    lines += [f"  not shown: {missing}" for missing in verdict.missing]
    return "\n".join(lines) + "\n"
