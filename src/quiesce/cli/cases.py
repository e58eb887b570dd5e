"""quiesce cases: the shipped cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from quiesce.cases.library import find_case, shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("case", metavar="CASE", nargs="?", help="print the page of this one")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.case is not None:
        print(Path(find_case(args.case).path).read_text(), end="")
        return 0
    for case in shipped().values():
        print(f"{case.name:<26} {case.kernel:<14} {case.title}")
    return 0
