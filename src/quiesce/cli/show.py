"""quiesce show: follow a case's steps or its shortest violation with every field that changed."""

from __future__ import annotations

import argparse
import json

from quiesce.cases.case import Case
from quiesce.cases.library import find_case
from quiesce.cases.scenario import build, check_steps
from quiesce.cases.verdict import run
from quiesce.cli import common
from quiesce.explore.replay import replay
from quiesce.report import machine_readable, text
from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("trace", metavar="TRACE", help="a printed trace, a case with steps, or a case to search first")
    common.add_kernel_arguments(parser, "the trace's own")
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    case = common.on_kernel(find_case(args.trace), args)
    if not case.steps:
        case = _shortest(case)
    model = build(case)
    check_steps(case, model)
    played = replay(model, case.steps)
    if args.format == "json":
        print(json.dumps([machine_readable.step_record(one) for one in played], indent=1))
        return 0
    for line in text.trace(case, played, full=True):
        print(line)
    return 0


def _shortest(case: Case) -> Case:
    verdict = run(case, first_only=True)
    if verdict.first is None:
        raise BadInput(case.name, "steps", "a case with steps, or one in which the search finds a violation")
    return text.trace_case(verdict, verdict.first)
