"""/proc/interrupts: which handlers are on which interrupt number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_NUMBERED = re.compile(r"\s*(\d+):(.*)")


class InterruptLine(NamedTuple):
    """One numbered line."""

    irq: int
    times: int
    """How often it came, on all CPUs."""
    chip: str
    handlers: tuple[str, ...]
    """Names that the handlers were requested with, oldest first."""


def parse_interrupts(text: str) -> dict[int, InterruptLine]:
    """Return the numbered lines; what is no such line (the architecture's own counters) is left out."""
    first, *lines = text.splitlines() or [""]
    cpus = sum(word.startswith("CPU") for word in first.split())
    parsed = (_line(cpus, match) for line in lines if (match := _NUMBERED.match(line)))
    return {line.irq: line for line in parsed}


def _line(cpus: int, match: re.Match[str]) -> InterruptLine:
    """Counts, the chip's name, its number of the input with the trigger, then the handlers' names."""
    words = match[2].split(None, cpus + 2)
    counts = [int(word) for word in words[:cpus] if word.isdigit()]
    names = words[cpus + 2] if len(words) > cpus + 2 else ""
    chip = words[cpus] if len(words) > cpus else ""
    handlers = tuple(name.strip() for name in names.split(",") if name.strip())
    return InterruptLine(int(match[1]), sum(counts), chip, handlers)


def handlers_on(lines: Mapping[int, InterruptLine], irq: int) -> int:
    """Return how many handlers a number has."""
    return len(lines[irq].handlers) if irq in lines else 0
