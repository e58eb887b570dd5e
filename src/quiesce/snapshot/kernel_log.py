"""Kernel logs as text: whether something is one, and its lines without what terminals, mail and pagers did to them."""

from __future__ import annotations

import re
from collections.abc import Iterator

CUT_MARK = re.compile(r"### collector: ([0-9]{1,9}) lines left out here ###")
_STAMP = re.compile(r"(?:<[0-9]{1,3}>)?\[ *\+?[0-9]+\.[0-9]{3,9}(?: <[^>]{1,20}>)?\]")
_LONGEST = 8192
"""No line of a kernel log is longer, its command line included."""
_CONSOLE = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]|[\x00-\x08\x0b-\x1f]")
_TELLING = re.compile(
    r"\bLinux version [0-9]|\bpci [0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]: |"
    r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]: Adding to iommu group|"
    r"iommu: Adding device [0-9a-f:.]+ to group|PCI: Found [0-9a-f]"
)
_WORDS = ("Linux version ", "pci ", "Adding to iommu group", "iommu: Adding device ", "PCI: Found ")
"""Each of the above has one of these; to look for them first is much faster in megabytes of something else."""


def is_kernel_log(text: str) -> bool:
    """Whether there are lines in the text that only a kernel says, and that this package reads."""
    return any(word in text for word in _WORDS) and _TELLING.search(text) is not None


def log_lines(text: str) -> Iterator[str]:
    """Yield the lines, with those that a mail program wrapped joined again.

    A line is taken for the rest of the one before where that one has a time stamp of the kernel and it has none,
    in a log in which nearly all lines have one.
    """
    plain = text.replace("\xa0", " ").replace("\ufeff", "")
    lines = [line for line in plain.splitlines() if line]
    stamped = sum(1 for line in lines[:2000] if _STAMP.search(line, 0, 100))
    wrapped = stamped * 2 > min(len(lines), 2000)
    pending = ""
    for raw in lines:
        line = _clean(raw)
        if not wrapped:
            yield line
        elif _is_rest(pending, line):
            pending = f"{pending} {line.strip()}"
        else:
            if pending:
                yield pending
            pending = line
    if pending:
        yield pending


def _clean(line: str) -> str:
    line = line[:_LONGEST]
    if line[0] in ">|":
        line = line.lstrip(">| ")
    return line if line.isprintable() else _CONSOLE.sub("", line)


def _is_rest(before: str, line: str) -> bool:
    """Mail programs wrap at 70 to 80 columns, so what was wrapped was not much shorter than that."""
    if not line or len(line) > 80 or not 40 <= len(before) <= 400 or line.startswith(("###", "---", "==")):
        return False
    return _STAMP.search(before, 0, 100) is not None and _STAMP.search(line, 0, 100) is None
