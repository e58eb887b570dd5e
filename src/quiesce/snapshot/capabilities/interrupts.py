"""Interrupts: MSI, MSI-X, and HyperTransport's MSI mapping.

MSI with 64-bit address and masking (PCIe 6.0, 7.7.1); without either, what follows moves up::

     31                 16 15      8 7       0
    |   Message Control   |  next   |   05    |  00
    |            Message Address              |  04
    |         Message Upper Address           |  08
    |                     |   Message Data    |  0c
    |               Mask Bits                 |  10
    |              Pending Bits               |  14

MSI-X (PCIe 6.0, 7.7.2)::

    |   Message Control   |  next   |   11    |  00
    |        Table Offset             |  BIR  |  04
    |         PBA Offset              |  BIR  |  08
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


def _wide(around: Surroundings) -> bool:
    return bool(around.get(r.PCI_MSI_FLAGS, 2) & r.PCI_MSI_FLAGS_64BIT)


def _maskable(around: Surroundings) -> bool:
    return bool(around.get(r.PCI_MSI_FLAGS, 2) & r.PCI_MSI_FLAGS_MASKBIT)


def _vectors(value: int) -> str:
    return str(1 << value)


def _address(wide: bool) -> tuple[Register, ...]:
    """Return the registers behind Message Control, whose place depends on the width of the address."""

    def present(around: Surroundings) -> bool:
        return _wide(around) == wide

    def masked(around: Surroundings) -> bool:
        return present(around) and _maskable(around)

    data, mask, pending = (
        (r.PCI_MSI_DATA_64, r.PCI_MSI_MASK_64, r.PCI_MSI_PENDING_64)
        if wide
        else (r.PCI_MSI_DATA_32, r.PCI_MSI_MASK_32, r.PCI_MSI_PENDING_32)
    )
    size, ones = (8, 0xFFFFFFFFFFFFFFFF) if wide else (4, 0xFFFFFFFF)
    return (
        Register(
            "Message Address",
            r.PCI_MSI_ADDRESS_LO,
            size,
            (hexadecimal("Message Address", ones, "^{}"),),
            "7.7.1.3",
            "Address",
            present,
        ),
        Register(
            "Message Data", data, 2, (hexadecimal("Message Data", 0xFFFF, "Data: {}"),), "7.7.1.5", "Address", present
        ),
        Register("Mask Bits", mask, 4, (hexadecimal("Mask Bits", 0xFFFFFFFF, "^{}"),), "7.7.1.7", "Masking", masked),
        Register(
            "Pending Bits",
            pending,
            4,
            (hexadecimal("Pending Bits", 0xFFFFFFFF, "Pending: {}"),),
            "7.7.1.8",
            "Masking",
            masked,
        ),
    )


MSI = Capability(
    "MSI",
    r.PCI_CAP_ID_MSI,
    "PCIe 6.0, 7.7.1",
    (
        Register(
            "Message Control",
            r.PCI_MSI_FLAGS,
            2,
            (
                flag("MSI Enable", r.PCI_MSI_FLAGS_ENABLE, "Enable"),
                computed("Multiple Message Capable", r.PCI_MSI_FLAGS_QMASK, _vectors, r"Count=\d+/{}"),
                computed("Multiple Message Enable", r.PCI_MSI_FLAGS_QSIZE, _vectors, "Count={}/"),
                flag("64-bit Address Capable", r.PCI_MSI_FLAGS_64BIT, "64bit"),
                flag("Per-Vector Masking Capable", r.PCI_MSI_FLAGS_MASKBIT, "Maskable"),
                flag("Extended Message Data Capable", 0x0200),
                flag("Extended Message Data Enable", 0x0400),
            ),
            "7.7.1.2",
        ),
        *_address(wide=False),
        *_address(wide=True),
    ),
    lspci="MSI:",
    short="MSI",
)

MSIX = Capability(
    "MSI-X",
    r.PCI_CAP_ID_MSIX,
    "PCIe 6.0, 7.7.2",
    (
        Register(
            "Message Control",
            r.PCI_MSIX_FLAGS,
            2,
            (
                number("Table Size", r.PCI_MSIX_FLAGS_QSIZE, "Count={}", plus=1),
                flag("Function Mask", r.PCI_MSIX_FLAGS_MASKALL, "Masked"),
                flag("MSI-X Enable", r.PCI_MSIX_FLAGS_ENABLE, "Enable"),
            ),
            "7.7.2.2",
        ),
        Register(
            "Table Offset/Table BIR",
            r.PCI_MSIX_TABLE,
            4,
            (number("Table BIR", 0x07, "BAR={}"), hexadecimal("Table Offset", 0xFFFFFFF8, "offset={}", shift=3)),
            "7.7.2.3",
            "Vector table",
        ),
        Register(
            "PBA Offset/PBA BIR",
            r.PCI_MSIX_PBA,
            4,
            (number("PBA BIR", 0x07, "BAR={}"), hexadecimal("PBA Offset", 0xFFFFFFF8, "offset={}", shift=3)),
            "7.7.2.4",
            "PBA",
        ),
    ),
    lspci="MSI-X:",
    short="MSI-X",
)

CAPABILITIES = (MSI, MSIX)
