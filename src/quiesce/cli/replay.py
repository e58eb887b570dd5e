"""quiesce replay: run every shipped case and print a table."""

from __future__ import annotations

import argparse
import json

from quiesce.cases.case import Row
from quiesce.cases.library import find_case, shipped
from quiesce.cases.verdict import Verdict, rows, run
from quiesce.cli import common
from quiesce.report import machine_readable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cases", metavar="CASE", nargs="*", help="only these")
    parser.add_argument(
        "--judge", action="store_true", help="on every kernel set of each page, not only the case's own"
    )
    common.add_jobs_argument(parser)
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    names = args.cases or list(shipped())
    every = args.judge or args.format == "json"
    work = [(name, row.kernel) for name in names for row in (rows(find_case(name)) if every else own(name))]
    verdicts = common.in_parallel(run_one, work, args.jobs)
    if args.format == "json":
        print(json.dumps([machine_readable.verdict_record(verdict) for verdict in verdicts], indent=1))
        return 0
    done = []
    for verdict in verdicts:
        print(line(verdict))
        done.append(verdict)
    print()
    for verdict in done:
        print(verdict.observation)
    return 0


def own(name: str) -> tuple[Row, ...]:
    """Return the one row for the case's own kernel."""
    return (Row(find_case(name).kernel, ""),)


def run_one(work: tuple[str, str]) -> Verdict:
    """Return the verdict of one case on one kernel."""
    name, kernel = work
    return run(find_case(name).on(kernel))


def line(verdict: Verdict) -> str:
    """Return the row of one verdict."""
    first = verdict.first
    found = f"{first.finding.rule} ({len(first.steps)} events)" if first else verdict.result.bound
    return (
        f"{verdict.case.name:<26} {verdict.kernel:<32} {verdict.verdict:<15} {found:<46} "
        f"{verdict.result.states:>7} states {verdict.result.seconds:6.2f} s"
    )
