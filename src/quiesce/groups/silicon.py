"""What one function's silicon may be: read from its configuration space, completed where a snapshot leaves it open."""

from __future__ import annotations

from functools import cached_property, lru_cache

from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.snapshot.description import FunctionDescription

_BIG = r.PCI_CFG_SPACE_EXP_SIZE
_ACS_ALL = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
_PORT_TYPES = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_UPSTREAM, r.PCI_EXP_TYPE_DOWNSTREAM, r.PCI_EXP_TYPE_PCI_BRIDGE)
_FREE_EXPRESS, _FREE_ACS = 0xC0, 0xFE0
"""Where completed capabilities are put; nothing reads what a snapshot has there."""
_ANY_IDS: list[tuple[tuple[int, int] | None, str]] = [
    ((0x0001, 0x0001), "no chip of the quirk tables"),
    ((0x17CB, 0x0400), "a chip that the quirk tables call isolated"),
]
"""Where a snapshot has no ids: some that no table names, and some that are isolated whatever else they are."""


class Silicon:
    """One possible configuration space, read."""

    def __init__(self, image: bytes, ids: tuple[int, int] | None = None, assumed: str = "") -> None:
        self.image = image
        self.vendor, self.device = ids or (_u16(image, r.PCI_VENDOR_ID), _u16(image, r.PCI_DEVICE_ID))
        self.class_code = int.from_bytes(image[r.PCI_CLASS_REVISION : r.PCI_CLASS_REVISION + 4], "little") >> 8
        self.header_type = image[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK
        self.assumed = assumed
        """What was filled in, in words; empty when the snapshot told all."""

    @cached_property
    def capabilities(self) -> dict[int, int]:
        """First offset of every capability."""
        return topology.capability_list(self.image)

    @cached_property
    def extended(self) -> dict[int, int]:
        """First offset of every extended capability."""
        return topology.extended_capability_list(self.image)

    @cached_property
    def pcie_type(self) -> int | None:
        """PCI_EXP_TYPE_*, or None for conventional PCI."""
        at = self.capabilities.get(r.PCI_CAP_ID_EXP, 0)
        return None if not at else _u16(self.image, at + r.PCI_EXP_FLAGS) >> 4 & 0xF

    @property
    def is_bridge(self) -> bool:
        """Whether it has a bus below."""
        return self.header_type == r.PCI_HEADER_TYPE_BRIDGE


def _u16(image: bytes, at: int) -> int:
    return int.from_bytes(image[at : at + 2], "little")


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
        while self.known(at, 4):
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


@lru_cache(maxsize=4096)
def complete_silicon(image: bytes, ids: tuple[int, int] | None) -> Silicon:
    """Return what a completely known configuration space says; equal ones share it."""
    return Silicon(image.ljust(_BIG, b"\0") if len(image) > r.PCI_CFG_SPACE_SIZE else image, ids)


def possible_silicon(item: FunctionDescription, ids: tuple[int, int] | None, on_root: bool) -> tuple[Silicon, ...]:
    """Return every configuration space that the snapshot allows, as far as groups depend on the difference.

    ``on_root`` says that no bridge is above it.
    """
    if item.known is None and len(item.config) >= r.PCI_CFG_SPACE_SIZE:
        whole = complete_silicon(item.config, ids)
        if len(item.config) > r.PCI_CFG_SPACE_SIZE or whole.pcie_type is None:
            return (whole,)
    knows = Knowledge(item)
    if knows.complete or (ids and knows.type_known and knows.acs is not None and knows.acs_bits_known):
        return (complete_silicon(item.config, ids),)
    found = []
    for kind, said in _types(knows, item, on_root):
        for acs, also in _acs_choices(knows, kind):
            for pair, too in [(ids, "")] if ids or knows.ids_known else _ANY_IDS:
                words = ", ".join(word for word in (said, also, too) if word)
                found.append(Silicon(_completed(knows, kind, acs), pair, words))
    return tuple(found)


def looks_like_bridge(item: FunctionDescription) -> bool:
    """Whether a function has a bus below: by its header, or by its class where the header is unknown."""
    if Knowledge(item).header_known:
        return item.config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK == r.PCI_HEADER_TYPE_BRIDGE
    return _u16(item.config, r.PCI_CLASS_DEVICE) == r.PCI_CLASS_BRIDGE_PCI


def _types(knows: Knowledge, item: FunctionDescription, on_root: bool) -> list[tuple[int | None, str]]:
    if knows.type_known:
        at = knows.express
        return [(None if not at else _u16(knows.image, at + r.PCI_EXP_FLAGS) >> 4 & 0xF, "")]
    bridge = looks_like_bridge(item)
    names = {
        r.PCI_EXP_TYPE_ROOT_PORT: "a root port",
        r.PCI_EXP_TYPE_UPSTREAM: "an upstream port",
        r.PCI_EXP_TYPE_DOWNSTREAM: "a downstream port",
        r.PCI_EXP_TYPE_PCI_BRIDGE: "a PCIe-to-PCI bridge",
        r.PCI_EXP_TYPE_RC_END: "a root complex integrated endpoint",
        r.PCI_EXP_TYPE_ENDPOINT: "a PCIe endpoint",
    }
    kinds: tuple[int, ...]
    if bridge:
        kinds = (_PORT_TYPES[0],) if on_root else _PORT_TYPES[1:]
    else:
        kinds = (r.PCI_EXP_TYPE_RC_END, r.PCI_EXP_TYPE_ENDPOINT) if on_root else (r.PCI_EXP_TYPE_ENDPOINT,)
    found: list[tuple[int | None, str]] = [(kind, names[kind]) for kind in kinds]
    return found if knows.express else [(None, "conventional PCI"), *found]


def _acs_choices(knows: Knowledge, kind: int | None) -> list[tuple[int | None, str]]:
    """Yield the ACS capability register, None for no capability; what a capability does not offer counts as on, so of
    unknown bits one value stands for all.
    """
    if kind is None:
        return [(None, "")]
    if knows.acs is None:
        return [(None, "without ACS"), (_ACS_ALL, "with ACS")]
    if not knows.acs:
        return [(None, "")]
    return [(_u16(knows.image, knows.acs + r.PCI_ACS_CAP) if knows.acs_bits_known else _ACS_ALL, "")]


def _completed(knows: Knowledge, kind: int | None, acs: int | None) -> bytes:
    """Return a configuration space of the given type, with exactly what groups depend on in its lists."""
    image = bytearray(knows.image[: r.PCI_STD_HEADER_SIZEOF].ljust(_BIG if kind is not None else 256, b"\0"))
    image[r.PCI_STATUS] |= r.PCI_STATUS_CAP_LIST
    image[r.PCI_CAPABILITY_LIST] = 0 if kind is None else _FREE_EXPRESS
    if kind is not None:
        image[_FREE_EXPRESS] = r.PCI_CAP_ID_EXP
        image[_FREE_EXPRESS + r.PCI_EXP_FLAGS] = kind << 4 | 2
    if acs is not None:
        image[0x100:0x104] = (1 << 16 | _FREE_ACS << 20 | 0x0B).to_bytes(4, "little")
        image[_FREE_ACS : _FREE_ACS + 4] = (1 << 16 | r.PCI_EXT_CAP_ID_ACS).to_bytes(4, "little")
        image[_FREE_ACS + r.PCI_ACS_CAP : _FREE_ACS + r.PCI_ACS_CAP + 2] = acs.to_bytes(2, "little")
    return bytes(image)
