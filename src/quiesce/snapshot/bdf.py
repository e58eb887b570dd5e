"""PCI addresses: segment, bus, device, function."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")


class Bdf(NamedTuple):
    """The address of one function; sorts in bus order and prints as ``0000:00:1f.2``.

    A function with a number above 7 exists under ARI only; it is written like the kernel does, with the upper five
    bits of the number in the place of the device.
    """

    segment: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Bdf:
        """Read ``0000:00:1f.2`` or ``00:1f.2``; raises ValueError for anything else."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no PCI address such as 0000:00:1f.2")
        segment, bus, device, function = match.groups()
        if int(device, 16) > 0x1F:
            raise ValueError(f"{text!r}: the device number is at most 1f")
        return cls(int(segment or "0", 16), int(bus, 16), int(device, 16), int(function))

    @classmethod
    def from_devid(cls, devid: int, segment: int = 0) -> Bdf:
        """Return the address with the given 16-bit requester id."""
        return cls(segment, devid >> 8 & 0xFF, devid >> 3 & 0x1F, devid & 7)

    @property
    def devfn(self) -> int:
        """Device and function as one byte."""
        return self.device << 3 | self.function

    @property
    def requester_id(self) -> int:
        """Bus, device and function as the 16 bits that a transaction carries."""
        return self.bus << 8 | self.devfn

    @property
    def short(self) -> str:
        """The address without its segment: ``00:1f.2``."""
        return f"{self.bus:02x}:{self.device:02x}.{self.function}"

    @property
    def slot(self) -> tuple[int, int, int]:
        """What the functions of one device have in common: segment, bus, device."""
        return self[:3]

    def __str__(self) -> str:
        segment, bus, device, function = self
        return f"{segment:04x}:{bus:02x}:{device:02x}.{function}"
