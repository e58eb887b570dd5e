"""quiesce explore: search the lives of devices on any machine that can be read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from quiesce.cases.case import Case
from quiesce.cases.verdict import Verdict, judge, make_search, run
from quiesce.cli import FINDINGS, common
from quiesce.cli.run import report
from quiesce.drivers import all_drivers
from quiesce.explore.checkpoint import load, save
from quiesce.explore.model import Step
from quiesce.explore.search import Bounds, Search
from quiesce.report import machine_readable
from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("machine", metavar="MACHINE", help="a dump, a folder, a description, or a shipped machine")
    parser.add_argument("--driver", metavar="D", action="append", default=[], help="a driver model (repeat)")
    parser.add_argument("--device", metavar="BDF", action="append", default=[], help="only this device (repeat)")
    parser.add_argument("--event", metavar="PATTERN", action="append", default=[], help="only such events (repeat)")
    parser.add_argument("--never", metavar="RULE", action="append", default=[], help="watch only these rules (repeat)")
    common.add_kernel_arguments(parser, "v6.12")
    parser.add_argument("--depth", type=common.count, default=5, help="events in a life (default 5)")
    parser.add_argument("--states", type=common.positive, default=2_000_000, help="states at most (default 2,000,000)")
    parser.add_argument("--seconds", type=common.duration, default=600.0, help="time at most (default 600)")
    parser.add_argument(
        "--windows", type=common.count, default=0, help="how often something may run inside an operation"
    )
    parser.add_argument("--faults", type=common.count, default=0, help="how many allocations may fail")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--from-power-on", action="store_true", help="let the search begin before the boot")
    parser.add_argument("--jobs", type=common.processes, default=1, help="processes for one search (default 1)")
    parser.add_argument("--checkpoint", metavar="FILE", help="go on from FILE if it is there, and write it at the end")
    parser.add_argument("--all", action="store_true", help="print a trace for every rule that breaks")
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    case = _case(args)
    if args.jobs > 1 and args.checkpoint:
        raise BadInput("--checkpoint", "", "one process (--jobs 1)")
    bounds = Bounds(args.depth, args.states, args.seconds)
    show = common.progress(args.machine)
    if args.jobs > 1:
        verdict = run(case, bounds=bounds, first_only=args.first, jobs=args.jobs)
    else:
        verdict = _search(make_search(case, bounds, first_only=args.first, progress=show), case, args.checkpoint)
    if args.format == "json":
        print(json.dumps(machine_readable.verdict_record(verdict), indent=1))
    else:
        for line in report(verdict, args.all):
            print(line)
    return FINDINGS if verdict.first else 0


def _case(args: argparse.Namespace) -> Case:
    known = all_drivers()
    unknown = [name for name in args.driver if name not in known]
    if unknown or not args.driver:
        raise BadInput(", ".join(unknown) or "--driver", "driver", "one or more of " + ", ".join(sorted(known)))
    return common.on_kernel(
        Case(
            name=Path(args.machine).name.split(".")[0] or "explore",
            machine=common.machine_name(args.machine),
            kernel="v6.12",
            drivers=tuple(args.driver),
            devices=tuple(args.device),
            depth=args.depth,
            windows=args.windows,
            faults=args.faults,
            setup=() if args.from_power_on else (Step("boot"),),
            events=tuple(args.event) or ("*",),
            never=tuple(args.never) or ("*",),
        ),
        args,
    )


def _search(search: Search, case: Case, checkpoint: str | None) -> Verdict:
    if checkpoint is not None and not Path(checkpoint).absolute().parent.is_dir():
        raise BadInput(checkpoint, "checkpoint", "a file in a folder that exists")
    if checkpoint is not None and Path(checkpoint).exists():
        load(search, Path(checkpoint))
    result = search.run()
    common.clear_progress()
    if checkpoint is not None:
        _save(search, checkpoint)
    return judge(case, result)


def _save(search: Search, checkpoint: str) -> None:
    try:
        save(search, Path(checkpoint))
    except OSError as error:
        raise BadInput(checkpoint, "checkpoint", f"a file that can be written ({error.strerror})") from None
