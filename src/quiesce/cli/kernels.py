"""quiesce kernels: the sets of changes that have a name."""

from __future__ import annotations

import argparse

from quiesce.cases.case import parse_kernel
from quiesce.kernel.kernelset import releases


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kernel", metavar="SET", nargs="?", help="list what this set contains, such as 'v6.11 + C - C'")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.kernel is not None:
        for change in parse_kernel(args.kernel, "command line"):
            print(f"{change.id:<26} {change.since or 'proposed':<10} {change.subsystem:<20} {change.subject}")
        return 0
    print("Any mainline tag from v3.5 to the newest known is a kernel set; those at which the model changes:")
    for version, added in releases():
        print(
            f"{version:<10} {len(added):>3} changes  {' '.join(change.id for change in added[:6])}"
            + (" ..." if len(added) > 6 else "")
        )
    return 0
