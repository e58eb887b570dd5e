"""quiesce machine: a machine as quiesce understands it."""

from __future__ import annotations

import argparse

from quiesce.cases.scenario import find_machine, shipped_machines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("machine", metavar="MACHINE", nargs="?", help="a dump, a folder, a description (default: list)")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.machine is None:
        print("\n".join(shipped_machines()))
        return 0
    for line in lines(args.machine):
        print(line)
    return 0


def lines(name: str) -> list[str]:
    """Return one line for each function of a machine, then its IOMMU and what is unknown."""
    from quiesce.machine.build import build_machine
    from quiesce.world import World

    description = find_machine(name)
    machine = build_machine(World(), description)
    text = [machine.describe(function) for function in machine.functions.values()]
    text.append(f"iommu: {machine.iommu or 'none'}")
    return [*text, *(f"note: {note}" for note in description.notes)]
