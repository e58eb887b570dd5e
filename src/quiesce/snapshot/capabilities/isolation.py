"""What grouping and address translation depend on: ACS, ARI, ATS, PRI, PASID.

ACS (PCIe 6.0, 7.7.11), where a bit of Control does something only if Capability has it too::

     31                    16 15                     0
    | next |v|      000d      (header)                |  00
    |      ACS Control        |    ACS Capability     |  04
    |   Egress Control Vector, if EC ...              |  08

     6  5  4  3  2  1  0
    |DT|EC|UF|CR|RR|TB|SV|
"""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities.field import (
    Capability,
    Register,
    Surroundings,
    computed,
    flag,
    hexadecimal,
    number,
)

ACS_BITS = (
    ("Source Validation", r.PCI_ACS_SV, "SrcValid"),
    ("Translation Blocking", r.PCI_ACS_TB, "TransBlk"),
    ("P2P Request Redirect", r.PCI_ACS_RR, "ReqRedir"),
    ("P2P Completion Redirect", r.PCI_ACS_CR, "CmpltRedir"),
    ("Upstream Forwarding", r.PCI_ACS_UF, "UpstreamFwd"),
    ("P2P Egress Control", r.PCI_ACS_EC, "EgressCtrl"),
    ("Direct Translated P2P", r.PCI_ACS_DT, "DirectTrans"),
)


def _egress(around: Surroundings) -> bool:
    return bool(around.get(r.PCI_ACS_CAP, 2) & r.PCI_ACS_EC)


def _egress_words(around: Surroundings) -> int:
    """Return how many words the vector has; a size field of 0 stands for 256 bits."""
    return -(-(around.get(r.PCI_ACS_CAP + 1, 1) or 256) // 32)


ACS = Capability(
    "Access Control Services",
    r.PCI_EXT_CAP_ID_ACS,
    "PCIe 6.0, 7.7.11",
    (
        Register(
            "ACS Capability",
            r.PCI_ACS_CAP,
            2,
            (
                *(flag(f"ACS {name}", mask, word) for name, mask, word in ACS_BITS),
                flag("ACS Enhanced Capability", 0x80),
                number("Egress Control Vector Size", 0xFF00),
            ),
            "7.7.11.2",
            "ACSCap",
        ),
        Register(
            "ACS Control",
            r.PCI_ACS_CTRL,
            2,
            (
                *(flag(f"ACS {name} Enable", mask, word) for name, mask, word in ACS_BITS),
                flag("ACS I/O Request Blocking Enable", 0x80),
                number("ACS DSP Memory Target Access Control", 0x300),
                number("ACS USP Memory Target Access Control", 0xC00),
                flag("ACS Unclaimed Request Redirect Control", 0x1000),
            ),
            "7.7.11.3",
            "ACSCtl",
        ),
        Register(
            "Egress Control Vector",
            8,
            4,
            (hexadecimal("Egress Control Vector", 0xFFFFFFFF),),
            "7.7.11.4",
            "",
            _egress,
            _egress_words,
            4,
        ),
    ),
    extended=True,
    lspci="Access Control Services",
    short="ACS",
)

ARI = Capability(
    "Alternative Routing-ID Interpretation",
    r.PCI_EXT_CAP_ID_ARI,
    "PCIe 6.0, 7.8.8",
    (
        Register(
            "ARI Capability",
            r.PCI_ARI_CAP,
            2,
            (
                flag("MFVC Function Groups Capability", 0x01, "MFVC"),
                flag("ACS Function Groups Capability", 0x02, "ACS"),
                number("Next Function Number", 0xFF00, "Next Function: {}"),
            ),
            "7.8.8.2",
            "ARICap",
        ),
        Register(
            "ARI Control",
            r.PCI_ARI_CTRL,
            2,
            (
                flag("MFVC Function Groups Enable", 0x01, "MFVC"),
                flag("ACS Function Groups Enable", 0x02, "ACS"),
                number("Function Group", 0x70, "Function Group: {}"),
            ),
            "7.8.8.3",
            "ARICtl",
        ),
    ),
    extended=True,
    lspci="Alternative Routing-ID Interpretation",
    short="ARI",
)

ATS = Capability(
    "Address Translation Service",
    r.PCI_EXT_CAP_ID_ATS,
    "PCIe 6.0, 10.5.1",
    (
        Register(
            "ATS Capability",
            r.PCI_ATS_CAP,
            2,
            (
                hexadecimal("Invalidate Queue Depth", 0x1F, "Invalidate Queue Depth: {}"),
                flag("Page Aligned Request", 0x20),
                flag("Global Invalidate Supported", 0x40),
                flag("Relaxed Ordering Supported", 0x80),
            ),
            "10.5.1.2",
            "ATSCap",
        ),
        Register(
            "ATS Control",
            r.PCI_ATS_CTRL,
            2,
            (
                hexadecimal("Smallest Translation Unit", 0x1F, "Smallest Translation Unit: {}"),
                flag("ATS Enable", r.PCI_ATS_CTRL_ENABLE, "Enable"),
            ),
            "10.5.1.3",
            "ATSCtl",
        ),
    ),
    extended=True,
    lspci="Address Translation Service",
    short="ATS",
)

PRI = Capability(
    "Page Request Interface",
    r.PCI_EXT_CAP_ID_PRI,
    "PCIe 6.0, 10.5.2",
    (
        Register(
            "Page Request Control",
            r.PCI_PRI_CTRL,
            2,
            (flag("Page Request Enable", 0x01, "Enable"), flag("Page Request Reset", 0x02, "Reset")),
            "10.5.2.2",
            "PRICtl",
        ),
        Register(
            "Page Request Status",
            6,
            2,
            (
                flag("Response Failure", 0x01, "RF"),
                flag("Unexpected Page Request Group Index", 0x02, "UPRGI"),
                flag("Stopped", 0x100, "Stopped"),
                flag("PRG Response PASID Required", 0x8000),
            ),
            "10.5.2.3",
            "PRISta",
        ),
        Register(
            "Outstanding Page Request Capacity",
            8,
            4,
            (hexadecimal("Outstanding Page Request Capacity", 0xFFFFFFFF, "^{}"),),
            "10.5.2.4",
            "Page Request Capacity",
        ),
        Register(
            "Outstanding Page Request Allocation",
            12,
            4,
            (hexadecimal("Outstanding Page Request Allocation", 0xFFFFFFFF, "Page Request Allocation: {}"),),
            "10.5.2.5",
            "Page Request Capacity",
        ),
    ),
    extended=True,
    lspci="Page Request Interface",
    short="PRI",
)

PASID = Capability(
    "Process Address Space ID",
    r.PCI_EXT_CAP_ID_PASID,
    "PCIe 6.0, 7.8.9",
    (
        Register(
            "PASID Capability",
            r.PCI_PASID_CAP,
            2,
            (
                flag("Execute Permission Supported", 0x02, "Exec"),
                flag("Privileged Mode Supported", 0x04, "Priv"),
                computed("Max PASID Width", 0x1F00, lambda value: f"{value:02x}", "Max PASID Width: {}"),
            ),
            "7.8.9.2",
            "PASIDCap",
        ),
        Register(
            "PASID Control",
            r.PCI_PASID_CTRL,
            2,
            (
                flag("PASID Enable", 0x01, "Enable"),
                flag("Execute Permission Enable", 0x02, "Exec"),
                flag("Privileged Mode Enable", 0x04, "Priv"),
            ),
            "7.8.9.3",
            "PASIDCtl",
        ),
    ),
    extended=True,
    lspci="Process Address Space ID",
    short="PASID",
)

CAPABILITIES = (ACS, ARI, ATS, PRI, PASID)
