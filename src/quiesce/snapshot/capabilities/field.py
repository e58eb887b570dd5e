"""What a table of registers is made of: fields, registers, capabilities.

A table says where each bit is and what its values mean; ``decode`` reads any of them. Masks have the bits of the field
at their place in the register, as the specifications and ``pci_regs`` write them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

Meaning = Callable[[int], str]
"""The words for a value."""


class Surroundings(Protocol):
    """What the presence of a register can depend on; bits that nobody told read as zero."""

    base: int
    """Where the capability starts."""
    header_type: int
    vendor_id: int
    device_id: int
    port_type: int
    """Device/port type of the PCI Express capability, -1 without one."""

    def get(self, offset: int, size: int) -> int:
        """Return bytes of the capability as a little-endian number."""


def plus_minus(value: int) -> str:
    """Return ``+`` for a bit that is set, ``-`` for one that is not."""
    return "+" if value else "-"


@dataclass(frozen=True, eq=False)
class Field:
    """Some neighbouring bits of a register."""

    name: str
    """In the words of the specification."""
    mask: int
    words: Meaning = plus_minus
    lspci: str = ""
    """How the line of ``lspci -vvv`` for this register shows the value: a regular expression with ``{}`` in the place
    of the words. Empty where lspci does not show it, or shows less than the value."""

    @cached_property
    def low(self) -> int:
        """Number of the lowest bit."""
        return (self.mask & -self.mask).bit_length() - 1

    @cached_property
    def ones(self) -> int:
        """The mask moved down to bit 0."""
        return self.mask >> self.low

    @property
    def is_flag(self) -> bool:
        """Whether it is one bit that is on or off."""
        return self.words is plus_minus


def flag(name: str, mask: int, lspci: str = "") -> Field:
    """Return a bit that is on or off; ``lspci`` is the word that the sign follows."""
    return Field(name, mask, plus_minus, rf"(?<![\w<>.-]){lspci}{{}}" if lspci else "")


def number(name: str, mask: int, lspci: str = "", plus: int = 0) -> Field:
    """Return a decimal number, ``plus`` what the encoding leaves out."""
    return Field(name, mask, lambda value: str(value + plus), lspci)


def hexadecimal(name: str, mask: int, lspci: str = "", digits: int = 0, shift: int = 0) -> Field:
    """Return a hexadecimal number, as wide as the field unless ``digits`` says otherwise; with ``shift`` an address
    whose lowest bits are zero."""
    low = (mask & -mask).bit_length() - 1
    width = digits or -(-((mask >> low).bit_length() + shift) // 4)
    return Field(name, mask, lambda value: f"{value << shift:0{width}x}", lspci)


def choice(name: str, mask: int, words: tuple[str, ...] | Mapping[int, str], lspci: str = "", other: str = "") -> Field:
    """Return a field whose values have names; a value without a name is ``other``, or its number."""
    names = dict(enumerate(words)) if isinstance(words, tuple) else dict(words)
    return Field(name, mask, lambda value: names.get(value) or other or f"reserved ({value:#x})", lspci)


def computed(name: str, mask: int, words: Meaning, lspci: str = "") -> Field:
    """Return a field whose value is spelled by a function."""
    return Field(name, mask, words, lspci)


def bitmap(
    name: str, mask: int, words: tuple[str, ...], lspci: str = "", between: str = " ", none: str = "none"
) -> Field:
    """Return a field of which each bit stands for a word; ``none`` is what stands for no bit at all."""

    def spelled(value: int) -> str:
        return between.join(word for bit, word in enumerate(words) if value >> bit & 1) or none

    return Field(name, mask, spelled, lspci)


def always(_: Surroundings) -> bool:
    """Return True: the register is there whenever the capability is."""
    return True


def once(_: Surroundings) -> int:
    """Return 1."""
    return 1


@dataclass(frozen=True, eq=False)
class Register:
    """A register of a capability, or a run of equal ones."""

    name: str
    offset: int
    """From the start of the capability."""
    size: int
    """In bytes."""
    fields: tuple[Field, ...]
    section: str = ""
    """Where the specification of the capability describes it."""
    lspci: str = ""
    """What begins its line in ``lspci -vvv``, with ``{}`` for the number in a run; empty: the capability's own line."""
    present: Callable[[Surroundings], bool] = always
    count: Callable[[Surroundings], int] = once
    stride: int = 0
    """Bytes from one to the next."""

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Shift and mask of each field."""
        return tuple((item.low, item.ones) for item in self.fields)


@dataclass(frozen=True, eq=False)
class Capability:
    """A capability structure: which registers it has."""

    name: str
    cap_id: int
    section: str
    """The specification that defines it."""
    registers: tuple[Register, ...] = ()
    extended: bool = False
    lspci: str = ""
    """The words of ``lspci`` that name it, at the start of its line."""
    short: str = ""
    """A name without spaces, for tables."""
    variants: tuple[tuple[Callable[[Surroundings], bool], Capability], ...] = field(default=())
    """What it is instead, under conditions; the first that holds."""

    def of(self, around: Surroundings) -> Capability:
        """Return the variant that applies."""
        return next((other for applies, other in self.variants if applies(around)), self)
