"""A dump that is exactly as ``lspci -xxx`` or ``-xxxx`` prints it, and nothing else: the general way is not needed.

A large machine is read about as fast as its text can be looked at once. Whatever differs in any byte is left to
``lspci``, which gives the same for what both can read.
"""

from __future__ import annotations

import re

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.lspci_hex import whole_dump

_HEADLINE = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7]) ([^\n]+)")
_NUMBERS = re.compile(r"[0-9a-f]{4}: [0-9a-f]{4}:[0-9a-f]{4}(?: \(rev [0-9a-f]{2}\))?(?: \(prog-if [0-9a-f]{2}\))?")
"""What follows the address under ``-n``: no name in it."""
_SAME = re.compile(r"[01][0-9a-fA-F]\.[0-7]")
"""What an address has in it; in a name it would be a second one."""
_SILENT = b"\xff\xff\xff\xff"
_FIRST = "\n00: "


def read_plain(text: str, file: str, name: str) -> MachineDescription | None:
    """Read a dump; None when something in it is not as lspci prints it, or takes a note."""
    if not text.isascii() or _FIRST not in text[:400]:
        return None
    found: dict[Bdf, FunctionDescription] = {}
    start, end = 0, len(text.rstrip("\n"))
    while start < end:
        stop = text.find("\n\n", start, end)
        stop = end if stop < 0 else stop
        item = _function(text, start, stop)
        if item is None or item.bdf in found:
            return None
        found[item.bdf] = item
        start = stop + 2
    return MachineDescription(name or "machine", tuple(found[bdf] for bdf in sorted(found)), source=file)


def _function(text: str, start: int, stop: int) -> FunctionDescription | None:
    first = text.find(_FIRST, start, start + 400)
    match = _HEADLINE.fullmatch(text, start, first) if first >= 0 else None
    if match is None:
        return None
    data = whole_dump(text[first + 1 : stop] + "\n")
    if data is None or len(data) == 64 or data[:4] == _SILENT:
        return None
    attributes = _attributes(match[5])
    if attributes is None:
        return None
    bdf = Bdf(int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))
    return FunctionDescription(bdf, data, attributes=attributes)


def _attributes(words: str) -> dict[str, str] | None:
    """Return what a headline with names says besides the numbers; None where it may be no headline of lspci's."""
    if _NUMBERS.fullmatch(words):
        return {}
    from quiesce.snapshot.lspci_headline import read_headline

    headline = read_headline(words.rstrip())
    if _SAME.search(words) or not headline.name or headline.class_code is None:
        return None
    port = headline.port
    return {"name": headline.name, **({"pcie-type": port} if port else {})}
