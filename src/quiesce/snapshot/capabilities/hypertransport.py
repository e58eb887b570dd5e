"""HyperTransport: MSI mapping, the interfaces of a link, and the kinds that have no registers of interest.

The upper bits of the command word say what kind of capability it is: 3 bits for interfaces, 5 for the others
(HyperTransport I/O Link 3.10, 7.1)::

     15    13 12             5 4       0
    |  000   |  interface, primary       |
    |  001   |  interface, secondary     |
    |  10101 |  MSI mapping: bit 0 Enable, bit 1 Fixed
"""

from __future__ import annotations

from collections.abc import Callable

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

_SECTION = "HyperTransport 3.10, 7"
_KINDS = {
    0x08: "Switch",
    0x10: "Interrupt Discovery and Configuration",
    0x11: "Revision ID",
    0x12: "UnitID Clumping",
    0x13: "Extended Configuration Space Access",
    0x14: "Address Mapping",
    0x15: "MSI Mapping",
    0x16: "DirectRoute",
    0x17: "VCSet",
    0x18: "Retry Mode",
    0x19: "X86 (reserved)",
}


def _kind(code: int) -> Callable[[Surroundings], bool]:
    return lambda around: around.get(2, 2) >> 11 == code


def _interface(code: int) -> Callable[[Surroundings], bool]:
    return lambda around: around.get(2, 2) >> 13 == code


MSI_MAPPING = Capability(
    "HyperTransport MSI Mapping",
    r.PCI_CAP_ID_HT,
    _SECTION + ".12",
    (
        Register(
            "Command",
            r.HT_MSI_FLAGS,
            2,
            (flag("Enable", r.HT_MSI_FLAGS_ENABLE, "Enable"), flag("Fixed", r.HT_MSI_FLAGS_FIXED, "Fixed")),
        ),
        Register(
            "Mapping Address",
            4,
            8,
            (computed("Mapping Address Base", (1 << 64) - (1 << 20), lambda value: f"{value << 20:016x}", "^{}"),),
            lspci="Mapping Address Base",
            present=lambda around: not around.get(2, 2) & r.HT_MSI_FLAGS_FIXED,
        ),
    ),
    lspci="HyperTransport: MSI Mapping",
    short="HT-MSI",
)

_WIDTHS = ("8bit", "16bit", "[2]", "32bit", "2bit", "4bit", "[6]", "N/C")
_FREQUENCIES = (
    *("200MHz", "300MHz", "400MHz", "500MHz", "600MHz", "800MHz", "1.0GHz", "1.2GHz", "1.4GHz", "1.6GHz"),
    *("[a]", "[b]", "[c]", "[d]", "[e]", "Vend"),
)


def _link(control: int, config: int, errors: int, end: str) -> tuple[Register, ...]:
    """Return the registers of one link; ``end`` is its number as lspci prints it."""
    return (
        Register(
            f"Link Control{end}",
            control,
            2,
            (
                flag("CRC Flood Enable", 0x02, "CFlE"),
                flag("CRC Start Test", 0x04, "CST"),
                flag("CRC Force Error", 0x08, "CFE"),
                flag("Link Failure", 0x10, "<LkFail"),
                flag("Initialization Complete", 0x20, "Init"),
                flag("End of Chain", 0x40, "EOC"),
                flag("Transmitter Off", 0x80, "TXO"),
                hexadecimal("CRC Error", 0xF00, "<CRCErr={}"),
                flag("Isochronous Flow Control Enable", 0x1000, "IsocEn"),
                flag("LDTSTOP# Tristate Enable", 0x2000, "LSEn"),
                flag("Extended CTL Time", 0x4000, "ExtCTL"),
                flag("64-bit Addressing Enable", 0x8000, "64b"),
            ),
            lspci=f"Link Control{end}",
        ),
        Register(
            f"Link Configuration{end}",
            config,
            2,
            (
                choice("Max Link Width In", 0x07, _WIDTHS, "MLWI={}"),
                flag("Doubleword Flow Control In", 0x08, "DwFcIn"),
                choice("Max Link Width Out", 0x70, _WIDTHS, "MLWO={}"),
                flag("Doubleword Flow Control Out", 0x80, "DwFcOut"),
                choice("Link Width In", 0x700, _WIDTHS, " LWI={}"),
                flag("Doubleword Flow Control In Enable", 0x800, "DwFcInEn"),
                choice("Link Width Out", 0x7000, _WIDTHS, " LWO={}"),
                flag("Doubleword Flow Control Out Enable", 0x8000, "DwFcOutEn"),
            ),
            lspci=f"Link Config{end}",
        ),
        Register(
            f"Link Frequency{end}",
            errors,
            1,
            (choice("Link Frequency", 0x0F, _FREQUENCIES, "^{}"),),
            lspci=f"Link Frequency{end}",
        ),
        Register(
            f"Link Error{end}",
            errors,
            1,
            (
                flag("Protocol Error", 0x10, "<Prot"),
                flag("Overflow Error", 0x20, "<Ovfl"),
                flag("End of Chain Error", 0x40, "<EOC"),
                flag("CTL Timeout", 0x80, "CTLTm"),
            ),
            lspci=f"Link Error{end}",
        ),
    )


def _revision(at: int) -> Register:
    return Register(
        "Revision ID",
        at,
        1,
        (computed("Revision", 0xFF, lambda value: f"{value >> 5}.{value & 0x1F:02}", "^{}"),),
        lspci="Revision ID",
    )


_RATES = tuple(flag(f"{name} Supported", 1 << bit, name) for bit, name in enumerate(_FREQUENCIES) if "[" not in name)
_FEATURES = tuple(
    flag(name, 1 << bit, word)
    for bit, (name, word) in enumerate(
        (
            ("Isochronous Flow Control", "IsocFC"),
            ("LDTSTOP#", "LDTSTOP"),
            ("CRC Test Mode", "CRCTM"),
            ("Extended CTL Time Required", "ECTLT"),
            ("64-bit Addressing", "64bA"),
            ("UnitID Reorder Disable", "UIDRD"),
        )
    )
)


def _rates(at: int, end: str) -> Register:
    """Return the frequencies that a link can have; ``end`` is its number as lspci prints it."""
    return Register(f"Link Frequency Capability{end}", at, 2, _RATES, lspci=f"Link Frequency Capability{end}")


def _features(at: int) -> Register:
    return Register("Feature Capability", at, 1, _FEATURES, lspci="Feature Capability")


_PRIMARY_COMMAND: tuple[Field, ...] = (
    number("Base UnitID", 0x1F, "BaseUnitID={}"),
    number("Unit Count", 0x3E0, "UnitCnt={}"),
    flag("Master Host", 0x400, "MastHost"),
    flag("Default Direction", 0x800, "DefDir"),
    flag("Drop on Uninitialized Link", 0x1000, "DUL"),
)
_SECONDARY_COMMAND: tuple[Field, ...] = (
    flag("Warm Reset", 0x01, "WarmRst"),
    flag("Double Ended", 0x02, "DblEnd"),
    number("Device Number", 0x7C, "DevNum={}"),
    flag("Chain Side", 0x80, "ChainSide"),
    flag("Host Hide", 0x100, "HostHide"),
    flag("Act as Slave", 0x400, "Slave"),
    flag("Host Inbound End of Chain Error", 0x800, "<EOCErr"),
    flag("Drop on Uninitialized Link", 0x1000, "DUL"),
)

PRIMARY = Capability(
    "HyperTransport Slave or Primary Interface",
    r.PCI_CAP_ID_HT,
    _SECTION + ".5",
    (
        Register("Command", 2, 2, _PRIMARY_COMMAND, lspci="Command"),
        _revision(12),
        *_link(4, 6, 13, " 0"),
        _rates(14, " 0"),
        _features(16),
        _rates(18, " 1"),
        *_link(8, 10, 17, " 1"),
    ),
    lspci="HyperTransport: Slave or Primary",
    short="HT-primary",
)
SECONDARY = Capability(
    "HyperTransport Host or Secondary Interface",
    r.PCI_CAP_ID_HT,
    _SECTION + ".6",
    (
        Register("Command", 2, 2, _SECONDARY_COMMAND, lspci="Command"),
        _revision(8),
        *_link(4, 6, 9, ""),
        _rates(10, ""),
        _features(12),
    ),
    lspci="HyperTransport: Host or Secondary",
    short="HT-secondary",
)

HYPERTRANSPORT = Capability(
    "HyperTransport",
    r.PCI_CAP_ID_HT,
    _SECTION,
    (
        Register(
            "Command",
            2,
            2,
            (
                computed(
                    "Capability Type", 0xF800, lambda code: _KINDS.get(code) or f"#{code:02x}", "HyperTransport: {}"
                ),
            ),
        ),
    ),
    lspci="HyperTransport",
    short="HT",
    variants=((_kind(0x15), MSI_MAPPING), (_interface(0), PRIMARY), (_interface(1), SECONDARY)),
)

CAPABILITIES = (HYPERTRANSPORT,)
