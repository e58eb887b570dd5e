"""What one function's silicon may be: read from its configuration space, completed where a snapshot leaves it open."""

from __future__ import annotations

from functools import cached_property, lru_cache

from quiesce.groups.knowledge import Knowledge, looks_like_bridge, u16
from quiesce.groups.unnamed import possible_ids
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.snapshot.description import FunctionDescription

_BIG = r.PCI_CFG_SPACE_EXP_SIZE
_ACS_ALL = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
_PORT_TYPES = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_UPSTREAM, r.PCI_EXP_TYPE_DOWNSTREAM, r.PCI_EXP_TYPE_PCI_BRIDGE)
_NAMED = {
    "root-port": r.PCI_EXP_TYPE_ROOT_PORT,
    "switch-up": r.PCI_EXP_TYPE_UPSTREAM,
    "switch-down": r.PCI_EXP_TYPE_DOWNSTREAM,
    "pcie-to-pci": r.PCI_EXP_TYPE_PCI_BRIDGE,
}
"""What a listing's words say of a port (attribute ``pcie-type``)."""
_FREE_EXPRESS, _FREE_ACS = 0xC0, 0xFE0
"""Where completed capabilities are put; nothing reads what a snapshot has there."""


class Silicon:
    """One possible configuration space, read."""

    def __init__(self, image: bytes, ids: tuple[int, int] | None = None, assumed: str = "") -> None:
        self.image = image
        self.vendor, self.device = ids or (u16(image, r.PCI_VENDOR_ID), u16(image, r.PCI_DEVICE_ID))
        self.class_code = int.from_bytes(image[r.PCI_CLASS_REVISION : r.PCI_CLASS_REVISION + 4], "little") >> 8
        self.header_type = image[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK
        self.assumed = assumed
        """What was filled in, in words; empty when the snapshot told all."""
        self.capabilities = topology.capability_list(image)
        """First offset of every capability."""
        at = self.capabilities.get(r.PCI_CAP_ID_EXP, 0)
        self.pcie_type: int | None = None if not at else u16(image, at + r.PCI_EXP_FLAGS) >> 4 & 0xF
        """PCI_EXP_TYPE_*, or None for conventional PCI."""

    @cached_property
    def extended(self) -> dict[int, int]:
        """First offset of every extended capability."""
        return topology.extended_capability_list(self.image)

    @property
    def is_bridge(self) -> bool:
        """Whether it has a bus below."""
        return self.header_type == r.PCI_HEADER_TYPE_BRIDGE


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
            for pair, too in [(ids, "")] if ids or knows.ids_known else possible_ids(knows, item):
                words = ", ".join(word for word in (said, also, too) if word)
                found.append(Silicon(_completed(knows, kind, acs), pair, words))
    return tuple(found)


def _types(knows: Knowledge, item: FunctionDescription, on_root: bool) -> list[tuple[int | None, str]]:
    if knows.type_known:
        at = knows.express
        return [(None if not at else u16(knows.image, at + r.PCI_EXP_FLAGS) >> 4 & 0xF, "")]
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
    named = _NAMED.get(item.attributes.get("pcie-type", "").partition(":")[0])
    if named is not None and not knows.express:
        return [(named, f"{names[named]} by its name")]
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
    return [(u16(knows.image, knows.acs + r.PCI_ACS_CAP) if knows.acs_bits_known else _ACS_ALL, "")]


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
