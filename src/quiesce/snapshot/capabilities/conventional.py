"""Capabilities of conventional PCI: PCI-X, AGP, VPD, slots, subsystem, debug port, SATA, Advanced Features, EA."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities.field import (
    Capability,
    Field,
    Register,
    Surroundings,
    bitmap,
    choice,
    computed,
    flag,
    hexadecimal,
    number,
)

# -- PCI-X 2.0, 7.2: on a device, and on a bridge, whose secondary side has a status of its own --------------------

_SPLITS = ("1", "2", "3", "4", "8", "12", "16", "32")


def _dev(value: int) -> str:
    return f"{value >> 8:02x}:{value >> 3 & 0x1F:02x}.{value & 7}"


def _read_size(value: int) -> str:
    return str(512 << value)


_PCIX_STATUS = (
    computed("Bus, Device and Function Number", 0xFFFF, _dev, "Dev={}"),
    flag("64-bit Device", 0x10000, "64bit"),
    flag("133 MHz Capable", 0x20000, "133MHz"),
    flag("Split Completion Discarded", 0x40000, "SCD"),
    flag("Unexpected Split Completion", 0x80000, "USC"),
)

PCIX_DEVICE = Capability(
    "PCI-X (device)",
    r.PCI_CAP_ID_PCIX,
    "PCI-X 2.0, 7.2",
    (
        Register(
            "PCI-X Command",
            r.PCI_X_CMD,
            2,
            (
                flag("Uncorrectable Data Error Recovery Enable", 0x01, "DPERE"),
                flag("Enable Relaxed Ordering", 0x02, "ERO"),
                computed("Maximum Memory Read Byte Count", 0x0C, _read_size, "RBC={}"),
                choice("Maximum Outstanding Split Transactions", 0x70, _SPLITS, "OST={}"),
            ),
            "7.2.3",
            "Command",
        ),
        Register(
            "PCI-X Status",
            4,
            4,
            (
                *_PCIX_STATUS,
                choice("Device Complexity", 0x100000, ("simple", "bridge"), "DC={}"),
                computed("Designed Maximum Memory Read Byte Count", 0x600000, _read_size, "DMMRBC={}"),
                choice("Designed Maximum Outstanding Split Transactions", 0x3800000, _SPLITS, "DMOST={}"),
                computed("Designed Maximum Cumulative Read Size", 0x1C000000, lambda v: str(8 << v), "DMCRS={}"),
                flag("Received Split Completion Error Message", 0x20000000, "RSCEM"),
                flag("PCI-X 266 Capable", 0x40000000, "266MHz"),
                flag("PCI-X 533 Capable", 0x80000000, "533MHz"),
            ),
            "7.2.4",
            "Status",
        ),
    ),
    lspci="PCI-X non-bridge",
    short="PCI-X",
)

_CLOCKS = ("conv", "66MHz", "100MHz", "133MHz", "?4", "?5", "?6", "?7")


def _split_control(name: str, at: int, line: str) -> Register:
    return Register(
        f"{name} Split Transaction Control",
        at,
        4,
        (
            number("Split Transaction Capacity", 0xFFFF, "Capacity={}"),
            number("Split Transaction Commitment Limit", 0xFFFF0000, "CommitmentLimit={}"),
        ),
        "8.6.2",
        line,
    )


PCIX_BRIDGE = Capability(
    "PCI-X (bridge)",
    r.PCI_CAP_ID_PCIX,
    "PCI-X 2.0, 8.6.2",
    (
        Register(
            "PCI-X Secondary Status",
            2,
            2,
            (
                flag("64-bit Device", 0x01, "64bit"),
                flag("133 MHz Capable", 0x02, "133MHz"),
                flag("Split Completion Discarded", 0x04, "SCD"),
                flag("Unexpected Split Completion", 0x08, "USC"),
                flag("Split Completion Overrun", 0x10, "SCO"),
                flag("Split Request Delayed", 0x20, "SRD"),
                choice("Secondary Clock Frequency", 0x1C0, _CLOCKS, "Freq={}"),
            ),
            "8.6.2.3",
            "Secondary Status",
        ),
        Register(
            "PCI-X Bridge Status",
            4,
            4,
            (
                *_PCIX_STATUS,
                flag("Split Completion Overrun", 0x100000, "SCO"),
                flag("Split Request Delayed", 0x200000, "SRD"),
            ),
            "8.6.2.4",
            "Status",
        ),
        _split_control("Upstream", 8, "Upstream"),
        _split_control("Downstream", 12, "Downstream"),
    ),
    lspci="PCI-X bridge",
    short="PCI-X-bridge",
)


def _on_bridge(around: Surroundings) -> bool:
    return around.header_type == r.PCI_HEADER_TYPE_BRIDGE


PCIX = Capability(
    PCIX_DEVICE.name,
    PCIX_DEVICE.cap_id,
    PCIX_DEVICE.section,
    PCIX_DEVICE.registers,
    lspci=PCIX_DEVICE.lspci,
    short=PCIX_DEVICE.short,
    variants=((_on_bridge, PCIX_BRIDGE),),
)

# -- AGP 3.0, 6.1 -------------------------------------------------------------------------------------------------


def _agp_3(around: Surroundings) -> bool:
    return around.get(2, 1) >= 0x30 and bool(around.get(4, 4) & 0x08)


def _agp_registers(rates: tuple[str, ...], agp_3: bool) -> tuple[Register, ...]:
    def present(around: Surroundings) -> bool:
        return _agp_3(around) == agp_3

    rate = bitmap("Data Rate", 0x07, rates, "Rate={}", between=",", none="<none>")
    common: tuple[Field, ...] = (
        flag("Fast Write", 0x10, "FW"),
        flag("Over 4 GB", 0x20, "64bit"),
        flag("64-bit GART", 0x80, "GART64"),
        flag("Sideband Addressing", 0x200, "SBA"),
        number("Calibration Cycle", 0x1C00, "Cal={}"),
        number("Asynchronous Request Size", 0xE000, "ArqSz={}"),
        number("Requests", 0xFF000000, "RQ={}", plus=1),
    )
    status = (
        rate,
        flag("AGP 3.0 Mode", 0x08, "AGP3"),
        *common,
        flag("Host Translation", 0x40, "HTrans"),
        flag("In-order Translation Coherency", 0x100, "ITACoh"),
        flag("Isochronous", 0x10000, "Iso"),
    )
    command = (rate, flag("AGP Enable", 0x100, "AGP"), *common)
    return (
        Register("AGP Status", 4, 4, status, "6.1.2", "Status", present),
        Register("AGP Command", 8, 4, command, "6.1.3", "Command", present),
    )


AGP = Capability(
    "AGP",
    r.PCI_CAP_ID_AGP,
    "AGP 3.0, 6.1",
    (
        Register(
            "Revision",
            2,
            1,
            (
                hexadecimal("Minor Revision", 0x0F, r"version \w\.{}"),
                hexadecimal("Major Revision", 0xF0, r"version {}\."),
            ),
            "6.1.1",
        ),
        *_agp_registers(("x1", "x2", "x4"), agp_3=False),
        *_agp_registers(("x4", "x8", "x16"), agp_3=True),
    ),
    lspci="AGP version",
    short="AGP",
)

# -- small ones ----------------------------------------------------------------------------------------------------

VPD = Capability(
    "Vital Product Data",
    r.PCI_CAP_ID_VPD,
    "PCIe 6.0, 7.9.18",
    (
        Register("VPD Address", 2, 2, (hexadecimal("VPD Address", 0x7FFF), flag("F", 0x8000)), "7.9.18.1"),
        Register("VPD Data", 4, 4, (hexadecimal("VPD Data", 0xFFFFFFFF),), "7.9.18.2"),
    ),
    lspci="Vital Product Data",
    short="VPD",
)

SLOT_ID = Capability(
    "Slot Identification",
    r.PCI_CAP_ID_SLOTID,
    "PCI-to-PCI Bridge 1.2, 13.4",
    (
        Register(
            "Slot",
            2,
            2,
            (
                number("Expansion Slots Provided", 0x1F, "{} slots"),
                flag("First In Chassis", 0x20, "First"),
                hexadecimal("Chassis Number", 0xFF00, "chassis {}"),
            ),
            "13.4.1",
        ),
    ),
    lspci="Slot ID",
    short="SlotID",
)

COMPACT_PCI_HOT_SWAP = Capability(
    "CompactPCI Hot Swap",
    r.PCI_CAP_ID_CHSWP,
    "PICMG 2.1",
    (
        Register(
            "Hot Swap Control and Status",
            2,
            1,
            (
                flag("Device Hiding Arm", 0x01),
                flag("ENUM# Mask", 0x02),
                flag("Pending Insertion or Extraction", 0x04),
                flag("LED On", 0x08),
                flag("ENUM# Status - Extraction", 0x40),
                flag("ENUM# Status - Insertion", 0x80),
            ),
        ),
    ),
    lspci="CompactPCI hot-swap",
    short="cPCI-hot-swap",
)

HOT_PLUG_CONTROLLER = Capability(
    "Standard Hot-Plug Controller",
    r.PCI_CAP_ID_SHPC,
    "SHPC 1.0, 4.1",
    (
        Register(
            "DWORD Select",
            2,
            2,
            (
                number("DWORD Select", 0xFF),
                flag("Controller SERR Pending", 0x4000),
                flag("Controller Interrupt Pending", 0x8000),
            ),
        ),
        Register("DWORD Data", 4, 4, (hexadecimal("DWORD Data", 0xFFFFFFFF),)),
    ),
    lspci="Hot-plug capable",
    short="SHPC",
)

BRIDGE_SUBSYSTEM = Capability(
    "Subsystem ID and Subsystem Vendor ID",
    r.PCI_CAP_ID_SSVID,
    "PCIe 6.0, 7.9.23",
    (
        Register(
            "Subsystem",
            4,
            4,
            (hexadecimal("Subsystem Vendor ID", 0xFFFF, r"\b{}:\w{4}"), hexadecimal("Subsystem ID", 0xFFFF0000, ":{}")),
            "7.9.23.1",
        ),
    ),
    lspci="Subsystem:",
    short="SSVID",
)

DEBUG_PORT = Capability(
    "Debug Port",
    r.PCI_CAP_ID_DBG,
    "EHCI 1.0, C.2",
    (
        Register(
            "Debug Port Offset",
            2,
            2,
            (hexadecimal("Offset", 0x1FFF, "offset={}"), number("BAR Number", 0xE000, "BAR={}")),
        ),
    ),
    lspci="Debug port",
    short="DebugPort",
)

_SATA_PLACES = {4: "BAR0", 5: "BAR1", 6: "BAR2", 7: "BAR3", 8: "BAR4", 9: "BAR5", 15: "InCfgSpace"}


def _sata_place(value: int) -> str:
    return _SATA_PLACES.get(value) or f"BAR??{value}"


SATA = Capability(
    "SATA HBA",
    r.PCI_CAP_ID_SATA,
    "AHCI 1.3.1, 2.3",
    (
        Register(
            "SATA Capability Register 0",
            2,
            2,
            (number("Minor Revision", 0x0F, r"v\d+\.{}"), number("Major Revision", 0xF0, r"v{}\.")),
            "2.3.1",
        ),
        Register(
            "SATA Capability Register 1",
            4,
            4,
            (
                computed("BAR Location", 0x0F, _sata_place, r"v\S+ {}"),
                hexadecimal("BAR Offset", 0xFFFFF0, "Offset={}", digits=8),
            ),
            "2.3.2",
        ),
    ),
    lspci="SATA HBA",
    short="SATA",
)

ADVANCED_FEATURES = Capability(
    "Advanced Features",
    r.PCI_CAP_ID_AF,
    "Advanced Capabilities for Conventional PCI ECN",
    (
        Register(
            "AF Capabilities",
            r.PCI_AF_CAP,
            1,
            (
                flag("Transactions Pending Capable", 0x01, "TP"),
                flag("Function Level Reset Capable", r.PCI_AF_CAP_FLR, "FLR"),
            ),
            lspci="AFCap",
        ),
        Register("AF Control", r.PCI_AF_CTRL, 1, (flag("Initiate FLR", r.PCI_AF_CTRL_FLR, "FLR"),), lspci="AFCtrl"),
        Register("AF Status", 5, 1, (flag("Transactions Pending", 0x01, "TP"),), lspci="AFStatus"),
    ),
    lspci="PCI Advanced Features",
    short="AF",
)

# -- Enhanced Allocation (PCIe 6.0, 7.8.5): fixed regions in the place of BARs -------------------------------------

_PROPERTIES = {
    0x00: "memory space, non-prefetchable",
    0x01: "memory space, prefetchable",
    0x02: "I/O space",
    0x03: "VF memory space, prefetchable",
    0x04: "VF memory space, non-prefetchable",
    0x05: "allocation behind bridge, non-prefetchable memory",
    0x06: "allocation behind bridge, prefetchable memory",
    0x07: "allocation behind bridge, I/O space",
    0xFD: "memory space resource unavailable for use",
    0xFE: "I/O space resource unavailable for use",
    0xFF: "entry unavailable for use",
}
_SECONDARY_PROPERTIES = {**_PROPERTIES, 0xFF: "entry unavailable for use, PrimaryProperties should be used"}


def _property(names: Mapping[int, str]) -> Callable[[int], str]:
    return lambda value: names.get(value) or f"[{value:02x}]"


_INDICATED = {
    **{index: f"BAR {index}" for index in range(6)},
    6: "resource behind function",
    7: "not indicated",
    8: "expansion ROM",
    **{9 + index: f"VF-BAR {index}" for index in range(6)},
    15: "reserved",
}


def _first_entry(around: Surroundings) -> bool:
    return around.get(2, 1) & 0x3F > 0


ENHANCED_ALLOCATION = Capability(
    "Enhanced Allocation",
    r.PCI_CAP_ID_EA,
    "PCIe 6.0, 7.8.5",
    (
        Register("EA First DW", 2, 1, (number("Num Entries", 0x3F, "NumEntries={}"),), "7.8.5.1"),
        Register(
            "EA Second DW",
            4,
            2,
            (
                number("Fixed Secondary Bus Number", 0xFF, "secondary={}"),
                number("Fixed Subordinate Bus Number", 0xFF00, "subordinate={}"),
            ),
            "7.8.5.2",
            present=_on_bridge,
        ),
        *(
            Register(
                "EA Entry 0",
                at,
                4,
                (
                    number("Entry Size", 0x07, "EntrySize={}"),
                    choice("BAR Equivalent Indicator", 0xF0, _INDICATED, "BAR Equivalent Indicator: {}"),
                    computed("Primary Properties", 0xFF00, _property(_PROPERTIES), "PrimaryProperties: {}"),
                    computed(
                        "Secondary Properties", 0xFF0000, _property(_SECONDARY_PROPERTIES), "SecondaryProperties: {}"
                    ),
                    flag("Writable", 0x40000000, "Writable"),
                    flag("Enable", 0x80000000, "Enable"),
                ),
                "7.8.5.3",
                "Entry 0",
                present,
            )
            for at, present in (
                (4, lambda around: _first_entry(around) and not _on_bridge(around)),
                (8, lambda around: _first_entry(around) and _on_bridge(around)),
            )
        ),
    ),
    lspci="Enhanced Allocation",
    short="EA",
)

CAPABILITIES = (
    PCIX,
    AGP,
    VPD,
    SLOT_ID,
    COMPACT_PCI_HOT_SWAP,
    HOT_PLUG_CONTROLLER,
    BRIDGE_SUBSYSTEM,
    DEBUG_PORT,
    SATA,
    ADVANCED_FEATURES,
    ENHANCED_ALLOCATION,
)
