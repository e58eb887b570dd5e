"""The line with which lspci begins a function: class, ids and name, as numbers, as words or as both."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
_AFTER_NAME = re.compile(r"\s*(?:\[[0-9a-f]{4}:[0-9a-f]{4}\]|\((?:rev|prog-if) ).*")
_FIELD = re.compile(r'"([^"]*)"|-([rp])([0-9a-f]{2})')
_NUMBER_AT_END = re.compile(r"(?:^|\[|Device )([0-9a-f]{4})\]?$")

PORT_NAMES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bRoot Port\b", re.IGNORECASE), "root-port"),
    (re.compile(r"\bUpstream (?:Switch )?Port\b", re.IGNORECASE), "switch-up"),
    (re.compile(r"\bDownstream (?:Switch )?Port\b", re.IGNORECASE), "switch-down"),
    (re.compile(r"\b(?:PCI[ -]?Express|PCI-?E)[ -]to[ -]PCI(?:-X)?\b(?!e)", re.IGNORECASE), "pcie-to-pci"),
)
"""Words in the name of a PCI bridge that leave no doubt about its PCI Express type, which goes by the words of
``kinds``."""


@dataclass(slots=True)
class Headline:
    """What the line says; None is what it does not say."""

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
        return next((f"{kind}: {match[0]}" for words, kind in PORT_NAMES if (match := words.search(self.name))), None)


def read_headline(text: str) -> Headline:
    """Read what follows the address in a headline of any kind; what cannot be read is left out."""
    if text.startswith(("-", "[")):
        text = _MARKS.sub("", text, count=1) if _MARKS.match(text) else text
    if text.startswith('"'):
        return _read_fields(text)
    named, colon, rest = text.partition(":")
    if not colon:
        named, rest = text, text
    found = Headline(_class_of(named.strip()))
    rest = rest.lstrip()
    _read_ids(found, rest)
    revision, interface = _REVISION.search(rest), _INTERFACE.search(rest)
    found.revision = int(revision[1], 16) if revision else None
    found.interface = int(interface[1], 16) if interface else None
    found.name = _AFTER_NAME.sub("", rest)[:200] if colon and not _PLAIN.match(rest) else ""
    return found


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


def _read_fields(text: str) -> Headline:
    """Read ``"Class" "Vendor" "Device" -r02 -p01 ...`` as ``lspci -mm`` prints it."""
    found, words = Headline(), []
    for match in _FIELD.finditer(text):
        if match[2] == "r":
            found.revision = int(match[3], 16)
        elif match[2] == "p":
            found.interface = int(match[3], 16)
        else:
            words.append(match[1])
    if words:
        found.class_code = _class_of(words[0].strip())
    set_names(found, *words[1:3])
    return found


def set_names(found: Headline, vendor: str = "", device: str = "") -> None:
    """Take over vendor and device that are stated each by itself: by name, by number or by both."""
    found.vendor = _number(vendor)
    if found.vendor is None:
        found.vendor = vendor_of(vendor)
    found.device = _number(device)
    found.name = f"{vendor} {device}".strip()


def _number(text: str) -> int | None:
    match = _NUMBER_AT_END.search(text.strip())
    return int(match[1], 16) if match else None


def read_name(text: str) -> Headline:
    """Read the words about a function where no class stands before them, as in ``lspci -tvnn``."""
    found = Headline(name=_AFTER_NAME.sub("", text)[:200])
    _read_ids(found, text)
    return found
