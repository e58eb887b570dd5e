"""Virtual functions and resizable regions: SR-IOV, MR-IOV, Resizable BAR, VF Resizable BAR, Enhanced Allocation.

SR-IOV (PCIe 6.0, 9.3.3)::

     31                    16 15                     0
    |           SR-IOV Capabilities                   |  04
    |     SR-IOV Status       |    SR-IOV Control     |  08
    |       TotalVFs          |      InitialVFs       |  0c
    |   Function Dep. Link    |        NumVFs         |  10
    |       VF Stride         |    First VF Offset    |  14
    |      VF Device ID       |                       |  18
    |           Supported Page Sizes                  |  1c
    |           System Page Size                      |  20
    |           VF BAR 0 ... 5                        |  24 ... 38
    |      VF Migration State Array Offset      | BIR |  3c
"""

from __future__ import annotations

from collections.abc import Callable

from quiesce.snapshot import pci_regs as r
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


def _vf_bar(index: int, wide: bool) -> Callable[[Surroundings], bool]:
    """Return whether a VF BAR starts a region of that width; the upper half of a wide one starts none."""

    def present(around: Surroundings) -> bool:
        at = 0
        while True:
            value = around.get(r.PCI_SRIOV_BAR + 4 * at, 4)
            value = 0 if value == 0xFFFFFFFF else value
            if at >= index:
                return at == index and value != 0 and (value & 0x06 == 0x04) == wide
            at += 2 if value & 0x06 == 0x04 else 1

    return present


def _vf_bars() -> tuple[Register, ...]:
    found: list[Register] = []
    for index in range(6):
        for wide in (False, True) if index < 5 else (False,):
            ones, digits = (0xFFFFFFFFFFFFFFF0, 16) if wide else (0xFFFFFFF0, 8)
            fields = (
                choice("Type", 0x06, ("32-bit", "64-bit", "64-bit", "64-bit"), r"\({},"),
                choice("Prefetchable", 0x08, ("non-prefetchable", "prefetchable"), "bit, {}"),
                hexadecimal("VF Base Address", ones, "Memory at {}", digits=digits, shift=4),
            )
            at, size, line = r.PCI_SRIOV_BAR + 4 * index, 8 if wide else 4, f"Region {index}"
            found.append(Register(f"VF BAR {index}", at, size, fields, "9.3.3.14", line, _vf_bar(index, wide)))
    return tuple(found)


SRIOV = Capability(
    "Single Root I/O Virtualization",
    r.PCI_EXT_CAP_ID_SRIOV,
    "PCIe 6.0, 9.3.3",
    (
        Register(
            "SR-IOV Capabilities",
            r.PCI_SRIOV_CAP,
            4,
            (
                flag("VF Migration Capable", 0x01, "Migration"),
                flag("ARI Capable Hierarchy Preserved", 0x02),
                flag("VF 10-Bit Tag Requester Supported", 0x04, "10BitTagReq"),
                hexadecimal("VF Migration Interrupt Message Number", 0xFFE00000, "Interrupt Message Number: {}"),
            ),
            "9.3.3.2",
            "IOVCap",
        ),
        Register(
            "SR-IOV Control",
            r.PCI_SRIOV_CTRL,
            2,
            (
                flag("VF Enable", r.PCI_SRIOV_CTRL_VFE, "Enable"),
                flag("VF Migration Enable", 0x02, "Migration"),
                flag("VF Migration Interrupt Enable", 0x04, "Interrupt"),
                flag("VF MSE", r.PCI_SRIOV_CTRL_MSE, "MSE"),
                flag("ARI Capable Hierarchy", r.PCI_SRIOV_CTRL_ARI, "ARIHierarchy"),
                flag("VF 10-Bit Tag Requester Enable", 0x20, "10BitTagReq"),
            ),
            "9.3.3.3",
            "IOVCtl",
        ),
        Register(
            "SR-IOV Status",
            r.PCI_SRIOV_STATUS,
            2,
            (flag("VF Migration Status", 0x01, "Migration"),),
            "9.3.3.4",
            "IOVSta",
        ),
        Register(
            "InitialVFs", r.PCI_SRIOV_INITIAL_VF, 2, (number("InitialVFs", 0xFFFF, "^{}"),), "9.3.3.5", "Initial VFs"
        ),
        Register(
            "TotalVFs",
            r.PCI_SRIOV_TOTAL_VF,
            2,
            (number("TotalVFs", 0xFFFF, "Total VFs: {}"),),
            "9.3.3.6",
            "Initial VFs",
        ),
        Register(
            "NumVFs", r.PCI_SRIOV_NUM_VF, 2, (number("NumVFs", 0xFFFF, "Number of VFs: {}"),), "9.3.3.7", "Initial VFs"
        ),
        Register(
            "Function Dependency Link",
            r.PCI_SRIOV_FUNC_LINK,
            1,
            (hexadecimal("Function Dependency Link", 0xFF, "Function Dependency Link: {}"),),
            "9.3.3.8",
            "Initial VFs",
        ),
        Register(
            "First VF Offset",
            r.PCI_SRIOV_VF_OFFSET,
            2,
            (number("First VF Offset", 0xFFFF, "^{}"),),
            "9.3.3.9",
            "VF offset",
        ),
        Register(
            "VF Stride", r.PCI_SRIOV_VF_STRIDE, 2, (number("VF Stride", 0xFFFF, "stride: {}"),), "9.3.3.10", "VF offset"
        ),
        Register(
            "VF Device ID",
            r.PCI_SRIOV_VF_DID,
            2,
            (hexadecimal("VF Device ID", 0xFFFF, "Device ID: {}"),),
            "9.3.3.11",
            "VF offset",
        ),
        Register(
            "Supported Page Sizes",
            r.PCI_SRIOV_SUP_PGSIZE,
            4,
            (hexadecimal("Supported Page Sizes", 0xFFFFFFFF, "^{}"),),
            "9.3.3.12",
            "Supported Page Size",
        ),
        Register(
            "System Page Size",
            r.PCI_SRIOV_SYS_PGSIZE,
            4,
            (hexadecimal("System Page Size", 0xFFFFFFFF, "System Page Size: {}"),),
            "9.3.3.13",
            "Supported Page Size",
        ),
        *_vf_bars(),
        Register(
            "VF Migration State Array Offset",
            0x3C,
            4,
            (
                hexadecimal("VF Migration State BIR", 0x07, "BIR: {}"),
                hexadecimal("VF Migration State Offset", 0xFFFFFFF8, "offset: {}", shift=3),
            ),
            "9.3.3.15",
            "VF Migration",
        ),
    ),
    extended=True,
    lspci="Single Root I/O Virtualization",
    short="SR-IOV",
)

MRIOV = Capability(
    "Multi-Root I/O Virtualization",
    0x11,
    "MR-IOV 1.0",
    extended=True,
    lspci="Multi-Root I/O Virtualization",
    short="MR-IOV",
)


_UNITS = ("MB", "GB", "TB", "PB", "EB")
_LARGEST = 43
"""Binary logarithm, in MB, of the largest size that can be encoded: 8 EB."""


def size_of(value: int) -> str:
    """Spell a size given as its binary logarithm in MB."""
    return f"{1 << value % 10}{_UNITS[value // 10]}" if value <= _LARGEST else "<unknown>"


def _sizes(value: int) -> str:
    """Spell the supported sizes: bits 4 to 31 of Capability, then bits 16 to 31 of Control, both from 1 MB on."""
    low, high = value & 0x0FFFFFFF, value >> 44
    sizes = [size_of(bit) for bit in range(44) if (low | high << 28) >> bit & 1]
    return " ".join(sizes) if sizes else "none"


def _bars(around: Surroundings) -> int:
    return around.get(8, 4) >> 5 & 7


def _resizable(name: str, cap_id: int, section: str, lspci: str, short: str) -> Capability:
    return Capability(
        name,
        cap_id,
        section,
        (
            Register(
                "Resizable BAR",
                4,
                8,
                (
                    number("BAR Index", 0x07 << 32),
                    number("Number of Resizable BARs", 0xE0 << 32),
                    computed("BAR Size", 0x3F00 << 32, size_of, "current size: {},"),
                    computed("Supported Sizes", 0xFFFFFFF0 | 0xFFFF << 48, _sizes, "supported: {}$"),
                ),
                "7.8.6.2",
                "BAR {}",
                count=_bars,
                stride=8,
            ),
        ),
        extended=True,
        lspci=lspci,
        short=short,
    )


REBAR = _resizable("Resizable BAR", r.PCI_EXT_CAP_ID_REBAR, "PCIe 6.0, 7.8.6", "Physical Resizable BAR", "REBAR")
VF_REBAR = _resizable("VF Resizable BAR", 0x24, "PCIe 6.0, 9.3.7.4", "Virtual Resizable BAR", "VF-REBAR")

CAPABILITIES = (SRIOV, MRIOV, REBAR, VF_REBAR)
