"""Puts capabilities that lspci decoded back into config space."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from quiesce.snapshot import lspci_names as names
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.image import Image

CAPABILITY = re.compile(r"Capabilities: \[([0-9a-f]{2,3})(?: v([0-9]{1,2}))?\] (.*)")
_NUMBER = re.compile(r"(?:Capability ID 0x|Extended Capability ID 0x|#)([0-9a-f]{1,4})\b")
_FLAG = re.compile(r"([^\s,;]+?)([+-])(?=[\s,;]|$)")
_KEY = re.compile(r"([A-Za-z0-9]+):\s*(.*)")
_ALIGNED = 0xFC
_PHANTOM = {"0": 0, "1": 1, "3": 2, "7": 3}
"""Phantom functions as lspci counts them -> the field in the Device Capabilities."""


@dataclass
class Capability:
    """A capability and the statements below it."""

    offset: int
    cap_id: int | None
    version: int | None
    text: str
    limit: int
    """Where the next capability starts."""
    lines: list[str] = field(default_factory=list)

    @property
    def extended(self) -> bool:
        """Whether it is one of PCI Express' extended capabilities."""
        return self.offset >= r.PCI_CFG_SPACE_SIZE


def is_extended(line: str) -> bool:
    """Whether a line names an extended capability; lspci prints these behind all others."""
    match = CAPABILITY.match(line)
    return match is not None and len(match[1]) == 3


def read(image: Image, lines: Sequence[str], notes: list[str]) -> bool:
    """Put all capabilities into the image; says whether PCI Express is among them."""
    found = _split(lines)
    for item in found:
        _put(image, item, notes)
    return any(item.cap_id == r.PCI_CAP_ID_EXP and not item.extended for item in found)


def _split(lines: Sequence[str]) -> list[Capability]:
    found: list[Capability] = []
    for line in lines:
        match = CAPABILITY.match(line)
        if match is not None:
            version = int(match[2]) if match[2] else None
            found.append(Capability(int(match[1], 16), None, version, match[3], 0))
        elif found and not line.startswith(("Kernel ", "Capabilities:")):
            found[-1].lines.append(line)
    offsets = sorted({item.offset for item in found})
    after = dict(pairwise(offsets))
    for item in found:
        end = r.PCI_CFG_SPACE_EXP_SIZE if item.extended else r.PCI_CFG_SPACE_SIZE
        item.limit = min(after.get(item.offset, end), end)
        known = names.EXTENDED if item.extended else names.CAPABILITIES
        item.cap_id = next(
            (number for name, number in known.items() if item.text.startswith(name)), _numbered(item.text)
        )
    return found


def _numbered(text: str) -> int | None:
    match = _NUMBER.match(text)
    return int(match[1], 16) if match else None


def _put(image: Image, item: Capability, notes: list[str]) -> None:
    try:
        if item.extended:
            image.extended(item.cap_id or 0, 4, 1 if item.version is None else item.version, item.offset)
        else:
            image.capability(item.cap_id or 0, 4, item.offset)
    except ValueError as error:
        notes.append(f"capability {item.text[:60]!r} left out: {error}")
        return
    if item.cap_id is None:
        image.forget(item.offset, 2 if item.extended else 1)
        notes.append(f"capability at {item.offset:02x}: {item.text[:60]!r} is not known by name; it may be any")
        return
    if item.extended and item.version is None:
        image.known[item.offset + 2] &= 0xF0
    registers = Registers(image, item, notes)
    reader = (_EXTENDED_READERS if item.extended else _READERS).get(item.cap_id)
    if reader is not None:
        reader(registers, item.text)
    for line in item.lines:
        _read_below(registers, line)


@dataclass(slots=True)
class Registers:
    """The registers of one capability."""

    image: Image
    item: Capability
    notes: list[str]

    def state(self, offset: int, size: int, bits: int, value: int) -> None:
        """Set bits of a register, if the capability has room for it."""
        if self.item.offset + offset + size <= self.item.limit:
            self.image.state(self.item.offset + offset, size, bits, value)

    def put(self, offset: int, size: int, value: int) -> None:
        """Set a register."""
        self.state(offset, size, (1 << 8 * size) - 1, value)

    def flag(self, offset: int, bit: int, text: str, *words: str) -> None:
        """Set a bit of a 16-bit register by ``word+`` or ``word-``."""
        for word, sign in _FLAG.findall(text):
            if word in words:
                self.state(offset, 2, bit, bit if sign == "+" else 0)
                return


def _read_below(registers: Registers, line: str) -> None:
    item = registers.item
    if item.cap_id is None:
        return
    key = _KEY.match(line)
    known = names.EXTENDED_FLAGS if item.extended else names.CAPABILITY_FLAGS
    found = known.get(item.cap_id, {}).get(key[1]) if key is not None else None
    if found is not None and key is not None:
        seen: set[str] = set()
        for word, sign in _FLAG.findall(key[2].partition("Changed:")[0]):
            if word in found[2] and word not in seen:
                registers.state(found[0], found[1], found[2][word], found[2][word] if sign == "+" else 0)
            seen.add(word)
    special = _SPECIAL.get((item.extended, item.cap_id))
    if special is not None:
        special(registers, line)


# -- the line that names a capability ----------------------------------------------------------------------------


def _read_msi(registers: Registers, text: str) -> None:
    registers.flag(r.PCI_MSI_FLAGS, r.PCI_MSI_FLAGS_64BIT, text, "64bit")
    registers.flag(r.PCI_MSI_FLAGS, r.PCI_MSI_FLAGS_MASKBIT, text, "Mask", "Maskable")
    registers.flag(r.PCI_MSI_FLAGS, r.PCI_MSI_FLAGS_ENABLE, text, "Enable")
    count = re.search(r"(Count|Queue)=([0-9]{1,2})/([0-9]{1,2})", text)
    if count is None:
        return
    enabled, possible = int(count[2]), int(count[3])
    if count[1] == "Count":
        enabled, possible = (max(number, 1).bit_length() - 1 for number in (enabled, possible))
    flags = min(possible, 5) << 1 | min(enabled, 5) << 4
    registers.state(r.PCI_MSI_FLAGS, 2, r.PCI_MSI_FLAGS_QMASK | r.PCI_MSI_FLAGS_QSIZE, flags)


def _read_msix(registers: Registers, text: str) -> None:
    registers.flag(r.PCI_MSIX_FLAGS, r.PCI_MSIX_FLAGS_ENABLE, text, "Enable")
    registers.flag(r.PCI_MSIX_FLAGS, r.PCI_MSIX_FLAGS_MASKALL, text, "Mask", "Masked")
    count = re.search(r"(?:Count|TabSize)=([0-9]{1,4})", text)
    if count is not None:
        registers.state(r.PCI_MSIX_FLAGS, 2, r.PCI_MSIX_FLAGS_QSIZE, int(count[1]) - 1)


def _read_express(registers: Registers, text: str) -> None:
    """Read version, type, slot and interrupt number; only ports that can have a slot show whether they do."""
    registers.image.extend()
    start = re.match(r"Express (?:\(v([0-9]{1,2})\) )?", text)
    words = text[start.end() :] if start else ""
    kind = next((number for name, number in names.PORT_TYPES.items() if words.startswith(name)), None)
    if start is None or kind is None:
        registers.notes.append(f"PCI Express type not known: {text[:60]!r}")
        return
    registers.state(r.PCI_EXP_FLAGS, 2, r.PCI_EXP_FLAGS_TYPE, kind << 4)
    at = registers.item.offset + r.PCI_EXP_FLAGS
    version = int(start[1] or "2")
    registers.image.state(at, 2, r.PCI_EXP_FLAGS_VERS, version, known=start[1] is not None)
    registers.flag(r.PCI_EXP_FLAGS, r.PCI_EXP_FLAGS_SLOT, words.replace(")", " "), "(Slot")
    number = re.search(r"\b(?:MSI|IRQ|IntMsgNum) ([0-9a-f]{1,2})\b", words)
    if number is not None:
        registers.state(r.PCI_EXP_FLAGS, 2, r.PCI_EXP_FLAGS_IRQ, int(number[1], 16) << 9)


def _read_power(registers: Registers, text: str) -> None:
    version = re.search(r"version ([0-7])", text)
    if version is not None:
        registers.state(r.PCI_PM_PMC, 2, 0x0007, int(version[1]))


def _read_hypertransport(registers: Registers, text: str) -> None:
    if "MSI Mapping" in text:
        registers.state(r.HT_MSI_FLAGS, 2, 0xF800, r.HT_CAPTYPE_MSI_MAPPING << 8)
        registers.flag(r.HT_MSI_FLAGS, r.HT_MSI_FLAGS_ENABLE, text, "Enable")
        registers.flag(r.HT_MSI_FLAGS, r.HT_MSI_FLAGS_FIXED, text, "Fixed")


_Reader = Callable[[Registers, str], None]
_READERS: dict[int, _Reader] = {
    r.PCI_CAP_ID_PM: _read_power,
    r.PCI_CAP_ID_MSI: _read_msi,
    r.PCI_CAP_ID_MSIX: _read_msix,
    r.PCI_CAP_ID_EXP: _read_express,
    r.PCI_CAP_ID_HT: _read_hypertransport,
}
_EXTENDED_READERS: dict[int, _Reader] = {}


# -- lines below it that are more than flags ---------------------------------------------------------------------


def _read_power_state(registers: Registers, line: str) -> None:
    state = re.match(r"Status: D([0-3])\b", line)
    if state is not None:
        registers.state(r.PCI_PM_CTRL, 2, r.PCI_PM_CTRL_STATE_MASK, int(state[1]))


def _read_msix_table(registers: Registers, line: str) -> None:
    for name, at in (("Vector table", r.PCI_MSIX_TABLE), ("PBA", r.PCI_MSIX_PBA)):
        match = re.search(rf"{name}: BAR=([0-7]) offset=([0-9a-f]{{1,8}})", line)
        if match is not None:
            registers.put(at, 4, int(match[2], 16) & ~7 | int(match[1]))


def _read_phantom(registers: Registers, line: str) -> None:
    match = re.match(r"DevCap:.*?\bPhantFunc ([0137])\b", line)
    if match is not None:
        registers.state(r.PCI_EXP_DEVCAP, 4, 0x18, _PHANTOM[match[1]] << 3)


def _read_next_function(registers: Registers, line: str) -> None:
    match = re.match(r"ARICap:.*?Next Function: ([0-9]{1,3})\b", line)
    if match is not None and int(match[1]) <= 0xFF:
        registers.put(r.PCI_ARI_CAP + 1, 1, int(match[1]))


def _read_virtual_functions(registers: Registers, line: str) -> None:
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
            registers.put(at, 2, int(match[1], base))


_SPECIAL: dict[tuple[bool, int], _Reader] = {
    (False, r.PCI_CAP_ID_PM): _read_power_state,
    (False, r.PCI_CAP_ID_MSIX): _read_msix_table,
    (False, r.PCI_CAP_ID_EXP): _read_phantom,
    (True, r.PCI_EXT_CAP_ID_ARI): _read_next_function,
    (True, r.PCI_EXT_CAP_ID_SRIOV): _read_virtual_functions,
}
