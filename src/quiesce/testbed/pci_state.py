"""Reads what the agent says of PCI: everything sysfs shows, in one piece (``guest_programs/agent_pci.c``)."""

from __future__ import annotations

import re
from typing import Any

BLOCKED = "?blocked"
"""The value of an attribute whose reading did not come back: a lock that it takes is held."""
FAILED = "?error"
"""The beginning of the value of an attribute that could not be read; the errno follows."""

_ATTRIBUTE = re.compile(r"([a-z0-9_/]+)(?:=(.*)|\?(\d+)|(!))$")
_ESCAPE = re.compile(r"\\(?:z(\d+);|(.))")


def parse_state(text: str) -> dict[str, Any]:
    """Return ``dev`` (bdf -> attribute -> text), ``group`` (number -> type, devices, reserved) and ``irq``.

    ``irq`` has for each line of ``/proc/interrupts`` the sum over all processors as ``count`` and the rest as ``what``.
    """
    state: dict[str, Any] = {"dev": {}, "group": {}, "irq": {}}
    body, _, interrupts = text.partition("INTERRUPTS\n")
    current: dict[str, str] = {}
    for line in body.splitlines():
        kind, _, name = line.partition(" ")
        if kind in ("DEVICE", "GROUP"):
            current = state["dev" if kind == "DEVICE" else "group"].setdefault(name, {})
        elif found := _ATTRIBUTE.match(line):
            current[found[1]] = _value(found)
    state["group"] = {number: _group(read) for number, read in state["group"].items()}
    state["irq"] = _interrupts(interrupts)
    return state


def _value(found: re.Match[str]) -> str:
    if found[4]:
        return BLOCKED
    if found[3]:
        return f"{FAILED} {found[3]}"
    return _ESCAPE.sub(_plain, found[2])


def _plain(escape: re.Match[str]) -> str:
    if escape[1]:
        return "0" * int(escape[1])
    return "\n" if escape[2] == "n" else escape[2]


def _group(read: dict[str, str]) -> dict[str, Any]:
    return {
        "type": read.get("type", "?"),
        "devices": [name for name in read.get("devices", "").split(",") if name],
        "reserved": read.get("reserved_regions", "").splitlines(),
    }


def _interrupts(text: str) -> dict[str, dict[str, Any]]:
    lines = text.splitlines()
    processors = len(lines[0].split()) if lines else 0
    found: dict[str, dict[str, Any]] = {}
    for line in lines[1:]:
        name, *rest = line.split() or [""]
        if name:
            counts = [int(word) for word in rest[:processors] if word.isdigit()]
            found[name.rstrip(":")] = {"count": sum(counts), "what": " ".join(rest[processors:])}
    return found
