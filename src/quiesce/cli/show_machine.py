"""quiesce show-machine: a machine as it was read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from quiesce.cli.machines import add_source_argument, read_from
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_argument(parser)
    add = parser.add_argument
    add("--device", metavar="BDF", action="append", default=[], help="only this function (may be repeated)")
    add("-v", "--verbose", action="store_true", help="every capability, register and field")
    add("--as-recorded", action="store_true", help="the groups too that the source itself states")
    add("--format", choices=("text", "json", "lspci"), default="text", help="lspci: what lspci -F reads back")
    add("--shipped", action="store_true", help="list the machines that come with quiesce, which SOURCE can name")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.shipped:
        from quiesce.cases.scenario import shipped_machines

        print("\n".join(shipped_machines()))
        return 0
    description = _read(args)
    only = [_device(description, text) for text in args.device]
    if args.format == "lspci":
        from quiesce.snapshot.lspci import write

        print(write(item for item in description.functions if not only or item.bdf in only), end="")
        return 0
    _show(description, only, args)
    return 0


def _read(args: argparse.Namespace) -> MachineDescription:
    if len(args.sources) == 1 and args.sources[0] != "-" and not Path(args.sources[0]).exists():
        from quiesce.cases.scenario import find_machine

        return find_machine(args.sources[0])
    return read_from(args)


def _device(description: MachineDescription, text: str) -> Bdf:
    try:
        found = Bdf.parse(text)
    except ValueError:
        raise BadInput("command line", "--device", f"an address such as 01:00.0, not {text[:40]!r}") from None
    if description.function(found) is None:
        raise BadInput("command line", "--device", f"a function of {description.name}; it has none at {found}")
    return found


def _show(description: MachineDescription, only: Sequence[Bdf], args: argparse.Namespace) -> None:
    from quiesce.report.machine import as_json, functions_of, listing

    shown = functions_of(description, only)
    if args.format == "json":
        print(json.dumps(as_json(description, shown, args.as_recorded, args.verbose), indent=1))
        return
    for line in listing(description, shown, args.as_recorded, args.verbose):
        print(line)
