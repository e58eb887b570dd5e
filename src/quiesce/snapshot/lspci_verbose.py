"""Reconstructs configuration space from what ``lspci -v``, ``-vv`` and ``-vvv`` decode of it.

What the text states goes to its place: ids, class, command and status bits, bus numbers, interrupt pin, BARs, the
capability lists with those bits that the model uses. What the text leaves out is zero, the mask of known bits says
where that is so, and the notes say what was assumed. Where lspci leaves something out *because* it is zero, that is
known; what it prints was read in its sources (lspci.c, ls-caps.c and ls-ecaps.c of pciutils 3.9).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from quiesce.snapshot import lspci_capabilities as capabilities
from quiesce.snapshot import lspci_names as names
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.image import Image
from quiesce.snapshot.lspci_headline import Headline
from quiesce.snapshot.lspci_lines import logical_lines

Ids = tuple[int, int]
"""Vendor and device id."""

HIDDEN = "the capabilities were hidden from the user who ran lspci"
_UNKNOWN_VENDOR = 0x0001
_UNKNOWN_CLASS = 0xFF00
_WITHOUT_PIN = (r.PCI_CLASS_BRIDGE_HOST, r.PCI_CLASS_BRIDGE_ISA)
_BRIDGES = {
    r.PCI_CLASS_BRIDGE_PCI: r.PCI_HEADER_TYPE_BRIDGE,
    0x0609: r.PCI_HEADER_TYPE_BRIDGE,
    0x0607: r.PCI_HEADER_TYPE_CARDBUS,
}
_PROCESSOR = 0x0B20
"""Host bridges of PowerPC systems carry this class with the header of a bridge or without."""
_KNOWN, _NOT_KNOWN = b"\xff\xff", b"\0\0"
_STATUS_LINES = ("Control:", "Status:", "Flags:")
_FLAG = re.compile(r"([^\s,;]+?)([+-])(?=[\s,;]|$)")


@dataclass
class Builder:
    """A function under reconstruction, from the statements in ``lines``."""

    image: Image
    lines: list[str]
    verbose: bool
    """Whether lspci was asked for more than a list, and nobody took it out."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Config space, the mask of its known bits, and what was assumed."""

    config: bytes
    known: bytes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """What the rest of a listing says about how to read one function of it."""

    lists: bool = False
    """Some function shows capabilities, so one without such lines has none."""
    extended: bool = True
    """Extended capabilities could be seen."""
    complete: bool = True
    """Nothing was cut off behind this function."""


def rebuild(headline: Headline, text: Sequence[str], ids: Ids | None = None, around: Around | None = None) -> Rebuilt:
    """Return a function rebuilt from its headline and the decoded lines below it."""
    if not text:
        return _bare(headline, ids)
    lines = logical_lines(text)
    verbose = any(line.startswith(_STATUS_LINES) for line in lines)
    image = Image()
    size = r.PCI_STD_HEADER_SIZEOF
    buses = any(line.startswith("Bus: primary=") for line in lines)
    image.data[:size], image.known[:size] = _header(headline, ids, verbose, buses)
    builder = Builder(image, lines, verbose)
    _read_lines(builder, around or Around())
    size = len(image.data) if any(image.known[size:]) else size
    return Rebuilt(bytes(image.data[:size]), bytes(image.known[:size]), tuple(builder.notes))


@lru_cache(maxsize=4096)
def _bare(headline: Headline, ids: Ids | None) -> Rebuilt:
    """Return what a headline alone says; large machines have few different ones."""
    config, known = _header(headline, ids, False, False)
    return Rebuilt(bytes(config), bytes(known))


# -- the headline ------------------------------------------------------------------------------------------------


def _header(headline: Headline, ids: Ids | None, verbose: bool, buses: bool) -> tuple[bytearray, bytearray]:
    """Return the standard header with what the headline says, and the mask of what is known of it.

    lspci shows the header type by what else it prints, and leaves out a revision or interface that is zero: in a list
    always, but a list is so often shortened that only a verbose listing is believed. Bit 7 of the header type follows
    from other functions. The interrupt pin, which only ``-vv`` shows, is guessed.
    """
    config, known = bytearray(r.PCI_STD_HEADER_SIZEOF), bytearray(r.PCI_STD_HEADER_SIZEOF)
    vendor, device, code = headline.vendor, headline.device, headline.class_code
    if device is None and ids is not None:
        vendor, device = ids
    config[0:2] = (_UNKNOWN_VENDOR if vendor is None else vendor).to_bytes(2, "little")
    known[0:2] = _NOT_KNOWN if vendor is None else _KNOWN
    config[2:4] = (device or 0).to_bytes(2, "little")
    known[2:4] = _NOT_KNOWN if device is None else _KNOWN
    config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2] = (_UNKNOWN_CLASS if code is None else code).to_bytes(
        2, "little"
    )
    known[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2] = _NOT_KNOWN if code is None else _KNOWN
    alive = verbose and headline.revision != 0xFF
    for at, number in ((r.PCI_REVISION_ID, headline.revision), (r.PCI_CLASS_PROG, headline.interface)):
        config[at] = number or 0
        known[at] = 0xFF if number not in (None, 0xFF) or (number is None and alive) else 0
    kind = _BRIDGES.get(code or 0, r.PCI_HEADER_TYPE_BRIDGE if buses else r.PCI_HEADER_TYPE_NORMAL)
    config[r.PCI_HEADER_TYPE] = kind
    known[r.PCI_HEADER_TYPE] = r.PCI_HEADER_TYPE_MASK if buses or verbose or code not in (None, _PROCESSOR) else 0
    config[r.PCI_INTERRUPT_PIN] = 0 if code in _WITHOUT_PIN else 1
    return config, known


# -- lines below it ----------------------------------------------------------------------------------------------


def _read_lines(builder: Builder, around: Around) -> None:
    unknown_type = any(line.startswith("!!! Unknown header type") for line in builder.lines)
    at = next((at for at, line in enumerate(builder.lines) if line.startswith("Capabilities:")), len(builder.lines))
    if any(line.startswith("Control:") for line in builder.lines):
        builder.image.put(r.PCI_INTERRUPT_PIN, 1, 0, known=not builder.image.get(r.PCI_HEADER_TYPE, 1))
    for line in builder.lines[:at]:
        _read_in_header(builder, line)
    listed = [line for line in builder.lines[at:] if not line.startswith("Capabilities: <")]
    if unknown_type or any(line.startswith("Capabilities: <") for line in builder.lines[at:]):
        builder.notes.append(HIDDEN)
        builder.image.forget(r.PCI_CAPABILITY_LIST, 1)
        return
    express = capabilities.read(builder.image, listed, builder.notes)
    if not (listed or builder.verbose or around.lists):
        return
    ended = builder.lines[-1].startswith(("Kernel driver in use:", "Kernel modules:"))
    if not around.complete and not ended:
        builder.notes.append("the listing is cut off here; what it said of the capabilities behind is unknown")
        if any(capabilities.is_extended(line) for line in listed):
            builder.image.end_list()
        return
    builder.image.end_list()
    if not express:
        return
    if around.extended:
        builder.image.end_extended_list()
    else:
        builder.notes.append("no function shows extended capabilities; whether there are any is unknown")


def flags_of(text: str) -> dict[str, bool]:
    """Return the words with ``+`` or ``-`` behind them; of a word that is there twice, the first one counts."""
    found: dict[str, bool] = {}
    for word, sign in _FLAG.findall(text):
        found.setdefault(word, sign == "+")
    return found


def put_flags(image: Image, at: int, size: int, bits: dict[str, int], text: str) -> None:
    """Set those bits of a register whose words the text has."""
    for word, is_set in flags_of(text).items():
        if word in bits:
            image.state(at, size, bits[word], bits[word] if is_set else 0)


def _read_in_header(builder: Builder, line: str) -> None:
    key, _, value = line.partition(":")
    if key in names.HEADER_FLAGS:
        at, bits = names.HEADER_FLAGS[key]
        if key != "BridgeCtl" or _is_bridge(builder):
            put_flags(builder.image, at, 2, bits, value)
        speed = re.search(r"DEVSEL=(fast|medium|slow)", value)
        if key == "Status" and speed is not None:
            devsel = ("fast", "medium", "slow").index(speed[1]) << 9
            builder.image.state(at, 2, r.PCI_STATUS_DEVSEL_MASK, devsel)
    elif key in _HEADER_READERS:
        _HEADER_READERS[key](builder, value.strip())
    elif line.startswith(("Region ", "Memory at ", "I/O ports at ")):
        _read_region(builder, line)


def _is_bridge(builder: Builder) -> bool:
    return builder.image.get(r.PCI_HEADER_TYPE, 1) & r.PCI_HEADER_TYPE_MASK == r.PCI_HEADER_TYPE_BRIDGE


def _read_short_flags(builder: Builder, value: str) -> None:
    """``lspci -v``: one line of flags in the place of Control, Status and Interrupt.

    The number behind ``IRQ`` is the kernel's, not that of the register.
    """
    words = [word.strip() for word in value.split(",")]
    image = builder.image
    for word, at, bit in (
        ("bus master", r.PCI_COMMAND, r.PCI_COMMAND_MASTER),
        ("VGA palette snoop", r.PCI_COMMAND, r.PCI_COMMAND_VGA_PALETTE),
        ("stepping", r.PCI_COMMAND, r.PCI_COMMAND_WAIT),
        ("fast Back2Back", r.PCI_COMMAND, r.PCI_COMMAND_FAST_BACK),
        ("66MHz", r.PCI_STATUS, r.PCI_STATUS_66MHZ),
        ("user-definable features", r.PCI_STATUS, r.PCI_STATUS_UDF),
    ):
        image.state(at, 2, bit, bit if word in words else 0)
    irq = re.search(r"\bIRQ ([0-9]{1,5})", value)
    if irq is None:
        image.put(r.PCI_INTERRUPT_PIN, 1, 0, known=False)
    elif int(irq[1]) <= 0xFF:
        image.put(r.PCI_INTERRUPT_LINE, 1, int(irq[1]), known=False)


def _read_interrupt(builder: Builder, value: str) -> None:
    match = re.match(r"pin ([A-D?])(?: routed to IRQ ([0-9]{1,5}))?", value)
    if match is None:
        return
    pin = "?ABCD".index(match[1])
    builder.image.put(r.PCI_INTERRUPT_PIN, 1, pin, known=pin != 0)
    if match[2] is not None and int(match[2]) <= 0xFF:
        builder.image.put(r.PCI_INTERRUPT_LINE, 1, int(match[2]), known=False)


def _read_latency(builder: Builder, value: str) -> None:
    latency, line_size = re.match(r"([0-9]{1,3})\b", value), re.search(r"Cache Line Size: ([0-9]{1,4}) bytes", value)
    if latency is not None:
        builder.image.put(r.PCI_LATENCY_TIMER, 1, int(latency[1]))
    if line_size is not None:
        builder.image.put(r.PCI_CACHE_LINE_SIZE, 1, int(line_size[1]) // 4)


def _read_buses(builder: Builder, value: str) -> None:
    numbers = dict(re.findall(r"(primary|secondary|subordinate)=([0-9a-f]{2})\b", value))
    for name, at in (
        ("primary", r.PCI_PRIMARY_BUS),
        ("secondary", r.PCI_SECONDARY_BUS),
        ("subordinate", r.PCI_SUBORDINATE_BUS),
    ):
        if name in numbers:
            builder.image.put(at, 1, int(numbers[name], 16))


def _read_subsystem(builder: Builder, value: str) -> None:
    stated = re.search(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]$", value) or re.match(
        r"Device ([0-9a-f]{4}):([0-9a-f]{4})", value
    )
    if stated is not None and not builder.image.get(r.PCI_HEADER_TYPE, 1):
        builder.image.put(r.PCI_SUBSYSTEM_VENDOR_ID, 2, int(stated[1], 16))
        builder.image.put(r.PCI_SUBSYSTEM_ID, 2, int(stated[2], 16))


_HEADER_READERS = {
    "Flags": _read_short_flags,
    "Interrupt": _read_interrupt,
    "Latency": _read_latency,
    "Bus": _read_buses,
    "Subsystem": _read_subsystem,
}


def _read_region(builder: Builder, line: str) -> None:
    """Put a BAR. Its value is the kernel's word, which need not be what the register holds."""
    match = re.match(r"(?:Region ([0-5]): )?(Memory|I/O ports) at (?:<\w+>|([0-9a-f]{1,16}))(.*)", line)
    if match is None:
        return
    count = 2 if builder.image.get(r.PCI_HEADER_TYPE, 1) else 6
    number = int(match[1]) if match[1] is not None else _next_bar(builder, count)
    is_io, wide = match[2] != "Memory", "64-bit" in match[4]
    if number + wide >= count:
        return
    kind = r.PCI_BASE_ADDRESS_SPACE_IO if is_io else (0x4 if wide else 0) | (0x8 if ", prefetch" in match[4] else 0)
    value = int(match[3] or "0", 16) & ~0xF if not is_io else int(match[3] or "0", 16) & ~0x3
    builder.image.put(r.PCI_BASE_ADDRESS_0 + 4 * number, 8 if wide else 4, value | kind, known=False)
    if match[1] is None and "[virtual]" not in line:
        bit = r.PCI_COMMAND_IO if is_io else r.PCI_COMMAND_MEMORY
        builder.image.state(r.PCI_COMMAND, 2, bit, 0 if "[disabled]" in match[4] else bit)


def _next_bar(builder: Builder, count: int) -> int:
    """Return the first BAR nothing was put in; ``lspci -v`` does not number them."""
    number = 0
    while number < count:
        value = builder.image.get(r.PCI_BASE_ADDRESS_0 + 4 * number, 4)
        if value == 0:
            return number
        number += 2 if value & 0x7 == 0x4 else 1
    return count
