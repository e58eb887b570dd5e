"""quiesce confirm: live the lives of cases on real kernels, and say where the model parts from them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.cli import FINDINGS, INTERRUPTED, common
from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from quiesce.testbed.agreement import Confirmation

_IOMMUS = ("same", "intel", "amd", "none")
_GUESTS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cases", metavar="CASE", nargs="*", help="a shipped case, or a case file")
    parser.add_argument("--all", action="store_true", help="every shipped case")
    parser.add_argument("--random", type=common.positive, metavar="N", help="N lives drawn at random")
    parser.add_argument("--groups", type=common.positive, metavar="N", help="the groups of N machines drawn at random")
    parser.add_argument("--seed", type=common.count, default=1, help="where the random lives begin (default: 1)")
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="IMAGE",
        help="as 'quiesce kernel list' names it (default: all)",
    )
    parser.add_argument("--iommu", choices=_IOMMUS, action="append", default=[], help="(default: the case's own)")
    parser.add_argument("--switch", action="append", default=[], metavar="S", help="a fault of the instrumented kernel")
    parser.add_argument("--jobs", type=common.processes, default=_GUESTS, help="guests at a time (default: 2)")
    parser.add_argument("--record", type=Path, metavar="DIR", help="store what the kernels showed")
    parser.add_argument("--recorded", type=Path, nargs="+", metavar="FILE", help="compare with what was stored instead")
    parser.add_argument(
        "--shrink", type=Path, metavar="DIR", help="write the shortest life of each difference as a case"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the agreement page")
    parser.add_argument(
        "--at-least",
        type=_percent,
        metavar="PERCENT",
        help="status 1 only where fewer observations of a kernel and IOMMU agree (default: on any unlisted difference)",
    )
    parser.add_argument("--every", action="store_true", help="print every difference, not the first of each life")
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; 1 when something differs that is not listed, or more than is allowed to."""
    if args.groups:
        return _groups(args)
    from quiesce.report import agreement

    done: list[Confirmation] = []
    interrupted = False
    try:
        for one in _confirmations(args):
            done.append(one)
            if args.format == "text":
                print(agreement.line(one), flush=True)
                for text in agreement.details(one, args.every):
                    print(text, flush=True)
    except KeyboardInterrupt:
        interrupted = True
        print(f"quiesce: interrupted after {len(done)} confirmations", file=sys.stderr)
    _print_end(args, done)
    if interrupted:
        return INTERRUPTED
    return FINDINGS if _too_much_differs(done, args.at_least) else 0


def _percent(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 100:
        raise argparse.ArgumentTypeError(f"a share from 0 to 100 is needed, not {text[:40]!r}")
    return found


def _too_much_differs(done: list[Confirmation], least: float | None) -> bool:
    from quiesce.testbed.agreement import table

    if least is None:
        return any(one.unexplained for one in done)
    return any(100 * row.share < least for row in table(done) if row.family == "all")


def _groups(args: argparse.Namespace) -> int:
    """Compare the groups of random machines; 1 when one differs."""
    from quiesce.testbed import batch

    tried = good = 0
    for line, agrees in batch.groups(args.groups, args.seed, batch.targets(args.kernel, args.iommu, ()), args.jobs):
        print(line, flush=True)
        tried += agrees is not None
        good += bool(agrees)
    print(f"groups: {good} of {tried} machines as predicted")
    return FINDINGS if good < tried else 0


def _print_end(args: argparse.Namespace, done: list[Confirmation]) -> None:
    from quiesce.report import agreement
    from quiesce.testbed.agreement import table

    if args.format == "json":
        print(json.dumps(agreement.record(done), indent=1))
    elif rows := table(done):
        print()
        print("\n".join(agreement.rows_text(rows)))
    if args.write:
        args.write.write_text(agreement.page(done))


def _confirmations(args: argparse.Namespace) -> Iterator[Confirmation]:
    from quiesce.testbed import batch

    if args.recorded:
        return iter([batch.from_recording(path) for path in args.recorded])
    cases = batch.shipped_names() if args.all else args.cases
    if not cases and not args.random:
        raise BadInput("confirm", "", "CASE..., --all, --random N or --recorded FILE...")
    targets = batch.targets(args.kernel, args.iommu, args.switch)
    if args.write and (args.write.is_dir() or not args.write.parent.is_dir()):
        raise BadInput(str(args.write), "", "a file in a folder that is there")
    work = batch.Work(tuple(cases), args.random or 0, args.seed, args.record, args.shrink)
    return batch.run(work, targets, args.jobs)
