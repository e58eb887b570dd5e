"""Text that lspci prints: ``-x``, ``-xxx`` and ``-xxxx`` with hex bytes; ``write`` prints the same.

Where the bytes are there, only they count. A function without them is reconstructed from the decoded text around it
(``lspci_verbose``), and the notes say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci_verbose import Ids, reconstruct

_HEADER = re.compile(r"((?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])(?:\s+(.*))?")
_HEX_LINE = re.compile(r"\s*([0-9a-fA-F]{2,3}):(?:\s(.*))?")
_HEX_BYTE = re.compile(r"[0-9a-fA-F]{2}")
_FULL_SIZES = (64, 256, 4096)


@dataclass
class Block:
    """One function in the text: its headline, the lines below it, the bytes among them."""

    bdf: Bdf
    line: int
    headline: str
    text: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)

    @property
    def readable(self) -> bool:
        """Whether there are bytes that came from the device; all ones came from nobody."""
        return bool(self.data) and any(byte != 0xFF for byte in self.data[: _FULL_SIZES[0]])


def read_lspci(text: str, file: str, name: str = "", ids: Mapping[str, Ids] | None = None) -> MachineDescription:
    """Read lspci output of any kind; ``ids`` gives vendor and device ids where the text has names only.

    Raises BadInput for a bad hex line or when there is no function in it.
    """
    blocks, repeated = _blocks(text, file)
    if not blocks:
        raise BadInput(file, "", "lspci output: lines such as `00:1f.2 SATA controller: ...` with hex bytes below")
    known = {bdf: _describe(block, file, ids or {}) for bdf, block in sorted(blocks.items())}
    rebuilt = {bdf for bdf in known if not blocks[bdf].readable}
    return MachineDescription(
        name=name or "machine",
        functions=tuple(_multifunction(known[bdf][0], known) if bdf in rebuilt else known[bdf][0] for bdf in known),
        source=file,
        notes=(
            *_general_note(rebuilt, known),
            *_merged({bdf: found for bdf, (_, found) in known.items()}),
            *_merged({bdf: ["described more than once; the first one counts"] for bdf in sorted(repeated)}),
        ),
        recorded_groups=_groups(blocks),
        recorded_ungrouped=_ungrouped(blocks),
    )


_Described = tuple[FunctionDescription, list[str]]


def _multifunction(item: FunctionDescription, known: Mapping[Bdf, _Described]) -> FunctionDescription:
    """Set the multifunction bit, which no text shows, where the device has other functions."""
    if sum(1 for bdf in known if bdf.slot == item.bdf.slot) == 1:
        return item
    config = bytearray(item.config)
    config[r.PCI_HEADER_TYPE] |= r.PCI_HEADER_TYPE_MFD
    return replace(item, config=bytes(config))


def _general_note(rebuilt: set[Bdf], known: Mapping[Bdf, _Described]) -> list[str]:
    if not rebuilt:
        return []
    which = "all" if len(rebuilt) == len(known) else f"{len(rebuilt)} of {len(known)}"
    return [f"{which} functions: config space rebuilt from decoded text; what the text leaves out is taken to be zero"]


def _merged(notes: Mapping[Bdf, Sequence[str]]) -> list[str]:
    """Say the same note about several functions once."""
    about: dict[str, list[Bdf]] = {}
    for bdf, found in notes.items():
        for note in found:
            about.setdefault(note, []).append(bdf)
    return [f"{_few(bdfs)}: {note}" for note, bdfs in about.items()]


def _few(bdfs: Sequence[Bdf]) -> str:
    shown = ", ".join(str(bdf) for bdf in bdfs[:3])
    return shown if len(bdfs) <= 3 else f"{shown} and {len(bdfs) - 3} more"


def _blocks(text: str, file: str) -> tuple[dict[Bdf, Block], set[Bdf]]:
    blocks: dict[Bdf, Block] = {}
    repeated: set[Bdf] = set()
    current: Block | None = None
    for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        header = _HEADER.fullmatch(raw.rstrip())
        if header is not None and (bdf := _address(header[1])) is not None:
            current = Block(bdf, number, header[2] or "")
            if blocks.setdefault(bdf, current) is not current:
                repeated.add(bdf)
        elif current is not None:
            _read_below(current, raw.rstrip(), number, file)
        elif _is_hex_line(raw.rstrip()):
            raise BadInput(file, f"line {number}", "the line naming the function before its hex bytes")
    return blocks, repeated


def _address(text: str) -> Bdf | None:
    try:
        return Bdf.parse(text)
    except ValueError:
        return None


def _is_hex_line(line: str) -> bool:
    """Whether a line is meant to hold bytes: at the margin it may be wrong, indented it must not."""
    match = _HEX_LINE.fullmatch(line)
    if match is None or (len(match[1]) == 3 and match[1][0] == "0"):
        return False
    fields = (match[2] or "").split()
    return not line[:1].isspace() or (len(fields) == 16 and all(map(_HEX_BYTE.fullmatch, fields)))


def _read_below(block: Block, line: str, number: int, file: str) -> None:
    match = _HEX_LINE.fullmatch(line)
    if match is None or not _is_hex_line(line):
        block.text.append(line)
        return
    offset, fields = int(match[1], 16), (match[2] or "").split()
    if offset != len(block.data):
        raise BadInput(
            file, f"line {number}", f"the bytes of {block.bdf} from {len(block.data):02x} on, found {offset:02x}"
        )
    if len(fields) != 16 or not all(map(_HEX_BYTE.fullmatch, fields)):
        raise BadInput(file, f"line {number}", f"16 bytes in hex after `{offset:02x}:`")
    block.data += bytes.fromhex("".join(fields))


def _describe(block: Block, file: str, ids: Mapping[str, Ids]) -> _Described:
    if not block.readable:
        found, assumed = reconstruct(block.bdf, block.headline, block.text, ids.get(str(block.bdf)))
        silent = ["answered with all ones when it was read (no power, or gone)"] if block.data else []
        return found, [*silent, *assumed]
    if len(block.data) < _FULL_SIZES[0]:
        raise BadInput(file, f"line {block.line}", f"at least 64 bytes of {block.bdf}, found {len(block.data)}")
    notes: list[str] = []
    if len(block.data) == _FULL_SIZES[0]:
        notes.append("only 64 bytes are known, so no capabilities")
    elif len(block.data) not in _FULL_SIZES:
        notes.append(f"only {len(block.data)} bytes are known; the rest is taken to be zero")
    return FunctionDescription(block.bdf, _in_full(bytes(block.data))), notes


def _in_full(data: bytes) -> bytes:
    return data.ljust(next(size for size in _FULL_SIZES if size >= len(data)), b"\0")


def _groups(blocks: Mapping[Bdf, Block]) -> tuple[tuple[str, ...], ...] | None:
    """Return the groups that ``IOMMU group:`` lines state."""
    found: dict[int, list[str]] = {}
    for bdf, block in blocks.items():
        number = _group_of(block)
        if number is not None:
            found.setdefault(number, []).append(str(bdf))
    return tuple(sorted(tuple(sorted(members)) for members in found.values())) or None


def _ungrouped(blocks: Mapping[Bdf, Block]) -> tuple[str, ...]:
    grouped = {bdf for bdf, block in blocks.items() if _group_of(block) is not None}
    return tuple(str(bdf) for bdf in sorted(blocks) if grouped and bdf not in grouped)


def _group_of(block: Block) -> int | None:
    for line in block.text:
        match = re.fullmatch(r"\s+IOMMU group:\s*([0-9]{1,6})", line)
        if match is not None:
            return int(match[1])
    return None


def write(functions: Iterable[FunctionDescription]) -> str:
    """Return the functions as ``lspci -n -xxxx`` prints them; ``lspci -F`` reads it."""
    return "".join(_write_function(item) for item in functions if item.present)


def _write_function(item: FunctionDescription) -> str:
    number = {at: int.from_bytes(item.config[at : at + 2], "little") for at in (0x00, 0x02, 0x0A)}
    lines = [f"{item.bdf} {number[0x0A]:04x}: {number[0x00]:04x}:{number[0x02]:04x} (rev {item.config[8]:02x})"]
    for at in range(0, len(item.config), 16):
        lines.append(f"{at:02x}: {item.config[at : at + 16].hex(' ')}")
    return "\n".join(lines) + "\n\n"
