"""Names of vendors, devices and classes, from the system's pci.ids where there is one.

The file is searched as it is, without making a table of it: a name costs some microseconds, and nothing is spent on the
35,000 others. Without the file there are the names of common classes and vendors that lspci text is read with.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from pathlib import Path

from quiesce.snapshot.lspci_names import CLASSES, VENDORS

PLACES = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids", "/var/lib/pciutils/pci.ids")
_TOP = re.compile(rb"\n[0-9a-fC]")


class PciIds:
    """The text of a pci.ids file; empty when there is none."""

    def __init__(self, text: bytes = b"") -> None:
        self._text = b"\n" + text + b"\n0"

    def vendor(self, vendor: int) -> str | None:
        """Return the name of a vendor, or None."""
        top = b"\n%04x  " % vendor
        first, last = self._section(top)
        return _own_vendors().get(vendor) if first < 0 else self._line(top, first, last)

    def device(self, vendor: int, device: int) -> str | None:
        """Return the name of a device, or None."""
        return self._below(b"\n%04x  " % vendor, b"\n\t%04x  " % device)

    def class_name(self, code: int) -> str | None:
        """Return the name of a class (16 bits: base class and sub-class), or None."""
        return self._below(b"\nC %02x  " % (code >> 8), b"\n\t%02x  " % (code & 0xFF)) or _own_classes().get(code)

    def _below(self, top: bytes, line: bytes) -> str | None:
        first, last = self._section(top)
        return None if first < 0 else self._line(line, first, last)

    def _section(self, top: bytes) -> tuple[int, int]:
        if top not in self._sections:
            first = self._text.find(top)
            after = _TOP.search(self._text, first + 1) if first >= 0 else None
            self._sections[top] = first, after.start() if after else len(self._text)
        return self._sections[top]

    @cached_property
    def _sections(self) -> dict[bytes, tuple[int, int]]:
        return {}

    def _line(self, start: bytes, first: int, last: int) -> str | None:
        at = self._text.find(start, first, last)
        if at < 0:
            return None
        end = self._text.find(b"\n", at + 1)
        return self._text[at + len(start) : end].decode("utf-8", "replace").strip() or None


@cache
def _own_classes() -> dict[int, str]:
    return {code: name for name, code in reversed(CLASSES.items())}


@cache
def _own_vendors() -> dict[int, str]:
    return {number: name for name, number in reversed(VENDORS.items()) if number is not None}


@cache
def system_ids() -> PciIds:
    """Return the names that this system has."""
    for place in map(Path, PLACES):
        try:
            return PciIds(place.read_bytes())
        except OSError:
            continue
    return PciIds()
