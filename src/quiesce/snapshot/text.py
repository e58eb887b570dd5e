"""A machine described in a few lines of text. ``docs/machines.md`` is the reference; in short::

    machine small
    00:00.0 host-bridge
    00:01.0 root-port bus=01 acs
    01:00.0 ahci pin=A msi=1
    01:00.1 e1000e
    iommu amd 00:00.2
    alias 01:00.1 -> 01:00.0
    route 00:01 A -> 17

A line is a comment from ``#`` on. Config space is laid out with real capability lists, the IOMMU becomes a real IVRS
or DMAR table, so that a description goes the same way as a dump.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription, Route
from quiesce.snapshot.dmar import Dmar, Drhd, Rmrr, Scope, write_dmar
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.ivrs import IvhdEntry, Ivmd, Ivrs, IvrsUnit, write_ivrs
from quiesce.snapshot.kinds import KINDS
from quiesce.snapshot.layout import Line, config_of

_LAST_DEVID = 0xFFFF
_IOAPIC = IvhdEntry("ioapic", 0x00A0, 0x00A0)
_DEFAULT_AMD = "00:00.2"


@dataclass
class _Reader:
    file: str
    name: str = ""
    lines: dict[Bdf, Line] = field(default_factory=dict)
    iommu: str | None = None
    amd: Bdf | None = None
    covers: list[IvhdEntry] = field(default_factory=list)
    aliases: list[IvhdEntry] = field(default_factory=list)
    units: list[Bdf] = field(default_factory=list)
    reserved: list[tuple[Bdf, int, int]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    number: int = 0

    def bad(self, expected: str) -> BadInput:
        return BadInput(self.file, f"line {self.number}", expected)

    def address(self, text: str) -> Bdf:
        try:
            return Bdf.parse(text)
        except ValueError:
            raise self.bad(f"a PCI address such as 00:1f.2, found {text!r}") from None

    def span(self, text: str) -> tuple[int, int]:
        first, _, last = text.partition("-")
        start = self.address(first)
        end = self.address(last) if last else start
        if end < start or end.segment != start.segment:
            raise self.bad(f"a range of addresses, found {text!r}")
        return start.requester_id, end.requester_id


def read_text(text: str, file: str) -> MachineDescription:
    """Read a text description; raises BadInput with the line of what is wrong."""
    reader = _Reader(file)
    for number, line in enumerate(text.splitlines(), start=1):
        reader.number = number
        words = line.partition("#")[0].split()
        if words:
            _read_line(reader, words)
    if not reader.lines:
        raise BadInput(file, "", "at least one function, such as `00:00.0 host-bridge`")
    return _describe(reader)


def _read_line(reader: _Reader, words: list[str]) -> None:
    handler = _STATEMENTS.get(words[0])
    if handler is not None:
        handler(reader, words[1:])
    elif len(words) >= 2 and ":" in words[0]:
        _read_function(reader, words)
    else:
        known = ", ".join(_STATEMENTS)
        raise reader.bad(f"an address and a kind of function, or one of {known}, found {' '.join(words)!r}")


def _read_function(reader: _Reader, words: list[str]) -> None:
    bdf, kind = reader.address(words[0]), KINDS.get(words[1])
    if kind is None:
        raise reader.bad(f"a kind of function ({', '.join(KINDS)}), found {words[1]!r}")
    if bdf in reader.lines:
        raise reader.bad(f"every address once; {bdf.short} was there before")
    try:
        reader.lines[bdf] = Line.parse(bdf, kind, words[2:])
    except ValueError as error:
        raise reader.bad(str(error)) from None
    secondary = reader.lines[bdf].buses
    if kind.bridge and secondary is not None and secondary[0] <= bdf.bus:
        raise reader.bad(f"a bus above {bdf.bus:02x} behind {bdf.short}, found {secondary[0]:02x}")


def _read_machine(reader: _Reader, words: list[str]) -> None:
    if len(words) != 1 or reader.name:
        raise reader.bad("`machine NAME`, once")
    reader.name = words[0]


def _read_iommu(reader: _Reader, words: list[str]) -> None:
    if reader.iommu or not words or words[0] not in ("amd", "intel") or len(words) > 1 + (words[0] == "amd"):
        raise reader.bad("`iommu amd [ADDRESS]` or `iommu intel`, once")
    reader.iommu = words[0]
    if words[0] == "amd":
        reader.amd = reader.address(words[1] if len(words) == 2 else _DEFAULT_AMD)


def _read_covers(reader: _Reader, words: list[str]) -> None:
    for word in words or [""]:
        first, last = reader.span(word)
        reader.covers.append(IvhdEntry("range" if last > first else "select", first, last))


def _read_alias(reader: _Reader, words: list[str]) -> None:
    if len(words) != 3 or words[1] != "->":
        raise reader.bad("`alias FIRST[-LAST] -> TARGET`")
    first, last = reader.span(words[0])
    target = reader.address(words[2]).requester_id
    reader.aliases.append(IvhdEntry("alias-range" if last > first else "alias", first, last, alias=target))


def _read_unit(reader: _Reader, words: list[str]) -> None:
    if not words:
        raise reader.bad("`unit ADDRESS...`: functions with a VT-d unit of their own")
    reader.units.extend(reader.address(word) for word in words)


def _read_reserved(reader: _Reader, words: list[str]) -> None:
    span = re.fullmatch(r"(0x[0-9a-f]{1,16})-(0x[0-9a-f]{1,16})", words[1]) if len(words) == 2 else None
    if span is None or int(span[1], 16) >= int(span[2], 16):
        raise reader.bad("`reserved ADDRESS 0xFIRST-0xLAST`")
    reader.reserved.append((reader.address(words[0]), int(span[1], 16), int(span[2], 16)))


def _read_route(reader: _Reader, words: list[str]) -> None:
    slot = re.fullmatch(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])", words[0]) if len(words) == 4 else None
    if slot is None or words[1] not in "ABCD" or words[2] != "->" or not re.fullmatch(r"[0-9]{1,3}", words[3]):
        raise reader.bad("`route BUS:DEVICE PIN -> INPUT`, such as `route 00:01 A -> 17`")
    segment, bus, device = int(slot[1] or "0", 16), int(slot[2], 16), int(slot[3], 16)
    reader.routes.append(Route(device, "ABCD".index(words[1]) + 1, int(words[3]), segment, bus))


_STATEMENTS = {
    "machine": _read_machine,
    "iommu": _read_iommu,
    "covers": _read_covers,
    "alias": _read_alias,
    "unit": _read_unit,
    "reserved": _read_reserved,
    "route": _read_route,
}


def _describe(reader: _Reader) -> MachineDescription:
    _check_iommu_lines(reader)
    if reader.amd is not None and reader.amd not in reader.lines:
        reader.lines[reader.amd] = Line.parse(reader.amd, KINDS["iommu-function"], [])
    functions = tuple(_describe_function(reader, bdf) for bdf in sorted(reader.lines))
    return MachineDescription(
        name=reader.name or "machine",
        functions=functions,
        ivrs=_ivrs(reader, functions) if reader.iommu == "amd" else None,
        dmar=_dmar(reader) if reader.iommu == "intel" else None,
        routing=tuple(reader.routes),
        source=reader.file,
        iommu_hint=reader.iommu or "none",
    )


def _check_iommu_lines(reader: _Reader) -> None:
    if (reader.covers or reader.aliases) and reader.iommu != "amd":
        raise BadInput(reader.file, "", "`iommu amd` with `covers` and `alias`")
    if reader.units and reader.iommu != "intel":
        raise BadInput(reader.file, "", "`iommu intel` with `unit`")
    if reader.reserved and reader.iommu is None:
        raise BadInput(reader.file, "", "`iommu amd` or `iommu intel` with `reserved`")


def _describe_function(reader: _Reader, bdf: Bdf) -> FunctionDescription:
    line = reader.lines[bdf]
    several = sum(1 for other in reader.lines if other.slot == bdf.slot) > 1
    try:
        config = config_of(line, _subordinate(reader.lines, line), several, list(reader.lines).index(bdf))
    except ValueError as error:
        raise BadInput(reader.file, str(bdf), f"capabilities that fit: {error}") from None
    return FunctionDescription(bdf, config, present=not line.has("absent"), attributes=line.attributes)


def _subordinate(lines: dict[Bdf, Line], line: Line) -> int:
    """Return the highest bus below a bridge: as stated, or as the bridges below need."""
    if line.buses is None:
        return 0
    secondary, subordinate = line.buses
    if subordinate is not None:
        return subordinate
    below = [item for bdf, item in lines.items() if (bdf.segment, bdf.bus) == (line.bdf.segment, secondary)]
    return max([secondary, *(_subordinate(lines, item) for item in below)])


def _ivrs(reader: _Reader, functions: tuple[FunctionDescription, ...]) -> bytes:
    assert reader.amd is not None
    own = next(item for item in functions if item.bdf == reader.amd)
    capability = own.config[0x34] if own.config[6] & 0x10 else 0
    entries = (*(reader.covers or [IvhdEntry("all", 0, _LAST_DEVID)]), *reader.aliases, _IOAPIC)
    unit = IvrsUnit(0x10, 0, reader.amd.requester_id, capability, 0xFEB80000, reader.amd.segment, 0, entries)
    memory = tuple(
        Ivmd("device", bdf.requester_id, bdf.requester_id, start, end + 1 - start, 0x07)
        for bdf, start, end in reader.reserved
    )
    return write_ivrs(Ivrs((unit,), memory, info=0x00203000))


def _dmar(reader: _Reader) -> bytes:
    base = 0xFED90000
    units = [
        Drhd(bdf.segment, base + 0x1000 * number, False, (_scope(reader, bdf),))
        for number, bdf in enumerate(reader.units)
    ]
    for segment in sorted({bdf.segment for bdf in reader.lines}):
        units.append(Drhd(segment, base + 0x1000 * len(units), True, ()))
    memory = tuple(Rmrr(bdf.segment, start, end, (_scope(reader, bdf),)) for bdf, start, end in reader.reserved)
    return write_dmar(Dmar(tuple(units), memory, flags=1))


def _scope(reader: _Reader, bdf: Bdf) -> Scope:
    """Name a function by its path from a root bus down."""
    steps = [(bdf.device, bdf.function)]
    bus = bdf.bus
    while True:
        leads = (item for item in reader.lines.values() if item.buses is not None and item.buses[0] == bus)
        above = next((item for item in leads if item.bdf.segment == bdf.segment), None)
        if above is None:
            break
        steps.insert(0, (above.bdf.device, above.bdf.function))
        bus = above.bdf.bus
    line = reader.lines.get(bdf)
    kind = "bridge" if line is not None and line.kind.bridge else "endpoint"
    return Scope(kind, bus, tuple(steps))
