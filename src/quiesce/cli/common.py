"""What the commands share: arguments, errors in one line, progress on a terminal, worker processes."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from quiesce.cli import BAD_INPUT, COMMANDS, INTERRUPTED
from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from types import ModuleType

    from quiesce.cases.case import Case
    from quiesce.explore.search import Result

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def run_command(name: str, module: ModuleType, words: list[str]) -> int:
    """Parse the arguments of a command and run it; bad input becomes one line and status 2."""
    parser = _Parser(prog=f"quiesce {name}", description=COMMANDS[name])
    module.add_arguments(parser)
    args = parser.parse(words)
    try:
        return int(module.main(args))
    except BadInput as error:
        print(f"quiesce: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("quiesce: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, as with every other input."""

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Read the arguments; options may stand between the others, except where there are sub-commands."""
        return self.parse_args(words) if self._subparsers else self.parse_intermixed_args(words)

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(BAD_INPUT, f"quiesce: {self.prog.removeprefix('quiesce ')}: {message}\n")


def count(text: str) -> int:
    """Return a number of events, windows or faults."""
    from quiesce.cases.case import MOST

    return _number(text, 0, MOST)


def positive(text: str) -> int:
    """Return a number of states."""
    return _number(text, 1, 10**9)


def processes(text: str) -> int:
    """Return a number of processes."""
    return _number(text, 1, 1024)


def _number(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is needed, not {text[:40]!r}")
    return int(text)


def duration(text: str) -> float:
    """Return a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text[:40]!r}")
    return value


def add_kernel_arguments(parser: argparse.ArgumentParser, default: str = "the case's own") -> None:
    """Add ``--kernel``, ``--with`` and ``--without``."""
    parser.add_argument("--kernel", metavar="SET", help=f"a mainline tag such as v6.11-rc2 (default: {default})")
    parser.add_argument("--with", dest="with_", metavar="C", action="append", default=[], help="add a change")
    parser.add_argument("--without", metavar="C", action="append", default=[], help="take a change out")


def kernel_expression(args: argparse.Namespace, default: str) -> str:
    """Return the kernel set that the arguments name, as an expression of the case format."""
    words = [default if args.kernel is None else args.kernel]
    for sign, names in (("+", args.with_), ("-", args.without)):
        words += [f"{sign} {name}" for name in names]
    return " ".join(words)


def on_kernel(case: Case, args: argparse.Namespace) -> Case:
    """Return the case on the kernel that the arguments name."""
    from quiesce.cases.case import parse_kernel

    return case.on(parse_kernel(kernel_expression(args, case.kernel), "command line").name)


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--machine`` and ``--device``, which put a case on another machine."""
    parser.add_argument("--machine", metavar="MACHINE", help="another machine than the case's")
    parser.add_argument("--device", metavar="BDF", action="append", default=[], help="other devices than the case's")


def on_machine(case: Case, args: argparse.Namespace) -> Case:
    """Return the case on the machine and devices that the arguments name."""
    from dataclasses import replace

    if args.machine is not None:
        case = replace(case, machine=machine_name(args.machine))
    return replace(case, devices=tuple(args.device)) if args.device else case


def machine_name(text: str) -> str:
    """Return a machine as a trace should name it: a file by its full path, because the trace may be kept elsewhere."""
    from pathlib import Path

    return str(Path(text).resolve()) if text and Path(text).exists() else text


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--format``."""
    parser.add_argument("--format", choices=("text", "json"), default="text")


def add_jobs_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs``."""
    parser.add_argument("--jobs", type=processes, default=os.cpu_count() or 1, help="processes (default: one per core)")


def progress(label: str) -> Callable[[Result], None] | None:
    """Return a function that shows how far a search is, on a terminal only."""
    if not sys.stderr.isatty():
        return None

    def show(result: Result) -> None:
        text = f"{label}: depth {result.depth}, {result.states} states, {result.transitions} transitions"
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    return show


def clear_progress() -> None:
    """Take the progress line away."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def in_parallel(work: Callable[[Item], Answer], items: Sequence[Item], jobs: int) -> Iterator[Answer]:
    """Yield ``work(item)`` in order, over several processes where that helps."""
    if jobs <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(jobs, len(items)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)
