"""Lays out configuration space: header, capability list, extended capability list."""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r

_FIRST_FREE = 0x40


class Image:
    """Config space under construction; writing outside of it, or a capability over another, raises ValueError."""

    def __init__(self, extended: bool = False) -> None:
        self.data = bytearray(r.PCI_CFG_SPACE_EXP_SIZE if extended else r.PCI_CFG_SPACE_SIZE)
        self._taken: set[int] = set()
        self._last = 0
        self._last_extended = 0

    def put(self, offset: int, size: int, value: int) -> None:
        """Set ``size`` bytes."""
        if not 0 <= offset <= len(self.data) - size:
            raise ValueError(f"offset {offset:#x} is outside of config space")
        self.data[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def get(self, offset: int, size: int) -> int:
        """Return ``size`` bytes."""
        return int.from_bytes(self.data[offset : offset + size], "little")

    def set_bits(self, offset: int, size: int, bits: int) -> None:
        """Set single bits."""
        self.put(offset, size, self.get(offset, size) | bits)

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

    def extended(self, cap_id: int, size: int, version: int = 1, at: int | None = None) -> int:
        """Add an extended capability at the end of that list; returns its offset."""
        self.extend()
        if at is None:
            at = self._free(size, r.PCI_CFG_SPACE_SIZE, r.PCI_CFG_SPACE_EXP_SIZE)
            self._claim(at, size, r.PCI_CFG_SPACE_EXP_SIZE)
        else:
            self._claim(at, 4, r.PCI_CFG_SPACE_EXP_SIZE)
        self.put(at, 4, cap_id & 0xFFFF | (version & 0xF) << 16)
        previous = self._last_extended or r.PCI_CFG_SPACE_SIZE
        if at != previous:
            self.set_bits(previous, 4, at << 20)
        self._last_extended = at
        return at

    def bytes(self) -> bytes:
        """Return what was laid out."""
        return bytes(self.data)
