"""The command line: one module per command, imported only when it is used."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

COMMANDS = {
    "run": "search a case (or follow a printed trace) and print the shortest life that goes wrong",
    "replay": "run every shipped case and print a table",
    "matrix": "judge a case on every kernel set and candidate fix on its page",
    "show": "follow a case or trace step by step, with every field that each step changed",
    "explore": "search the lives of devices on any machine that can be read",
    "confirm": "live the same lives on real kernels in QEMU, and say where the model parts from them",
    "residue": "what a driver leaves behind on a device, and which other drivers trip over it",
    "groups": "the IOMMU groups that a kernel forms on a real machine, or all that are still possible",
    "why": "why functions share an IOMMU group, are apart, alone or without one: why A [B] [SOURCE...]",
    "cut": "the smallest changes that would free a function from its IOMMU group: cut A [SOURCE...]",
    "what-if": "groups before and after a move, a removal, other ACS bits, parameters or another kernel",
    "agree": "how far predictions agree with what real kernels did, over a folder of real data",
    "show-machine": "a machine as it was read: functions, bridges, IOMMUs, decoded registers",
    "draw": "draw a machine with groups, IOMMUs and ACS: text, or one SVG or HTML file",
    "plan": "hand a device of a real machine to a guest and take it back: steps, conditions, what goes wrong",
    "collect": "copy what the kernel shows of this machine's PCI devices into an archive to send, redacted",
    "cases": "list the shipped cases, or print one",
    "rules": "list the rules, or explain one",
    "changes": "list the differences between kernels that quiesce knows",
    "kernel": "fetch, build, add or list the real kernels that cases are confirmed on",
    "kernels": "list the kernel sets, or what one contains",
}
"""Command to its help line; each is a module of this package with ``add_arguments`` and ``main``."""

FINDINGS, BAD_INPUT, INTERRUPTED = 1, 2, 130


def usage() -> str:
    """Return the text of ``quiesce --help``."""
    lines = [
        "usage: quiesce COMMAND ...",
        "",
        "An executable model of how Linux binds, interrupts, isolates and removes PCI devices.",
        "",
    ]
    lines += [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    lines += ["", "quiesce COMMAND --help tells more. Exit status: 0 clean, 1 findings, 2 bad input."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        with suppress(BrokenPipeError):
            print(usage(), flush=True)
        return 0 if words else BAD_INPUT
    if words[0] in ("-V", "--version"):
        from quiesce import __version__

        print(f"quiesce {__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"quiesce: unknown command {words[0]!r}; expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return BAD_INPUT
    return _guarded(words[0], words[1:])


def _guarded(name: str, words: list[str]) -> int:
    from quiesce.cli.common import run_command

    module = import_module(f"quiesce.cli.{name.replace('-', '_')}")
    return run_command(name, module, words)
