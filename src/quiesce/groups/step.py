"""One reason of an explanation."""

from __future__ import annotations

from dataclasses import dataclass

from quiesce.kernel import changes
from quiesce.kernel.kernelset import UnknownKernel


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a chain of reasons."""

    kind: str
    """``covered``, ``uncovered``, ``alias``, ``own-alias``, ``climbs``, ``order``, ``ungrouped``, ``isolates``,
    ``beside``, ``joins``, ``founds``, ``since``, ``change``, ``nothing``."""
    subject: str
    """The function whose group is being looked for."""
    function: str
    """The function that the reason is about."""
    fact: str
    """What is the case, in words."""
    evidence: str = ""
    """Register and bits, table entry, ids: where that can be seen."""
    change: str = ""
    """The commit (or name) of the change to the kernel behind it."""
    since: str = ""
    """First release with that change."""
    decisive: bool = False
    """Without this (and the other decisive ones) the answer would be another: tried."""


def since_of(change: str) -> str:
    """Return the first release with a change; empty for one that is in none."""
    try:
        return changes.find(change).since or ""
    except UnknownKernel:
        return ""
