"""The line with which lspci begins a function: class, ids and name, as numbers, as words or as both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from quiesce.snapshot import lspci_names as names

ADDRESS = r"(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]"
_CODE_AT_END = re.compile(r"\[([0-9a-f]{4})\]$")
_CODE = re.compile(r"(?:Class )?([0-9a-f]{4})")
_STATED = re.compile(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]")
_PLAIN = re.compile(r"(?:Device )?([0-9a-f]{4}):([0-9a-f]{4})\b")
_NUMBERED = re.compile(r"\bDevice ([0-9a-f]{4})(?= \(|$)")
_REVISION = re.compile(r"\(rev ([0-9a-f]{2})\)")
_INTERFACE = re.compile(r"\(prog-if ([0-9a-f]{2})")
_MARKS = re.compile(r"(?:-\s+|\[R(?:ESET)?\]\s+)+")
_AFTER_NAME = re.compile(r" ?(?:\[[0-9a-f]{4}:[0-9a-f]{4}\]|\((?:rev|prog-if) )")
_FIELD = re.compile(r'"([^"]*)"|-([rp])([0-9a-f]{2})')
_TWO_DIGITS = re.compile(r"[0-9a-f]{2}")
_NUMBER_AT_END = re.compile(r"(?:^|\[|Device )([0-9a-f]{4})\]?$")

_PORT = re.compile(
    r"\b(?:(Root Port)|(Upstream (?:Switch )?Port)|(Downstream (?:Switch )?Port)"
    r"|((?:PCI[ -]?Express|PCI-?E)[ -]to[ -]PCI(?:-X)?))\b(?!e)",
    re.IGNORECASE,
)
"""Words in the name of a PCI bridge that leave no doubt about its PCI Express type."""
_KINDS = ("root-port", "switch-up", "switch-down", "pcie-to-pci")
"""What the groups of ``_PORT`` stand for, in the words of ``kinds``."""


@dataclass(slots=True, unsafe_hash=True)
class Headline:
    """What the line says; None is what it does not say. Not to be changed once it is read."""

    class_code: int | None = None
    """Base class and sub-class."""
    vendor: int | None = None
    device: int | None = None
    revision: int | None = None
    interface: int | None = None
    name: str = ""
    """The words after the class, without numbers."""

    @property
    def sure(self) -> bool:
        """Whether this is what lspci prints, and not some other line that begins with an address."""
        return self.class_code is not None or self.device is not None

    @property
    def port(self) -> str | None:
        """``KIND: words`` where the name of a bridge states its PCI Express type."""
        if self.class_code != 0x0604:
            return None
        match = _PORT.search(self.name)
        return f"{_KINDS[(match.lastindex or 1) - 1]}: {match[0]}" if match else None


@lru_cache(maxsize=4096)
def read_headline(text: str) -> Headline:
    """Read what follows the address in a headline of any kind; what cannot be read is left out.

    Large machines have few different ones, so they are remembered; nobody may change what is returned.
    """
    if text.startswith(("-", "[")):
        text = _MARKS.sub("", text, count=1) if _MARKS.match(text) else text
    if text.startswith('"'):
        return _read_quoted(text)
    named, colon, rest = text.partition(":")
    if not colon:
        named, rest = text, text
    found = Headline(_class_of(named.strip()))
    rest = rest.lstrip()
    _read_ids(found, rest)
    if "(" in rest:
        revision, interface = _REVISION.search(rest), _INTERFACE.search(rest)
        found.revision = int(revision[1], 16) if revision else None
        found.interface = int(interface[1], 16) if interface else None
    found.name = _name_in(rest) if colon and not _PLAIN.match(rest) else ""
    return found


def _name_in(text: str) -> str:
    end = _AFTER_NAME.search(text)
    return (text[: end.start()] if end else text)[:200]


def _class_of(text: str) -> int | None:
    """Return the class from ``SATA controller [0106]``, ``Class 0106``, ``0106`` or the name alone."""
    if text in names.CLASSES:
        return names.CLASSES[text]
    code = _CODE_AT_END.search(text) or _CODE.fullmatch(text)
    return int(code[1], 16) if code else None


def _read_ids(found: Headline, text: str) -> None:
    stated = _STATED.findall(text)
    if stated:
        found.vendor, found.device = int(stated[-1][0], 16), int(stated[-1][1], 16)
        return
    plain = _PLAIN.match(text)
    if plain:
        found.vendor, found.device = int(plain[1], 16), int(plain[2], 16)
        return
    found.vendor = vendor_of(text)
    number = _NUMBERED.search(text)
    if number is not None and found.vendor is not None:
        found.device = int(number[1], 16)


def vendor_of(text: str) -> int | None:
    """Return the vendor id that the first words stand for, when they stand for one."""
    words = text.split(" ")
    for count in range(min(len(words), 8), 0, -1):
        name = " ".join(words[:count])
        if name in names.VENDORS:
            return names.VENDORS[name]
    return None


def _read_quoted(text: str) -> Headline:
    """Read ``"Class" "Vendor" "Device" -r02 -p01 ...`` as ``lspci -mm`` prints it."""
    words, record = [], {}
    for match in _FIELD.finditer(text):
        if match[2]:
            record["Rev" if match[2] == "r" else "ProgIf"] = match[3]
        else:
            words.append(match[1])
    return read_fields({**record, **dict(zip(("Class", "Vendor", "Device"), words, strict=False))})


def read_fields(record: Mapping[str, str]) -> Headline:
    """Read the fields of ``lspci -vmm``, each with a name, a number or both."""
    vendor, device = record.get("Vendor", "").strip(), record.get("Device", "").strip()
    number = _number(vendor)
    return Headline(
        class_code=_class_of(record.get("Class", "").strip()),
        vendor=vendor_of(vendor) if number is None else number,
        device=_number(device),
        revision=_byte(record.get("Rev", "")),
        interface=_byte(record.get("ProgIf", "")),
        name=record.get("Name", f"{vendor} {device}".strip()),
    )


def _byte(text: str) -> int | None:
    return int(text, 16) if _TWO_DIGITS.fullmatch(text) else None


def _number(text: str) -> int | None:
    match = _NUMBER_AT_END.search(text)
    return int(match[1], 16) if match else None


def read_name(text: str) -> Headline:
    """Read the words about a function where no class stands before them, as in ``lspci -tvnn``."""
    found = Headline(name=_name_in(text))
    _read_ids(found, text)
    return found
