"""Lays out configuration space: header, capability list, extended capability list."""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r

_FIRST_FREE = 0x40
_NEXT_EXTENDED = 0xFFF << 20
"""Bits of an extended capability's header that say where the next one is (PCI Express 6.0 section 7.6.3)."""


class Image:
    """Config space under construction; writing outside of it, or a capability over another, raises ValueError.

    ``known`` is a mask of those bits that somebody stated, be it that they are zero.
    """

    def __init__(self, extended: bool = False) -> None:
        self.data = bytearray(r.PCI_CFG_SPACE_EXP_SIZE if extended else r.PCI_CFG_SPACE_SIZE)
        self.known = bytearray(len(self.data))
        self._taken: set[int] = set()
        self._last = 0
        self._last_extended = 0

    def put(self, offset: int, size: int, value: int, known: bool = True) -> None:
        """Set ``size`` bytes; ``known`` is False for a guess."""
        self.state(offset, size, (1 << 8 * size) - 1, value, known)

    def state(self, offset: int, size: int, bits: int, value: int, known: bool = True) -> None:
        """Set the given bits of ``size`` bytes to those of ``value`` and leave the others."""
        if not 0 <= offset <= len(self.data) - size:
            raise ValueError(f"offset {offset:#x} is outside of config space")
        for at, shift in zip(range(offset, offset + size), range(0, 8 * size, 8), strict=True):
            mask = bits >> shift & 0xFF
            self.data[at] = self.data[at] & ~mask | value >> shift & mask
            if known:
                self.known[at] |= mask

    def forget(self, offset: int, size: int) -> None:
        """Say of ``size`` bytes that nobody stated them."""
        self.known[offset : offset + size] = bytes(size)

    def get(self, offset: int, size: int) -> int:
        """Return ``size`` bytes."""
        return int.from_bytes(self.data[offset : offset + size], "little")

    def set_bits(self, offset: int, size: int, bits: int) -> None:
        """Set single bits."""
        self.state(offset, size, bits, bits)

    def _claim(self, at: int, size: int, end: int) -> None:
        if at % 4 or not _FIRST_FREE <= at <= end - 4 or at in self._taken:
            raise ValueError(f"no capability can be at {at:#x}")
        self._taken.update(range(at, at + size))

    def _free(self, size: int, first: int, end: int) -> int:
        for at in range(first, end - size + 1, 4):
            if not self._taken.intersection(range(at, at + size)):
                return at
        raise ValueError("config space is full")

    def capability(self, cap_id: int, size: int, at: int | None = None) -> int:
        """Add a capability at the end of the list; returns its offset. Where ``at`` is given, only the header must be
        free, because sizes differ with versions.
        """
        if at is None:
            at = self._free(size, _FIRST_FREE, r.PCI_CFG_SPACE_SIZE)
            self._claim(at, size, r.PCI_CFG_SPACE_SIZE)
        else:
            self._claim(at, 4, r.PCI_CFG_SPACE_SIZE)
        self.put(at, 1, cap_id)
        self.put(self._last + r.PCI_CAP_LIST_NEXT if self._last else r.PCI_CAPABILITY_LIST, 1, at)
        self.set_bits(r.PCI_STATUS, 2, r.PCI_STATUS_CAP_LIST)
        self._last = at
        return at

    def extend(self) -> None:
        """Make room for extended capabilities."""
        self.data.extend(bytes(r.PCI_CFG_SPACE_EXP_SIZE - len(self.data)))
        self.known.extend(bytes(r.PCI_CFG_SPACE_EXP_SIZE - len(self.known)))

    def extended(self, cap_id: int, size: int, version: int = 1, at: int | None = None) -> int:
        """Add an extended capability at the end of that list; returns its offset."""
        self.extend()
        if at is None:
            at = self._free(size, r.PCI_CFG_SPACE_SIZE, r.PCI_CFG_SPACE_EXP_SIZE)
            self._claim(at, size, r.PCI_CFG_SPACE_EXP_SIZE)
        else:
            self._claim(at, 4, r.PCI_CFG_SPACE_EXP_SIZE)
        self.state(at, 4, 0xFFFFF, cap_id & 0xFFFF | (version & 0xF) << 16)
        previous = self._last_extended or r.PCI_CFG_SPACE_SIZE
        if at != previous:
            self.state(previous, 4, _NEXT_EXTENDED, at << 20)
        self.state(at, 4, _NEXT_EXTENDED, 0, known=False)
        self._last_extended = at
        return at

    def end_list(self) -> None:
        """Say that the capability list is complete: the last one points nowhere, or there is none."""
        if self._last:
            self.put(self._last + r.PCI_CAP_LIST_NEXT, 1, 0)
        else:
            if not self.known[r.PCI_STATUS] & r.PCI_STATUS_CAP_LIST:
                self.state(r.PCI_STATUS, 2, r.PCI_STATUS_CAP_LIST, 0)
            self.put(r.PCI_CAPABILITY_LIST, 1, 0)

    def end_extended_list(self) -> None:
        """Say the same of the extended capabilities."""
        self.extend()
        if self._last_extended:
            self.state(self._last_extended, 4, _NEXT_EXTENDED, 0)
        else:
            self.put(r.PCI_CFG_SPACE_SIZE, 4, 0)

    def bytes(self) -> bytes:
        """Return what was laid out."""
        return bytes(self.data)
