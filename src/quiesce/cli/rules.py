"""quiesce rules: what must not happen."""

from __future__ import annotations

import argparse

from quiesce.rules.page import page
from quiesce.rules.registry import RULES, rule
from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("rule", metavar="RULE", nargs="?", help="explain this one")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.rule is None:
        for one in RULES:
            print(f"{one.id:<32} {one.meaning}")
        return 0
    try:
        print(page(rule(args.rule)), end="")
    except KeyError:
        raise BadInput(args.rule, "rule", "one that 'quiesce rules' lists") from None
    return 0
