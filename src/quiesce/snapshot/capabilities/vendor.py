"""Structures that vendors define: virtio among the conventional ones, VSEC, DVSEC (CXL among them), DOE, IDE.

Virtio (virtio 1.2, 4.1.4)::

     31     24 23     16 15     8 7      0
    |cfg_type |cap_len  |  next  |   09   |  00
    |      padding      |   id   |  bar   |  04
    |              offset                 |  08
    |              length                 |  0c
    |        notify_off_multiplier        |  10    kind Notify
"""

from __future__ import annotations

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.capabilities.field import (
    Capability,
    Register,
    Surroundings,
    choice,
    flag,
    hexadecimal,
    number,
)

_VIRTIO_KINDS = {1: "CommonCfg", 2: "Notify", 3: "ISR", 4: "DeviceCfg"}


def _is_virtio(around: Surroundings) -> bool:
    return around.vendor_id == r.PCI_VENDOR_ID_REDHAT_QUMRANET and 0x1000 <= around.device_id <= 0x107F


def _has_place(around: Surroundings) -> bool:
    return around.get(2, 1) >= 16


VIRTIO = Capability(
    "Vendor-Specific: virtio",
    r.PCI_CAP_ID_VNDR,
    "virtio 1.2, 4.1.4",
    (
        Register("Length", 2, 1, (number("cap_len", 0xFF),)),
        Register("Kind", 3, 1, (choice("cfg_type", 0xFF, _VIRTIO_KINDS, "VirtIO: {}", other="<unknown>"),)),
        Register("Region", 4, 1, (number("bar", 0xFF, "BAR={}"),), lspci="BAR=", present=_has_place),
        Register("Offset", 8, 4, (hexadecimal("offset", 0xFFFFFFFF, "offset={}"),), lspci="BAR=", present=_has_place),
        Register("Size", 12, 4, (hexadecimal("length", 0xFFFFFFFF, "size={}"),), lspci="BAR=", present=_has_place),
        Register(
            "Notification Multiplier",
            16,
            4,
            (hexadecimal("notify_off_multiplier", 0xFFFFFFFF, "multiplier={}"),),
            lspci="BAR=",
            present=lambda around: around.get(2, 1) >= 20 and around.get(3, 1) == 2,
        ),
    ),
    lspci="Vendor Specific Information: VirtIO",
    short="virtio",
)

VENDOR = Capability(
    "Vendor-Specific",
    r.PCI_CAP_ID_VNDR,
    "PCIe 6.0, 7.9.4",
    (Register("Length", 2, 1, (hexadecimal("Capability Length", 0xFF, "Len={}"),), "7.9.4"),),
    lspci="Vendor Specific Information",
    short="VNDR",
    variants=((_is_virtio, VIRTIO),),
)

VSEC = Capability(
    "Vendor-Specific Extended Capability",
    r.PCI_EXT_CAP_ID_VNDR,
    "PCIe 6.0, 7.9.5",
    (
        Register(
            "Vendor-Specific Header",
            4,
            4,
            (
                hexadecimal("VSEC ID", 0xFFFF, "ID={}"),
                number("VSEC Rev", 0xF0000, "Rev={}"),
                hexadecimal("VSEC Length", 0xFFF00000, "Len={}"),
            ),
            "7.9.5.2",
        ),
    ),
    extended=True,
    lspci="Vendor Specific Information",
    short="VSEC",
)

_DVSEC_HEADERS = (
    Register(
        "DVSEC Header 1",
        4,
        4,
        (
            hexadecimal("DVSEC Vendor ID", 0xFFFF, "Vendor={}"),
            number("DVSEC Revision", 0xF0000, "Rev={}"),
            number("DVSEC Length", 0xFFF00000, "Len={}"),
        ),
        "7.9.6.2",
    ),
    Register("DVSEC Header 2", 8, 2, (hexadecimal("DVSEC ID", 0xFFFF, "(?<!Vendor )ID={}"),), "7.9.6.3"),
)
_CXL_VENDOR = 0x1E98
_CXL_KINDS = {
    0x0: "PCIe DVSEC for CXL Devices",
    0x2: "Non-CXL Function Map",
    0x3: "CXL Extensions DVSEC for Ports",
    0x4: "GPF DVSEC for CXL Ports",
    0x5: "GPF DVSEC for CXL Devices",
    0x7: "PCIe DVSEC for Flex Bus Port",
    0x8: "Register Locator",
    0x9: "MLD",
    0xA: "PCIe DVSEC for Test Capability",
}

CXL = Capability(
    "Designated Vendor-Specific: CXL",
    r.PCI_EXT_CAP_ID_DVSEC,
    "CXL 3.0, 8.1",
    (*_DVSEC_HEADERS, Register("CXL DVSEC", 8, 2, (choice("Kind", 0xFFFF, _CXL_KINDS),), "8.1.1")),
    extended=True,
    lspci="Designated Vendor-Specific",
    short="CXL",
)

DVSEC = Capability(
    "Designated Vendor-Specific",
    r.PCI_EXT_CAP_ID_DVSEC,
    "PCIe 6.0, 7.9.6",
    _DVSEC_HEADERS,
    extended=True,
    lspci="Designated Vendor-Specific",
    short="DVSEC",
    variants=((lambda around: around.get(4, 2) == _CXL_VENDOR, CXL),),
)

DOE = Capability(
    "Data Object Exchange",
    0x2E,
    "PCIe 6.0, 7.9.24",
    (
        Register(
            "DOE Capabilities",
            4,
            4,
            (
                flag("DOE Interrupt Support", 0x01, "IntSup"),
                hexadecimal("DOE Interrupt Message Number", 0xFFE, "Interrupt Message Number {}"),
            ),
            "7.9.24.2",
            "DOECap",
        ),
        Register(
            "DOE Control",
            8,
            4,
            (flag("DOE Abort", 0x01), flag("DOE Interrupt Enable", 0x02, "IntEn"), flag("DOE Go", 0x80000000)),
            "7.9.24.3",
            "DOECtl",
        ),
        Register(
            "DOE Status",
            12,
            4,
            (
                flag("DOE Busy", 0x01, "Busy"),
                flag("DOE Interrupt Status", 0x02, "IntSta"),
                flag("DOE Error", 0x04, "Error"),
                flag("Data Object Ready", 0x80000000, "ObjectReady"),
            ),
            "7.9.24.4",
            "DOESta",
        ),
    ),
    extended=True,
    lspci="Data Object Exchange",
    short="DOE",
)

IDE = Capability(
    "Integrity and Data Encryption",
    0x30,
    "PCIe 6.0, 7.9.26",
    (
        Register(
            "IDE Capability",
            4,
            4,
            (
                flag("Link IDE Stream Supported", 0x01),
                flag("Selective IDE Streams Supported", 0x02),
                flag("Flow-Through IDE Stream Supported", 0x04),
                flag("Partial Header Encryption Supported", 0x08),
                flag("Aggregation Supported", 0x10),
                flag("PCRC Supported", 0x20),
                flag("IDE_KM Protocol Supported", 0x40),
                flag("Selective IDE for Configuration Requests Supported", 0x80),
                number("Supported Algorithms", 0x1F00),
                number("Number of TCs Supported for Link IDE", 0xE000, plus=1),
                number("Number of Selective IDE Streams Supported", 0xFF0000, plus=1),
                flag("TEE-Limited Stream Supported", 0x1000000),
            ),
            "7.9.26.2",
        ),
        Register("IDE Control", 8, 4, (flag("Flow-Through IDE Stream Enabled", 0x04),), "7.9.26.3"),
    ),
    extended=True,
    lspci="Integrity & Data Encryption",
    short="IDE",
)

CAPABILITIES = (VENDOR, VSEC, DVSEC, DOE, IDE)
