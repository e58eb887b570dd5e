"""Traffic and timing: virtual channels, root complex links, multicast, hints, time measurement, serial number, FRS."""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities.field import (
    Capability,
    Field,
    Register,
    Surroundings,
    choice,
    computed,
    flag,
    hexadecimal,
    number,
)

# -- Virtual Channel (PCIe 6.0, 7.9.1): port registers, then three words for each virtual channel ------------------

_PORT_ARBITERS = ("Fixed", "WRR32", "WRR64", "WRR128", "??4", "??5", "??6", "??7")
_VC_ARBITERS = ("Fixed", "WRR32", "WRR64", "WRR128", "TWRR128", "WRR256", "??6", "??7")


def _channels(around: Surroundings) -> int:
    return (around.get(4, 1) & 7) + 1


def _arbiters(names: tuple[str, ...], before: str) -> tuple[Field, ...]:
    return tuple(
        flag(f"{name} Arbitration", 1 << bit, f"{before}{name}") for bit, name in enumerate(names) if "?" not in name
    )


_VC_REGISTERS = (
    Register(
        "Port VC Capability 1",
        4,
        4,
        (
            number("Extended VC Count", 0x07),
            number("Low Priority Extended VC Count", 0x70, "LPEVC={}"),
            choice("Reference Clock", 0x300, {0: "100ns", 1: "??1", 2: "??2", 3: "??3"}, "RefClk={}"),
            computed("Port Arbitration Table Entry Size", 0xC00, lambda value: str(1 << value), "PATEntryBits={}"),
        ),
        "7.9.1.2",
        "Caps",
    ),
    Register(
        "Port VC Capability 2",
        8,
        4,
        (*_arbiters(_PORT_ARBITERS[:4], ""), hexadecimal("VC Arbitration Table Offset", 0xFF000000)),
        "7.9.1.3",
        "Arb",
    ),
    Register(
        "Port VC Control",
        12,
        2,
        (choice("VC Arbitration Select", 0x0E, _PORT_ARBITERS, "ArbSelect={}"),),
        "7.9.1.4",
        "Ctrl",
    ),
    Register("Port VC Status", 14, 2, (flag("VC Arbitration Table Status", 0x01, "InProgress"),), "7.9.1.5", "Status"),
    Register(
        "VC Resource Capability",
        0x10,
        4,
        (
            *_arbiters(_VC_ARBITERS[:6], r"Arb:.*(?<=\s)"),
            flag("Reject Snoop Transactions", 0x8000, "RejSnoopTrans"),
            number("Maximum Time Slots", 0x7F0000, "MaxTimeSlots={}", plus=1),
            hexadecimal("Port Arbitration Table Offset", 0xFF000000, "PATOffset={}"),
        ),
        "7.9.1.6",
        "VC{}",
        count=_channels,
        stride=12,
    ),
    Register(
        "VC Resource Control",
        0x14,
        4,
        (
            hexadecimal("TC/VC Map", 0xFF, "TC/VC={}"),
            choice("Port Arbitration Select", 0xE0000, _VC_ARBITERS, "ArbSelect={}"),
            number("VC ID", 0x07000000, "ID={}"),
            flag("VC Enable", 0x80000000, "Enable"),
        ),
        "7.9.1.7",
        "VC{}",
        count=_channels,
        stride=12,
    ),
    Register(
        "VC Resource Status",
        0x1A,
        2,
        (
            flag("Port Arbitration Table Status", 0x01, "InProgress"),
            flag("VC Negotiation Pending", 0x02, "NegoPending"),
        ),
        "7.9.1.8",
        "VC{}",
        count=_channels,
        stride=12,
    ),
)

VIRTUAL_CHANNEL, VIRTUAL_CHANNEL_9 = (
    Capability(
        "Virtual Channel", cap_id, "PCIe 6.0, 7.9.1", _VC_REGISTERS, extended=True, lspci="Virtual Channel", short="VC"
    )
    for cap_id in (r.PCI_EXT_CAP_ID_VC, r.PCI_EXT_CAP_ID_VC9)
)
MULTI_FUNCTION_VC = Capability(
    "Multi-Function Virtual Channel",
    r.PCI_EXT_CAP_ID_MFVC,
    "PCIe 6.0, 7.9.2",
    extended=True,
    lspci="Multi-Function Virtual Channel",
    short="MFVC",
)

# -- Root Complex Link Declaration (PCIe 6.0, 7.9.8) ---------------------------------------------------------------

_ELEMENTS = ("Config", "Egress", "Internal")


def _links(around: Surroundings) -> int:
    return around.get(5, 1)


ROOT_COMPLEX_LINK = Capability(
    "Root Complex Link Declaration",
    r.PCI_EXT_CAP_ID_RCLD,
    "PCIe 6.0, 7.9.8",
    (
        Register(
            "Element Self Description",
            4,
            4,
            (
                computed("Element Type", 0x0F, lambda v: _ELEMENTS[v] if v < 3 else f"??{v}", "EltType={}"),
                number("Number of Link Entries", 0xFF00),
                hexadecimal("Component ID", 0xFF0000, "ComponentID={}"),
                hexadecimal("Port Number", 0xFF000000, "PortNumber={}"),
            ),
            "7.9.8.2",
            "Desc",
        ),
        Register(
            "Link Description",
            0x10,
            4,
            (
                flag("Link Valid", 0x01, "LinkValid"),
                choice("Link Type", 0x02, ("MemMapped", "Config"), "LinkType={}"),
                flag("Associate RCRB Header", 0x04, "AssocRCRB"),
                hexadecimal("Target Component ID", 0xFF0000, "TargetComponent={}"),
                hexadecimal("Target Port Number", 0xFF000000, "TargetPort={}"),
            ),
            "7.9.8.3.1",
            "Link{}",
            count=_links,
            stride=16,
        ),
        Register(
            "Link Address",
            0x18,
            8,
            (hexadecimal("Link Address", (1 << 64) - 1, r"Addr:\s*(?:\S+\s+CfgSpace=)?{}"),),
            "7.9.8.3.2",
            "Link{}",
            count=_links,
            stride=16,
        ),
    ),
    extended=True,
    lspci="Root Complex Link",
    short="RCLINK",
)

ROOT_COMPLEX_INTERNAL_LINK = Capability(
    "Root Complex Internal Link Control",
    0x06,
    "PCIe 6.0, 7.9.9",
    extended=True,
    lspci="Root Complex Internal Link",
    short="RCILINK",
)

# -- Multicast (PCIe 6.0, 7.9.11) ----------------------------------------------------------------------------------

_ENDS = (r.PCI_EXP_TYPE_ENDPOINT, r.PCI_EXP_TYPE_RC_END)
_ALL = (1 << 64) - 1

MULTICAST = Capability(
    "Multicast",
    r.PCI_EXT_CAP_ID_MCAST,
    "PCIe 6.0, 7.9.11",
    (
        Register(
            "Multicast Capability",
            4,
            2,
            (
                number("MC_Max_Group", 0x3F, "MaxGroups {}", plus=1),
                number("MC_Window_Size_Requested", 0x3F00, "WindowSz {}"),
                flag("MC_ECRC_Regeneration_Supported", 0x8000, "ECRCRegen"),
            ),
            "7.9.11.2",
            "McastCap",
        ),
        Register(
            "Multicast Control",
            6,
            2,
            (number("MC_Num_Group", 0x3F, "NumGroups {}", plus=1), flag("MC_Enable", 0x8000, "Enable")),
            "7.9.11.3",
            "McastCtl",
        ),
        Register(
            "MC_Base_Address",
            8,
            8,
            (
                number("MC_Index_Position", 0x3F, "IndexPos {}"),
                hexadecimal("MC_Base_Address", _ALL - 0xFFF, "BaseAddr {}", shift=12),
            ),
            "7.9.11.4",
            "McastBAR",
        ),
        Register("MC_Receive", 16, 8, (hexadecimal("MC_Receive", _ALL, "^{}"),), "7.9.11.5", "McastReceiveVec"),
        Register("MC_Block_All", 24, 8, (hexadecimal("MC_Block_All", _ALL, "^{}"),), "7.9.11.6", "McastBlockAllVec"),
        Register(
            "MC_Block_Untranslated",
            32,
            8,
            (hexadecimal("MC_Block_Untranslated", _ALL, "^{}"),),
            "7.9.11.7",
            "McastBlockUntransVec",
        ),
        Register(
            "MC_Overlay_BAR",
            40,
            8,
            (
                number("MC_Overlay_Size", 0x3F, "OverlaySize {}"),
                hexadecimal("MC_Overlay_BAR", _ALL - 0x3F, "BaseAddr {}", shift=6),
            ),
            "7.9.11.8",
            "McastOverlayBAR",
            lambda around: around.port_type not in _ENDS,
        ),
    ),
    extended=True,
    lspci="Multicast",
    short="Multicast",
)

# -- small ones -------------------------------------------------------------------------------------------------


def _serial(value: int) -> str:
    return value.to_bytes(8, "big").hex("-")


SERIAL_NUMBER = Capability(
    "Device Serial Number",
    r.PCI_EXT_CAP_ID_DSN,
    "PCIe 6.0, 7.9.3",
    (
        Register(
            "Serial Number", 4, 8, (computed("Serial Number", _ALL, _serial, "Device Serial Number {}"),), "7.9.3.2"
        ),
    ),
    extended=True,
    lspci="Device Serial Number",
    short="DSN",
)


def _st_table(around: Surroundings) -> int:
    """Return the size of the steering tag table, if it is in the capability."""
    return (around.get(6, 2) & 0x7FF) + 1 if around.get(4, 4) >> 9 & 3 == 1 else 0


_TABLES = ("No steering table available", "Steering table in TPH capability structure", "Steering table in MSI-X table")

TPH = Capability(
    "TPH Requester",
    r.PCI_EXT_CAP_ID_TPH,
    "PCIe 6.0, 7.9.13",
    (
        Register(
            "TPH Requester Capability",
            4,
            4,
            (
                flag("No ST Mode Supported", 0x01),
                flag("Interrupt Vector Mode Supported", 0x02),
                flag("Device Specific Mode Supported", 0x04),
                flag("Extended TPH Requester Supported", 0x100),
                choice("ST Table Location", 0x600, _TABLES, other="Reserved steering table location"),
                number("ST Table Size", 0x7FF0000, plus=1),
            ),
            "7.9.13.2",
        ),
        Register(
            "TPH Requester Control",
            8,
            4,
            (
                choice("ST Mode Select", 0x07, ("No ST", "Interrupt Vector", "Device Specific")),
                choice("TPH Requester Enable", 0x300, ("none", "TPH", "reserved", "TPH and Extended TPH")),
            ),
            "7.9.13.3",
        ),
        Register("ST Table Entry", 12, 2, (hexadecimal("ST", 0xFFFF),), "7.9.13.4", count=_st_table, stride=2),
    ),
    extended=True,
    lspci="Transaction Processing Hints",
    short="TPH",
)


def _granularity(zero: str) -> dict[int, str]:
    return {0: zero, **{value: f"{value}ns" for value in range(1, 255)}, 255: "Greater than 254ns"}


PTM = Capability(
    "Precision Time Measurement",
    r.PCI_EXT_CAP_ID_PTM,
    "PCIe 6.0, 7.9.15",
    (
        Register(
            "PTM Capability",
            4,
            4,
            (
                flag("PTM Requester Capable", 0x01, "Requester:"),
                flag("PTM Responder Capable", 0x02, "Responder:"),
                flag("PTM Root Capable", 0x04, "Root:"),
                flag("ePTM Capable", 0x08),
            ),
            "7.9.15.2",
            "PTMCap",
        ),
        Register(
            "PTM Capability",
            4,
            4,
            (choice("Local Clock Granularity", 0xFF00, _granularity("Unimplemented"), "^{}"),),
            "7.9.15.2",
            "PTMClockGranularity",
        ),
        Register(
            "PTM Control",
            8,
            4,
            (flag("PTM Enable", 0x01, "Enabled:"), flag("Root Select", 0x02, "RootSelected:")),
            "7.9.15.3",
            "PTMControl",
        ),
        Register(
            "PTM Control",
            8,
            4,
            (choice("Effective Granularity", 0xFF00, _granularity("Unknown"), "^{}"),),
            "7.9.15.3",
            "PTMEffectiveGranularity",
        ),
    ),
    extended=True,
    lspci="Precision Time Measurement",
    short="PTM",
)

FRS = Capability(
    "FRS Queueing",
    0x21,
    "PCIe 6.0, 7.8.10",
    (
        Register(
            "FRS Queueing Capability",
            4,
            4,
            (number("FRS Queue Max Depth", 0xFFF), number("FRS Interrupt Message Number", 0x1F0000)),
            "7.8.10.2",
        ),
        Register(
            "FRS Queueing Status",
            8,
            2,
            (flag("FRS Message Received", 0x01), flag("FRS Message Overflow", 0x02)),
            "7.8.10.3",
        ),
        Register("FRS Queueing Control", 10, 2, (flag("FRS Interrupt Enable", 0x01),), "7.8.10.4"),
    ),
    extended=True,
    lspci="FRS Queueing",
    short="FRS",
)


def _ready_time(value: int) -> str:
    """Spell a time: 9 bits of value, 3 bits that say by which power of 32 nanoseconds it is multiplied."""
    return f"{(value & 0x1FF) << 5 * (value >> 9)}ns"


READINESS = Capability(
    "Readiness Time Reporting",
    0x22,
    "PCIe 6.0, 7.9.16",
    (
        Register(
            "Readiness Time Reporting 1",
            4,
            4,
            (
                computed("Reset Time", 0xFFF, _ready_time),
                computed("DL_Up Time", 0xFFF000, _ready_time),
                flag("Valid", 0x80000000),
            ),
            "7.9.16.2",
        ),
        Register(
            "Readiness Time Reporting 2",
            8,
            4,
            (computed("FLR Time", 0xFFF, _ready_time), computed("D3hot to D0 Time", 0xFFF000, _ready_time)),
            "7.9.16.3",
        ),
    ),
    extended=True,
    lspci="Readiness Time Reporting",
    short="RTR",
)

CAPABILITIES = (
    VIRTUAL_CHANNEL,
    VIRTUAL_CHANNEL_9,
    MULTI_FUNCTION_VC,
    ROOT_COMPLEX_LINK,
    ROOT_COMPLEX_INTERNAL_LINK,
    MULTICAST,
    SERIAL_NUMBER,
    TPH,
    PTM,
    FRS,
    READINESS,
)
