"""Errors and containment: AER, DPC, root complex event collectors.

AER (PCIe 6.0, 7.8.4)::

    | Uncorrectable Error Status   |  04       bit  4 Data Link Protocol   16 Unexpected Completion
    | Uncorrectable Error Mask     |  08            5 Surprise Down        17 Receiver Overflow
    | Uncorrectable Error Severity |  0c           12 Poisoned TLP         18 Malformed TLP
    | Correctable Error Status     |  10           13 Flow Control         19 ECRC
    | Correctable Error Mask       |  14           14 Completion Timeout   20 Unsupported Request
    | Capabilities and Control     |  18           15 Completer Abort      21 ACS Violation
    | Header Log (16 bytes)        |  1c
    | Root Error Command, Status   |  2c 30    root ports and event collectors
    | Error Source Identification  |  34
"""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities.field import (
    Capability,
    Field,
    Register,
    Surroundings,
    computed,
    flag,
    hexadecimal,
    number,
)

_UNCORRECTABLE = (
    ("Data Link Protocol Error", 4, "DLP"),
    ("Surprise Down Error", 5, "SDES"),
    ("Poisoned TLP Received", 12, "TLP"),
    ("Flow Control Protocol Error", 13, "FCP"),
    ("Completion Timeout", 14, "CmpltTO"),
    ("Completer Abort", 15, "CmpltAbrt"),
    ("Unexpected Completion", 16, "UnxCmplt"),
    ("Receiver Overflow", 17, "RxOF"),
    ("Malformed TLP", 18, "MalfTLP"),
    ("ECRC Error", 19, "ECRC"),
    ("Unsupported Request Error", 20, "UnsupReq"),
    ("ACS Violation", 21, "ACSViol"),
    ("Uncorrectable Internal Error", 22, ""),
    ("MC Blocked TLP", 23, ""),
    ("AtomicOp Egress Blocked", 24, ""),
    ("TLP Prefix Blocked", 25, ""),
    ("Poisoned TLP Egress Blocked", 26, ""),
    ("DMWr Request Egress Blocked", 27, ""),
    ("IDE Check Failed", 28, ""),
    ("Misrouted IDE TLP", 29, ""),
    ("PCRC Check Failed", 30, ""),
)
_CORRECTABLE = (
    ("Receiver Error", 0, "RxErr"),
    ("Bad TLP", 6, "BadTLP"),
    ("Bad DLLP", 7, "BadDLLP"),
    ("REPLAY_NUM Rollover", 8, "Rollover"),
    ("Replay Timer Timeout", 12, "Timeout"),
    ("Advisory Non-Fatal Error", 13, "AdvNonFatalErr"),
    ("Corrected Internal Error", 14, ""),
    ("Header Log Overflow", 15, ""),
)


def _errors(errors: tuple[tuple[str, int, str], ...], what: str) -> tuple[Field, ...]:
    return tuple(flag(f"{name} {what}", 1 << bit, word) for name, bit, word in errors)


def _reports(around: Surroundings) -> bool:
    return around.port_type in (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_RC_EC)


def _words(value: int) -> str:
    """Spell 16 bytes as four words of 32 bits."""
    return " ".join(f"{value >> shift & 0xFFFFFFFF:08x}" for shift in (0, 32, 64, 96))


AER = Capability(
    "Advanced Error Reporting",
    r.PCI_EXT_CAP_ID_ERR,
    "PCIe 6.0, 7.8.4",
    (
        Register("Uncorrectable Error Status", 0x04, 4, _errors(_UNCORRECTABLE, "Status"), "7.8.4.2", "UESta"),
        Register("Uncorrectable Error Mask", 0x08, 4, _errors(_UNCORRECTABLE, "Mask"), "7.8.4.3", "UEMsk"),
        Register("Uncorrectable Error Severity", 0x0C, 4, _errors(_UNCORRECTABLE, "Severity"), "7.8.4.4", "UESvrt"),
        Register("Correctable Error Status", 0x10, 4, _errors(_CORRECTABLE, "Status"), "7.8.4.5", "CESta"),
        Register("Correctable Error Mask", 0x14, 4, _errors(_CORRECTABLE, "Mask"), "7.8.4.6", "CEMsk"),
        Register(
            "Advanced Error Capabilities and Control",
            0x18,
            4,
            (
                hexadecimal("First Error Pointer", 0x1F, "First Error Pointer: {}"),
                flag("ECRC Generation Capable", 0x20, "ECRCGenCap"),
                flag("ECRC Generation Enable", 0x40, "ECRCGenEn"),
                flag("ECRC Check Capable", 0x80, "ECRCChkCap"),
                flag("ECRC Check Enable", 0x100, "ECRCChkEn"),
                flag("Multiple Header Recording Capable", 0x200, "MultHdrRecCap"),
                flag("Multiple Header Recording Enable", 0x400, "MultHdrRecEn"),
                flag("TLP Prefix Log Present", 0x800, "TLPPfxPres"),
                flag("Completion Timeout Prefix/Header Log Capable", 0x1000, "HdrLogCap"),
            ),
            "7.8.4.7",
            "AERCap",
        ),
        Register(
            "Header Log", 0x1C, 16, (computed("Header Log", (1 << 128) - 1, _words, "^{}"),), "7.8.4.8", "HeaderLog"
        ),
        Register(
            "Root Error Command",
            0x2C,
            4,
            (
                flag("Correctable Error Reporting Enable", 0x01, "CERptEn"),
                flag("Non-Fatal Error Reporting Enable", 0x02, "NFERptEn"),
                flag("Fatal Error Reporting Enable", 0x04, "FERptEn"),
            ),
            "7.8.4.9",
            "RootCmd",
            _reports,
        ),
        Register(
            "Root Error Status",
            0x30,
            4,
            (
                flag("ERR_COR Received", 0x01, "CERcvd"),
                flag("Multiple ERR_COR Received", 0x02, "MultCERcvd"),
                flag("ERR_FATAL/NONFATAL Received", 0x04, "UERcvd"),
                flag("Multiple ERR_FATAL/NONFATAL Received", 0x08, "MultUERcvd"),
                flag("First Uncorrectable Fatal", 0x10, "FirstFatal"),
                flag("Non-Fatal Error Messages Received", 0x20, "NonFatalMsg"),
                flag("Fatal Error Messages Received", 0x40, "FatalMsg"),
                number("Advanced Error Interrupt Message Number", 0xF8000000, "IntMsg {}"),
            ),
            "7.8.4.10",
            "RootSta",
            _reports,
        ),
        Register(
            "Error Source Identification",
            0x34,
            4,
            (
                hexadecimal("ERR_COR Source Identification", 0xFFFF, "ERR_COR: {}"),
                hexadecimal("ERR_FATAL/NONFATAL Source Identification", 0xFFFF0000, "ERR_FATAL/NONFATAL: {}"),
            ),
            "7.8.4.11",
            "ErrorSrc",
            _reports,
        ),
    ),
    extended=True,
    lspci="Advanced Error Reporting",
    short="AER",
)

DPC = Capability(
    "Downstream Port Containment",
    r.PCI_EXT_CAP_ID_DPC,
    "PCIe 6.0, 7.9.14",
    (
        Register(
            "DPC Capability",
            4,
            2,
            (
                number("DPC Interrupt Message Number", 0x1F, "INT Msg #{}"),
                flag("RP Extensions for DPC", 0x20, "RPExt"),
                flag("Poisoned TLP Egress Blocking Supported", 0x40, "PoisonedTLP"),
                flag("DPC Software Triggering Supported", 0x80, "SwTrigger"),
                number("RP PIO Log Size", 0xF00, "RP PIO Log {}"),
                flag("DL_Active ERR_COR Signaling Supported", 0x1000, "DL_ActiveErr"),
            ),
            "7.9.14.2",
            "DpcCap",
        ),
        Register(
            "DPC Control",
            6,
            2,
            (
                number("DPC Trigger Enable", 0x03, "Trigger:{}"),
                flag("DPC Completion Control", 0x04, "Cmpl"),
                flag("DPC Interrupt Enable", 0x08, "INT"),
                flag("DPC ERR_COR Enable", 0x10, "ErrCor"),
                flag("Poisoned TLP Egress Blocking Enable", 0x20, "PoisonedTLP"),
                flag("DPC Software Trigger", 0x40, "SwTrigger"),
                flag("DL_Active ERR_COR Enable", 0x80, "DL_ActiveErr"),
            ),
            "7.9.14.3",
            "DpcCtl",
        ),
        Register(
            "DPC Status",
            8,
            2,
            (
                flag("DPC Trigger Status", 0x01, "Trigger"),
                hexadecimal("DPC Trigger Reason", 0x06, "Reason:{}", digits=2),
                flag("DPC Interrupt Status", 0x08, "INT"),
                flag("DPC RP Busy", 0x10, "RPBusy"),
                hexadecimal("DPC Trigger Reason Extension", 0x60, "TriggerExt:{}", digits=2),
                hexadecimal("RP PIO First Error Pointer", 0x1F00, "RP PIO ErrPtr:{}"),
            ),
            "7.9.14.4",
            "DpcSta",
        ),
        Register(
            "DPC Error Source ID", 10, 2, (hexadecimal("DPC Error Source ID", 0xFFFF, "^{}"),), "7.9.14.5", "Source"
        ),
    ),
    extended=True,
    lspci="Downstream Port Containment",
    short="DPC",
)


def _devices(bitmap: int) -> str:
    """Spell the numbers of the devices that a collector serves, as ranges."""
    numbers = [number for number in range(32) if bitmap >> number & 1]
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    ranges = (str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
    return f"RCiEP at Device(s): {', '.join(ranges)}" if numbers else "none"


EVENT_COLLECTOR = Capability(
    "Root Complex Event Collector Endpoint Association",
    r.PCI_EXT_CAP_ID_RCEC,
    "PCIe 6.0, 7.9.10",
    (
        Register(
            "Association Bitmap for RCiEPs",
            4,
            4,
            (computed("Association Bitmap", 0xFFFFFFFF, _devices, "^{}"),),
            "7.9.10.2",
            "RCiEPBitmap",
        ),
        Register(
            "RCEC Associated Bus Numbers",
            8,
            4,
            (
                hexadecimal("RCEC Next Bus", 0xFF00),
                hexadecimal("RCEC Last Bus", 0xFF0000),
            ),
            "7.9.10.3",
            "",
        ),
    ),
    extended=True,
    lspci="Root Complex Event Collector",
    short="RCEC",
)
CAPABILITIES = (AER, DPC, EVENT_COLLECTOR)
