"""quiesce plan: hand a device to user space and take it back, checked on this machine and kernel."""

from __future__ import annotations

import argparse
import re

from quiesce.cli import FINDINGS
from quiesce.cli.common import add_format_argument, duration
from quiesce.cli.machines import add_condition_arguments, kernel_set, prediction, read_from
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.errors import BadInput

_DEVICE = re.compile(r"([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{1,2}:[0-9a-fA-F]{1,2}\.[0-7]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    text = (
        "the device (01:00.0), then sources: files, a folder or archive of one machine, - (default: the live machine)"
    )
    parser.add_argument("words", metavar="BDF [SOURCE ...]", nargs="+", help=text)
    parser.add_argument("--to", choices=("vfio-pci",), default="vfio-pci", help="who gets it (default vfio-pci)")
    help_text = "who holds a function, where the source does not say (repeat)"
    parser.add_argument("--held", metavar="BDF=DRIVER", action="append", default=[], help=help_text)
    parser.add_argument("--seconds", type=duration, default=5.0, help="time for the search at most (default 5)")
    parser.add_argument("--no-search", action="store_true", help="do not search for lives that go wrong")
    add_condition_arguments(parser)
    add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; status 1 when the plan is refused."""
    from quiesce.plan.make import make_plan
    from quiesce.plan.model import REFUSED
    from quiesce.plan.trouble import searched
    from quiesce.report import plan as report

    device = _device(args)
    held = dict(_held(text) for text in args.held)
    description = read_from(args)
    kernel = kernel_set(args, description)
    plan = make_plan(description, kernel, prediction(args, description), device, args.to, held)
    if plan.verdict != REFUSED and not args.no_search:
        plan = searched(plan, description, args.seconds)
    print(report.plan(plan, args.format))
    return FINDINGS if plan.verdict == REFUSED else 0


def _device(args: argparse.Namespace) -> str:
    """Take the device out of the words and leave the sources."""
    found = [word for word in args.words if _DEVICE.fullmatch(word)]
    args.sources = [word for word in args.words if word not in found]
    if len(found) != 1:
        raise BadInput("command line", "device", f"one PCI address such as 01:00.0, found {len(found)}")
    return _address(found[0])


def _address(text: str) -> str:
    try:
        return str(Bdf.parse(text))
    except ValueError as error:
        raise BadInput("command line", "device", f"a PCI address such as 01:00.0 ({error})") from None


def _held(text: str) -> tuple[str, str]:
    bdf, equals, driver = text.partition("=")
    if not equals:
        raise BadInput("command line", "--held", f"BDF=DRIVER, not {text[:40]!r}")
    return _address(bdf), driver
