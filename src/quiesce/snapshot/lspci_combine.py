"""Makes one description of all that a text says about one function: bytes first, then what was decoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.lspci_blocks import Sighting
from quiesce.snapshot.lspci_dump import FULL_SIZES
from quiesce.snapshot.lspci_headline import Headline, read_fields, read_headline
from quiesce.snapshot.lspci_lines import whole_line
from quiesce.snapshot.lspci_verbose import HIDDEN, Around, Ids, rebuild

SILENT = "answered with all ones when it was read (no power, or gone)"
_ALL_ONES = b"\xff" * FULL_SIZES[0]
_WITHOUT_PIN = (r.PCI_CLASS_BRIDGE_HOST, r.PCI_CLASS_BRIDGE_ISA)
_ATTRIBUTES = {
    "Kernel driver in use": "driver",
    "Kernel modules": "modules",
    "Physical Slot": "slot",
    "NUMA node": "numa",
    "DeviceName": "label",
    "Driver": "driver",
    "Module": "modules",
    "PhySlot": "slot",
    "NUMANode": "numa",
}
_ATTRIBUTE = re.compile(r"\s*(Kernel driver in use|Kernel modules|Physical Slot|NUMA node|DeviceName):")
_NUMA_IN_FLAGS = re.compile(r"\bNUMA\s+node\s+([0-9]{1,4})\b")


@dataclass(slots=True)
class Part:
    """Bytes of a function and the mask of those bits that are known, from one place of a text."""

    config: bytes
    known: bytes | None
    line: int = 0

    def weight(self) -> tuple[int, int]:
        """Return how much it says: bits that are known, and the earlier of two that say as much."""
        bits = 8 * len(self.config) if self.known is None else int.from_bytes(self.known, "little").bit_count()
        return bits, -self.line


@dataclass(slots=True)
class Description:
    """What is known of a function, and the notes on it."""

    item: FunctionDescription
    notes: list[str]
    rebuilt: bool
    """Whether there are no bytes of it."""


@dataclass(slots=True)
class _Function:
    """What was found about a function so far."""

    dumped: list[Part]
    decoded: list[Part]
    attributes: dict[str, str]
    notes: list[str]


def describe(
    bdf: Bdf, sightings: Iterable[Sighting], around: Mapping[int, Around], ids: Ids | None, extra: Sequence[Part] = ()
) -> Description:
    """Combine what is said about one function; ``around`` by number of the listing, ``extra`` what else is known."""
    found = _Function([], [], {}, [])
    for sighting in sightings:
        _add(found, sighting, around, ids)
    parts = [*_by_weight(found.dumped), *_by_weight(found.decoded), *extra]
    whole = parts[0] if len(parts) == 1 else overlay(parts)
    notes = found.notes
    if found.dumped and len(parts[0].config) == FULL_SIZES[0]:
        notes.append("only 64 bytes are known, so no capabilities")
    if len(parts) > 1:
        notes += _conflicts(parts)
    if whole.known is not None:
        notes = [
            *_missing(whole),
            *(note for note in notes if note != HIDDEN or not whole.known[r.PCI_CAPABILITY_LIST]),
        ]
    item = FunctionDescription(bdf, whole.config, attributes=found.attributes, known=whole.known)
    return Description(item, notes, not found.dumped)


def _add(found: _Function, sighting: Sighting, around: Mapping[int, Around], ids: Ids | None) -> None:
    part = _bytes_of(sighting, found.notes)
    if part is not None and part.config[: FULL_SIZES[0]] == _ALL_ONES and part.known is None:
        found.notes.append(SILENT)
        part = None
    if part is not None:
        found.dumped.append(part)
    headline = headline_of(sighting)
    _add_attributes(found.attributes, sighting, headline, part)
    if part is not None and part.known is None and (len(part.config) == FULL_SIZES[-1] or not sighting.lines):
        return
    about = around.get(sighting.listing) or Around()
    if not sighting.complete:
        about = Around(about.lists, about.extended, complete=False)
    rebuilt = rebuild(headline, sighting.lines, ids, about)
    found.decoded.append(Part(rebuilt.config, rebuilt.known, sighting.line))
    if part is None:
        found.notes += (note for note in rebuilt.notes if note not in found.notes)


def headline_of(sighting: Sighting) -> Headline:
    """Return class, ids and name from a headline, or from the fields of a record."""
    if sighting.record:
        return read_fields(sighting.record)
    return sighting.parsed or read_headline(sighting.headline)


def _bytes_of(sighting: Sighting, notes: list[str]) -> Part | None:
    if sighting.data:
        return Part(sighting.data, None, sighting.line)
    pieces = sighting.pieces
    if pieces is None:
        return None
    notes += pieces.notes
    if not pieces.data:
        return None
    config, known = pieces.in_full()
    gaps = pieces.gaps()
    if gaps:
        shown = ", ".join(f"{first:02x}-{last:02x}" for first, last in gaps[:3])
        notes.append(f"bytes {shown}{' and more' if len(gaps) > 3 else ''} are missing in the dump; they are unknown")
    if len(pieces.data) not in FULL_SIZES:
        notes.append(f"only {len(pieces.data)} bytes are known; the rest is unknown")
    return Part(config, known, sighting.line)


def _by_weight(parts: list[Part]) -> list[Part]:
    return sorted(parts, key=Part.weight, reverse=True) if len(parts) > 1 else parts


def _add_attributes(into: dict[str, str], sighting: Sighting, headline: Headline, part: Part | None) -> None:
    """Note what the words say that config space does not hold."""
    if headline.name:
        into.setdefault("name", headline.name)
    port = headline.port
    if port is not None:
        into.setdefault("pcie-type", port)
    if part is not None and part.config[:4] == b"\xff\xff\xff\xff" and headline.device is not None:
        into.setdefault("vendor", f"{headline.vendor or 0:04x}")
        into.setdefault("device", f"{headline.device:04x}")
    for at, line in enumerate(sighting.lines):
        match = _ATTRIBUTE.match(line)
        if match is not None:
            value = whole_line(sighting.lines, at).partition(":")[2].strip()
            into.setdefault(_ATTRIBUTES[match[1]], value[:200])
        elif "NUMA" in line and (numa := _NUMA_IN_FLAGS.search(whole_line(sighting.lines, at))) is not None:
            into.setdefault("numa", numa[1])
    for name, value in sighting.record.items():
        if name in _ATTRIBUTES:
            into.setdefault(_ATTRIBUTES[name], value[:200])


def _missing(whole: Part) -> list[str]:
    """Say what of the header stayed unknown."""
    assert whole.known is not None
    notes = []
    if whole.known[:4] != b"\xff\xff\xff\xff":
        notes.append("the text does not state vendor and device id; quirks that depend on them do not apply")
    class_code = int.from_bytes(whole.config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2], "little")
    if class_code == r.PCI_CLASS_BRIDGE_PCI and not whole.known[r.PCI_SECONDARY_BUS]:
        notes.append("a bridge whose bus numbers are not stated; what is below it is unknown")
    if not whole.known[r.PCI_INTERRUPT_PIN] and class_code not in _WITHOUT_PIN:
        notes.append("the text does not state the interrupt pin; taken to be A")
    return notes


def overlay(parts: Sequence[Part]) -> Part:
    """Lay parts over each other: each bit comes from the first part that knows it, else from the first one."""
    size = max(len(part.config) for part in parts)
    value, known, lengths = 0, 0, 0
    for part in parts:
        mask = (1 << 8 * len(part.config)) - 1 if part.known is None else int.from_bytes(part.known, "little")
        config = int.from_bytes(part.config, "little")
        fresh = mask & ~known
        # what nobody knew so far may be overwritten; a guess of an earlier part stays where no part knows better
        value = value & ~fresh | config & fresh
        guessed = ((1 << 8 * len(part.config)) - 1) & ~lengths & ~known & ~fresh
        value = value & ~guessed | config & guessed
        known |= mask
        lengths |= (1 << 8 * len(part.config)) - 1
    complete = known == (1 << 8 * size) - 1
    return Part(value.to_bytes(size, "little"), None if complete else known.to_bytes(size, "little"), parts[0].line)


def _conflicts(parts: Sequence[Part]) -> list[str]:
    """Say where what identifies a function is stated twice and differently; the first part counts."""
    found: list[str] = []
    first = parts[0]
    for other in parts[1:]:
        ranges = [(r.PCI_VENDOR_ID, 4, "ids"), (r.PCI_CLASS_PROG, 3, "class")]
        if first.config[r.PCI_HEADER_TYPE] & 1:
            ranges.append((r.PCI_SECONDARY_BUS, 2, "bus numbers"))
        for at, size, what in ranges:
            if _differ(first, other, at, size) and first.config[at : at + 2] != b"\xff\xff":
                place = f"line {first.line} counts" if first.line else "the first counts"
                found.append(f"{what} are stated twice and differently; {place}")
    return list(dict.fromkeys(found))


def _differ(one: Part, other: Part, at: int, size: int) -> bool:
    for offset in range(at, min(at + size, len(one.config), len(other.config))):
        mask = (one.known[offset] if one.known else 0xFF) & (other.known[offset] if other.known else 0xFF)
        if (one.config[offset] ^ other.config[offset]) & mask:
            return True
    return False
