"""How far the decoder agrees with ``lspci -vvv``, field by field, over dumps of real machines.

Each dump is read, written again as ``lspci -xxxx`` prints it, and decoded by the installed lspci (``-F``). Of every
field whose table entry says how lspci shows it, the words are looked for in the line of its register. A field that
lspci does not show for that function counts as not shown; text that no field accounts for is listed too.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from quiesce.snapshot.capabilities.decode import Decoded, DecodedCapability, DecodedRegister, Value, decode
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci import write
from quiesce.snapshot.read import read_machine

_HEADLINE = re.compile(r"([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (.*)")
_CAPABILITY = re.compile(r"Capabilities: \[([0-9a-f]{2,3})(?: v\d+)?\] ?(.*)")
_NO_DECODER = re.compile(r"Extended Capability ID 0x|#[0-9a-f]{2} ")
_DATA = re.compile(r"\d|\w[+-](?!\w)|=")
"""What makes text a value, not only words."""
_EXAMPLES = 3
_SIZES = (64, 256, 4096)
_HALF = "lspci reads 8 of the 16 bits of this register and shows the upper half as zeros"
KNOWN_DIFFERENCES = {
    (kind, f"Link Frequency Capability{end}", f"{rate} Supported"): _HALF
    for kind, end in (("HT-primary", " 0"), ("HT-primary", " 1"), ("HT-secondary", ""))
    for rate in ("1.4GHz", "1.6GHz", "Vend")
} | {("DOE", "DOE Status", "DOE Error"): "lspci looks at bits 0 and 1; the specification has the error in bit 2"}
"""Fields that differ from lspci 3.9, with the reason."""
NOT_COMPARED = (
    (r"(behind bridge|window \d).*\[(size|\d\d-bit|disabled)", "derived from the window, which is compared"),
    (
        r"Region \d.*<unassigned>|Region \d: Region|ports at 0+$",
        "regions at 0; lspci -F shows upper halves of wide BARs",
    ),
    (r"Subsystem", "of a bridge: lspci repeats the Subsystem capability, which is compared there"),
    (r"Latency: .*(min|max)", "Min_Gnt and Max_Lat in nanoseconds; decoded, spelled differently"),
    (r"BIST result", "decoded, spelled differently"),
    (r"error in resizable BAR", "lspci refuses a count of BARs outside 1 to 6"),
    (r"Bridge: B3|Bridge: .*B\d", "lspci shows the inverted bit of another register"),
    (r"Entry [1-9]|Entry 0: .*Base", "Enhanced Allocation: entries after the first, addresses"),
    (r"Error Handling|Upper:|Bus Number: Bus|ExtRS", "HyperTransport error handling and addresses: not decoded"),
    (r"\?\?\d|Port Arbitration Table", "VC: reserved arbiters, and where a table lies"),
    (r"McastOverlayBAR.*bytes|McastCap: .*(bytes|McastCtl)", "Multicast: sizes derived; a line lspci does not end"),
    (r"<unreadable>", "registers behind the end of the dump"),
    (r"I/O window|Memory window|legacy interface|Memory at .*\(", "CardBus windows and register base: not decoded"),
)
"""What lspci shows and no field accounts for: pattern of the text, and the reason."""
_SECONDS = 60


@dataclass
class Row:
    """One field, over all functions."""

    capability: str
    register: str
    name: str
    agree: int = 0
    differ: int = 0
    not_shown: int = 0
    """How often lspci's line did not have it, or did not exist."""
    examples: list[str] = field(default_factory=list)
    """Of differences: where, what we say, what lspci says."""


@dataclass
class Table:
    """The outcome of a comparison."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    undecoded: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Capability and text of lspci that no field accounts for."""
    capabilities: list[str] = field(default_factory=list)
    """Capabilities that one decoder found and the other did not."""
    not_known_to_lspci: Counter[str] = field(default_factory=Counter)
    """Capabilities that this lspci only gives a number."""
    dumps: int = 0
    functions: int = 0
    unread: list[str] = field(default_factory=list)
    """Files without bytes to compare, with the reason."""

    @property
    def unexplained(self) -> list[str]:
        """Differences without a known reason, and text that nobody accounts for."""
        found = [*self.capabilities]
        for key, row in self.rows.items():
            if row.differ and key not in KNOWN_DIFFERENCES:
                found.append(f"{' / '.join(key)}: {row.differ} of {row.agree + row.differ}: {'; '.join(row.examples)}")
        for (kind, text), count in self.undecoded.items():
            if not any(re.search(pattern, text) for pattern, _ in NOT_COMPARED):
                found.append(f"{kind}: {count} times not decoded: {text}")
        return found

    @property
    def agree(self) -> int:
        """How many values are equal."""
        return sum(row.agree for row in self.rows.values())

    @property
    def differ(self) -> int:
        """How many values are not."""
        return sum(row.differ for row in self.rows.values())

    def row(self, kind: str, value: Value, register: str) -> Row:
        """Return the row of a field."""
        key = (kind, register, value.field.name)
        if key not in self.rows:
            self.rows[key] = Row(*key)
        return self.rows[key]


def lspci_version() -> str | None:
    """Return the version of the installed lspci, or None."""
    try:
        done = subprocess.run(["lspci", "--version"], capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().removeprefix("lspci version ")


def lspci_decodes(dump: str) -> tuple[str, str | None]:
    """Return what the installed lspci says about a dump, and why it ended early if it did (it gives up on some entries
    of Enhanced Allocation); raises BadInput when there is no lspci."""
    command = ["lspci", "-D", "-n", "-vvv", "-F", "/dev/stdin"]
    try:
        done = subprocess.run(command, input=dump.encode(), timeout=_SECONDS, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BadInput("lspci", "", f"the program of pciutils, to compare with ({error})") from None
    last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return done.stdout.decode("utf-8", "replace"), last if done.returncode else None


def decoder_agreement(paths: Iterable[str | Path]) -> Table:
    """Compare the decoder with lspci over files with hex bytes; files without any are listed as unread."""
    table = Table()
    for path in paths:
        try:
            functions = [cut for item in read_machine(path).functions if (cut := _bytes_of(item)) is not None]
        except BadInput as error:
            table.unread.append(str(error))
            continue
        if functions:
            compare_dump(table, functions, Path(path).name)
        else:
            table.unread.append(f"{path}: no hex bytes")
    return table


def _bytes_of(item: FunctionDescription) -> FunctionDescription | None:
    """Return a function cut to the part of configuration space that is known whole; None without such a part."""
    known = len(item.config) if item.known is None else len(item.known) - len(item.known.lstrip(b"\xff"))
    size = max((size for size in _SIZES if size <= known), default=0)
    return FunctionDescription(item.bdf, item.config[:size]) if size and item.present else None


def compare_dump(table: Table, functions: Iterable[FunctionDescription], where: str) -> None:
    """Add one dump to a table."""
    functions = list(functions)
    text, ended = lspci_decodes(write(functions))
    if ended is not None:
        table.unread.append(f"{where}: {ended}")
    said = {part.bdf: part for part in split(text)}
    table.dumps += 1
    for item in functions:
        if str(item.bdf) in said:
            table.functions += 1
            _compare(table, decode(item), said[str(item.bdf)], f"{where} {item.bdf}")


# -- what lspci says -------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """What lspci says of one function or one capability: a head and lines, wrapped ones joined."""

    bdf: str
    head: str
    lines: list[str] = field(default_factory=list)
    capabilities: dict[int, Said] = field(default_factory=dict)


def split(text: str) -> Iterator[Said]:
    """Yield what lspci says about each function."""
    current, part, depth = Said("", ""), Said("", ""), 1
    for line in text.splitlines():
        headline = _HEADLINE.fullmatch(line)
        if headline is not None:
            if current.bdf:
                yield current
            current = part = Said(headline[1], headline[2])
            depth = 1
            continue
        words = line.strip()
        capability = _CAPABILITY.fullmatch(words)
        if capability is not None:
            part, depth = Said(current.bdf, capability[2]), 2
            current.capabilities.setdefault(int(capability[1], 16), part)
        elif line.startswith("\t" * (depth + 1)) and part.lines:
            part.lines[-1] += f" {words}"
        elif words:
            part.lines.append(words)
    if current.bdf:
        yield current


# -- comparing ---------------------------------------------------------------------------------------------------------


def _compare(table: Table, decoded: Decoded, said: Said, where: str) -> None:
    _compare_part(table, decoded.header, said, where)
    ours = {item.offset: item for item in decoded.capabilities}
    readable = {at: text for at, text in said.capabilities.items() if not text.head.startswith("<")}
    for at, text in list(readable.items()):
        if at in ours and _NO_DECODER.match(text.head):
            table.not_known_to_lspci[ours[at].capability.short] += 1
            del ours[at], readable[at]
    for at in sorted({*ours, *readable}):
        if at in ours and at in readable and readable[at].head.startswith(ours[at].capability.lspci):
            _compare_part(table, ours[at], readable[at], f"{where} [{at:02x}]")
        else:
            name = ours[at].capability.name if at in ours else "none"
            table.capabilities.append(
                f"{where} [{at:02x}]: {name}; lspci: {readable[at].head if at in readable else 'none'}"
            )


def _compare_part(table: Table, item: DecodedCapability, said: Said, where: str) -> None:
    lines = [said.head, *said.lines]
    used: list[list[tuple[int, int]]] = [[] for _ in lines]
    for register in item.registers:
        number, start = _line_of(register, lines)
        for value in register.fields:
            if value.field.lspci:
                row = table.row(item.capability.short, value, register.register.name)
                span = _compare_field(row, value, lines[number][start:] if number >= 0 else "", where)
                used[number].append((start + span[0], start + span[1]))
        if number > 0:
            used[number].append((0, start))
    for line, spans in zip(lines, used, strict=True):
        rest = _without(line, spans)
        if line is not said.head and _DATA.search(rest):
            label = line.partition(":")[0] if ":" in line else ""
            table.undecoded[item.capability.short, f"{label}: {rest}"] += 1


def _line_of(register: DecodedRegister, lines: list[str]) -> tuple[int, int]:
    """Return the number of the line that shows a register, and where its text starts; (-1, 0) without one."""
    label = register.register.lspci.replace("{}", str(register.nth))
    if not label:
        return 0, 0
    if register.register.name == "Resizable BAR":
        entries = [number for number, line in enumerate(lines) if re.match(r"BAR \d: ", line)]
        return (entries[register.nth], 7) if register.nth < len(entries) else (-1, 0)
    for number, line in enumerate(lines):
        if number and label[-1] in "= " and line.startswith(label):
            return number, len(label) if label[-1] == " " else 0
        if number and line.startswith(f"{label}:"):
            return number, len(label) + 1 + len(re.match(r"\s*", line[len(label) + 1 :])[0])  # type: ignore[index]
    return -1, 0


@lru_cache(maxsize=1 << 14)
def _patterns(pattern: str, words: str, is_flag: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what is to be found when the value is as we say, and when any value is there."""
    before, _, after = pattern.partition("{}")
    if not after:
        after = r"(?![\w.]|-\w)" if is_flag or words[-1:].isalnum() else ""
    return re.compile(f"{before}{re.escape(words)}{after}"), re.compile(
        f"{before}{'[+-](?!' + chr(92) + 'w)' if is_flag else ''}"
    )


def _compare_field(row: Row, value: Value, line: str, where: str) -> tuple[int, int]:
    same, shown = _patterns(value.field.lspci, value.text, value.field.is_flag)
    found = same.search(line)
    if found is not None:
        row.agree += 1
        return found.span()
    if (found := shown.search(line)) is None or not line:
        row.not_shown += 1
        return 0, 0
    row.differ += 1
    if len(row.examples) < _EXAMPLES:
        row.examples.append(f"{where}: {value.text!r}, lspci: {line!r}")
    return found.span()


def _without(line: str, spans: list[tuple[int, int]]) -> str:
    covered = {at for first, last in spans for at in range(first, last)}
    rest = "".join(" " if at in covered else letter for at, letter in enumerate(line))
    return " ".join(rest.split())


def summary(table: Table) -> list[str]:
    """Return the outcome in text: by capability, then what differs and why."""
    kinds: dict[str, Counter[str]] = {}
    for (kind, _, _), row in table.rows.items():
        kinds.setdefault(kind, Counter()).update(agree=row.agree, differ=row.differ, not_shown=row.not_shown)
    title = f"registers beside lspci {lspci_version()} ({table.dumps} dumps, {table.functions} functions)"
    lines = ["", f"{title:<61}{'agree':>11}{'differ':>11}{'not shown':>12}"]
    for kind, count in sorted(kinds.items()):
        lines.append(f"{kind:<61}{count['agree']:>11}{count['differ']:>11}{count['not_shown']:>12}")
    for key, reason in KNOWN_DIFFERENCES.items():
        if key in table.rows and table.rows[key].differ:
            lines.append(f"listed: {' / '.join(key)}: {table.rows[key].differ} differ: {reason}")
    return [
        *lines,
        *(f"UNEXPLAINED {text}" for text in table.unexplained),
        *(f"unread {text}" for text in table.unread),
    ]
