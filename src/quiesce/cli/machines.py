"""What the commands about real machines share: sources, kernel, parameters."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from quiesce.kernel.kernelset import NEWEST, KernelSet, UnknownKernel, kernel
from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from quiesce.groups.predict import Prediction
    from quiesce.snapshot.description import MachineDescription

_RELEASE = re.compile(r"v?([0-9]+\.[0-9]+)")


def add_source_argument(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE."""
    text = "a file, a folder or archive of one machine, - (default: the live machine)"
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help=text)


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


def prediction(args: argparse.Namespace, description: MachineDescription) -> Prediction:
    """Predict the groups under the arguments' conditions."""
    from quiesce.groups.predict import predict
    from quiesce.kernel.parameters import parse_parameters

    parameters = parse_parameters([word for text in args.parameter for word in text.split()])
    order = [item for item in args.order.split(",") if item]
    return predict(description, kernel_set(args, description), parameters, args.iommu, order)
