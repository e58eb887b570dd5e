"""What the commands about real machines share: sources, kernel, parameters."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from quiesce.kernel.kernelset import NEWEST, KernelSet, UnknownKernel, kernel
from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from quiesce.groups.conditions import Conditions
    from quiesce.groups.predict import Prediction
    from quiesce.snapshot.description import MachineDescription

ADDRESS = re.compile(r"(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{1,2}:[0-9a-fA-F]{1,2}\.[0-7]")
_RELEASE = re.compile(r"v?([0-9]+\.[0-9]+)")


def add_source_argument(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE."""
    text = "a file, a folder or archive of one machine, - (default: the live machine)"
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help=text)


def add_words_argument(parser: argparse.ArgumentParser, functions: str) -> None:
    """Add words of which those that look like a PCI address are functions, all others sources."""
    text = f"{functions}, such as 01:00.0; every other word is a source as for quiesce groups (default: live machine)"
    parser.add_argument("words", metavar="WORD", nargs="+", help=text)


def functions_and_sources(words: list[str], most: int) -> tuple[list[str], list[str]]:
    """Take words apart; raises BadInput when there are not one to ``most`` functions among them.

    A file whose name looks like an address is named with a folder before it (``./01:00.0``).
    """
    functions = [word for word in words if ADDRESS.fullmatch(word)]
    if not 1 <= len(functions) <= most:
        wanted = "one function" if most == 1 else f"one to {most} functions"
        raise BadInput("command line", " ".join(functions), f"{wanted}, given by address such as 01:00.0")
    return functions, [word for word in words if not ADDRESS.fullmatch(word)]


def add_prediction_arguments(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE and what a prediction depends on besides."""
    add_source_argument(parser)
    add_condition_arguments(parser)


def add_condition_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a prediction depends on besides the machine."""
    add = parser.add_argument
    add("--kernel", metavar="SET", help="a mainline tag such as v6.12 (default: the source's own, else the newest)")
    add("--with", dest="with_", metavar="C", action="append", default=[], help="add a change to the kernel")
    add("--without", metavar="C", action="append", default=[], help="take a change out of the kernel")
    add(
        "--iommu",
        choices=("intel", "amd", "arm", "virtio", "power", "none"),
        help="which IOMMU (default: what the source shows)",
    )
    add("--parameter", metavar="P", action="append", default=[], help="kernel parameter, such as pci=config_acs=...")
    add("--order", metavar="BDF,...", default="", help="functions that meet the IOMMU before all others, in this order")


def read_from(args: argparse.Namespace) -> MachineDescription:
    """Read the machine that the arguments name."""
    from quiesce.snapshot.read import read_sources

    return read_sources(args.sources)


def kernel_set(args: argparse.Namespace, description: MachineDescription) -> KernelSet:
    """Return the kernel that the arguments name, or the one that the source was recorded on; raises BadInput."""
    try:
        base = kernel(args.kernel) if args.kernel is not None else _own_kernel(description)
        return base.edited(args.with_, args.without)
    except (UnknownKernel, ValueError) as error:
        raise BadInput("command line", "--kernel", f"a kernel set that is known ({error})") from None


def _own_kernel(description: MachineDescription) -> KernelSet:
    match = _RELEASE.match(description.kernel or "")
    try:
        return kernel(f"v{match[1]}" if match else NEWEST)
    except UnknownKernel:
        return kernel(NEWEST)


def conditions(args: argparse.Namespace, description: MachineDescription) -> Conditions:
    """Return the conditions that the arguments name; raises BadInput."""
    from quiesce.groups.conditions import Conditions
    from quiesce.kernel.parameters import parse_parameters

    parameters = parse_parameters([word for text in args.parameter for word in text.split()])
    order = tuple(full_address(item) for item in args.order.split(",") if item)
    return Conditions(kernel_set(args, description), parameters, args.iommu, order)


def full_address(text: str) -> str:
    """Return an address with its segment; raises BadInput."""
    from quiesce.snapshot.bdf import Bdf

    try:
        return str(Bdf.parse(text))
    except ValueError:
        raise BadInput("command line", text, "an address such as 01:00.0") from None


def prediction(args: argparse.Namespace, description: MachineDescription) -> Prediction:
    """Predict the groups under the arguments' conditions."""
    return conditions(args, description).predict(description)
