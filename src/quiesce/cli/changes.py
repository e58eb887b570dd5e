"""quiesce changes: the differences between kernels."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from quiesce.cli import common
from quiesce.kernel.changes import Change, every
from quiesce.kernel.unmodelled import unmodelled
from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--subsystem", metavar="S", default="", help="only those whose area contains S")
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    rows = [(change, True) for change in every()] + [(change, False) for change in unmodelled()]
    rows = [(change, modelled) for change, modelled in rows if args.subsystem.lower() in change.subsystem.lower()]
    if not rows:
        areas = sorted({change.subsystem for change in (*every(), *unmodelled())})
        raise BadInput(args.subsystem, "--subsystem", "part of one of " + ", ".join(areas))
    if args.format == "json":
        print(json.dumps([asdict(change) | {"modelled": modelled} for change, modelled in rows], indent=1))
        return 0
    for change, modelled in rows:
        print(_line(change, modelled))
    done = sum(modelled for _, modelled in rows)
    print(f"{len(rows)} changes, {done} modelled, {len(rows) - done} known but not modelled")
    return 0


def _line(change: Change, modelled: bool) -> str:
    word = "modelled" if modelled else "not modelled"
    return f"{change.id:<26} {change.since or 'proposed':<10} {word:<13} {change.subsystem:<20} {change.subject}"
