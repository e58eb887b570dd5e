"""Compares a reading of an ACPI table with the listing that ``iasl -d`` makes of it, field by field.

A listing has a line ``[034h 0052 002h]  PCI Segment Number : 0000`` per field, without offset the bits of the field
before it, and the raw table at the end. A field agrees when ours begins and ends at the same place, has the same
value, and a name that means the same; where ``iasl`` shows one field for several of ours, all of them must be in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from quiesce.snapshot.acpi import fields
from quiesce.snapshot.acpi_layout import FieldValue
from quiesce.snapshot.acpi_listing_names import BIT_NAMES, NAMES, UMBRELLAS

_FIELD = re.compile(r"\[([0-9A-F]{3,8})h \d+ +(?:([0-9]{1,8})|([0-9A-F]{1,8})h)\] +([^:]*?) : ?(.*)$")
_MORE = re.compile(r"(?:/\* [0-9A-F]{3,8}h \d+ +\w+ \*/| {4}) *((?:[0-9A-F]{2} )+)")
_BITS = re.compile(r" {4,}(\S[^:]*?) : ([0-9A-F]+)$")
_LONGEST_LINE = 1000
_LONGEST_VALUE = 20_000
_MOST_BITS = 64
_END = "Raw Table Data"
_GAVE_UP = ("**** Unknown", "terminates early")


@dataclass(frozen=True, slots=True)
class ListedField:
    """One line of a listing that has an offset, with the lines for its bits."""

    offset: int
    size: int
    name: str
    value: str
    bits: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a reading and a listing part."""

    offset: int
    what: str
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out of a comparison."""

    compared: int
    """Fields and single bits that were compared."""
    differences: tuple[Difference, ...]
    unlisted: tuple[FieldValue, ...]
    """What we read and the listing does not show."""
    mistaken: int
    """Fields that the listing shows wrongly and that were therefore not compared."""
    gave_up: bool
    """Whether the listing says itself that it does not show all."""


def read_listing(text: str) -> list[ListedField]:
    """Return the fields of a listing, in order."""
    found: list[ListedField] = []
    for line in text.splitlines():
        if line.startswith(_END):
            break
        line = line[:_LONGEST_LINE]
        match = _FIELD.match(line)
        if match:
            size = int(match[2]) if match[2] else int(match[3], 16)
            found.append(ListedField(int(match[1], 16), size, match[4], _without_comment(match[5])))
        elif found:
            found[-1] = _continued(found[-1], line)
    return found


def _without_comment(value: str) -> str:
    """Drop what ``iasl`` says about a value behind it."""
    if value.startswith('"'):
        return value[: value.rindex('"') + 1]
    return re.split(r" \[| /\*", value, maxsplit=1)[0].strip()


def _continued(field: ListedField, line: str) -> ListedField:
    bits, more = _BITS.match(line), _MORE.match(line)
    if len(field.bits) >= _MOST_BITS or len(field.value) >= _LONGEST_VALUE:
        return field
    if bits:
        return replace(field, bits=(*field.bits, (bits[1], int(bits[2], 16))))
    return replace(field, value=f"{field.value} {more[1]}".strip("\\ ")) if more else field


def compare_with_listing(table: bytes, text: str) -> Comparison:
    """Compare our reading of a raw table with its listing; raises BadInput when the table cannot be read at all."""
    ours = {field.offset: field for field in fields(table)}
    listed = [field for field in read_listing(text) if field.name not in UMBRELLAS]
    differences: list[Difference] = []
    seen: set[int] = set()
    compared = 0
    gave_up = any(mark in text for mark in _GAVE_UP)
    usable = [field for field in _once_each(listed) if not _is_mistaken(field, table)]
    for field in _cut_at_the_next(usable):
        mine = list(_inside(ours, field))
        seen.update(item.offset for item in mine)
        if not (gave_up and mine and mine[0].name == "unread"):
            differences += _field_differences(field, mine)
            compared += 1 + len(field.bits)
    unlisted = tuple(field for offset, field in ours.items() if offset not in seen)
    return Comparison(compared, tuple(differences), unlisted, len(listed) - len(usable), gave_up)


def _once_each(listed: list[ListedField]) -> list[ListedField]:
    """Leave out what has the place of a later field, as where an old node ends before what ``iasl`` expects."""
    kept: list[ListedField] = []
    behind = 1 << 32
    for field in reversed(listed):
        if field.offset < behind:
            kept.append(field)
            behind = field.offset
    return kept[::-1]


def _is_mistaken(field: ListedField, table: bytes) -> bool:
    """Whether it is padding behind a name, instead of which some versions of ``iasl`` show the start of the table."""
    return field.name == "Padding" and _is_shown_as(table[: field.size], field.value)


def _cut_at_the_next(listed: list[ListedField]) -> Iterator[ListedField]:
    """Shorten what runs into the next field: ``iasl`` shows 8 bytes for a UID that is a number, however long it is."""
    for field, following in zip(listed, [*listed[1:], None], strict=False):
        if following is not None and field.offset < following.offset < field.offset + field.size:
            size = following.offset - field.offset
            yield replace(field, size=size, value=field.value[-2 * size :])
        else:
            yield field


def _inside(ours: dict[int, FieldValue], field: ListedField) -> Iterator[FieldValue]:
    """Yield the fields of ours that are in the place of a listed one, as long as they follow each other."""
    at = field.offset
    while at < field.offset + field.size and at in ours:
        yield ours[at]
        at += ours[at].size


def _field_differences(field: ListedField, mine: list[FieldValue]) -> Iterator[Difference]:
    names = "+".join(f"{item.structure}.{item.name}" for item in mine)
    if sum(item.size for item in mine) != field.size:
        spans = " ".join(f"{item.offset:#x}+{item.size}" for item in mine)
        yield Difference(field.offset, "place", f"{names} {spans}", f"{field.name} {field.offset:#x}+{field.size}")
        return
    raw = b"".join(_encoded(item) for item in mine)
    if not _is_shown_as(raw, field.value):
        yield Difference(field.offset, f"value of {field.name}", raw.hex(" "), field.value)
    if not _means(mine, field.name):
        yield Difference(field.offset, "name", names, field.name)
    for name, value in field.bits if mine else ():
        yield from _bit_differences(mine[0], field, name, value)


def _encoded(item: FieldValue) -> bytes:
    if isinstance(item.value, int):
        return item.value.to_bytes(item.size, "little")
    raw = item.value.encode("latin-1") if isinstance(item.value, str) else item.value
    return raw.ljust(item.size, b"\0")


def _is_shown_as(raw: bytes, value: str) -> bool:
    """Whether bytes are what a listed value shows: text, a number, or bytes apart."""
    if value.startswith('"'):
        text = raw.split(b"\0")[0].decode("latin-1")
        return value[1:-1].replace("\\\\", "\\") == "".join(c if " " <= c <= "~" else " " for c in text)
    try:
        shown = bytes.fromhex(value.replace(",", " "))
    except ValueError:
        return False
    return raw == (shown if " " in value or "," in value else shown[::-1])


def _means(mine: Iterable[FieldValue], name: str) -> bool:
    """Whether the name in the listing means what our names do; several of ours may be one that older ``iasl`` calls
    reserved.
    """
    found = [NAMES.get(f"{item.structure}.{item.name}", NAMES.get(item.name, ())) for item in mine]
    if len(found) > 1:
        return name == "Reserved" or any(name in names for names in found)
    return any(name in names for names in found)


def _bit_differences(item: FieldValue, field: ListedField, name: str, value: int) -> Iterator[Difference]:
    meant = BIT_NAMES.get(name, name)
    ours = [bits for bits in item.bits if bits.name == meant]
    if name == "Reserved" and not ours:
        return
    if not ours:
        yield Difference(field.offset, "bits", f"{item.structure}.{item.name}", name)
    elif isinstance(item.value, int) and ours[0].of(item.value) != value:
        yield Difference(field.offset, f"bits {name}", str(ours[0].of(item.value)), str(value))
