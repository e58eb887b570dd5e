"""What a snapshot says about one function, and what it leaves open: every answer may be None for "not known"."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.machine import pci_regs as r
from quiesce.plan.model import NO, UNKNOWN, YES
from quiesce.snapshot.bdf import Bdf


def known(fn: LightFunction, at: int, size: int) -> int | None:
    """Return a register as the snapshot has it, None when it does not tell all of it."""
    return int.from_bytes(fn.item.config[at : at + size], "little") if fn.knows.known(at, size) else None


def known_bits(fn: LightFunction, at: int, size: int, bits: int) -> int | None:
    """Return some bits of a register, None when one of them is not known."""
    if not fn.knows.known(at, size, bits):
        return None
    return int.from_bytes(fn.item.config[at : at + size], "little") & bits


def capability(fn: LightFunction, wanted: int) -> int | None:
    """Return the offset of a capability, 0 when it is known to be absent, None when it may be there."""
    if not fn.knows.known(r.PCI_STATUS, 1, r.PCI_STATUS_CAP_LIST):
        return None
    if not fn.item.config[r.PCI_STATUS] & r.PCI_STATUS_CAP_LIST:
        return 0
    at, seen = r.PCI_CAPABILITY_LIST - 1, set[int]()
    while True:
        pointer = known(fn, at + 1, 1)
        if pointer is None:
            return None
        at = pointer & ~3
        if at < r.PCI_STD_HEADER_SIZEOF or at in seen:
            return 0
        seen.add(at)
        found = known(fn, at, 1)
        if found is None or found == wanted:
            return None if found is None else at


def extended(fn: LightFunction, wanted: int) -> int | None:
    """Return the offset of an extended capability, 0 when it is known to be absent, None when it may be there."""
    if fn.knows.express == 0:
        return 0
    at, seen = r.PCI_CFG_SPACE_SIZE, set[int]()
    while at >= r.PCI_CFG_SPACE_SIZE and at not in seen:
        header = known(fn, at, 4)
        if header is None:
            return None
        if header in (0, 0xFFFFFFFF):
            return 0
        if header & 0xFFFF == wanted:
            return at
        seen.add(at)
        at = header >> 20 & ~3
    return 0


def field(fn: LightFunction, base: int | None, offset: int, size: int, bits: int) -> int | None:
    """Return bits of a capability's register; 0 when the capability is absent, None when unknown."""
    if base is None:
        return None
    return known_bits(fn, base + offset, size, bits) if base else 0


def answer(value: int | bool | None) -> str:
    """Return YES, NO or UNKNOWN."""
    return UNKNOWN if value is None else YES if value else NO


def unreachable(fn: LightFunction) -> bool:
    """Whether the function answered with all ones: without power, or gone."""
    return fn.item.config[:4] == b"\xff\xff\xff\xff" and not fn.is_virtfn


def header_type(fn: LightFunction) -> int:
    """Return the header type; where it is unknown, what the class says."""
    value = known_bits(fn, r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_MASK)
    return value if value is not None else int(fn.looks_like_bridge)


def bridges(fn: LightFunction) -> Iterator[LightFunction]:
    """Yield the bridges above, nearest first."""
    above = fn.upstream
    while above is not None:
        yield above
        above = above.upstream


def on_bus(m: LightMachine, fn: LightFunction) -> tuple[LightFunction, ...]:
    """Return the other functions on the same bus; virtual ones are not on it."""
    return tuple(
        other
        for other in m.functions.values()
        if other.bdf[:2] == fn.bdf[:2] and other is not fn and not other.is_virtfn
    )


def secondary_bus(m: LightMachine, bdf: Bdf) -> int | None:
    """Return the bus below a bridge; None when there is no such bridge."""
    fn = m.functions.get(str(bdf))
    return known(fn, r.PCI_SECONDARY_BUS, 1) if fn is not None and fn.is_bridge else None


def class_code(fn: LightFunction) -> int:
    """Return base class and sub-class."""
    return fn.class_code >> 8
