"""quiesce what-if: groups before and after a change."""

from __future__ import annotations

import argparse

from quiesce.cli.common import add_format_argument
from quiesce.cli.machines import add_condition_arguments, add_source_argument, conditions
from quiesce.report import what_if as report


class _Edit(argparse.Action):
    """Keeps changes to the machine in the order in which they are given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        """Append one."""
        namespace.edits = [*namespace.edits, (self.dest, str(values))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_argument(parser)
    add = parser.add_argument
    add("--move", metavar="A=PORT", action=_Edit, help="put the card of function or slot A behind another port")
    add("--remove", metavar="A", action=_Edit, help="take function or slot A away, with all below it")
    add("--acs", metavar="PORT=BITS", action=_Edit, help="as if its ACS offered SV,RR,CR,UF (or none: no capability)")
    parser.set_defaults(edits=[])
    add_condition_arguments(parser)
    add("--before", metavar="SET", help="kernel before the change (default: the source's own, else the newest)")
    add_format_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command. Kernel, changes, parameters and order are part of what changes; the IOMMU is not."""
    from quiesce.groups.what_if import compare
    from quiesce.snapshot.read import read_sources

    description = read_sources(args.sources)
    after = conditions(args, description)
    unchanged = argparse.Namespace(kernel=args.before, with_=[], without=[], parameter=[], order="", iommu=args.iommu)
    if args.kernel is None and args.before is not None:
        args.kernel = args.before
        after = conditions(args, description)
    print(report.comparison(compare(description, args.edits, conditions(unchanged, description), after), args.format))
    return 0
