"""Reads records of ``/dev/kmsg``."""

from __future__ import annotations

import re

_RECORD = re.compile(r"(\d+),(\d+),(\d+),[^;]*;(.*)")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


class KernelLog:
    """Turns records into lines; notices records that the kernel's buffer has lost."""

    def __init__(self) -> None:
        self._next: int | None = None

    def lines(self, text: str) -> list[str]:
        """Return the lines of some records, in place of missing ones a line that says how many."""
        found: list[str] = []
        for line in text.splitlines():
            record = _RECORD.match(line)
            if record is None:
                continue
            number = int(record[2])
            if self._next is not None and number > self._next:
                found.append(f"[{number - self._next} kernel messages lost]")
            self._next = number + 1
            found += _unescaped(record[4]).split("\n")
        return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda code: chr(int(code[1], 16)), text)
