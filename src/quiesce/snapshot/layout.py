"""One line of a text description, and the configuration space it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.image import Image
from quiesce.snapshot.kinds import Kind

ACS_BITS = {
    "SV": r.PCI_ACS_SV,
    "TB": r.PCI_ACS_TB,
    "RR": r.PCI_ACS_RR,
    "CR": r.PCI_ACS_CR,
    "UF": r.PCI_ACS_UF,
    "EC": r.PCI_ACS_EC,
    "DT": r.PCI_ACS_DT,
}
ACS_ALL = r.PCI_ACS_SV | r.PCI_ACS_TB | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF | r.PCI_ACS_DT
_MEMORY_WINDOW = 0xE0000000
_IO_WINDOW = 0x1000

SWITCHES = (
    "pm",
    "flr",
    "slot",
    "hotplug",
    "power-control",
    "ari",
    "ats",
    "maskable",
    "multifunction",
    "no-soft-reset",
    "no-intx-disable",
    "absent",
)
"""Options that are there or not; ``no-NAME`` takes back a default of the kind."""
_NUMBERS = {"msi": (1, 32), "msix": (1, 2048), "sriov": (1, 256), "vf-offset": (1, 0xFFFF), "vf-stride": (1, 0xFFFF)}


@dataclass
class Line:
    """A function with its options."""

    bdf: Bdf
    kind: Kind
    options: dict[str, int] = field(default_factory=dict)
    buses: tuple[int, int | None] | None = None

    def has(self, name: str) -> bool:
        """Whether an option is on."""
        return bool(self.options.get(name))

    @property
    def attributes(self) -> dict[str, str]:
        """What config space does not show."""
        return {"no-intx-disable": "yes"} if self.has("no-intx-disable") else {}

    @classmethod
    def parse(cls, bdf: Bdf, kind: Kind, words: Sequence[str]) -> Line:
        """Read the options; raises ValueError saying what was expected."""
        line = cls(bdf, kind, dict(kind.options))
        for word in words:
            name, equals, value = word.partition("=")
            line._option(name, value if equals else None)
        if kind.bridge and line.buses is None:
            raise ValueError(f"bus=NN for the bridge {bdf.short}")
        return line

    def _option(self, name: str, value: str | None) -> None:
        if name in _VALUED and (value is not None or name in ("msi", "acs")):
            _VALUED[name](self, name, value)
        elif value is None and name in SWITCHES:
            self.options[name] = 1
        elif value is None and name.startswith("no-") and (name[3:] in SWITCHES or name[3:] in _VALUED):
            self.options.pop(name[3:], None)
        else:
            known = ", ".join((*_VALUED, *SWITCHES))
            raise ValueError(f"an option of a function ({known}), found {name!r}")

    def _read_bus(self, name: str, value: str | None) -> None:
        match = re.fullmatch(r"([0-9a-fA-F]{2})(?:-([0-9a-fA-F]{2}))?", value or "")
        if match is None or not self.kind.bridge:
            raise ValueError("bus=NN or bus=NN-NN, on a bridge")
        last = int(match[2], 16) if match[2] else None
        self.buses = (int(match[1], 16), last)
        if last is not None and last < self.buses[0]:
            raise ValueError(f"an increasing bus range, found {value}")

    def _read_pin(self, name: str, value: str | None) -> None:
        if value not in ("A", "B", "C", "D"):
            raise ValueError(f"pin=A to pin=D, found {value!r}")
        self.options["pin"] = "ABCD".index(value) + 1

    def _read_id(self, name: str, value: str | None) -> None:
        match = re.fullmatch(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})", value or "")
        if match is None:
            raise ValueError(f"id=VVVV:DDDD, found {value!r}")
        self.options["vendor"], self.options["device"] = int(match[1], 16), int(match[2], 16)

    def _read_class(self, name: str, value: str | None) -> None:
        if not re.fullmatch(r"[0-9a-fA-F]{6}", value or ""):
            raise ValueError(f"class=CCSSPP, found {value!r}")
        self.options["class"] = int(value or "", 16)

    def _read_acs(self, name: str, value: str | None) -> None:
        names = value.split(",") if value else []
        if any(item not in ACS_BITS for item in names) or (value is not None and not names):
            raise ValueError(f"acs=LIST of {','.join(ACS_BITS)}, found {value!r}")
        self.options["acs"] = sum(ACS_BITS[item] for item in set(names)) or ACS_ALL

    def _read_number(self, name: str, value: str | None) -> None:
        low, high = _NUMBERS[name]
        text = "1" if value is None else value
        number = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else -1
        if not low <= number <= high or (name == "msi" and number & (number - 1)):
            raise ValueError(f"{name}={low} to {high}{', a power of two' if name == 'msi' else ''}, found {value!r}")
        self.options[name] = number


_VALUED = {
    "bus": Line._read_bus,
    "pin": Line._read_pin,
    "id": Line._read_id,
    "class": Line._read_class,
    "acs": Line._read_acs,
    **dict.fromkeys(_NUMBERS, Line._read_number),
}


def config_of(line: Line, subordinate: int, several: bool, number: int) -> bytes:
    """Lay out the config space of a line; ``several`` says that its device has other functions, ``number`` places
    its BARs. Raises ValueError when the capabilities do not fit.
    """
    image = Image(extended=line.kind.express is not None)
    _put_header(image, line, several)
    if line.kind.bridge:
        assert line.buses is not None
        image.put(r.PCI_PRIMARY_BUS, 1, line.bdf.bus)
        image.put(r.PCI_SECONDARY_BUS, 1, line.buses[0])
        image.put(r.PCI_SUBORDINATE_BUS, 1, subordinate)
    for bar in line.kind.memory:
        image.put(r.PCI_BASE_ADDRESS_0 + 4 * bar, 4, _MEMORY_WINDOW + 0x80000 * number + 0x10000 * bar)
    for bar in line.kind.io:
        image.put(r.PCI_BASE_ADDRESS_0 + 4 * bar, 4, _IO_WINDOW + 0x40 * number | r.PCI_BASE_ADDRESS_SPACE_IO)
    _put_capabilities(image, line)
    _put_extended(image, line)
    return image.bytes()


def _put_header(image: Image, line: Line, several: bool) -> None:
    kind, options = line.kind, line.options
    image.put(r.PCI_VENDOR_ID, 2, options.get("vendor", kind.vendor))
    image.put(r.PCI_DEVICE_ID, 2, options.get("device", kind.device))
    image.put(r.PCI_COMMAND, 2, r.PCI_COMMAND_IO | r.PCI_COMMAND_MEMORY | (r.PCI_COMMAND_MASTER if kind.bridge else 0))
    image.put(r.PCI_CLASS_REVISION, 4, options.get("class", kind.class_code) << 8)
    header = r.PCI_HEADER_TYPE_BRIDGE if kind.bridge else r.PCI_HEADER_TYPE_NORMAL
    multifunction = several or line.has("multifunction")
    image.put(r.PCI_HEADER_TYPE, 1, header | (r.PCI_HEADER_TYPE_MFD if multifunction else 0))
    image.put(r.PCI_INTERRUPT_PIN, 1, options.get("pin", 0))
    image.put(r.PCI_INTERRUPT_LINE, 1, 11 if line.has("pin") else 0xFF)


def _put_capabilities(image: Image, line: Line) -> None:
    options = line.options
    if line.has("iommu"):
        at = image.capability(r.PCI_CAP_ID_SECDEV, 24)
        image.put(at + 2, 2, 0x0003)
    if line.has("pm"):
        at = image.capability(r.PCI_CAP_ID_PM, 8)
        image.put(at + r.PCI_PM_PMC, 2, 0xC803)
        image.put(at + r.PCI_PM_CTRL, 2, r.PCI_PM_CTRL_NO_SOFT_RESET if line.has("no-soft-reset") else 0)
    if line.has("msi"):
        flags = r.PCI_MSI_FLAGS_64BIT | (options["msi"].bit_length() - 1) << 1
        at = image.capability(r.PCI_CAP_ID_MSI, 24 if line.has("maskable") else 14)
        image.put(at + r.PCI_MSI_FLAGS, 2, flags | (r.PCI_MSI_FLAGS_MASKBIT if line.has("maskable") else 0))
    if line.has("msix"):
        at = image.capability(r.PCI_CAP_ID_MSIX, 12)
        table = max(line.kind.memory, default=0)
        image.put(at + r.PCI_MSIX_FLAGS, 2, options["msix"] - 1)
        image.put(at + r.PCI_MSIX_TABLE, 4, table)
        image.put(at + r.PCI_MSIX_PBA, 4, 0x8000 | table)
    if line.kind.express is not None:
        _put_express(image, line)


def _put_express(image: Image, line: Line) -> None:
    at = image.capability(r.PCI_CAP_ID_EXP, 0x3C)
    slot = line.has("slot") or line.has("hotplug")
    flags = 2 | (line.kind.express or 0) << 4 | (r.PCI_EXP_FLAGS_SLOT if slot else 0)
    image.put(at + r.PCI_EXP_FLAGS, 2, flags)
    image.put(at + r.PCI_EXP_DEVCAP, 4, 0x8000 | (r.PCI_EXP_DEVCAP_FLR if line.has("flr") else 0))
    image.put(at + r.PCI_EXP_LNKCAP, 4, 0x11 | (r.PCI_EXP_LNKCAP_DLLLARC if slot else 0) | line.bdf.devfn << 24)
    image.put(at + r.PCI_EXP_LNKSTA, 2, 0x11)
    if slot:
        image.put(at + r.PCI_EXP_SLTCAP, 4, _slot_capabilities(line))
        image.put(at + r.PCI_EXP_SLTCTL, 2, 0x07C0 & ~r.PCI_EXP_SLTCTL_PCC)
    if line.has("ari") and line.kind.bridge:
        image.put(at + r.PCI_EXP_DEVCAP2, 4, r.PCI_EXP_DEVCAP2_ARI)
        image.put(at + r.PCI_EXP_DEVCTL2, 2, r.PCI_EXP_DEVCTL2_ARI)


def _slot_capabilities(line: Line) -> int:
    bits = r.PCI_EXP_SLTCAP_HPC | r.PCI_EXP_SLTCAP_HPS if line.has("hotplug") else 0
    bits |= r.PCI_EXP_SLTCAP_PCP if line.has("power-control") else 0
    return bits | line.bdf.devfn << 19


def _put_extended(image: Image, line: Line) -> None:
    options = line.options
    wanted = [name for name in ("acs", "ari", "ats", "sriov") if line.has(name)]
    if wanted and line.kind.express is None:
        raise ValueError(f"{wanted[0]} needs PCI Express")
    if line.has("acs"):
        at = image.extended(r.PCI_EXT_CAP_ID_ACS, 8)
        image.put(at + r.PCI_ACS_CAP, 2, options["acs"])
    if line.has("ari") and not line.kind.bridge:
        image.extended(r.PCI_EXT_CAP_ID_ARI, 8)
    if line.has("ats"):
        image.extended(r.PCI_EXT_CAP_ID_ATS, 8)
    if line.has("sriov"):
        _put_sriov(image, line)


def _put_sriov(image: Image, line: Line) -> None:
    at = image.extended(r.PCI_EXT_CAP_ID_SRIOV, 0x40)
    total = line.options["sriov"]
    image.put(at + r.PCI_SRIOV_INITIAL_VF, 2, total)
    image.put(at + r.PCI_SRIOV_TOTAL_VF, 2, total)
    image.put(at + r.PCI_SRIOV_VF_OFFSET, 2, line.options.get("vf-offset", 0x80))
    image.put(at + r.PCI_SRIOV_VF_STRIDE, 2, line.options.get("vf-stride", 2))
    image.put(at + r.PCI_SRIOV_VF_DID, 2, line.options.get("device", line.kind.device) + 1)
    image.put(at + r.PCI_SRIOV_SUP_PGSIZE, 4, 0x553)
    image.put(at + r.PCI_SRIOV_SYS_PGSIZE, 4, 1)
