"""Reads any table: from the bytes of a function to its capabilities, registers and fields.

What the source of a snapshot does not tell stays unknown: a field with an unknown bit has the value None and prints
as ``?``, and where the pointer to the next capability is unknown the list ends with ``complete`` False. The presence
of a register that depends on an unknown bit is judged as if that bit were zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities import (
    conventional,
    errors,
    express,
    express_link,
    fabric,
    hypertransport,
    interrupts,
    isolation,
    power,
    vendor,
    virtualization,
)
from quiesce.snapshot.capabilities.field import Capability, Field, Register, always, once
from quiesce.snapshot.capabilities.header import HEADERS, UNKNOWN_HEADER
from quiesce.snapshot.description import FunctionDescription

_TOPICS = (
    power,
    interrupts,
    conventional,
    hypertransport,
    vendor,
    express,
    express_link,
    isolation,
    virtualization,
    errors,
    fabric,
)
ALL: tuple[Capability, ...] = tuple(item for topic in _TOPICS for item in topic.CAPABILITIES)
"""Every capability that a table describes, without variants."""
STANDARD = {item.cap_id: item for item in ALL if not item.extended}
EXTENDED = {item.cap_id: item for item in ALL if item.extended}
UNKNOWN_VALUE = "?"


class Value(NamedTuple):
    """What a field holds."""

    field: Field
    value: int | None
    """None where a bit of it is unknown."""

    @property
    def text(self) -> str:
        """The value in words."""
        return UNKNOWN_VALUE if self.value is None else self.field.words(self.value)


class DecodedRegister(NamedTuple):
    """A register as it was found."""

    register: Register
    at: int
    """Offset in config space."""
    raw: int
    known: int | None
    """Mask of the bits that are known; None: all."""
    nth: int = 0
    """In a run of equal registers."""

    @property
    def fields(self) -> tuple[Value, ...]:
        """The fields with their values, in the order of the table."""
        if self.known is None:
            return all_known(self.register, self.raw)
        return tuple(
            Value(item, self.raw >> low & ones if self.known >> low & ones == ones else None)
            for item, (low, ones) in zip(self.register.fields, self.register.places, strict=True)
        )


@lru_cache(maxsize=1 << 16)
def all_known(register: Register, raw: int) -> tuple[Value, ...]:
    """Return the fields of a register all of whose bits are known."""
    return tuple(
        Value(item, raw >> low & ones) for item, (low, ones) in zip(register.fields, register.places, strict=True)
    )


@dataclass(frozen=True, slots=True, eq=False)
class DecodedCapability:
    """A capability as it was found."""

    capability: Capability
    offset: int
    version: int | None
    """Of an extended capability."""
    registers: tuple[DecodedRegister, ...]

    def value(self, register: str, name: str) -> int | None:
        """Return the value of a field; None if it is unknown. Raises KeyError when there is no such field."""
        for found in self.registers:
            if found.register.name == register:
                for item in found.fields:
                    if item.field.name == name:
                        return item.value
        raise KeyError((register, name))


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A function, decoded."""

    header: DecodedCapability
    capabilities: tuple[DecodedCapability, ...]
    complete: bool
    """Whether the list of conventional capabilities is known to its end."""
    extended_complete: bool
    """The same of the extended ones."""

    def find(self, cap_id: int, extended: bool = False) -> DecodedCapability | None:
        """Return the first capability with an id, or None."""
        for item in self.capabilities:
            if item.capability.cap_id == cap_id and item.capability.extended == extended:
                return item
        return None


class Function:
    """The bytes of a function, what is known of them, and what the presence of registers depends on."""

    def __init__(self, config: bytes, known: bytes | None = None) -> None:
        self.known = known
        self.config = config if known is None else bytes(a & b for a, b in zip(config, known, strict=False))
        self.base = 0
        self.port_type = -1
        self.header_type = self.at(r.PCI_HEADER_TYPE, 1) & r.PCI_HEADER_TYPE_MASK
        self.vendor_id = self.at(r.PCI_VENDOR_ID, 2)
        self.device_id = self.at(r.PCI_DEVICE_ID, 2)

    def at(self, offset: int, size: int) -> int:
        """Return bytes of config space as a little-endian number; what is unknown or behind the end is zero."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def get(self, offset: int, size: int) -> int:
        """Return bytes of the capability that is being decoded."""
        return int.from_bytes(self.config[self.base + offset : self.base + offset + size], "little")

    def mask(self, offset: int, size: int) -> int | None:
        """Return which bits are known; None: all."""
        if self.known is None:
            return None
        found = int.from_bytes(self.known[offset : offset + size], "little")
        return None if found == (1 << 8 * size) - 1 else found

    def tells(self, offset: int, size: int, bits: int = -1) -> bool:
        """Return whether certain bits are there and known."""
        if offset + size > len(self.config):
            return False
        found = self.mask(offset, size)
        wanted = bits & ((1 << 8 * size) - 1)
        return found is None or found & wanted == wanted


def decode(function: FunctionDescription) -> Decoded:
    """Decode a function. Never raises, whatever the bytes are."""
    around = Function(function.config, function.known)
    kind = HEADERS.get(around.header_type, UNKNOWN_HEADER)
    header = DecodedCapability(kind, 0, None, _registers(kind, around))
    found: list[DecodedCapability] = []
    complete = _standard(around, found)
    extended_complete = _extended(around, found, complete)
    return Decoded(header, tuple(found), complete, extended_complete)


def _standard(around: Function, found: list[DecodedCapability]) -> bool:
    """Follow the list of conventional capabilities; returns whether its end was reached."""
    if not around.tells(r.PCI_STATUS, 2, r.PCI_STATUS_CAP_LIST):
        return False
    if not around.at(r.PCI_STATUS, 2) & r.PCI_STATUS_CAP_LIST:
        return True
    cardbus = around.header_type == r.PCI_HEADER_TYPE_CARDBUS
    pointer = r.PCI_CB_CAPABILITY_LIST if cardbus else r.PCI_CAPABILITY_LIST
    seen: set[int] = set()
    while around.tells(pointer, 1, 0xFC):
        at = around.at(pointer, 1) & 0xFC
        if at == 0:
            return True
        if at in seen or not around.tells(at, 1) or around.at(at, 1) == 0xFF:
            return False
        seen.add(at)
        found.append(_conventional(around, at))
        pointer = at + r.PCI_CAP_LIST_NEXT
    return False


def _conventional(around: Function, at: int) -> DecodedCapability:
    cap_id = around.at(at, 1)
    kind = STANDARD.get(cap_id) or _unknown(cap_id, extended=False)
    if cap_id == r.PCI_CAP_ID_EXP:
        around.port_type = (around.at(at + r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_TYPE) >> 4
    around.base = at
    kind = kind.of(around)
    return DecodedCapability(kind, at, None, _registers(kind, around))


def _extended(around: Function, found: list[DecodedCapability], complete: bool) -> bool:
    """Follow the list of extended capabilities, which PCI Express and PCI-X functions can have."""
    can_have = any(item.capability.cap_id in (r.PCI_CAP_ID_EXP, r.PCI_CAP_ID_PCIX) for item in found)
    if not can_have:
        return complete
    at, seen = r.PCI_CFG_SPACE_SIZE, set[int]()
    while at not in seen and around.tells(at, 4):
        seen.add(at)
        header = around.at(at, 4)
        if header in (0, 0xFFFFFFFF):
            return at == r.PCI_CFG_SPACE_SIZE
        cap_id, version = header & 0xFFFF, header >> 16 & 0xF
        around.base = at
        kind = (EXTENDED.get(cap_id) or _unknown(cap_id, extended=True)).of(around)
        found.append(DecodedCapability(kind, at, version, _registers(kind, around)))
        at = header >> 20 & 0xFFC
        if at < r.PCI_CFG_SPACE_SIZE:
            return at == 0
    return False


@cache
def _unknown(cap_id: int, extended: bool) -> Capability:
    what = "extended capability" if extended else "capability"
    return Capability(f"unknown {what} {cap_id:#04x}", cap_id, "", extended=extended, short=f"unknown-{cap_id:#04x}")


def _registers(kind: Capability, around: Function) -> tuple[DecodedRegister, ...]:
    return tuple(_found(kind, around))


def _found(kind: Capability, around: Function) -> Iterator[DecodedRegister]:
    base, config = around.base, around.config
    for register in kind.registers:
        if register.present is not always and not register.present(around):
            continue
        count = 1 if register.count is once else register.count(around)
        for index in range(count):
            at = base + register.offset + index * register.stride
            end = at + register.size
            if end > len(config):
                break
            raw = int.from_bytes(config[at:end], "little")
            yield DecodedRegister(register, at, raw, around.mask(at, register.size), index)


@dataclass(frozen=True)
class Size:
    """How much the tables describe."""

    capabilities: int
    registers: int
    fields: int


def table_size() -> Size:
    """Count capabilities (variants and headers among them), registers and fields."""
    kinds = [*HEADERS.values(), *(kind for item in ALL for kind in (item, *(other for _, other in item.variants)))]
    registers = [register for kind in kinds for register in kind.registers]
    return Size(len(kinds), len(registers), sum(len(register.fields) for register in registers))
