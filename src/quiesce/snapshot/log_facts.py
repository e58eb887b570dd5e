"""What single lines of a kernel log prove about one PCI function, and the configuration space that follows from it.

The texts are those of drivers/pci/probe.c, setup-bus.c, pci.c, iov.c, quirks.c and drivers/pci/pcie and hotplug, from
Linux 2.6 to 7.x. A line proves that something is there; the absence of a line proves nothing, because levels, cuts
and ring buffers lose lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.draft import Draft

PCIE_TYPES = {
    "PCIe Endpoint": r.PCI_EXP_TYPE_ENDPOINT,
    "PCIe Legacy Endpoint": r.PCI_EXP_TYPE_LEG_END,
    "PCIe Root Port": r.PCI_EXP_TYPE_ROOT_PORT,
    "PCIe Switch Upstream Port": r.PCI_EXP_TYPE_UPSTREAM,
    "PCIe Switch Downstream Port": r.PCI_EXP_TYPE_DOWNSTREAM,
    "PCIe to PCI/PCI-X bridge": r.PCI_EXP_TYPE_PCI_BRIDGE,
    "PCI/PCI-X to PCIe bridge": r.PCI_EXP_TYPE_PCIE_BRIDGE,
    "PCIe Root Complex Integrated Endpoint": r.PCI_EXP_TYPE_RC_END,
    "PCIe Root Complex Event Collector": r.PCI_EXP_TYPE_RC_EC,
}
"""The words that ``pci_type_str`` of drivers/pci/probe.c prints since v6.8."""

_PORT_TYPES = (r.PCI_EXP_TYPE_ROOT_PORT, 0xC)
"""Root ports and both ports of switches have type 01xx."""
_ROOT_PORT = (r.PCI_EXP_TYPE_ROOT_PORT, 0xF)
_PME_STATES = {"D0": 0x0800, "D1": 0x1000, "D2": 0x2000, "D3hot": 0x4000, "D3cold": 0x8000}
_SLOT_BITS = {
    "AttnBtn": 0x01,
    "PwrCtrl": 0x02,
    "MRL": 0x04,
    "AttnInd": 0x08,
    "PwrInd": 0x10,
    "Surprise": 0x20,
    "HotPlug": 0x40,
    "Interlock": 0x20000,
    "NoCompl": 0x40000,
}
_PMC_PME = 0xF800
_PMC_D1, _PMC_D2 = 0x0200, 0x0400


@dataclass
class Facts:
    """What a log told about the function at one address so far."""

    bdf: Bdf
    ids: tuple[int, int] | None = None
    kind: int | None = None
    """The header type, 0 to 2."""
    class_code: int | None = None
    class_bits: int = 0xFFFFFF
    conventional: bool = False
    pcie: bool = False
    type: tuple[int, int] = (0, 0)
    """The PCIe port type, and which of its four bits are known."""
    buses: tuple[int | None, int | None] = (None, None)
    power: dict[int, int] = field(default_factory=dict)
    """Mask of PMC to its value."""
    slot: int | None = None
    slot_mask: int = 0
    extended: set[int] = field(default_factory=set)
    total_vfs: int = 0
    bars: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Offset to size in bytes and value."""
    words: dict[int, int] = field(default_factory=dict)
    """Offset to a dword of the header that the kernel printed when it saved it."""
    driver: str = ""
    iommu_capability: bool = False
    late: bool = False
    """Found after buses with higher numbers were: added by something else than the first scan."""
    gone: bool = False
    """Removed, and not found again."""

    def proves(self, kind: tuple[int, int]) -> None:
        """Note a PCIe port type, or bits of it; what was said in words is not overruled."""
        self.pcie = True
        if self.type[1] & kind[1] == 0 or (kind[1] == 0xF and self.type[1] != 0xF):
            self.type = kind


def read_message(facts: Facts, message: str) -> None:
    """Take from one message about a function what it proves."""
    reader = _identity if message[:1] == "[" else _READERS.get(message[:4])
    if reader is not None:
        reader(facts, message)
    elif "PCIe bandwidth" in message[:60]:
        facts.pcie = True


# -- drivers/pci/probe.c: pci_setup_device ------------------------------------------------------------------------

_IDENTITY = re.compile(
    r"\[([0-9a-f]{4})[:/]([0-9a-f]{4})\] type ([0-9a-f]{1,2}) class (0x[0-9a-f]{6})\b *"
    r"(conventional PCI|CardBus|PCI.*)?"
)
_OLD_IDENTITY = re.compile(r"found \[([0-9a-f]{4})/([0-9a-f]{4})\] class ([0-9a-f]{6}) header type ([0-9a-f]{2})\b")
_CUT_IDENTITY = re.compile(r"\[([0-9a-f]{4})[:/]([0-9a-f]{4})\](?: type ([0-9a-f]{1,2})\b)?")


def _identity(facts: Facts, message: str) -> None:
    match = _IDENTITY.match(message)
    if match is None:
        cut = _CUT_IDENTITY.match(message)
        if cut is not None:
            identify(facts, cut[1], cut[2], cut[3], None)
        return
    identify(facts, match[1], match[2], match[3], int(match[4], 16))
    words = (match[5] or "").strip()
    if words.startswith(("conventional PCI", "CardBus")):
        facts.conventional = True
    elif words in PCIE_TYPES:
        facts.pcie, facts.type = True, (PCIE_TYPES[words], 0xF)
    elif words.startswith("PCIe "):
        facts.pcie = True


def _old_identity(facts: Facts, message: str) -> None:
    match = _OLD_IDENTITY.match(message)
    if match is not None:
        identify(facts, match[1], match[2], match[4], int(match[3], 16))


def identify(facts: Facts, vendor: str, device: str, kind: str | None, class_code: int | None) -> None:
    """Note ids, header type and class; what the kernel could not read (all ones) is no function."""
    if vendor == "ffff" or (kind is not None and int(kind, 16) & 0x7F > r.PCI_HEADER_TYPE_CARDBUS):
        return
    facts.ids = int(vendor, 16), int(device, 16)
    facts.gone = False
    if kind is not None:
        facts.kind = int(kind, 16) & 0x7F
    if class_code is not None:
        facts.class_code, facts.class_bits = class_code, 0xFFFFFF


# -- bridges: pci_read_bridge_bases, pci_setup_bridge -------------------------------------------------------------

_BUSES = re.compile(r"(?:PCI|CardBus) bridge to \[bus ([0-9a-f]{2})(?:-([0-9a-f]{2}))?\]")
_OLD_BUS = re.compile(r"(?:PCI|CardBus) bridge, secondary bus (?:[0-9a-f]{4}:)?([0-9a-f]{2})\b")


def _bridge(facts: Facts, message: str) -> None:
    match = _BUSES.match(message)
    if match is not None:
        facts.buses = int(match[1], 16), int(match[2] or match[1], 16)
    elif (old := _OLD_BUS.match(message)) is not None:
        facts.buses = int(old[1], 16), None
    if (match or message.startswith(("PCI bridge", "CardBus bridge"))) and facts.kind is None:
        facts.kind = r.PCI_HEADER_TYPE_CARDBUS if message.startswith("C") else r.PCI_HEADER_TYPE_BRIDGE


# -- base address registers ---------------------------------------------------------------------------------------

_BAR = re.compile(
    r"(?:reg (?:0x)?([0-9a-f]{2,3}):?|BAR ([0-5])(?: |: assigned )) ?\[(mem|io) +0x([0-9a-f]{1,16})-0x[0-9a-f]{1,16}"
    r"((?: 64bit)?)((?: pref)?)\]"
)
_OLD_BAR = re.compile(r"reg ([0-9a-f]{2}) (io port|32bit mmio|64bit mmio)( pref)?: \[(?:0x)?([0-9a-f]{1,16})-")


def _base_address(facts: Facts, message: str) -> None:
    match = _BAR.match(message)
    if match is not None:
        at = int(match[1], 16) if match[1] else r.PCI_BASE_ADDRESS_0 + 4 * int(match[2])
        _note_bar(facts, at, match[3] == "io", bool(match[5]), bool(match[6]), int(match[4], 16))
    elif (old := _OLD_BAR.match(message)) is not None:
        _note_bar(facts, int(old[1], 16), old[2] == "io port", old[2][0] == "6", bool(old[3]), int(old[4], 16))


def _note_bar(facts: Facts, at: int, is_io: bool, wide: bool, prefetch: bool, address: int) -> None:
    size = 8 if wide else 4
    if at % 4 or not r.PCI_BASE_ADDRESS_0 <= at <= 0x28 - size or address >> 8 * size:
        if r.PCI_CFG_SPACE_SIZE <= at < r.PCI_CFG_SPACE_EXP_SIZE:
            facts.extended.add(r.PCI_EXT_CAP_ID_SRIOV)
        return
    low = 0x1 if is_io else (0x4 if wide else 0) | (0x8 if prefetch else 0)
    facts.bars[at] = size, address & ~(0x3 if is_io else 0xF) | low


_VF_BAR = re.compile(r"VF\(n\) BAR.*\(contains BAR[0-5] for ([0-9]{1,5}) VFs\)")


def _virtual_bar(facts: Facts, message: str) -> None:
    if message.startswith("VF(n) BAR"):
        facts.extended.add(r.PCI_EXT_CAP_ID_SRIOV)
        match = _VF_BAR.match(message)
        facts.total_vfs = int(match[1]) & 0xFFFF if match else facts.total_vfs


# -- power management, port services, quirks ----------------------------------------------------------------------


def _wake(facts: Facts, message: str) -> None:
    if message.startswith("PME# supported from "):
        facts.power[_PMC_PME] = sum(_PME_STATES.get(word, 0) for word in set(message[20:120].split()))
    elif message.startswith("PME: Signaling with IRQ") and facts.kind == r.PCI_HEADER_TYPE_BRIDGE:
        facts.proves(_ROOT_PORT)


def _low_power(facts: Facts, message: str) -> None:
    if message.startswith("supports D"):
        words = set(message[8:40].split())
        facts.power[_PMC_D1 | _PMC_D2] = (_PMC_D1 if "D1" in words else 0) | (_PMC_D2 if "D2" in words else 0)


def _errors(facts: Facts, message: str) -> None:
    if message.startswith("AER: enabled with IRQ"):
        facts.extended.add(r.PCI_EXT_CAP_ID_ERR)
        if facts.kind == r.PCI_HEADER_TYPE_BRIDGE:
            facts.proves(_ROOT_PORT)


def _containment(facts: Facts, message: str) -> None:
    if message.startswith(("DPC: enabled with IRQ", "DPC: error containment capabilities")):
        facts.extended.add(r.PCI_EXT_CAP_ID_DPC)
        facts.proves(_PORT_TYPES)


def _slot(facts: Facts, message: str) -> None:
    if not message.startswith("pciehp: Slot #"):
        return
    facts.proves(_PORT_TYPES)
    number = re.match(r"pciehp: Slot #([0-9]{1,4})\b", message)
    words = set(message[:300].split())
    facts.slot = (int(number[1]) & 0x1FFF) << 19 if number else 0
    facts.slot_mask = 0x1FFF << 19 if number else 0
    for name, bit in _SLOT_BITS.items():
        if name + "+" in words or name + "-" in words:
            facts.slot_mask |= bit
            facts.slot |= bit if name + "+" in words else 0


def _intel(facts: Facts, message: str) -> None:
    """Pci_dev_specific_enable_acs of drivers/pci/quirks.c matches root ports only, and SPT ones by their capability."""
    if message.startswith("Intel SPT PCH root port ACS workaround enabled"):
        facts.extended.add(r.PCI_EXT_CAP_ID_ACS)
        facts.proves(_ROOT_PORT)
    elif message.startswith("Intel PCH root port ACS workaround enabled"):
        facts.proves(_ROOT_PORT)


def _iommu(facts: Facts, message: str) -> None:
    facts.iommu_capability |= message.startswith("AMD-Vi: Found IOMMU cap")


def _time(facts: Facts, message: str) -> None:
    if message.startswith("PTM enabled"):
        facts.extended.add(r.PCI_EXT_CAP_ID_PTM)


def _express(facts: Facts, message: str) -> None:
    """Lines that are about PCIe devices only."""
    if message.startswith(("enabling Extended Tags", "Max Payload Size set to")):
        facts.pcie = True


_SAVED = re.compile(
    r"(?:save config 0x|saving config space at offset 0x)([0-9a-f]{1,2})(?:: | \(reading )0x([0-9a-f]{1,8})"
)


def _saved(facts: Facts, message: str) -> None:
    """Pci_save_state with debugging on: whole dwords of the header. The pointer to the capability list is left out,
    because the list that is laid out here is elsewhere; all ones came from a device that was gone.
    """
    match = _SAVED.match(message)
    if match is None or match[2] == "ffffffff":
        return
    if (at := int(match[1], 16)) <= 0x3C and at % 4 == 0 and at != r.PCI_CAPABILITY_LIST:
        facts.words[at] = int(match[2], 16)


def _ignored(facts: Facts, message: str) -> None:
    if "ignoring device" in message:
        facts.gone = True


_READERS: dict[str, Callable[[Facts, str], None]] = {
    "foun": _old_identity,
    "PCI ": _bridge,
    "Card": _bridge,
    "reg ": _base_address,
    "BAR ": _base_address,
    "VF(n": _virtual_bar,
    "PME#": _wake,
    "PME:": _wake,
    "supp": _low_power,
    "AER:": _errors,
    "DPC:": _containment,
    "pcie": _slot,
    "Inte": _intel,
    "AMD-": _iommu,
    "PTM ": _time,
    "enab": _express,
    "Max ": _express,
    "save": _saved,
    "savi": _saved,
    "unkn": _ignored,
}


# -- configuration space ------------------------------------------------------------------------------------------


def describe(facts: Facts, several: bool) -> FunctionDescription:
    """Lay out what is known; ``several`` says that the device has other functions."""
    draft = Draft()
    _put_identity(draft, facts, several)
    for at, (size, value) in sorted(facts.bars.items()):
        if at < (0x18 if facts.kind == r.PCI_HEADER_TYPE_BRIDGE else 0x28) and facts.kind != r.PCI_HEADER_TYPE_CARDBUS:
            draft.put(at, size, value)
    secondary, subordinate = facts.buses
    if facts.kind in (r.PCI_HEADER_TYPE_BRIDGE, r.PCI_HEADER_TYPE_CARDBUS):
        for at, number in ((r.PCI_SECONDARY_BUS, secondary), (r.PCI_SUBORDINATE_BUS, subordinate)):
            if number is not None:
                draft.put(at, 1, number)
    _put_capabilities(draft, facts)
    attributes = {"driver": facts.driver} if facts.driver not in ("", "pci") else {}
    if facts.conventional and not facts.pcie:
        attributes["pcie"] = "no"
    return draft.describe(facts.bdf, attributes, not facts.gone)


def _put_identity(draft: Draft, facts: Facts, several: bool) -> None:
    for at, word in facts.words.items():
        draft.put(at, 4, word)
    if facts.ids is not None:
        draft.put(r.PCI_VENDOR_ID, 2, facts.ids[0])
        draft.put(r.PCI_DEVICE_ID, 2, facts.ids[1])
    if facts.kind is not None:
        draft.put(r.PCI_HEADER_TYPE, 1, facts.kind, r.PCI_HEADER_TYPE_MASK)
    if several and facts.bdf.function == 0:
        draft.put(r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_MFD, r.PCI_HEADER_TYPE_MFD)
    if facts.class_code is not None:
        draft.put(r.PCI_CLASS_PROG, 3, facts.class_code, facts.class_bits)


def _put_capabilities(draft: Draft, facts: Facts) -> None:
    if facts.pcie or facts.extended:
        at = draft.capability(r.PCI_CAP_ID_EXP) + r.PCI_EXP_FLAGS
        draft.put(at, 2, facts.type[0] << 4, facts.type[1] << 4)
        if facts.slot is not None:
            draft.put(at, 2, r.PCI_EXP_FLAGS_SLOT, r.PCI_EXP_FLAGS_SLOT)
            draft.put(at - r.PCI_EXP_FLAGS + r.PCI_EXP_SLTCAP, 4, facts.slot, facts.slot_mask)
    if facts.power:
        at = draft.capability(r.PCI_CAP_ID_PM) + r.PCI_PM_PMC
        for mask, value in facts.power.items():
            draft.put(at, 2, value, mask)
    if facts.iommu_capability:
        draft.capability(r.PCI_CAP_ID_SECDEV)
    for cap_id in sorted(facts.extended):
        at = draft.extended(cap_id)
        if cap_id == r.PCI_EXT_CAP_ID_SRIOV and facts.total_vfs:
            draft.put(at + r.PCI_SRIOV_TOTAL_VF, 2, facts.total_vfs)
