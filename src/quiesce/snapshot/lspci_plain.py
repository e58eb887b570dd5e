"""A dump that is exactly as ``lspci -xxx`` or ``-xxxx`` prints it, and nothing else: the general way is not needed.

A large machine is read about as fast as its text can be looked at once. Whatever differs in any byte is left to
``lspci``, which gives the same for what both can read.
"""

from __future__ import annotations

import re

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.garbage import no_collection
from quiesce.snapshot.lspci_dump import text_size, whole_dump

_HEADLINE = re.compile(rb"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7]) ([ -~]+)")
_NUMBERS = re.compile(rb"[0-9a-f]{4}: [0-9a-f]{4}:[0-9a-f]{4}(?: \(rev [0-9a-f]{2}\))?(?: \(prog-if [0-9a-f]{2}\))?")
"""What follows the address under ``-n``: no name in it."""
_ADDRESS = rb"[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]"
"""In a name it would be a second one."""
_DAMAGED = rb"[&<>=]"
"""What may be an entity, a tag or a quoting mark; ``lspci_paste`` undoes those."""
_SILENT = b"\xff\xff\xff\xff"
_FIRST = b"\n00: "
_LONGEST = 400
"""No headline is longer."""
_SIZES = (4096, 256)
"""A dump of 64 bytes takes a note."""


def read_plain(data: bytes, file: str, name: str) -> MachineDescription | None:
    """Read a dump; None when something in it is not as lspci prints it, or takes a note."""
    if _FIRST not in data[:_LONGEST]:
        return None
    with no_collection():
        found = _functions(data)
    if found is None:
        return None
    return MachineDescription(name or "machine", tuple(found[bdf] for bdf in sorted(found)), source=file)


def _functions(data: bytes) -> dict[Bdf, FunctionDescription] | None:
    found: dict[Bdf, FunctionDescription] = {}
    at, end = 0, len(data)
    while at < end:
        first = data.find(_FIRST, at, at + _LONGEST) + 1
        stop = _end_of_dump(data, first) if first else 0
        item = _function(data[at : first - 1], data[first:stop]) if stop else None
        if item is None or item.bdf in found:
            return None
        found[item.bdf] = item
        at = stop + 1
    return found


def _end_of_dump(data: bytes, first: int) -> int:
    """Return where the newline of the last line ends, an empty line or nothing behind it; 0 when it is not there."""
    for size in _SIZES:
        stop = first + text_size(size)
        if data[stop - 1 : stop + 1] in (b"\n\n", b"\n"):
            return stop
    return 0


def _function(head: bytes, dump: bytes) -> FunctionDescription | None:
    match = _HEADLINE.fullmatch(head)
    config = whole_dump(dump) if match is not None else None
    if match is None or config is None or config[:4] == _SILENT:
        return None
    attributes = _attributes(match[5])
    if attributes is None:
        return None
    bdf = Bdf(int(match[1] or b"0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))
    return FunctionDescription(bdf, config, attributes=attributes)


def _attributes(words: bytes) -> dict[str, str] | None:
    """Return what a headline with names says besides the numbers; None where it may be no headline of lspci's."""
    if _NUMBERS.fullmatch(words):
        return {}
    from quiesce.snapshot.lspci_headline import read_headline

    headline = read_headline(words.decode("ascii").rstrip())
    if re.search(_ADDRESS, words) or re.search(_DAMAGED, words) or not headline.name or headline.class_code is None:
        return None
    port = headline.port
    return {"name": headline.name, **({"pcie-type": port} if port else {})}
