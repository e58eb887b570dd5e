"""quiesce cut: what would free a function from its group."""

from __future__ import annotations

import argparse

from quiesce.cli.common import add_format_argument
from quiesce.cli.machines import add_condition_arguments, add_words_argument, conditions, functions_and_sources
from quiesce.report import cut as report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_words_argument(parser, "the function to free")
    add_condition_arguments(parser)
    add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from quiesce.groups.cut import cuts
    from quiesce.snapshot.read import read_sources

    functions, sources = functions_and_sources(args.words, 1)
    description = read_sources(sources)
    print(report.cuts(description, cuts(description, conditions(args, description), functions[0]), args.format))
    return 0
