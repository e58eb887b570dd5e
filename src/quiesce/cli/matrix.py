"""quiesce matrix: judge a case on every kernel set and candidate fix on its page."""

from __future__ import annotations

import argparse
import json
from functools import partial

from quiesce.cases.case import Case, Row
from quiesce.cases.library import find_case
from quiesce.cases.verdict import Verdict, rows, run
from quiesce.cli import common
from quiesce.report import machine_readable, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("case", metavar="CASE")
    common.add_machine_arguments(parser)
    common.add_jobs_argument(parser)
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command. A matrix is a report, so violations in it are no failure."""
    case = common.on_machine(find_case(args.case), args)
    wanted = rows(case)
    verdicts = list(common.in_parallel(partial(judge_row, case), wanted, args.jobs))
    pairs = [(row.label, verdict) for row, verdict in zip(wanted, verdicts, strict=True)]
    if args.format == "json":
        print(json.dumps([machine_readable.verdict_record(verdict) | {"label": label} for label, verdict in pairs]))
        return 0
    for line in text.matrix(case, pairs):
        print(line)
    return 0


def judge_row(case: Case, row: Row) -> Verdict:
    """Return the verdict of one row."""
    return run(case.on(row.kernel))
