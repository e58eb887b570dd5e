"""Power: power management, power budgeting, dynamic power allocation, latency tolerance, L1 substates.

The Power Management capability (PCI PM 1.2, 3.2; PCIe 6.0, 7.5.2)::

     31    24 23    16 15             8 7       0
    |       PMC       |      next      |   01    |  00
    |  data | bridge  |  PMCSR: status, state    |  04
"""

from __future__ import annotations

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

POWER_MANAGEMENT = Capability(
    "Power Management",
    r.PCI_CAP_ID_PM,
    "PCIe 6.0, 7.5.2",
    (
        Register("Version", r.PCI_PM_PMC, 2, (number("Version", 0x0007, "version {}"),), "7.5.2.1"),
        Register(
            "Power Management Capabilities",
            r.PCI_PM_PMC,
            2,
            (
                flag("PME Clock", 0x0008, "PMEClk"),
                flag("Immediate Readiness on Return to D0", 0x0010),
                flag("Device Specific Initialization", 0x0020, "DSI"),
                choice(
                    "Aux Current",
                    0x01C0,
                    tuple(f"{n}mA" for n in (0, 55, 100, 160, 220, 270, 320, 375)),
                    "AuxCurrent={}",
                ),
                flag("D1 Support", 0x0200, "D1"),
                flag("D2 Support", 0x0400, "D2"),
                flag("PME from D0", 0x0800, r"PME\(D0"),
                flag("PME from D1", 0x1000, r"PME.*D1"),
                flag("PME from D2", 0x2000, r"PME.*D2"),
                flag("PME from D3hot", 0x4000, "D3hot"),
                flag("PME from D3cold", 0x8000, "D3cold"),
            ),
            "7.5.2.1",
            "Flags",
        ),
        Register(
            "Power Management Control/Status",
            r.PCI_PM_CTRL,
            2,
            (
                choice("PowerState", r.PCI_PM_CTRL_STATE_MASK, ("D0", "D1", "D2", "D3"), "^{}"),
                flag("No_Soft_Reset", r.PCI_PM_CTRL_NO_SOFT_RESET, "NoSoftRst"),
                flag("PME_En", r.PCI_PM_CTRL_PME_ENABLE, "PME-Enable"),
                number("Data_Select", r.PCI_PM_CTRL_DATA_SEL_MASK, "DSel={}"),
                number("Data_Scale", 0x6000, "DScale={}"),
                flag("PME_Status", r.PCI_PM_CTRL_PME_STATUS, "PME"),
            ),
            "7.5.2.2",
            "Status",
        ),
        Register(
            "PMCSR Bridge Support Extensions",
            6,
            1,
            (flag("B2/B3 Support for D3hot", 0x40), flag("Bus Power/Clock Control Enable", 0x80, "PM")),
            "7.5.2.2",
            "Bridge",
            lambda around: around.get(6, 1) != 0,
        ),
        Register("Data", 7, 1, (number("Data", 0xFF),), "7.5.2.3"),
    ),
    lspci="Power Management",
    short="PM",
)


def _latency(value: int) -> str:
    """Spell a latency: 10 bits of value, 3 bits that say by which power of 32 it is multiplied; 6 and 7 are not
    permitted."""
    return f"not permitted ({value:#x})" if value >> 10 > 5 else f"{(value & 0x3FF) << 5 * (value >> 10)}ns"


LATENCY_TOLERANCE = Capability(
    "Latency Tolerance Reporting",
    r.PCI_EXT_CAP_ID_LTR,
    "PCIe 6.0, 7.8.2",
    (
        Register(
            "Max Snoop Latency",
            4,
            2,
            (computed("Max Snoop LatencyValue and Scale", 0x1FFF, _latency, "^{}"),),
            "7.8.2.2",
            "Max snoop latency",
        ),
        Register(
            "Max No-Snoop Latency",
            6,
            2,
            (computed("Max No-Snoop LatencyValue and Scale", 0x1FFF, _latency, "^{}"),),
            "7.8.2.3",
            "Max no snoop latency",
        ),
    ),
    extended=True,
    lspci="Latency Tolerance Reporting",
    short="LTR",
)


def _power_on(value: int) -> str:
    """Spell T_POWER_ON: scale in bits 1:0, value in bits 7:3."""
    unit = {0: 2, 1: 10, 2: 100}.get(value & 3)
    return f"{unit * (value >> 3)}us" if unit else "<error>"


def _threshold(value: int) -> str:
    """Spell LTR_L1.2_THRESHOLD: value in bits 9:0, scale in bits 15:13."""
    scale = value >> 13
    return f"{(value & 0x3FF) << 5 * scale}ns" if scale <= 5 else "<error>"


_SUBSTATES = (
    ("PCI-PM L1.2", 0x1, "PCI-PM_L1.2"),
    ("PCI-PM L1.1", 0x2, "PCI-PM_L1.1"),
    ("ASPM L1.2", 0x4, "(?<!PCI-PM_)ASPM_L1.2"),
    ("ASPM L1.1", 0x8, "ASPM_L1.1"),
)

L1_SUBSTATES = Capability(
    "L1 PM Substates",
    r.PCI_EXT_CAP_ID_L1SS,
    "PCIe 6.0, 7.8.3",
    (
        Register(
            "L1 PM Substates Capabilities",
            4,
            4,
            (
                *(flag(f"{name} Supported", mask, word) for name, mask, word in _SUBSTATES),
                flag("L1 PM Substates Supported", 0x10, "L1_PM_Substates"),
                computed("Port Common_Mode_Restore_Time", 0xFF00, lambda v: f"{v}us", "PortCommonModeRestoreTime={}"),
                computed("Port T_POWER_ON", 0xFB0000, _power_on, "PortTPowerOnTime={}"),
            ),
            "7.8.3.2",
            "L1SubCap",
        ),
        Register(
            "L1 PM Substates Control 1",
            8,
            4,
            (
                *(flag(f"{name} Enable", mask, word) for name, mask, word in _SUBSTATES),
                computed("Common_Mode_Restore_Time", 0xFF00, lambda v: f"{v}us", "T_CommonMode={}"),
                computed("LTR_L1.2_THRESHOLD", 0xE3FF0000, _threshold, "LTR1.2_Threshold={}"),
            ),
            "7.8.3.3",
            "L1SubCtl1",
        ),
        Register(
            "L1 PM Substates Control 2",
            12,
            4,
            (computed("T_POWER_ON", 0xFB, _power_on, "T_PwrOn={}"),),
            "7.8.3.4",
            "L1SubCtl2",
        ),
    ),
    extended=True,
    lspci="L1 PM Substates",
    short="L1PM",
)

POWER_BUDGETING = Capability(
    "Power Budgeting",
    r.PCI_EXT_CAP_ID_PWR,
    "PCIe 6.0, 7.8.1",
    (
        Register("Data Select", 4, 1, (number("Data Select", 0xFF),), "7.8.1.2"),
        Register(
            "Power Budgeting Data",
            8,
            4,
            (
                number("Base Power", 0xFF),
                choice("Data Scale", 0x300, ("x1", "x0.1", "x0.01", "x0.001")),
                number("PM Sub State", 0x1C00),
                choice("PM State", 0x6000, ("D0", "D1", "D2", "D3")),
                choice(
                    "Type",
                    0x38000,
                    {
                        0: "PME Aux",
                        1: "Auxiliary",
                        2: "Idle",
                        3: "Sustained",
                        4: "Sustained - EPR",
                        5: "Maximum - EPR",
                        7: "Maximum",
                    },
                ),
                choice("Power Rail", 0x1C0000, {0: "12V", 1: "3.3V", 2: "1.5V or 1.8V", 7: "Thermal"}),
            ),
            "7.8.1.3",
        ),
        Register("Power Budget Capability", 12, 1, (flag("System Allocated", 0x01),), "7.8.1.4"),
    ),
    extended=True,
    lspci="Power Budgeting",
    short="PowerBudget",
)


def _substates(around: Surroundings) -> int:
    return (around.get(4, 4) & 0x1F) + 1


DYNAMIC_POWER = Capability(
    "Dynamic Power Allocation",
    r.PCI_EXT_CAP_ID_DPA,
    "PCIe 6.0, 7.9.12",
    (
        Register(
            "DPA Capability",
            4,
            4,
            (
                number("Substate_Max", 0x1F),
                choice("Transition Latency Unit", 0x300, ("1ms", "10ms", "100ms")),
                choice("Power Allocation Scale", 0x3000, ("10W", "1W", "0.1W", "0.01W")),
                number("Transition Latency Value 0", 0xFF0000),
                number("Transition Latency Value 1", 0xFF000000),
            ),
            "7.9.12.2",
        ),
        Register(
            "DPA Latency Indicator", 8, 4, (hexadecimal("Transition Latency Indicator Bits", 0xFFFFFFFF),), "7.9.12.3"
        ),
        Register(
            "DPA Status", 12, 2, (number("Substate Status", 0x1F), flag("Substate Control Enabled", 0x100)), "7.9.12.4"
        ),
        Register("DPA Control", 14, 2, (number("Substate Control", 0x1F),), "7.9.12.5"),
        Register(
            "Substate Power Allocation",
            16,
            1,
            (number("Power Allocation", 0xFF),),
            "7.9.12.6",
            count=_substates,
            stride=1,
        ),
    ),
    extended=True,
    lspci="Dynamic Power Allocation",
    short="DPA",
)

CAPABILITIES = (POWER_MANAGEMENT, LATENCY_TOLERANCE, L1_SUBSTATES, POWER_BUDGETING, DYNAMIC_POWER)
