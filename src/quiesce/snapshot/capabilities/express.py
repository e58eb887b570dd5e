"""The PCI Express capability (PCIe 6.0, 7.5.3)::

 31                 16 15      8 7       0
| PCI Express Cap. Reg |  next   |   10   |  00
|          Device Capabilities            |  04
|   Device Status      |  Device Control  |  08
|           Link Capabilities             |  0c
|    Link Status       |  Link Control    |  10
|           Slot Capabilities             |  14   ports with a slot
|    Slot Status       |  Slot Control    |  18
|  Root Capabilities   |  Root Control    |  1c   root ports, event collectors
|              Root Status                |  20
|         Device Capabilities 2           |  24   from version 2 on, as 04 to 18 above
"""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities.express_link import LINK, LINK_2
from quiesce.snapshot.capabilities.field import (
    Capability,
    Register,
    Surroundings,
    choice,
    computed,
    flag,
    hexadecimal,
    number,
)

PORT_TYPES = {
    r.PCI_EXP_TYPE_ENDPOINT: "Endpoint",
    r.PCI_EXP_TYPE_LEG_END: "Legacy Endpoint",
    r.PCI_EXP_TYPE_ROOT_PORT: "Root Port",
    r.PCI_EXP_TYPE_UPSTREAM: "Upstream Port",
    r.PCI_EXP_TYPE_DOWNSTREAM: "Downstream Port",
    r.PCI_EXP_TYPE_PCI_BRIDGE: "PCI-Express to PCI/PCI-X Bridge",
    r.PCI_EXP_TYPE_PCIE_BRIDGE: "PCI/PCI-X to PCI-Express Bridge",
    r.PCI_EXP_TYPE_RC_END: "Root Complex Integrated Endpoint",
    r.PCI_EXP_TYPE_RC_EC: "Root Complex Event Collector",
}
_WITH_SLOT = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_DOWNSTREAM, r.PCI_EXP_TYPE_PCIE_BRIDGE)
_ENDPOINT_L0S = ("<64ns", "<128ns", "<256ns", "<512ns", "<1us", "<2us", "<4us", "unlimited")
_ENDPOINT_L1 = ("<1us", "<2us", "<4us", "<8us", "<16us", "<32us", "<64us", "unlimited")


def bytes_of(value: int) -> str:
    """Spell a payload or request size."""
    return f"{128 << value} bytes"


def watts(value: int) -> str:
    """Spell a slot power limit: 8 bits of value, 2 bits that say by which power of ten it is divided. Undivided values
    from 240 on stand for steps of 25 W."""
    amount, scale = value & 0xFF, value >> 8
    if scale == 0 and amount >= 0xF0:
        return ">600W" if amount == 0xFF else f"{250 + 25 * (amount - 0xF0)}W"
    return f"{amount / 10**scale:g}W"


def version_2(around: Surroundings) -> bool:
    """Return whether the second half of the registers is there."""
    return around.get(r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_VERS >= 2


def has_slot(around: Surroundings) -> bool:
    """Return whether the port has a slot."""
    return around.port_type in _WITH_SLOT and bool(around.get(r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_SLOT)


def _has_root(around: Surroundings) -> bool:
    return around.port_type in (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_RC_EC)


FLAGS = Register(
    "PCI Express Capabilities",
    r.PCI_EXP_FLAGS,
    2,
    (
        number("Capability Version", r.PCI_EXP_FLAGS_VERS, r"\(v{}\)"),
        choice("Device/Port Type", r.PCI_EXP_FLAGS_TYPE, PORT_TYPES, r"\) {}(?=,| \(Slot)", other="Unknown type"),
        flag("Slot Implemented", r.PCI_EXP_FLAGS_SLOT, "Slot"),
        hexadecimal("Interrupt Message Number", r.PCI_EXP_FLAGS_IRQ, "MSI {}"),
    ),
    "7.5.3.2",
)

DEVICE = (
    Register(
        "Device Capabilities",
        r.PCI_EXP_DEVCAP,
        4,
        (
            computed("Max_Payload_Size Supported", 0x07, bytes_of, "MaxPayload {}"),
            computed("Phantom Functions Supported", 0x18, lambda value: str((1 << value) - 1), "PhantFunc {}"),
            flag("Extended Tag Field Supported", 0x20, "ExtTag"),
            choice("Endpoint L0s Acceptable Latency", 0x1C0, _ENDPOINT_L0S, "L0s {}"),
            choice("Endpoint L1 Acceptable Latency", 0xE00, _ENDPOINT_L1, "L1 {}"),
            flag("Attention Button Present", 0x1000, "AttnBtn"),
            flag("Attention Indicator Present", 0x2000, "AttnInd"),
            flag("Power Indicator Present", 0x4000, "PwrInd"),
            flag("Role-Based Error Reporting", 0x8000, "RBE"),
            flag("ERR_COR Subclass Capable", 0x10000),
            computed("Captured Slot Power Limit", 0x0FFC0000, watts, "SlotPowerLimit {}"),
            flag("Function Level Reset Capability", r.PCI_EXP_DEVCAP_FLR, "FLReset"),
        ),
        "7.5.3.3",
        "DevCap",
    ),
    Register(
        "Device Control",
        r.PCI_EXP_DEVCTL,
        2,
        (
            flag("Correctable Error Reporting Enable", 0x01, "CorrErr"),
            flag("Non-Fatal Error Reporting Enable", 0x02, "NonFatalErr"),
            flag("Fatal Error Reporting Enable", 0x04, "FatalErr"),
            flag("Unsupported Request Reporting Enable", 0x08, "UnsupReq"),
            flag("Enable Relaxed Ordering", 0x10, "RlxdOrd"),
            computed("Max_Payload_Size", 0xE0, bytes_of, "MaxPayload {}"),
            flag("Extended Tag Field Enable", 0x100, "ExtTag"),
            flag("Phantom Functions Enable", 0x200, "PhantFunc"),
            flag("Aux Power PM Enable", 0x400, "AuxPwr"),
            flag("Enable No Snoop", 0x800, "NoSnoop"),
            computed("Max_Read_Request_Size", 0x7000, bytes_of, "MaxReadReq {}"),
            flag(
                "Bridge Configuration Retry Enable / Initiate FLR", r.PCI_EXP_DEVCTL_BCR_FLR, "(?:BrConfRtry|FLReset)"
            ),
        ),
        "7.5.3.4",
        "DevCtl",
    ),
    Register(
        "Device Status",
        r.PCI_EXP_DEVSTA,
        2,
        (
            flag("Correctable Error Detected", 0x01, "CorrErr"),
            flag("Non-Fatal Error Detected", 0x02, "NonFatalErr"),
            flag("Fatal Error Detected", 0x04, "FatalErr"),
            flag("Unsupported Request Detected", 0x08, "UnsupReq"),
            flag("AUX Power Detected", 0x10, "AuxPwr"),
            flag("Transactions Pending", r.PCI_EXP_DEVSTA_TRPND, "TransPend"),
            flag("Emergency Power Reduction Detected", 0x40),
        ),
        "7.5.3.5",
        "DevSta",
    ),
)

_INDICATOR = ("Unknown", "On", "Blink", "Off")

SLOT = (
    Register(
        "Slot Capabilities",
        r.PCI_EXP_SLTCAP,
        4,
        (
            flag("Attention Button Present", r.PCI_EXP_SLTCAP_ABP, "AttnBtn"),
            flag("Power Controller Present", r.PCI_EXP_SLTCAP_PCP, "PwrCtrl"),
            flag("MRL Sensor Present", 0x04, "MRL"),
            flag("Attention Indicator Present", 0x08, "AttnInd"),
            flag("Power Indicator Present", 0x10, "PwrInd"),
            flag("Hot-Plug Surprise", r.PCI_EXP_SLTCAP_HPS, "Surprise"),
            flag("Hot-Plug Capable", r.PCI_EXP_SLTCAP_HPC, "HotPlug"),
            computed("Slot Power Limit", 0x1FF80, watts, "PowerLimit {}"),
            flag("Electromechanical Interlock Present", 0x20000, "Interlock"),
            flag("No Command Completed Support", 0x40000, "NoCompl"),
            number("Physical Slot Number", 0xFFF80000, "Slot #{}"),
        ),
        "7.5.3.9",
        "SltCap",
        has_slot,
    ),
    Register(
        "Slot Control",
        r.PCI_EXP_SLTCTL,
        2,
        (
            flag("Attention Button Pressed Enable", 0x01, "AttnBtn"),
            flag("Power Fault Detected Enable", 0x02, "PwrFlt"),
            flag("MRL Sensor Changed Enable", 0x04, "MRL"),
            flag("Presence Detect Changed Enable", r.PCI_EXP_SLTCTL_PDCE, "PresDet"),
            flag("Command Completed Interrupt Enable", r.PCI_EXP_SLTCTL_CCIE, "CmdCplt"),
            flag("Hot-Plug Interrupt Enable", r.PCI_EXP_SLTCTL_HPIE, "HPIrq"),
            choice("Attention Indicator Control", 0xC0, _INDICATOR, "AttnInd {}"),
            choice("Power Indicator Control", 0x300, _INDICATOR, "PwrInd {}"),
            flag("Power Controller Control", r.PCI_EXP_SLTCTL_PCC, "Power"),
            flag("Electromechanical Interlock Control", 0x800, "Interlock"),
            flag("Data Link Layer State Changed Enable", r.PCI_EXP_SLTCTL_DLLSCE, "LinkChg"),
            flag("Auto Slot Power Limit Disable", 0x2000),
            flag("In-Band PD Disable", 0x4000),
        ),
        "7.5.3.10",
        "SltCtl",
        has_slot,
    ),
    Register(
        "Slot Status",
        r.PCI_EXP_SLTSTA,
        2,
        (
            flag("Attention Button Pressed", r.PCI_EXP_SLTSTA_ABP, "AttnBtn"),
            flag("Power Fault Detected", 0x02, "PowerFlt"),
            flag("MRL Sensor Changed", 0x04, "Changed:.* MRL"),
            flag("Presence Detect Changed", r.PCI_EXP_SLTSTA_PDC, "Changed:.* PresDet"),
            flag("Command Completed", r.PCI_EXP_SLTSTA_CC, "CmdCplt"),
            flag("MRL Sensor State", 0x20, "MRL"),
            flag("Presence Detect State", r.PCI_EXP_SLTSTA_PDS, "PresDet"),
            flag("Electromechanical Interlock Status", 0x80, "Interlock"),
            flag("Data Link Layer State Changed", r.PCI_EXP_SLTSTA_DLLSC, "LinkState"),
        ),
        "7.5.3.11",
        "SltSta",
        has_slot,
    ),
)

ROOT = (
    Register(
        "Root Control",
        r.PCI_EXP_RTCTL,
        2,
        (
            flag("System Error on Correctable Error Enable", 0x01, "ErrCorrectable"),
            flag("System Error on Non-Fatal Error Enable", 0x02, "ErrNon-Fatal"),
            flag("System Error on Fatal Error Enable", 0x04, "ErrFatal"),
            flag("PME Interrupt Enable", 0x08, "PMEIntEna"),
            flag("Configuration RRS Software Visibility Enable", 0x10, "CRSVisible"),
        ),
        "7.5.3.12",
        "RootCtl",
        _has_root,
    ),
    Register(
        "Root Capabilities",
        r.PCI_EXP_RTCTL + 2,
        2,
        (flag("Configuration RRS Software Visibility", 0x01, "CRSVisible"),),
        "7.5.3.13",
        "RootCap",
        _has_root,
    ),
    Register(
        "Root Status",
        r.PCI_EXP_RTSTA,
        4,
        (
            hexadecimal("PME Requester ID", 0xFFFF, "PME ReqID {}"),
            flag("PME Status", 0x10000, "PMEStatus"),
            flag("PME Pending", 0x20000, "PMEPending"),
        ),
        "7.5.3.14",
        "RootSta",
        _has_root,
    ),
)

_TIMEOUT_RANGES = {
    0: "Not Supported",
    1: "Range A",
    2: "Range B",
    3: "Range AB",
    6: "Range BC",
    7: "Range ABC",
    14: "Range BCD",
    15: "Range ABCD",
}
_TIMEOUTS = {
    0: "50us to 50ms",
    1: "50us to 100us",
    2: "1ms to 10ms",
    5: "16ms to 55ms",
    6: "65ms to 210ms",
    9: "260ms to 900ms",
    10: "1s to 3.5s",
    13: "4s to 13s",
    14: "17s to 64s",
}

DEVICE_2 = (
    Register(
        "Device Capabilities 2",
        r.PCI_EXP_DEVCAP2,
        4,
        (
            choice("Completion Timeout Ranges Supported", 0x0F, _TIMEOUT_RANGES, "Timeout: {}", other="Unknown"),
            flag("Completion Timeout Disable Supported", 0x10, "TimeoutDis"),
            flag("ARI Forwarding Supported", r.PCI_EXP_DEVCAP2_ARI, "ARIFwd"),
            flag("AtomicOp Routing Supported", 0x40, "Routing"),
            flag("32-bit AtomicOp Completer Supported", 0x80, "32bit"),
            flag("64-bit AtomicOp Completer Supported", 0x100, "64bit"),
            flag("128-bit CAS Completer Supported", 0x200, "128bitCAS"),
            flag("No RO-enabled PR-PR Passing", 0x400, "NROPrPrP"),
            flag("LTR Mechanism Supported", 0x800, "LTR"),
            flag("TPH Completer Supported", 0x1000, "TPHComp"),
            flag("Extended TPH Completer Supported", 0x2000, "ExtTPHComp"),
            choice(
                "LN System CLS",
                0xC000,
                ("Not Supported", "64byte cachelines", "128byte cachelines"),
                "LN System CLS {}",
                other="Reserved",
            ),
            flag("10-Bit Tag Completer Supported", 0x10000, "10BitTagComp"),
            flag("10-Bit Tag Requester Supported", 0x20000, "10BitTagReq"),
            choice(
                "OBFF Supported",
                0xC0000,
                ("Not Supported", "Via message", "Via WAKE#", "Via message/WAKE#"),
                "OBFF {},",
            ),
            flag("Extended Fmt Field Supported", 0x100000, "ExtFmt"),
            flag("End-End TLP Prefix Supported", 0x200000, "EETLPPrefix"),
            computed("Max End-End TLP Prefixes", 0xC00000, lambda value: str(value or 4), "MaxEETLPPrefixes {}"),
            choice(
                "Emergency Power Reduction Supported",
                0x3000000,
                ("Not Supported", "Dev Specific", "Form Factor Dev Specific"),
                "EmergencyPowerReduction {},",
                other="Reserved",
            ),
            flag("Emergency Power Reduction Initialization Required", 0x4000000, "EmergencyPowerReductionInit"),
            flag("FRS Supported", 0x80000000, "FRS"),
        ),
        "7.5.3.15",
        "DevCap2",
        version_2,
    ),
    Register(
        "Device Control 2",
        r.PCI_EXP_DEVCTL2,
        2,
        (
            choice("Completion Timeout Value", 0x0F, _TIMEOUTS, "Timeout: {}", other="Unknown"),
            flag("Completion Timeout Disable", 0x10, "TimeoutDis"),
            flag("ARI Forwarding Enable", r.PCI_EXP_DEVCTL2_ARI, "ARIFwd"),
            flag("AtomicOp Requester Enable", 0x40, "ReqEn"),
            flag("AtomicOp Egress Blocking", 0x80, "EgressBlck"),
            flag("IDO Request Enable", 0x100, "IDOReq"),
            flag("IDO Completion Enable", 0x200, "IDOCompl"),
            flag("LTR Mechanism Enable", 0x400, "LTR"),
            flag("Emergency Power Reduction Request", 0x800, "EmergencyPowerReductionReq"),
            flag("10-Bit Tag Requester Enable", 0x1000, "10BitTagReq"),
            choice("OBFF Enable", 0x6000, ("Disabled", "Via message A", "Via message B", "Via WAKE#"), "OBFF {},"),
            flag("End-End TLP Prefix Blocking", 0x8000, "EETLPPrefixBlk"),
        ),
        "7.5.3.16",
        "DevCtl2",
        version_2,
    ),
)

EXPRESS = Capability(
    "PCI Express",
    r.PCI_CAP_ID_EXP,
    "PCIe 6.0, 7.5.3",
    (FLAGS, *DEVICE, *LINK, *SLOT, *ROOT, *DEVICE_2, *LINK_2),
    lspci="Express",
    short="PCIe",
)

CAPABILITIES = (EXPRESS,)
