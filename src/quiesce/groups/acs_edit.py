"""A function with another ACS capability than its own: hypothetical hardware."""

from __future__ import annotations

from dataclasses import replace

from quiesce.groups.knowledge import Knowledge
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.errors import BadInput

_BIG = r.PCI_CFG_SPACE_EXP_SIZE
_SIZE = 12
"""Bytes that are kept free for a capability, so that an egress control vector fits."""
_VENDOR_SPECIFIC = 0x0B


def with_capability(item: FunctionDescription, bits: int | None) -> FunctionDescription:
    """Return the function with an ACS capability that offers exactly ``bits``, or without one (None).

    PCIe specification 6.0, 7.7.12. Of extended capabilities that the source tells only in part, none is kept. Raises
    BadInput for conventional PCI and where no place is left.
    """
    knows = Knowledge(item)
    if knows.express == 0:
        raise BadInput("command line", str(item.bdf), "a PCI Express function; conventional PCI has no ACS")
    image, mask = _wide(item)
    at = knows.acs
    if at is None:
        at = _fresh(image, mask)
    if bits is None:
        if at:
            _set(image, mask, at, _as_filler(image, at) if _is_acs(image, at) else bytes(image[at : at + 4]))
        return _edited(item, image, mask)
    if not at:
        at = _appended(image, mask, item)
    elif not _is_acs(image, at):
        _set(image, mask, at, _header(r.PCI_EXT_CAP_ID_ACS, 0))
    _set(image, mask, at + r.PCI_ACS_CAP, bits.to_bytes(2, "little") + bytes(2))
    return _edited(item, image, mask)


def _wide(item: FunctionDescription) -> tuple[bytearray, bytearray | None]:
    """Return image and mask with room for extended capabilities; None for a mask that tells all."""
    image = bytearray(item.config.ljust(_BIG, b"\0"))
    if item.known is None and len(item.config) >= _BIG:
        return image, None
    known = item.known if item.known is not None else b"\xff" * len(item.config)
    return image, bytearray(known.ljust(_BIG, b"\0"))


def _edited(item: FunctionDescription, image: bytearray, mask: bytearray | None) -> FunctionDescription:
    return replace(item, config=bytes(image), known=None if mask is None else bytes(mask))


def _fresh(image: bytearray, mask: bytearray | None) -> int:
    """Start the list of extended capabilities anew with an empty one; the source does not tell all of it."""
    _set(image, mask, r.PCI_CFG_SPACE_SIZE, _header(_VENDOR_SPECIFIC, 0))
    return r.PCI_CFG_SPACE_SIZE


def _appended(image: bytearray, mask: bytearray | None, item: FunctionDescription) -> int:
    """Hang a new capability behind the last one."""
    taken = sorted(set(topology.extended_capability_list(bytes(image)).values()))
    if not taken:
        _set(image, mask, r.PCI_CFG_SPACE_SIZE, _header(r.PCI_EXT_CAP_ID_ACS, 0))
        return r.PCI_CFG_SPACE_SIZE
    at = next((at for at in range(_BIG - _SIZE, taken[-1], -4) if not any(image[at : at + _SIZE])), 0)
    if not at:
        raise BadInput("command line", str(item.bdf), "a function with room for an ACS capability")
    last = _last(image)
    header = int.from_bytes(image[last : last + 4], "little") & 0xFFFFF
    _set(image, mask, last, (header | at << 20).to_bytes(4, "little"))
    _set(image, mask, at, _header(r.PCI_EXT_CAP_ID_ACS, 0))
    return at


def _last(image: bytearray) -> int:
    at, seen = r.PCI_CFG_SPACE_SIZE, set[int]()
    while True:
        seen.add(at)
        following = int.from_bytes(image[at : at + 4], "little") >> 20 & ~3
        if following < r.PCI_CFG_SPACE_SIZE or following in seen or following > _BIG - 4:
            return at
        at = following


def _is_acs(image: bytearray, at: int) -> bool:
    return int.from_bytes(image[at : at + 2], "little") == r.PCI_EXT_CAP_ID_ACS


def _as_filler(image: bytearray, at: int) -> bytes:
    """Return the header of a vendor-specific capability that leads on to the same place."""
    return _header(_VENDOR_SPECIFIC, int.from_bytes(image[at : at + 4], "little") >> 20)


def _header(cap_id: int, following: int) -> bytes:
    return (cap_id | 1 << 16 | following << 20).to_bytes(4, "little")


def _set(image: bytearray, mask: bytearray | None, at: int, data: bytes) -> None:
    image[at : at + len(data)] = data
    if mask is not None:
        mask[at : at + len(data)] = b"\xff" * len(data)
