"""quiesce run: search one case."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from quiesce.cases.library import find_case
from quiesce.cases.scenario import build
from quiesce.cases.verdict import Verdict, run
from quiesce.cli import FINDINGS, common
from quiesce.explore.replay import replay
from quiesce.explore.search import Bounds, Violation
from quiesce.report import machine_readable, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("case", metavar="CASE", help="a shipped case, a case file, or a printed trace")
    common.add_kernel_arguments(parser)
    common.add_machine_arguments(parser)
    parser.add_argument("--depth", type=common.count, help="events in a life (default: the case's)")
    parser.add_argument("--windows", type=common.count, help="how often something may run inside a running operation")
    parser.add_argument("--faults", type=common.count, help="how many allocations may fail")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--all", action="store_true", help="print a trace for every rule that breaks")
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    case = common.on_machine(common.on_kernel(find_case(args.case), args), args)
    given = {name: value for name in ("depth", "windows", "faults") if (value := getattr(args, name)) is not None}
    case = replace(case, **given)
    verdict = run(case, bounds=Bounds(depth=case.depth), first_only=args.first, progress=common.progress(case.name))
    common.clear_progress()
    if args.format == "json":
        print(json.dumps(_record(verdict), indent=1))
    else:
        for line in report(verdict, args.all):
            print(line)
    return FINDINGS if verdict.first else 0


def _record(verdict: Verdict) -> dict[str, object]:
    record = machine_readable.verdict_record(verdict)
    if verdict.first is not None:
        case = text.trace_case(verdict, verdict.first)
        record["trace"] = [machine_readable.step_record(one) for one in replay(build(case), case.steps)]
    return record


def report(verdict: Verdict, every: bool) -> list[str]:
    """Return the text of a verdict: a head line, the traces, and the observation."""
    lines = [f"# {text.verdict_line(verdict)}"]
    violations: list[Violation] = [verdict.first] if verdict.first else []
    if every:
        violations = sorted(verdict.result.violations.values(), key=lambda one: len(one.steps))
    for violation in violations:
        case = text.trace_case(verdict, violation)
        lines += text.trace(case, replay(build(case), case.steps), full=False)
        lines.append(f"verdict   {violation.finding.rule}: {violation.finding.why}")
    lines += [f"# not shown: {missing}" for missing in verdict.missing]
    lines.append(verdict.observation)
    return lines
