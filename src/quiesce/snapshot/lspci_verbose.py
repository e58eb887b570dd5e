"""Reconstructs configuration space from what ``lspci -v``, ``-vv`` and ``-vvv`` decode of it.

What the text states goes to its place: ids, class, command and status bits, bus numbers, interrupt pin, BARs, the
capability lists with those bits that the model uses. What the text leaves out is zero, and the notes say what was
assumed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from quiesce.snapshot import lspci_names as names
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.image import Image

Ids = tuple[int, int]
"""Vendor and device id."""

_UNKNOWN_VENDOR = 0x0001
_CAPABILITY = re.compile(r"Capabilities: \[([0-9a-f]{2,3})(?: v([0-9]{1,2}))?\] (.*)")
_KEY = re.compile(r"([A-Za-z0-9]+):\s*(.*)")
_FLAG = re.compile(r"(\S+?)([+-])[,;]?")
_WITHOUT_PIN = (r.PCI_CLASS_BRIDGE_HOST, r.PCI_CLASS_BRIDGE_ISA)


@dataclass
class _Capability:
    offset: int
    cap_id: int
    extended: bool
    limit: int
    """Where the next capability starts."""


@dataclass
class _Builder:
    image: Image
    lines: list[str]
    notes: list[str] = field(default_factory=list)
    capability: _Capability | None = None
    context: str = ""
    pin_known: bool = False

    def put(self, offset: int, size: int, value: int) -> None:
        """Set a field of the running capability, if it has room for it."""
        capability = self.capability
        if capability is not None and capability.offset + offset + size <= capability.limit:
            self.image.put(capability.offset + offset, size, value)


def reconstruct(
    bdf: Bdf, headline: str, text: Sequence[str], ids: Ids | None = None
) -> tuple[FunctionDescription, list[str]]:
    """Return a function rebuilt from its headline and the decoded lines below it, and notes on what was assumed."""
    lines = [line.strip() for line in text]
    builder = _Builder(Image(), lines, pin_known=any(line.startswith("Control:") for line in lines))
    class_code = _read_headline(builder, headline, ids)
    _read_header_type(builder, class_code >> 8)
    for line in lines:
        _read_line(builder, line)
    if not builder.pin_known:
        _assume_pin(builder, class_code >> 8)
    return FunctionDescription(bdf, builder.image.bytes()), builder.notes


# -- the headline ------------------------------------------------------------------------------------------------


def _read_headline(builder: _Builder, headline: str, ids: Ids | None) -> int:
    """Read class, ids, revision and programming interface; returns the class code."""
    prog_if = re.search(r"\(prog-if ([0-9a-f]{2})", headline)
    revision = re.search(r"\(rev ([0-9a-f]{2})\)", headline)
    named, _, rest = headline.partition(": ")
    class_code = _class_of(named.strip()) << 8 | (int(prog_if[1], 16) if prog_if else 0)
    vendor, device = _ids_of(builder, rest, ids)
    image = builder.image
    image.put(r.PCI_VENDOR_ID, 2, vendor)
    image.put(r.PCI_DEVICE_ID, 2, device)
    image.put(r.PCI_CLASS_REVISION, 4, class_code << 8 | (int(revision[1], 16) if revision else 0))
    return class_code


def _class_of(text: str) -> int:
    """Return base class and sub-class from ``SATA controller [0106]``, ``Class 0106``, ``0106`` or the name alone."""
    code = re.search(r"\[([0-9a-f]{4})\]$", text) or re.fullmatch(r"(?:Class )?([0-9a-f]{4})", text)
    return int(code[1], 16) if code else names.CLASSES.get(text, 0xFF00)


def _ids_of(builder: _Builder, text: str, ids: Ids | None) -> Ids:
    stated = re.findall(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]", text)
    plain = re.match(r"(?:Device )?([0-9a-f]{4}):([0-9a-f]{4})\b", text)
    if stated or plain:
        vendor, device = stated[-1] if stated else plain.groups() if plain else ("0", "0")
        return int(vendor, 16), int(device, 16)
    if ids is not None:
        return ids
    vendor_id = next((number for name, number in names.VENDORS.items() if text.startswith(name)), _UNKNOWN_VENDOR)
    number = re.search(r"\bDevice ([0-9a-f]{4})\b", text)
    if vendor_id == _UNKNOWN_VENDOR or number is None:
        builder.notes.append("the text does not state vendor and device id; quirks that depend on them do not apply")
    return vendor_id, int(number[1], 16) if number else 0


def _read_header_type(builder: _Builder, class_code: int) -> None:
    buses = any(line.startswith("Bus: primary=") for line in builder.lines)
    if buses or class_code == r.PCI_CLASS_BRIDGE_PCI:
        builder.image.put(r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_BRIDGE)
    if class_code == r.PCI_CLASS_BRIDGE_PCI and not buses:
        builder.notes.append("a bridge whose bus numbers are not stated; what is below it is unknown")
    if class_code == 0x0607:
        builder.image.put(r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_CARDBUS)


def _assume_pin(builder: _Builder, class_code: int) -> None:
    if class_code not in _WITHOUT_PIN:
        builder.image.put(r.PCI_INTERRUPT_PIN, 1, 1)
        builder.notes.append("the text does not state the interrupt pin; taken to be A")


# -- lines below it ----------------------------------------------------------------------------------------------


def _read_line(builder: _Builder, line: str) -> None:
    capability = _CAPABILITY.fullmatch(line)
    if capability is not None:
        _open_capability(builder, int(capability[1], 16), int(capability[2] or "1"), capability[3])
    elif line.startswith("Capabilities: <access denied>"):
        builder.notes.append("the capabilities were hidden from the user who ran lspci")
    elif builder.capability is not None:
        _read_in_capability(builder, line)
    else:
        _read_in_header(builder, line)


def _set_flags(builder: _Builder, at: int, size: int, flags: dict[str, int], text: str) -> None:
    for word in text.split():
        match = _FLAG.fullmatch(word)
        if match is not None and match[1] in flags and match[2] == "+":
            builder.image.set_bits(at, size, flags[match[1]])


def _read_in_header(builder: _Builder, line: str) -> None:
    key, _, value = line.partition(":")
    if key in names.HEADER_FLAGS:
        at, flags = names.HEADER_FLAGS[key]
        _set_flags(builder, at, 2, flags, value)
        speed = re.search(r"DEVSEL=(fast|medium|slow)", value)
        if key == "Status" and speed is not None:
            builder.image.set_bits(at, 2, ("fast", "medium", "slow").index(speed[1]) << 9)
    elif key in _HEADER_READERS:
        _HEADER_READERS[key](builder, value.strip())
    elif line.startswith(("Region ", "Memory at ", "I/O ports at ")):
        _read_region(builder, line)


def _read_short_flags(builder: _Builder, value: str) -> None:
    """``lspci -v``: one line of flags in the place of Control, Status and Interrupt."""
    if "bus master" in value:
        builder.image.set_bits(r.PCI_COMMAND, 2, r.PCI_COMMAND_MASTER)
    irq = re.search(r"\bIRQ ([0-9]{1,5})", value)
    builder.pin_known = irq is None
    if irq is not None and int(irq[1]) <= 0xFF:
        builder.image.put(r.PCI_INTERRUPT_LINE, 1, int(irq[1]))


def _read_interrupt(builder: _Builder, value: str) -> None:
    match = re.match(r"pin ([A-D?])(?: routed to IRQ ([0-9]{1,5}))?", value)
    if match is None:
        return
    builder.pin_known = True
    builder.image.put(r.PCI_INTERRUPT_PIN, 1, "?ABCD".index(match[1]))
    if match[2] is not None and int(match[2]) <= 0xFF:
        builder.image.put(r.PCI_INTERRUPT_LINE, 1, int(match[2]))


def _read_latency(builder: _Builder, value: str) -> None:
    latency, line_size = re.match(r"([0-9]{1,3})\b", value), re.search(r"Cache Line Size: ([0-9]{1,4}) bytes", value)
    if latency is not None:
        builder.image.put(r.PCI_LATENCY_TIMER, 1, int(latency[1]))
    if line_size is not None:
        builder.image.put(r.PCI_CACHE_LINE_SIZE, 1, int(line_size[1]) // 4)


def _read_buses(builder: _Builder, value: str) -> None:
    numbers = dict(re.findall(r"(primary|secondary|subordinate)=([0-9a-f]{2})\b", value))
    for name, at in (
        ("primary", r.PCI_PRIMARY_BUS),
        ("secondary", r.PCI_SECONDARY_BUS),
        ("subordinate", r.PCI_SUBORDINATE_BUS),
    ):
        builder.image.put(at, 1, int(numbers.get(name, "0"), 16))


def _read_subsystem(builder: _Builder, value: str) -> None:
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


def _read_region(builder: _Builder, line: str) -> None:
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
    builder.image.put(r.PCI_BASE_ADDRESS_0 + 4 * number, 8 if wide else 4, value | kind)
    if "[disabled]" not in match[4] and match[1] is None:
        builder.image.set_bits(r.PCI_COMMAND, 2, r.PCI_COMMAND_IO if is_io else r.PCI_COMMAND_MEMORY)


def _next_bar(builder: _Builder, count: int) -> int:
    """Return the first BAR nothing was put in; ``lspci -v`` does not number them."""
    number = 0
    while number < count:
        value = builder.image.get(r.PCI_BASE_ADDRESS_0 + 4 * number, 4)
        if value == 0:
            return number
        number += 2 if value & 0x7 == 0x4 else 1
    return count


# -- capabilities ------------------------------------------------------------------------------------------------


def _open_capability(builder: _Builder, offset: int, version: int, text: str) -> None:
    extended = offset >= r.PCI_CFG_SPACE_SIZE
    known = names.EXTENDED if extended else names.CAPABILITIES
    cap_id = next((number for name, number in known.items() if text.startswith(name)), _numbered(text))
    builder.capability, builder.context = None, ""
    if cap_id is None:
        builder.notes.append(f"capability at {offset:02x} left out: {text[:60]!r} is not known by name")
        builder.capability = _Capability(0, -1, extended, 0)
        return
    try:
        if extended:
            builder.image.extended(cap_id, 4, version, offset)
        else:
            builder.image.capability(cap_id, 4, offset)
    except ValueError as error:
        builder.notes.append(f"capability {text[:60]!r} left out: {error}")
        cap_id, offset = -1, 0
    builder.capability = _Capability(offset, cap_id, extended, _limit(builder, offset))
    if not extended and cap_id in _CAPABILITY_READERS:
        _CAPABILITY_READERS[cap_id](builder, text)


def _numbered(text: str) -> int | None:
    match = re.match(r"(?:Capability ID 0x|Extended Capability ID 0x|#)([0-9a-f]{1,4})\b", text)
    return int(match[1], 16) if match else None


def _limit(builder: _Builder, offset: int) -> int:
    offsets = [int(match[1], 16) for line in builder.lines if (match := _CAPABILITY.fullmatch(line))]
    end = r.PCI_CFG_SPACE_SIZE if offset < r.PCI_CFG_SPACE_SIZE else r.PCI_CFG_SPACE_EXP_SIZE
    return min([other for other in offsets if offset < other < end], default=end) if offset else 0


def _read_msi(builder: _Builder, text: str) -> None:
    count = re.search(r"(?:Count|Queue)=([0-9]{1,2})/([0-9]{1,2})", text)
    flags = r.PCI_MSI_FLAGS_64BIT if "64bit+" in text else 0
    flags |= r.PCI_MSI_FLAGS_MASKBIT if re.search(r"Mask(able)?\+", text) else 0
    flags |= r.PCI_MSI_FLAGS_ENABLE if "Enable+" in text else 0
    if count is not None:
        enabled, possible = (int(number) for number in count.groups())
        if "Queue=" not in text:
            enabled, possible = (max(number, 1).bit_length() - 1 for number in (enabled, possible))
        flags |= min(possible, 5) << 1 | min(enabled, 5) << 4
    builder.put(r.PCI_MSI_FLAGS, 2, flags)


def _read_msix(builder: _Builder, text: str) -> None:
    count = re.search(r"(?:Count|TabSize)=([0-9]{1,4})", text)
    flags = (int(count[1]) - 1 if count else 0) & r.PCI_MSIX_FLAGS_QSIZE
    flags |= r.PCI_MSIX_FLAGS_ENABLE if "Enable+" in text else 0
    flags |= r.PCI_MSIX_FLAGS_MASKALL if re.search(r"Mask(ed)?\+", text) else 0
    builder.put(r.PCI_MSIX_FLAGS, 2, flags)


def _read_express(builder: _Builder, text: str) -> None:
    builder.image.extend()
    match = re.match(r"Express (?:\(v([0-9]{1,2})\) )?(.*?)(?: \(Slot([+-])\))?(?:,.*)?$", text)
    if match is None or match[2] not in names.PORT_TYPES:
        builder.notes.append(f"PCI Express type not known: {text[:60]!r}; taken to be an endpoint")
        return
    flags = (int(match[1]) if match[1] else 2) & r.PCI_EXP_FLAGS_VERS | names.PORT_TYPES[match[2]] << 4
    builder.put(r.PCI_EXP_FLAGS, 2, flags | (r.PCI_EXP_FLAGS_SLOT if match[3] == "+" else 0))


def _read_power(builder: _Builder, text: str) -> None:
    version = re.search(r"version ([0-7])", text)
    builder.put(r.PCI_PM_PMC, 2, int(version[1]) if version else 3)


def _read_hypertransport(builder: _Builder, text: str) -> None:
    if "MSI Mapping" in text:
        flags = (r.HT_MSI_FLAGS_ENABLE if "Enable+" in text else 0) | (r.HT_MSI_FLAGS_FIXED if "Fixed+" in text else 0)
        builder.put(r.HT_MSI_FLAGS, 2, r.HT_CAPTYPE_MSI_MAPPING << 8 | flags)


_CAPABILITY_READERS = {
    r.PCI_CAP_ID_PM: _read_power,
    r.PCI_CAP_ID_MSI: _read_msi,
    r.PCI_CAP_ID_MSIX: _read_msix,
    r.PCI_CAP_ID_EXP: _read_express,
    r.PCI_CAP_ID_HT: _read_hypertransport,
}


def _read_in_capability(builder: _Builder, line: str) -> None:
    capability = builder.capability
    assert capability is not None
    key = _KEY.match(line)
    if key is not None and not line.startswith(("Changed:", "Control:", "Enable:")):
        builder.context = key[1]
    elif line.startswith("Changed:"):
        builder.context = ""
    known = names.EXTENDED_FLAGS if capability.extended else names.CAPABILITY_FLAGS
    found = known.get(capability.cap_id, {}).get(builder.context)
    if found is not None and capability.offset + found[0] + found[1] <= capability.limit:
        _set_flags(builder, capability.offset + found[0], found[1], found[2], line)
    if not capability.extended and capability.cap_id == r.PCI_CAP_ID_PM and builder.context == "Status":
        state = re.match(r"Status: D([0-3])", line)
        builder.put(
            r.PCI_PM_CTRL, 2, builder.image.get(capability.offset + r.PCI_PM_CTRL, 2) | int(state[1] if state else 0)
        )
    if not capability.extended and capability.cap_id == r.PCI_CAP_ID_MSIX:
        _read_msix_table(builder, line)
    if capability.extended and capability.cap_id == r.PCI_EXT_CAP_ID_SRIOV:
        _read_virtual_functions(builder, line)


def _read_msix_table(builder: _Builder, line: str) -> None:
    match = re.match(r"(Vector table|PBA): BAR=([0-7]) offset=([0-9a-f]{1,8})", line)
    if match is not None:
        at = r.PCI_MSIX_TABLE if match[1] == "Vector table" else r.PCI_MSIX_PBA
        builder.put(at, 4, int(match[3], 16) & ~7 | int(match[2]))


def _read_virtual_functions(builder: _Builder, line: str) -> None:
    for pattern, at, base in (
        (r"Initial VFs: ([0-9]{1,5})", r.PCI_SRIOV_INITIAL_VF, 10),
        (r"Total VFs: ([0-9]{1,5})", r.PCI_SRIOV_TOTAL_VF, 10),
        (r"Number of VFs: ([0-9]{1,5})", r.PCI_SRIOV_NUM_VF, 10),
        (r"VF offset: ([0-9]{1,5})", r.PCI_SRIOV_VF_OFFSET, 10),
        (r"stride: ([0-9]{1,5})", r.PCI_SRIOV_VF_STRIDE, 10),
        (r"Device ID: ([0-9a-f]{1,4})", r.PCI_SRIOV_VF_DID, 16),
    ):
        match = re.search(pattern, line)
        if match is not None:
            builder.put(at, 2, int(match[1], base))
