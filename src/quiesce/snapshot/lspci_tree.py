"""Trees that ``lspci -t`` draws: functions, and the buses below bridges.

Where a branch stands says which bus it belongs to, so a tree that lost its blanks gives only those lines that begin
with the root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from quiesce.snapshot.bdf import Bdf

_ROOT = re.compile(r"[ \t]*-(?:\+-|\\-)?\[(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}(?:-[0-9a-f]{2})?\]-")
_BRANCH = re.compile(r"[ \t|]*[+\\|][-+\\|\[\] \t0-9a-f:.]*.*")
_TOKEN = re.compile(
    r"\[(?:(?P<segment>[0-9a-f]{4,8}):)?(?P<bus>[0-9a-f]{2})(?:-(?P<last>[0-9a-f]{2}))?\]"
    r"|(?P<device>[01][0-9a-f])\.(?P<function>[0-7])|(?P<branch>[+\\])|(?P<name>(?<=\.[0-7])  .*)"
)
_LINES_AT_MOST = 100_000
_LONGEST = 1000
"""lspci itself has room for 256 characters in a line of a tree."""


@dataclass
class Tree:
    """What a tree says."""

    functions: dict[Bdf, str] = field(default_factory=dict)
    """Function -> the words behind it."""
    bridges: dict[Bdf, tuple[int, int]] = field(default_factory=dict)
    """Bridge -> first and last bus below it."""
    notes: list[str] = field(default_factory=list)


def read_trees(text: str) -> Tree | None:
    """Return what all trees in a text say; None when there is none."""
    if "]-" not in text:
        return None
    found, reader = Tree(), None
    for number, raw in enumerate(text.split("\n", _LINES_AT_MOST), start=1):
        line = raw[:_LONGEST].expandtabs(8)
        if "-[" in line and _ROOT.match(line):
            reader = _Reader(found)
            reader.read(line, number)
        elif reader is not None and _BRANCH.fullmatch(line):
            reader.read(line, number)
        elif not line.strip():
            reader = None
    return found if found.functions or found.bridges else None


class _Reader:
    """Goes through the lines of one tree; ``columns`` knows the bus whose branches stand in a column."""

    def __init__(self, found: Tree) -> None:
        self.found = found
        self.columns: dict[int, tuple[int, int] | None] = {}
        self.bus: tuple[int, int] | None = None
        self.bridge: Bdf | None = None
        self.known = True

    def read(self, line: str, number: int) -> None:
        """Read one line from left to right."""
        self.bus, self.bridge, fresh = None, None, True
        lost = placed = False
        for match in _TOKEN.finditer(line):
            placed = placed or not match["device"]
            if match["branch"]:
                at = match.start()
                if fresh and self.columns and at in self.columns:
                    self.bus = self.columns[at]
                else:
                    self.columns[at] = self.bus
            elif match["bus"]:
                self.enter(match)
            elif match["device"] and placed:
                lost = lost or not self.add(match, line)
            elif match["name"]:
                break
            fresh = False
        if lost:
            self.found.notes.append(f"line {number}: a branch of the tree that hangs on nothing; left out")

    def enter(self, match: re.Match[str]) -> None:
        """Go to the bus in brackets: below the bridge before it, or a root bus."""
        bus, last = int(match["bus"], 16), int(match["last"] or match["bus"], 16)
        segment = int(match["segment"], 16) if match["segment"] else self.bus[0] if self.bus else 0
        if self.bridge is not None:
            self.found.bridges[self.bridge] = (bus, last)
        self.bus, self.bridge = (segment, bus), None

    def add(self, match: re.Match[str], line: str) -> bool:
        """Add a function on the current bus; says whether there is one."""
        if self.bus is None:
            return False
        device, function = int(match["device"], 16), int(match["function"])
        self.bridge = Bdf(*self.bus, device, function)
        rest = line[match.end() :]
        self.found.functions.setdefault(self.bridge, rest.strip() if rest.startswith("  ") else "")
        return True
