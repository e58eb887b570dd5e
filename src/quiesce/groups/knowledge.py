"""What a snapshot tells of one function's configuration space."""

from __future__ import annotations

from functools import cached_property

from quiesce.machine import pci_regs as r
from quiesce.snapshot.description import FunctionDescription


def u16(image: bytes, at: int) -> int:
    """Return a 16-bit field."""
    return int.from_bytes(image[at : at + 2], "little")


_LINKS = 0xFFF0FFFF
"""Id and next pointer of an extended capability's header; nothing depends on its version."""


class Knowledge:
    """Which bits of a configuration space a snapshot tells."""

    def __init__(self, item: FunctionDescription) -> None:
        self.image = item.config
        self.mask = item.known
        self.conventional = item.attributes.get("pcie") == "no"

    def known(self, at: int, size: int, bits: int | None = None) -> bool:
        """Whether all of a field, or the given bits of it, are known."""
        if at + size > len(self.image):
            return False
        if self.mask is None:
            return True
        wanted = (1 << 8 * size) - 1 if bits is None else bits
        return int.from_bytes(self.mask[at : at + size], "little") & wanted == wanted

    @cached_property
    def ids_known(self) -> bool:
        """Whether vendor and device id are known."""
        return self.known(r.PCI_VENDOR_ID, 4)

    @cached_property
    def header_known(self) -> bool:
        """Whether the header type is known; a class that says bridge is enough."""
        return self.known(r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_MASK)

    @cached_property
    def express(self) -> int | None:
        """Offset of the PCI Express capability, 0 when there is none, None when that is unknown."""
        if self.conventional:
            return 0
        if not self.known(r.PCI_STATUS, 1, r.PCI_STATUS_CAP_LIST):
            return None
        if not self.image[r.PCI_STATUS] & r.PCI_STATUS_CAP_LIST:
            return 0
        return self._walk()

    def _walk(self) -> int | None:
        at, seen = r.PCI_CAPABILITY_LIST - 1, set[int]()
        while self.known(at + 1, 1):
            at = self.image[at + 1] & ~3
            if at < r.PCI_STD_HEADER_SIZEOF or at in seen:
                return 0
            seen.add(at)
            if not self.known(at, 1):
                return None
            if self.image[at] == r.PCI_CAP_ID_EXP:
                return at
        return None

    @cached_property
    def type_known(self) -> bool:
        """Whether it is known to be conventional, or which PCI Express type it has."""
        at = self.express
        return at is not None and (at == 0 or self.known(at + r.PCI_EXP_FLAGS, 1, r.PCI_EXP_FLAGS_TYPE))

    @cached_property
    def acs(self) -> int | None:
        """Offset of the ACS capability, 0 when there is none, None when that is unknown."""
        if self.express == 0:
            return 0
        at, seen = r.PCI_CFG_SPACE_SIZE, set[int]()
        while self.known(at, 4, _LINKS):
            header = int.from_bytes(self.image[at : at + 4], "little")
            if header in (0, 0xFFFFFFFF) or at in seen:
                return 0
            seen.add(at)
            if header & 0xFFFF == r.PCI_EXT_CAP_ID_ACS:
                return at
            at = header >> 20 & ~3
            if at < r.PCI_CFG_SPACE_SIZE:
                return 0
        return None

    @cached_property
    def acs_bits_known(self) -> bool:
        """Whether the bits of an ACS capability that is there are known."""
        return not self.acs or self.known(self.acs + r.PCI_ACS_CAP, 4, 0x007F007F)

    @property
    def complete(self) -> bool:
        """Whether all that groups depend on is known."""
        if not (self.ids_known and self.header_known and self.type_known):
            return False
        return self.acs is not None and self.acs_bits_known


def looks_like_bridge(item: FunctionDescription) -> bool:
    """Whether a function has a bus below: by its header, or by its class where the header is unknown."""
    if Knowledge(item).header_known:
        return item.config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK == r.PCI_HEADER_TYPE_BRIDGE
    return u16(item.config, r.PCI_CLASS_DEVICE) == r.PCI_CLASS_BRIDGE_PCI
