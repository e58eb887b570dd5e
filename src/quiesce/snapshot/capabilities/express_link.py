"""Links: the link registers of the PCI Express capability and the capabilities that extend them.

A link register is there on every function but those inside the root complex (PCIe 6.0, 7.5.3.6).
"""

from __future__ import annotations

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

_SPEEDS = {1: "2.5GT/s", 2: "5GT/s", 3: "8GT/s", 4: "16GT/s", 5: "32GT/s", 6: "64GT/s"}
_TARGET_SPEEDS = {0: "2.5GT/s", **_SPEEDS}
_EXIT_L0S = ("<64ns", "<128ns", "<256ns", "<512ns", "<1us", "<2us", "<4us", "unlimited")
_EXIT_L1 = ("<1us", "<2us", "<4us", "<8us", "<16us", "<32us", "<64us", "unlimited")
_INSIDE = (r.PCI_EXP_TYPE_RC_END, r.PCI_EXP_TYPE_RC_EC)
_MARGINS = (
    "Normal Operating Range",
    "800-1200mV(full-swing)/400-700mV(half-swing)",
    *("200-400mV(full-swing)/100-200mV(half-swing)",) * 4,
)
_PRESETS = (
    "-6dB de-emphasis, 0dB preshoot",
    "-3.5dB de-emphasis, 0dB preshoot",
    "-4.4dB de-emphasis, 0dB preshoot",
    "-2.5dB de-emphasis, 0dB preshoot",
    "0dB de-emphasis, 0dB preshoot",
    "0dB de-emphasis, 1.9dB preshoot",
    "0dB de-emphasis, 2.5dB preshoot",
    "-6.0dB de-emphasis, 3.5dB preshoot",
    "-3.5dB de-emphasis, 3.5dB preshoot",
    "0dB de-emphasis, 3.5dB preshoot",
)
_CROSSLINK = ("unsupported", "Upstream Port", "Downstream Port", "incomplete")


def has_link(around: Surroundings) -> bool:
    """Return whether the function has a link of its own."""
    return around.port_type not in _INSIDE


def _has_link_2(around: Surroundings) -> bool:
    return has_link(around) and around.get(r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_VERS >= 2


def _speeds(value: int) -> str:
    """Spell the supported speeds as a range; bit 0 is 2.5 GT/s."""
    names = [_SPEEDS[bit + 1].removesuffix("GT/s") for bit in range(6) if value >> bit & 1]
    if not names:
        return "Unknown"
    return f"{names[0]}GT/s" if len(names) == 1 else f"{names[0]}-{names[-1]}GT/s"


LINK = (
    Register(
        "Link Capabilities",
        r.PCI_EXP_LNKCAP,
        4,
        (
            choice("Max Link Speed", 0x0F, _SPEEDS, "Speed {},", other="unknown"),
            number("Maximum Link Width", 0x3F0, "Width x{}"),
            choice("ASPM Support", 0xC00, ("not supported", "L0s", "L1", "L0s L1"), "ASPM {}(?=,| Clock)"),
            choice("L0s Exit Latency", 0x7000, _EXIT_L0S, "Exit Latency L0s {}"),
            choice("L1 Exit Latency", 0x38000, _EXIT_L1, "Exit Latency .*L1 {}"),
            flag("Clock Power Management", 0x40000, "ClockPM"),
            flag("Surprise Down Error Reporting Capable", 0x80000, "Surprise"),
            flag("Data Link Layer Link Active Reporting Capable", r.PCI_EXP_LNKCAP_DLLLARC, "LLActRep"),
            flag("Link Bandwidth Notification Capability", 0x200000, "BwNot"),
            flag("ASPM Optionality Compliance", 0x400000, "ASPMOptComp"),
            number("Port Number", 0xFF000000, "Port #{}"),
        ),
        "7.5.3.6",
        "LnkCap",
        has_link,
    ),
    Register(
        "Link Control",
        r.PCI_EXP_LNKCTL,
        2,
        (
            choice("ASPM Control", 0x03, ("Disabled", "L0s Enabled", "L1 Enabled", "L0s L1 Enabled"), "ASPM {};"),
            choice("Read Completion Boundary", 0x08, ("64 bytes", "128 bytes"), "RCB {}"),
            flag("Link Disable", r.PCI_EXP_LNKCTL_LD, "(?<=[;,] )Disabled"),
            flag("Retrain Link", 0x20),
            flag("Common Clock Configuration", 0x40, "CommClk"),
            flag("Extended Synch", 0x80, "ExtSynch"),
            flag("Enable Clock Power Management", 0x100, "ClockPM"),
            flag("Hardware Autonomous Width Disable", 0x200, "AutWidDis"),
            flag("Link Bandwidth Management Interrupt Enable", 0x400, "BWInt"),
            flag("Link Autonomous Bandwidth Interrupt Enable", 0x800, "AutBWInt"),
            number("DRS Signaling Control", 0xC000),
        ),
        "7.5.3.7",
        "LnkCtl",
        has_link,
    ),
    Register(
        "Link Status",
        r.PCI_EXP_LNKSTA,
        2,
        (
            choice("Current Link Speed", 0x0F, _SPEEDS, "Speed {}", other="unknown"),
            number("Negotiated Link Width", 0x3F0, "Width x{}"),
            flag("Training Error (until 1.0a)", 0x400, "TrErr"),
            flag("Link Training", 0x800, "Train"),
            flag("Slot Clock Configuration", 0x1000, "SlotClk"),
            flag("Data Link Layer Link Active", r.PCI_EXP_LNKSTA_DLLLA, "DLActive"),
            flag("Link Bandwidth Management Status", 0x4000, "BWMgmt"),
            flag("Link Autonomous Bandwidth Status", 0x8000, "ABWMgmt"),
        ),
        "7.5.3.8",
        "LnkSta",
        has_link,
    ),
)

LINK_2 = (
    Register(
        "Link Capabilities 2",
        0x2C,
        4,
        (
            computed("Supported Link Speeds Vector", 0xFE, _speeds, "Supported Link Speeds: {}"),
            flag("Crosslink Supported", 0x100, "Crosslink"),
            hexadecimal("Lower SKP OS Generation Supported Speeds Vector", 0xFE00),
            hexadecimal("Lower SKP OS Reception Supported Speeds Vector", 0x7F0000),
            flag("Retimer Presence Detect Supported", 0x800000, "Retimer"),
            flag("Two Retimers Presence Detect Supported", 0x1000000, "2Retimers"),
            flag("DRS Supported", 0x80000000, "DRS"),
        ),
        "7.5.3.18",
        "LnkCap2",
        _has_link_2,
    ),
    Register(
        "Link Control 2",
        r.PCI_EXP_LNKCTL2,
        2,
        (
            choice("Target Link Speed", 0x0F, _TARGET_SPEEDS, "Target Link Speed: {}", other="Unknown"),
            flag("Enter Compliance", 0x10, "EnterCompliance"),
            flag("Hardware Autonomous Speed Disable", 0x20, "SpeedDis"),
            choice("Selectable De-emphasis", 0x40, ("-6dB", "-3.5dB"), "Selectable De-emphasis: {}"),
            choice("Transmit Margin", 0x380, _MARGINS, "Transmit Margin: {}", other="Unknown"),
            flag("Enter Modified Compliance", 0x400, "EnterModifiedCompliance"),
            flag("Compliance SOS", 0x800, "ComplianceSOS"),
            choice(
                "Compliance Preset/De-emphasis", 0xF000, _PRESETS, "Compliance Preset/De-emphasis: {}", other="Unknown"
            ),
        ),
        "7.5.3.19",
        "LnkCtl2",
        _has_link_2,
    ),
    Register(
        "Link Status 2",
        0x32,
        2,
        (
            choice("Current De-emphasis Level", 0x01, ("-6dB", "-3.5dB"), "Current De-emphasis Level: {}"),
            flag("Equalization 8.0 GT/s Complete", 0x02, "EqualizationComplete"),
            flag("Equalization 8.0 GT/s Phase 1 Successful", 0x04, "EqualizationPhase1"),
            flag("Equalization 8.0 GT/s Phase 2 Successful", 0x08, "EqualizationPhase2"),
            flag("Equalization 8.0 GT/s Phase 3 Successful", 0x10, "EqualizationPhase3"),
            flag("Link Equalization Request 8.0 GT/s", 0x20, "LinkEqualizationRequest"),
            flag("Retimer Presence Detected", 0x40, "Retimer"),
            flag("Two Retimers Presence Detected", 0x80, "2Retimers"),
            choice("Crosslink Resolution", 0x300, _CROSSLINK, "CrosslinkRes: {}"),
            number("Downstream Component Presence", 0x7000),
            flag("DRS Message Received", 0x8000, "DRS"),
        ),
        "7.5.3.20",
        "LnkSta2",
        _has_link_2,
    ),
)


def _lanes(value: int) -> str:
    """Spell the lanes that had errors."""
    lanes = [str(lane) for lane in range(32) if value >> lane & 1]
    return f"LaneErr at lane: {' '.join(lanes)}" if lanes else "0"


SECONDARY = Capability(
    "Secondary PCI Express",
    r.PCI_EXT_CAP_ID_SECPCI,
    "PCIe 6.0, 7.7.3",
    (
        Register(
            "Link Control 3",
            4,
            4,
            (
                flag("Perform Equalization", 0x01, "PerformEqu"),
                flag("Link Equalization Request Interrupt Enable", 0x02, "LnkEquIntrruptEn"),
                hexadecimal("Enable Lower SKP OS Generation Vector", 0xFE00),
            ),
            "7.7.3.2",
            "LnkCtl3",
        ),
        Register(
            "Lane Error Status",
            8,
            4,
            (computed("Lane Error Status Bits", 0xFFFFFFFF, _lanes, "^{}"),),
            "7.7.3.3",
            "LaneErrStat",
        ),
    ),
    extended=True,
    lspci="Secondary PCI Express",
    short="SecPCIe",
)

_FEATURES = ("Scaled Flow Control", "Immediate Readiness", "Extended VC Count", "L0p Exit Latency")

DATA_LINK_FEATURE = Capability(
    "Data Link Feature",
    0x25,
    "PCIe 6.0, 7.7.4",
    (
        Register(
            "Data Link Feature Capabilities",
            4,
            4,
            (
                bitmap("Local Data Link Feature Supported", 0x7FFFFF, _FEATURES, between=", "),
                flag("Data Link Feature Exchange Enable", 0x80000000),
            ),
            "7.7.4.2",
        ),
        Register(
            "Data Link Feature Status",
            8,
            4,
            (
                bitmap("Remote Data Link Feature Supported", 0x7FFFFF, _FEATURES, between=", "),
                flag("Remote Data Link Feature Supported Valid", 0x80000000),
            ),
            "7.7.4.3",
        ),
    ),
    extended=True,
    lspci="Data Link Feature",
    short="DLF",
)


_STEPS = (
    "Equalization Complete",
    "Equalization Phase 1 Successful",
    "Equalization Phase 2 Successful",
    "Equalization Phase 3 Successful",
    "Link Equalization Request",
)


def _equalization(speed: str) -> tuple[Field, ...]:
    return tuple(flag(f"{step} {speed}", 1 << bit) for bit, step in enumerate(_STEPS))


PHYSICAL_16GT = Capability(
    "Physical Layer 16.0 GT/s",
    0x26,
    "PCIe 6.0, 7.7.5",
    (
        Register("16.0 GT/s Status", 12, 4, _equalization("16.0 GT/s"), "7.7.5.4"),
        Register("Local Data Parity Mismatch Status", 16, 4, (hexadecimal("Lanes", 0xFFFFFFFF),), "7.7.5.5"),
        Register("First Retimer Data Parity Mismatch Status", 20, 4, (hexadecimal("Lanes", 0xFFFFFFFF),), "7.7.5.6"),
        Register("Second Retimer Data Parity Mismatch Status", 24, 4, (hexadecimal("Lanes", 0xFFFFFFFF),), "7.7.5.7"),
    ),
    extended=True,
    lspci="Physical Layer 16.0 GT/s",
    short="16GT",
)

PHYSICAL_32GT = Capability(
    "Physical Layer 32.0 GT/s",
    0x2A,
    "PCIe 6.0, 7.7.6",
    (
        Register(
            "32.0 GT/s Capabilities",
            4,
            4,
            (
                flag("Equalization bypass to highest rate Supported", 0x01),
                flag("No Equalization Needed Supported", 0x02),
                flag("Modified TS Usage Mode 0 Supported - PCI Express", 0x100),
                flag("Modified TS Usage Mode 1 Supported - Training Set Message", 0x200),
                flag("Modified TS Usage Mode 2 Supported - Alternate Protocol", 0x400),
            ),
            "7.7.6.2",
        ),
        Register(
            "32.0 GT/s Control",
            8,
            4,
            (
                flag("Equalization bypass to highest rate Disable", 0x01),
                flag("No Equalization Needed Disable", 0x02),
                number("Modified TS Usage Mode Selected", 0x700),
            ),
            "7.7.6.3",
        ),
        Register(
            "32.0 GT/s Status",
            12,
            4,
            (
                *_equalization("32.0 GT/s"),
                flag("Modified TS Received", 0x20),
                number("Received Enhanced Link Behavior Control", 0xC0),
                flag("Transmitter Precoding On", 0x100),
                flag("Transmitter Precode Request", 0x200),
                flag("No Equalization Needed Received", 0x400),
            ),
            "7.7.6.4",
        ),
    ),
    extended=True,
    lspci="Physical Layer 32.0 GT/s",
    short="32GT",
)

LANE_MARGINING = Capability(
    "Lane Margining at the Receiver",
    0x27,
    "PCIe 6.0, 7.7.8",
    (
        Register("Margining Port Capabilities", 4, 2, (flag("Margining uses Driver Software", 0x01),), "7.7.8.2"),
        Register(
            "Margining Port Status",
            6,
            2,
            (flag("Margining Ready", 0x01), flag("Margining Software Ready", 0x02)),
            "7.7.8.3",
        ),
    ),
    extended=True,
    lspci="Lane Margining at the Receiver",
    short="LMR",
)

PMUX = Capability(
    "Protocol Multiplexing",
    0x1A,
    "PCIe 3.1, 7.31",
    (Register("PMUX Capability", 4, 4, (hexadecimal("PMUX Protocol Array Size", 0x3F),), "7.31.2"),),
    extended=True,
    lspci="Protocol Multiplexing",
    short="PMUX",
)

CAPABILITIES = (SECONDARY, DATA_LINK_FEATURE, PHYSICAL_16GT, PHYSICAL_32GT, LANE_MARGINING, PMUX)
