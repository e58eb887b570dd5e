"""quiesce groups: the IOMMU groups that a kernel forms on a machine."""

from __future__ import annotations

import argparse

from quiesce.cli.common import add_format_argument
from quiesce.cli.machines import add_prediction_arguments, prediction, read_from
from quiesce.report import groups as report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_prediction_arguments(parser)
    parser.add_argument("--as-recorded", action="store_true", help="show the groups that the source itself states")
    parser.add_argument("--compare", action="store_true", help="compare with them; status 1 when they differ")
    add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    description = read_from(args)
    if args.as_recorded:
        print(report.recorded(description, args.format))
        return 0
    found = prediction(args, description)
    print(report.groups(description, found, args.format))
    if not args.compare:
        return 0
    lines, differ = report.comparison(description, found)
    print("\n".join(lines))
    return int(differ)
