"""Configuration space of which only some bits are told: what a boot log or a file of attributes says goes to its place
in a real layout, with a mask of the bits that are known.

A capability gets an offset of our own choosing, because such sources do not tell it. The next pointer of the last
capability stays unknown: there may be more.
"""

from __future__ import annotations

from collections.abc import Mapping

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription

_FIRST, _ROOM = 0x40, 0x40


class Draft:
    """Config space under construction beside the mask of what is known of it."""

    def __init__(self) -> None:
        self.config = bytearray(r.PCI_STD_HEADER_SIZEOF)
        self.known = bytearray(r.PCI_STD_HEADER_SIZEOF)
        self._found: dict[int, int] = {}
        self._extended: dict[int, int] = {}

    def put(self, offset: int, size: int, value: int, mask: int | None = None) -> None:
        """Set the bits of ``mask`` (all by default) in the ``size`` bytes at ``offset``; they are known then."""
        bits = (1 << 8 * size) - 1 if mask is None else mask
        end = offset + size
        old = int.from_bytes(self.config[offset:end], "little") & ~bits
        self.config[offset:end] = (old | value & bits).to_bytes(size, "little")
        told = int.from_bytes(self.known[offset:end], "little") | bits
        self.known[offset:end] = told.to_bytes(size, "little")

    def capability(self, cap_id: int) -> int:
        """Return the offset of a capability of PCI 3.0 section 6.7, adding it to the list when it is not there."""
        if cap_id not in self._found:
            self._grow(r.PCI_CFG_SPACE_SIZE)
            at = _FIRST + _ROOM * len(self._found)
            last = list(self._found.values())[-1:]
            self.put(last[0] + r.PCI_CAP_LIST_NEXT if last else r.PCI_CAPABILITY_LIST, 1, at)
            self.put(r.PCI_STATUS, 2, r.PCI_STATUS_CAP_LIST, r.PCI_STATUS_CAP_LIST)
            self.put(at, 1, cap_id)
            self._found[cap_id] = at
        return self._found[cap_id]

    def extended(self, cap_id: int) -> int:
        """Return the offset of an extended capability (PCIe 6.0 section 7.6.3), adding it when it is not there."""
        if cap_id not in self._extended:
            self._grow(r.PCI_CFG_SPACE_EXP_SIZE)
            at = r.PCI_CFG_SPACE_SIZE + _ROOM * len(self._extended)
            last = list(self._extended.values())[-1:]
            if last:
                self.put(last[0], 4, at << 20, 0xFFF00000)
            self.put(at, 4, cap_id, 0xFFFF)
            self._extended[cap_id] = at
        return self._extended[cap_id]

    def describe(self, bdf: Bdf, attributes: Mapping[str, str], present: bool = True) -> FunctionDescription:
        """Return the function with what is known of it."""
        return FunctionDescription(bdf, bytes(self.config), present, attributes, bytes(self.known))

    def _grow(self, size: int) -> None:
        for data in (self.config, self.known):
            data.extend(bytes(max(0, size - len(data))))
