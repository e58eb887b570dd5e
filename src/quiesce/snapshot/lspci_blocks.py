"""Finds the functions in a text, and what is said about each: headline, decoded lines, bytes, group.

The text is cut at empty lines, as lspci puts one after each function. A piece that is exactly as lspci prints it is
taken whole; any other goes line by line. Only lines near an address are looked at, so that megabytes of something
else cost little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci_dump import whole_dump
from quiesce.snapshot.lspci_headline import ADDRESS, Headline, read_headline
from quiesce.snapshot.lspci_hex import Bytes, is_hex, read_line
from quiesce.snapshot.lspci_lines import STARTS, WRAPPED_FROM

_HEADLINE = re.compile(rf"(\s*(?:[*+-]\s+)?)({ADDRESS})(?:\s+(.*))?")
_ANCHOR = re.compile(r":[01][0-9a-fA-F]\.[0-7](?<=[0-9a-fA-F]{2}:.{4})")
_GROUP = re.compile(r"[\s#*`=-]*(?:IOMMU[ _-]?)?group\s*[:#]?\s*(?:([0-9]{1,6})\b|\*)[:,]?\s*(.*)", re.IGNORECASE)
_UNIT = re.compile(r"\s*IOMMU:\s+(\S{1,40})\s*")
_DEVICE = re.compile(r"\s*Group Device:\s+(.*)")
_SYSFS = re.compile(rf"iommu_groups/([0-9]{{1,6}})(?:/devices)?(?:/({ADDRESS}))?")
_LINK = re.compile(rf"(?:^|[\s/'])({ADDRESS})'?(?: -> '?(\S{{1,1000}}))?(?=[\s'@]|$)")
_ONLY_LINKS = re.compile(rf"[^0-9A-Za-z]*(?:'?{ADDRESS}[@']{{0,2}}\s*)+")
_CHAIN = re.compile(ADDRESS)
_RECORD = re.compile(r"\s*(Slot|Device):\s+(" + ADDRESS + r")\s*")
_FIELD = re.compile(
    r"\s*(Class|Vendor|Device|SVendor|SDevice|PhySlot|Rev|ProgIf|Driver|Module|NUMANode|IOMMUGroup):\s+(.*)"
)
_FIELDS = re.compile(r"^(\w+):[ \t]+(.*)", re.MULTILINE)
_TREE_NUMBER = re.compile(r"[^0-9A-Za-z]*?(?:├──|└──|\|--|`--|\+--|\\--)\s*([0-9]{1,6})\s*$")
_COMMAND = re.compile(r"[^\n]{0,200}[#$%>]\s*(?:sudo\s+)?(?:/\S{0,40}/)?(lspci|dmesg|cat|find|ls|for|uname)\b")
_LOG_LINE = re.compile(r"(?:<[0-9]>)?\[ {0,8}[0-9]{1,8}\.[0-9]{3,9}\]")
_FENCE = ("```", "~~~", "[code]", "[/code]", "{{{", "}}}")
_LINES_EACH = 1500
"""So many lines can be about one function: 256 of bytes and some hundred of text."""
_LONGEST = 4000
"""No line that matters is longer."""
_SEEN_EACH = 8
_AT_MOST = 120_000


@dataclass(slots=True)
class Sighting:
    """What one place of the text says about one function."""

    bdf: Bdf
    line: int
    headline: str = ""
    lines: list[str] = field(default_factory=list)
    data: bytes = b""
    """All bytes, where they were there in one piece."""
    pieces: Bytes | None = None
    """The bytes otherwise."""
    listing: int = 0
    """Number of the listing it is part of."""
    record: dict[str, str] = field(default_factory=dict)
    """Fields of ``lspci -vmm`` and of tables."""
    parsed: Headline | None = None
    width: int = 0
    """Length of the line that the headline ends on."""
    sure: bool = True
    complete: bool = True
    """Whether what follows shows that nothing was cut off."""
    quiet: bool = False
    """Whether it is no listing by lspci, but only names the function."""

    def add(self, line: str) -> None:
        """Add a line of text: below the headline, or the end of a headline that a mail program broke."""
        broken = not self.lines and self.width >= WRAPPED_FROM and not line[0].isspace()
        if broken and not self.record and not STARTS.match(line):
            self.headline += f" {line.strip()}"
            self.width = len(line.strip())
            self.parsed = None
        elif len(self.lines) < _LINES_EACH:
            self.lines.append(line)

    def breaks_off(self) -> bool:
        """Whether the last line looks as if ``IOMMU group 7`` could have been broken off it."""
        return bool(self.lines) and self.lines[-1].rstrip().endswith(("IOMMU", ","))


@dataclass
class Found:
    """What a text says."""

    sightings: list[Sighting] = field(default_factory=list)
    groups: dict[Bdf, str] = field(default_factory=dict)
    units: dict[Bdf, str] = field(default_factory=dict)
    parents: dict[Bdf, Bdf] = field(default_factory=dict)
    """Function -> bridge that it is below."""
    lists_groups: bool = False
    """Whether there is a listing by group."""
    grouped_twice: list[Bdf] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_blocks(text: str, file: str) -> Found:
    """Return all functions that the text speaks of. Raises BadInput where there are more than a machine can have."""
    reader = _Reader(file)
    number = 1
    for piece in text.split("\n\n"):
        if len(piece) >= 7 and reader.concerns(piece) and not reader.take_whole(piece, number):
            reader.take_lines(piece, number)
        reader.after_gap = True
        number += piece.count("\n") + 2
    if reader.current is not None and not text.endswith("\n"):
        reader.current.complete = False
    return reader.found


def _address(text: str) -> Bdf:
    """Return the address in a text that has the form of one."""
    segment, _, rest = text.rpartition(":")[0].rpartition(":")
    return Bdf(int(segment or "0", 16), int(rest, 16), int(text[-4:-2], 16), int(text[-1]))


def _links_in(line: str) -> re.Match[str] | None:
    """Return the first function in a line of ``ls`` or ``tree``."""
    return _LINK.search(line) if " -> " in line or _ONLY_LINKS.fullmatch(line) else None


class _Reader:
    """Goes through the text; ``current`` is the function that lines without an address are about."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found = Found()
        self.current: Sighting | None = None
        self.after_gap = False
        self.group: str | None = None
        self.unit: str | None = None
        self.listing = 0
        self.seen: dict[Bdf, int] = {}
        self.in_listing: set[Bdf] = set()
        self.tired: set[str] = set()
        """Headlines that came so often that they say nothing new."""
        self.in_group_listing = False

    def concerns(self, piece: str) -> bool:
        """Whether there can be anything of interest in a piece."""
        return self.current is not None or ":" in piece or "roup" in piece

    # -- whole pieces --------------------------------------------------------------------------------------------

    def take_whole(self, piece: str, number: int) -> bool:
        """Take a function with its bytes, if it is exactly as lspci prints it."""
        start = piece.find("\n00: ")
        if start < 0:
            return piece.startswith("Slot:") and self.take_record(piece, number)
        data = whole_dump(f"{piece[start + 1 :].rstrip(chr(10))}\n".encode("ascii", "replace"))
        lead = len(piece) - len(piece.lstrip("\n"))
        lines = piece[lead:start].split("\n")
        match = _HEADLINE.fullmatch(lines[0])
        if data is None or match is None or len(_ANCHOR.findall(piece, lead, start)) > 1:
            return False
        return self.begin(match, number + lead, lines[1:], data)

    def take_record(self, piece: str, number: int) -> bool:
        """Take a function of ``lspci -vmm``, if there is nothing else in the piece."""
        fields = _FIELDS.findall(piece)
        match = _RECORD.fullmatch(f"{fields[0][0]}: {fields[0][1]}") if fields else None
        if match is None or piece.rstrip("\n").count("\n") + 1 != len(fields):
            return False
        self.begin_record(match, number)
        if self.current is not None:
            for name, value in fields[1:]:
                self.current.record.setdefault(name, value.rstrip())
            if "IOMMUGroup" in self.current.record:
                self.put_group(self.current.record["IOMMUGroup"])
        return True

    def begin(self, match: re.Match[str], number: int, lines: list[str], data: bytes = b"") -> bool:
        """Begin a new function."""
        bdf = _address(match[2])
        times = self.seen.get(bdf, 0)
        self.seen[bdf] = times + 1
        self.after_gap = False
        self.current = None
        if times >= _SEEN_EACH:
            self.tired.add(match.string)
            return True
        if bdf in self.in_listing:
            self.new_listing()
        self.in_listing.add(bdf)
        if len(self.found.sightings) >= _AT_MOST:
            raise BadInput(self.file, f"line {number}", f"at most {_AT_MOST} functions")
        self.current = Sighting(bdf, number, (match[3] or "").rstrip(), [], data, listing=self.listing)
        self.current.width = len(match.string)
        for line in filter(None, lines):
            self.current.add(line)
        if not data:
            self.current.parsed = read_headline(self.current.headline)
            self.current.sure = self.current.parsed.sure
            if match[1].strip() and not self.current.sure:
                self.current = None
                return True
        self.found.sightings.append(self.current)
        return True

    def new_listing(self) -> None:
        """Another run of lspci begins."""
        self.listing += 1
        self.in_listing = set()

    def gap(self) -> None:
        """An empty line: what follows need not be about the same function."""
        self.after_gap = True

    # -- line by line --------------------------------------------------------------------------------------------

    def take_lines(self, piece: str, number: int) -> None:
        """Go through a piece that is not as lspci prints it: from one line with an address to the next."""
        at = 0
        while (match := _ANCHOR.search(piece, at)) is not None:
            start = max(at, piece.rfind("\n", at, match.start()) + 1)
            end = piece.find("\n", match.end())
            if start > at:
                self.take_some(piece[at : start - 1], number)
                number += piece.count("\n", at, start)
            line = piece[start : end if end >= 0 else len(piece)]
            if line not in self.tired:
                self.take_line(line, number)
            number += 1
            if end < 0:
                return
            at = end + 1
        self.take_some(piece[at:], number)

    def take_some(self, text: str, number: int) -> None:
        """Go through lines without an address: the first ones, and where there are many the last ones too."""
        wanted = self.current is not None or self.in_group_listing
        if not wanted and not any(sign in text for sign in ("roup", "IOMMU:", "lspci")):
            return
        lines = text.split("\n", _LINES_EACH)
        if len(lines) > _LINES_EACH:
            lines[-1:] = ["", *lines[-1][-4000:].split("\n")[1:]]
        for at, line in enumerate(lines):
            self.take_line(line, number + at)

    def take_line(self, line: str, number: int) -> None:
        """Find out what a line is."""
        line = line[:_LONGEST]
        match = _HEADLINE.fullmatch(line)
        if self.in_group_listing and self.group is not None and (links := _links_in(line)) is not None:
            self.take_link(links, number)
        elif match is not None:
            self.begin(match, number, [])
            if self.in_group_listing:
                self.put_group(self.group)
        elif not (words := line.strip()) or words.startswith(_FENCE):
            self.gap()
        elif self.current is not None and self.take_below(self.current, line, number):
            pass
        elif not self.take_other(line, number):
            self.take_text(line)

    def take_below(self, current: Sighting, line: str, number: int) -> bool:
        """Take bytes, and what the current function is known to be followed by."""
        if current.record:
            match = None if self.after_gap else _FIELD.fullmatch(line)
            if match is not None:
                current.record.setdefault(match[1], match[2].strip())
                if match[1] == "IOMMUGroup":
                    self.put_group(match[2].strip())
            return match is not None
        pieces = current.pieces
        if current.data or not is_hex(line, pieces.end if pieces is not None else None):
            return False
        if self.after_gap and (pieces is None or not re.match(rf"\s*{pieces.end:02x}:", line)):
            return False
        current.pieces = pieces = pieces or Bytes()
        read_line(pieces, line, number)
        current.sure = True
        return True

    def take_other(self, line: str, number: int) -> bool:
        """Take lines that name groups, records and paths; say whether it was one."""
        if (match := _RECORD.fullmatch(line)) is not None:
            self.begin_record(match, number)
        elif (match := _UNIT.fullmatch(line)) is not None:
            self.unit = match[1]
        elif "iommu_groups" in line:
            self.take_path(line, number)
        elif (match := _DEVICE.fullmatch(line)) is not None and (head := _HEADLINE.fullmatch(match[1])) is not None:
            self.begin(head, number, [])
            self.put_group(self.group, quiet=True)
            if self.current is not None:
                self.current.width = len(line)
        elif _LOG_LINE.match(line):
            self.current = None
        elif not STARTS.match(line) and (match := _GROUP.fullmatch(line)) is not None:
            return self.begin_group(match, number)
        elif (match := _TREE_NUMBER.match(line)) is not None:
            self.group = match[1]
        elif _COMMAND.match(line):
            self.current, self.in_group_listing = None, False
            self.new_listing()
        else:
            return False
        return True

    def take_text(self, line: str) -> None:
        """Take a line of text, if it can be about the current function."""
        current = self.current
        if current is None:
            return
        if self.after_gap:
            if not (line[0].isspace() or STARTS.match(line)) or current.record:
                self.current = None
                return
            self.after_gap = False
        current.add(line)

    # -- groups --------------------------------------------------------------------------------------------------

    def begin_group(self, match: re.Match[str], number: int) -> bool:
        """Take ``IOMMU Group 7:`` with or without a function behind it."""
        head = _HEADLINE.fullmatch(match[2].strip())
        if head is None and match[2].strip():
            return False
        if self.current is not None and not self.after_gap and self.current.breaks_off():
            return False
        self.group, self.in_group_listing = match[1], True
        self.current = None
        if head is not None:
            self.begin(head, number, [])
            self.put_group(self.group)
            self.in_group_listing = False
            if self.current is not None:
                self.current.width = len(match.string)
        return True

    def put_group(self, group: str | None, quiet: bool = False) -> None:
        """Note the group of the function that just began."""
        if self.current is None:
            return
        self.current.quiet = self.current.quiet or quiet
        if group is not None:
            self.found.lists_groups = True
            known = self.found.groups.setdefault(self.current.bdf, group)
            if known != group:
                self.found.grouped_twice.append(self.current.bdf)
            if self.unit is not None:
                self.found.units[self.current.bdf] = self.unit

    def take_path(self, line: str, number: int) -> None:
        """Take paths below ``/sys/kernel/iommu_groups`` as ``find`` and ``ls`` print them."""
        self.current, self.in_group_listing = None, True
        match = _SYSFS.search(line)
        if match is None:
            return
        self.group = match[1]
        if match[2] is not None:
            link = _LINK.search(line, match.start(2) - 1)
            if link is not None:
                self.take_link(link, number)

    def take_link(self, match: re.Match[str], number: int) -> None:
        """Take a function named by a link in a group's folder, and the bridges on the way to it."""
        line = match.string
        for other in _LINK.finditer(line, match.start()):
            head = _HEADLINE.fullmatch(other[1])
            if head is None:
                continue
            self.begin(head, number, [])
            if self.current is not None:
                self.current.sure = True
            self.put_group(self.group, quiet=True)
            chain = [Bdf.parse(item) for item in _CHAIN.findall(other[2] or "")]
            for above, below in pairwise(chain):
                self.found.parents[below] = above
        self.current = None

    def begin_record(self, match: re.Match[str], number: int) -> None:
        """Begin a function of ``lspci -vmm``."""
        head = _HEADLINE.fullmatch(match[2])
        if head is None:
            return
        self.begin(head, number, [])
        if self.current is not None:
            self.current.record = {"Slot": match[2]}
            self.current.sure = True
