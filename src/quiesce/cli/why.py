"""quiesce why: the reasons behind a group."""

from __future__ import annotations

import argparse

from quiesce.cli.common import add_format_argument
from quiesce.cli.machines import add_condition_arguments, add_words_argument, conditions, functions_and_sources
from quiesce.report import why as report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_words_argument(parser, "one function (why this group?) or two (why together or apart?)")
    add_condition_arguments(parser)
    parser.add_argument(
        "--no-history", action="store_true", help="leave out which changes to the kernel turn the answer"
    )
    add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from quiesce.groups.why import explain
    from quiesce.snapshot.read import read_sources

    functions, sources = functions_and_sources(args.words, 2)
    description = read_sources(sources)
    found = explain(description, conditions(args, description), functions, not args.no_history)
    print(report.explanation(description, found, args.format))
    return 0
