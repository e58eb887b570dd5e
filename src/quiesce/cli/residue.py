"""quiesce residue: what a driver leaves behind on a device."""

from __future__ import annotations

import argparse
import json

from quiesce.cases.case import Case
from quiesce.cases.residue import Residue, residue
from quiesce.cases.scenario import answer_of, build_kernel, full_bdf
from quiesce.cli import FINDINGS, common
from quiesce.drivers import all_drivers
from quiesce.report.text import change_line, value_text
from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("machine", metavar="MACHINE")
    parser.add_argument("--driver", metavar="A", required=True, help="the driver that is bound and released")
    parser.add_argument("--device", metavar="BDF", required=True)
    parser.add_argument(
        "--depth", type=common.count, default=4, help="events in the life of each other driver (default 4)"
    )
    parser.add_argument("--other", metavar="B", action="append", default=[], help="try only these drivers afterwards")
    common.add_kernel_arguments(parser, "v6.12")
    common.add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    known = all_drivers()
    for name in (args.driver, *args.other):
        if name not in known:
            raise BadInput(name, "driver", "one of " + ", ".join(sorted(known)))
    case = common.on_kernel(
        Case("residue", machine=args.machine, kernel="v6.12", drivers=(args.driver,), depth=args.depth), args
    )
    bdf = full_bdf(case, build_kernel(case), args.device)
    others = tuple(args.other) or tuple(name for name in known if name != args.driver)
    found = residue(case, args.driver, bdf, others)
    if args.format == "json":
        print(json.dumps(_record(found), indent=1))
    else:
        print("\n".join(_lines(args, case, bdf, found)))
    return FINDINGS if found.left or found.tripped else 0


def _lines(args: argparse.Namespace, case: Case, bdf: str, found: Residue) -> list[str]:
    lines = [f"residue of {args.driver} on {bdf}, {case.kernel}: bind {answer_of(found.bound) or 'not possible'}"]
    lines += [f"  {change_line(change)}" for change in found.left] or ["  nothing: the device is as if never bound"]
    for one in found.tripped:
        violation = one.violation
        lines.append(f"  trips {one.driver}: {violation.finding.rule}: {violation.finding.why}")
        lines.append("    by " + ", ".join(step.event for step in violation.steps))
    return lines


def _record(found: Residue) -> dict[str, object]:
    return {
        "bound": found.bound.answer,
        "left": [
            {"object": c.path, "field": c.field, "fresh": value_text(c.old), "left": value_text(c.new)}
            for c in found.left
        ],
        "tripped": [
            {
                "driver": one.driver,
                "rule": one.violation.finding.rule,
                "why": one.violation.finding.why,
                "steps": [step.event for step in one.violation.steps],
            }
            for one in found.tripped
        ],
    }
