"""Fills what one source does not know of a function from another source.

The header is filled bit by bit. Capabilities lie where they lie in the source that knows more; a source that had to
choose places of its own (a boot log) is taken over as a whole where the other shows no list, and capability by
capability, relative to where each lies, where both do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.description import FunctionDescription

_HEADER = r.PCI_STD_HEADER_SIZEOF
_NORMAL_END, _END = r.PCI_CFG_SPACE_SIZE, r.PCI_CFG_SPACE_EXP_SIZE


@dataclass
class _Space:
    """Config space and mask in full length; what is behind the end of the source is unknown."""

    config: bytearray
    known: bytearray
    size: int

    @classmethod
    def of(cls, item: FunctionDescription) -> _Space:
        known = bytes([0xFF]) * len(item.config) if item.known is None else item.known
        return cls(bytearray(item.config.ljust(_END, b"\0")), bytearray(known.ljust(_END, b"\0")), len(item.config))

    def fill(self, at: int, other: _Space, start: int, size: int) -> None:
        """Fill unknown bits of the ``size`` bytes at ``at`` from ``start`` in the other."""
        for offset in range(size):
            fresh = other.known[start + offset] & ~self.known[at + offset] & 0xFF
            if fresh:
                kept = self.config[at + offset] & ~fresh & 0xFF
                self.config[at + offset] = kept | other.config[start + offset] & fresh
                self.known[at + offset] |= fresh
                self.size = max(self.size, at + offset + 1)

    def take(self, first: int, last: int, other: _Space) -> None:
        """Take a whole range over."""
        self.config[first:last] = other.config[first:last]
        self.known[first:last] = other.known[first:last]
        if any(other.known[first:last]):
            self.size = max(self.size, last)

    def capabilities(self) -> dict[int, int]:
        """Return the capabilities that can be walked to, id to offset."""
        found: dict[int, int] = {}
        at = self.config[r.PCI_CAPABILITY_LIST] & 0xFC if self.known[r.PCI_CAPABILITY_LIST] == 0xFF else 0
        while _HEADER <= at < _NORMAL_END and self.known[at] == 0xFF and len(found) < 48:
            if at in found.values():
                break
            found.setdefault(self.config[at], at)
            at = self.config[at + 1] & 0xFC if self.known[at + 1] == 0xFF else 0
        return found

    def extended(self) -> dict[int, int]:
        """Return the extended capabilities that can be walked to, id to offset."""
        found: dict[int, int] = {}
        at = _NORMAL_END
        while at >= _NORMAL_END and self.known[at : at + 2] == b"\xff\xff" and at not in found.values():
            cap_id = int.from_bytes(self.config[at : at + 2], "little")
            if cap_id in (0, 0xFFFF):
                break
            found.setdefault(cap_id, at)
            following = int.from_bytes(self.config[at + 2 : at + 4], "little") >> 4 & 0xFFC
            at = following if self.known[at + 2] & 0xF0 == 0xF0 and self.known[at + 3] == 0xFF else 0
        return found


def weight(item: FunctionDescription) -> int:
    """Return how many bits of config space are known."""
    return 8 * len(item.config) if item.known is None else int.from_bytes(item.known, "little").bit_count()


def differ(one: FunctionDescription, other: FunctionDescription, at: int, size: int) -> bool:
    """Whether bits that both know differ in some bytes of the header."""
    for offset in range(at, min(at + size, len(one.config), len(other.config))):
        mask = (one.known[offset] if one.known else 0xFF) & (other.known[offset] if other.known else 0xFF)
        if (one.config[offset] ^ other.config[offset]) & mask:
            return True
    return False


def filled(base: FunctionDescription, other: FunctionDescription) -> FunctionDescription:
    """Return ``base`` with what only ``other`` knows, attributes included."""
    attributes = {**other.attributes, **base.attributes}
    if base.known is None and len(base.config) >= min(len(other.config), _END):
        return replace(base, attributes=attributes)
    into, source = _Space.of(base), _Space.of(other)
    old = bytes(into.known)
    into.fill(0, source, 0, r.PCI_STATUS)
    status = source.known[r.PCI_STATUS]
    source.known[r.PCI_STATUS] = status & ~r.PCI_STATUS_CAP_LIST & 0xFF
    into.fill(r.PCI_STATUS, source, r.PCI_STATUS, r.PCI_CAPABILITY_LIST - r.PCI_STATUS)
    into.fill(r.PCI_CAPABILITY_LIST + 1, source, r.PCI_CAPABILITY_LIST + 1, _HEADER - r.PCI_CAPABILITY_LIST - 1)
    source.known[r.PCI_STATUS] = status
    _fill_list(into, source, old)
    _fill_extended(into, source)
    return _described(base, into, attributes)


def _fill_list(into: _Space, source: _Space, old: bytes) -> None:
    mine, theirs = into.capabilities(), source.capabilities()
    if not theirs or (not mine and any(old[_HEADER:_NORMAL_END])):
        return
    if not mine:
        if _is_empty(into):
            return
        into.take(r.PCI_CAPABILITY_LIST, r.PCI_CAPABILITY_LIST + 1, source)
        into.take(_HEADER, _NORMAL_END, source)
        into.known[r.PCI_STATUS] |= r.PCI_STATUS_CAP_LIST
        into.config[r.PCI_STATUS] |= r.PCI_STATUS_CAP_LIST
        return
    for cap_id, at in mine.items():
        if cap_id in theirs:
            size = min(_room(mine, at, _NORMAL_END), _room(theirs, theirs[cap_id], _NORMAL_END))
            into.fill(at + 2, source, theirs[cap_id] + 2, size - 2)


def _is_empty(space: _Space) -> bool:
    """Whether it is known that there is no capability list."""
    bit = r.PCI_STATUS_CAP_LIST
    return bool(space.known[r.PCI_STATUS] & bit and not space.config[r.PCI_STATUS] & bit)


def _fill_extended(into: _Space, source: _Space) -> None:
    mine, theirs = into.extended(), source.extended()
    if not mine:
        if not any(into.known[_NORMAL_END:]) and any(source.known[_NORMAL_END:]):
            into.take(_NORMAL_END, _END, source)
        return
    for cap_id, at in mine.items():
        if cap_id in theirs:
            size = min(_room(mine, at, _END), _room(theirs, theirs[cap_id], _END))
            into.fill(at + 4, source, theirs[cap_id] + 4, size - 4)


def _room(places: dict[int, int], at: int, end: int) -> int:
    return min((place for place in places.values() if place > at), default=end) - at


def _described(base: FunctionDescription, space: _Space, attributes: dict[str, str]) -> FunctionDescription:
    size = next(size for size in (_HEADER, _NORMAL_END, _END) if size >= space.size)
    known = bytes(space.known[:size])
    whole = known == bytes([0xFF]) * size
    return replace(base, config=bytes(space.config[:size]), known=None if whole else known, attributes=attributes)
