"""The configuration space header: types 0 (devices), 1 (bridges) and 2 (CardBus bridges).

::

      31            16 15             0              type 0          type 1
     |   Device ID    |   Vendor ID    | 00   10   BAR 0           BAR 0
     |     Status     |    Command     | 04   14   BAR 1           BAR 1
     |    Class Code  | if  | Revision | 08   18   BAR 2           latency | bus numbers
     | BIST | Header  | Lat | Line size| 0c   1c   BAR 3           sec. status | I/O window
     |            ...                  |      20   BAR 4           memory window
     |                        | CapPtr | 34   24   BAR 5           prefetchable window
     |      control     | Pin |  Line  | 3c   38                   expansion ROM
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

_DEVSEL = ("fast", "medium", "slow", "??")

COMMAND = Register(
    "Command",
    r.PCI_COMMAND,
    2,
    (
        flag("I/O Space Enable", r.PCI_COMMAND_IO, "I/O"),
        flag("Memory Space Enable", r.PCI_COMMAND_MEMORY, "Mem"),
        flag("Bus Master Enable", r.PCI_COMMAND_MASTER, "BusMaster"),
        flag("Special Cycle Enable", r.PCI_COMMAND_SPECIAL, "SpecCycle"),
        flag("Memory Write and Invalidate", r.PCI_COMMAND_INVALIDATE, "MemWINV"),
        flag("VGA Palette Snoop", r.PCI_COMMAND_VGA_PALETTE, "VGASnoop"),
        flag("Parity Error Response", r.PCI_COMMAND_PARITY, "ParErr"),
        flag("IDSEL Stepping/Wait Cycle Control", r.PCI_COMMAND_WAIT, "Stepping"),
        flag("SERR# Enable", r.PCI_COMMAND_SERR, "SERR"),
        flag("Fast Back-to-Back Transactions Enable", r.PCI_COMMAND_FAST_BACK, "FastB2B"),
        flag("Interrupt Disable", r.PCI_COMMAND_INTX_DISABLE, "DisINTx"),
    ),
    "7.5.1.1.3",
    "Control",
)

_STATUS_FIELDS = (
    flag("66 MHz Capable", r.PCI_STATUS_66MHZ, "66MHz"),
    flag("Fast Back-to-Back Transactions Capable", r.PCI_STATUS_FAST_BACK, "FastB2B"),
    flag("Master Data Parity Error", r.PCI_STATUS_PARITY, "ParErr"),
    choice("DEVSEL Timing", r.PCI_STATUS_DEVSEL_MASK, _DEVSEL, "DEVSEL={}"),
    flag("Signaled Target Abort", r.PCI_STATUS_SIG_TARGET_ABORT, ">TAbort"),
    flag("Received Target Abort", r.PCI_STATUS_REC_TARGET_ABORT, "<TAbort"),
    flag("Received Master Abort", r.PCI_STATUS_REC_MASTER_ABORT, "<MAbort"),
)

STATUS = Register(
    "Status",
    r.PCI_STATUS,
    2,
    (
        flag("Immediate Readiness", r.PCI_STATUS_IMM_READY),
        flag("Interrupt Status", r.PCI_STATUS_INTERRUPT, "INTx"),
        flag("Capabilities List", r.PCI_STATUS_CAP_LIST, "Cap"),
        flag("User Definable Features", r.PCI_STATUS_UDF, "UDF"),
        *_STATUS_FIELDS,
        flag("Signaled System Error", r.PCI_STATUS_SIG_SYSTEM_ERROR, ">SERR"),
        flag("Detected Parity Error", r.PCI_STATUS_DETECTED_PARITY, "<PERR"),
    ),
    "7.5.1.1.4",
    "Status",
)


def _bist(around: Surroundings) -> bool:
    return bool(around.get(r.PCI_BIST, 1) & 0x80)


COMMON = (
    Register(
        "Identification",
        r.PCI_VENDOR_ID,
        4,
        (hexadecimal("Vendor ID", 0xFFFF, r"^\w{4}: {}:"), hexadecimal("Device ID", 0xFFFF0000, r"^\w{4}: \w{4}:{}")),
        "7.5.1.1.1",
    ),
    COMMAND,
    STATUS,
    Register(
        "Class Code",
        r.PCI_CLASS_REVISION,
        4,
        (
            hexadecimal("Revision ID", 0xFF, r"\(rev {}\)"),
            hexadecimal("Programming Interface", 0xFF00, "prog-if {}"),
            hexadecimal("Sub-Class Code", 0xFF0000, r"^\w\w{}:"),
            hexadecimal("Base Class Code", 0xFF000000, r"^{}\w\w:"),
        ),
        "7.5.1.1.6",
    ),
    Register(
        "Cache Line Size",
        r.PCI_CACHE_LINE_SIZE,
        1,
        (computed("Cache Line Size", 0xFF, lambda value: f"{4 * value} bytes", "Cache Line Size: {}"),),
        "7.5.1.1.7",
        "Latency",
    ),
    Register("Latency Timer", r.PCI_LATENCY_TIMER, 1, (number("Latency Timer", 0xFF, "^{}"),), "7.5.1.1.8", "Latency"),
    Register(
        "Header Type",
        r.PCI_HEADER_TYPE,
        1,
        (
            choice("Header Layout", r.PCI_HEADER_TYPE_MASK, ("device", "PCI-to-PCI bridge", "CardBus bridge")),
            flag("Multi-Function Device", r.PCI_HEADER_TYPE_MFD),
        ),
        "7.5.1.1.9",
    ),
    Register(
        "BIST",
        r.PCI_BIST,
        1,
        (number("Completion Code", 0x0F), flag("Start BIST", 0x40), flag("BIST Capable", 0x80)),
        "7.5.1.1.10",
        present=_bist,
    ),
)

INTERRUPT = (
    Register(
        "Interrupt Line",
        r.PCI_INTERRUPT_LINE,
        1,
        (number("Interrupt Line", 0xFF, "IRQ {}"),),
        "7.5.1.1.12",
        "Interrupt",
    ),
    Register(
        "Interrupt Pin",
        r.PCI_INTERRUPT_PIN,
        1,
        (choice("Interrupt Pin", 0xFF, ("none", "A", "B", "C", "D"), "pin (?=[A-D]){}", other="?"),),
        "7.5.1.1.13",
        "Interrupt",
    ),
)


# -- base address registers -----------------------------------------------------------------------------------


def _region(number_of: int, kind: Callable[[int], bool]) -> Callable[[Surroundings], bool]:
    """Return whether base address register ``number_of`` starts a region of a kind; the upper half of a wide one
    starts none."""

    def present(around: Surroundings) -> bool:
        at = 0
        while at < number_of:
            wide = around.get(r.PCI_BASE_ADDRESS_0 + 4 * at, 1) & 0x07 == 0x04
            at += 2 if wide else 1
        value = around.get(r.PCI_BASE_ADDRESS_0 + 4 * number_of, 4)
        return at == number_of and value not in (0, 0xFFFFFFFF) and kind(value)

    return present


def _is_io(value: int) -> bool:
    return bool(value & r.PCI_BASE_ADDRESS_SPACE_IO)


def _is_memory(value: int) -> bool:
    return not _is_io(value) and value & 0x06 != 0x04


def _is_wide(value: int) -> bool:
    return not _is_io(value) and value & 0x06 == 0x04


def _address(digits: int) -> Callable[[int], str]:
    """Return the spelling of an address whose lowest four bits are left out; none is given to a region at zero."""
    return lambda value: f"{value << 4:0{digits}x}" if value else "<unassigned>"


def _port(value: int) -> str:
    return f"{value << 2:04x}" if value else "<unassigned>"


_MEMORY = (
    choice("Type", 0x06, ("32-bit", "low-1M", "64-bit", "type 3"), r"\({},"),
    choice("Prefetchable", 0x08, ("non-prefetchable", "prefetchable"), "{}"),
)


def regions(count: int) -> tuple[Register, ...]:
    """Return the base address registers of a header that has ``count`` of them."""
    found: list[Register] = []
    for index in range(count):
        name, at, line = f"Base Address {index}", r.PCI_BASE_ADDRESS_0 + 4 * index, f"Region {index}"
        ports: tuple[Field, ...] = (computed("I/O Base Address", 0xFFFFFFFC, _port, "I/O ports at (?!0000|<){}"),)
        memory = (*_MEMORY, computed("Base Address", 0xFFFFFFF0, _address(8), "Memory at {}"))
        found.append(Register(name, at, 4, ports, "7.5.1.2.1", line, _region(index, _is_io)))
        found.append(Register(name, at, 4, memory, "7.5.1.2.1", line, _region(index, _is_memory)))
        if index + 1 < count:
            wide = (*_MEMORY, computed("Base Address", 0xFFFFFFFFFFFFFFF0, _address(8), "Memory at {}"))
            found.append(Register(name, at, 8, wide, "7.5.1.2.1", line, _region(index, _is_wide)))
    return tuple(found)


def _rom(offset: int) -> Register:
    return Register(
        "Expansion ROM Base Address",
        offset,
        4,
        (
            flag("Expansion ROM Enable", 0x01),
            hexadecimal("Expansion ROM Base Address", 0xFFFFF800, "^{}", shift=11),
        ),
        "7.5.1.2.4",
        "Expansion ROM at ",
        lambda around: bool(around.get(offset, 4) & 0xFFFFF800),
    )


TYPE_0 = Capability(
    "Type 0 header",
    -1,
    "PCIe 6.0, 7.5.1",
    (
        *COMMON,
        *regions(6),
        Register("CardBus CIS Pointer", 0x28, 4, (hexadecimal("CardBus CIS Pointer", 0xFFFFFFFF),), "7.5.1.2.2"),
        Register(
            "Subsystem",
            r.PCI_SUBSYSTEM_VENDOR_ID,
            4,
            (hexadecimal("Subsystem Vendor ID", 0xFFFF, "^{}:"), hexadecimal("Subsystem ID", 0xFFFF0000, ":{}")),
            "7.5.1.2.3",
            "Subsystem",
        ),
        _rom(r.PCI_ROM_ADDRESS),
        *INTERRUPT,
        Register("Min_Gnt", 0x3E, 1, (computed("Min_Gnt", 0xFF, lambda value: f"{250 * value}ns"),), "7.5.1.2.5"),
        Register("Max_Lat", 0x3F, 1, (computed("Max_Lat", 0xFF, lambda value: f"{250 * value}ns"),), "7.5.1.2.5"),
    ),
    short="header",
)


# -- bridges ----------------------------------------------------------------------------------------------------


def _window(base: int, limit: int, digits: int) -> str:
    """Spell a window; one whose base lies above its limit is closed."""
    return f"{base:0{digits}x}-{limit:0{digits}x}" + (" [disabled]" if base > limit else "")


def _io_window(value: int) -> str:
    return _window((value & 0xF0) << 8, (value & 0xF000) | 0xFFF, 4)


def _wide_io_window(value: int) -> str:
    """Spell the I/O window with the upper halves, which are 20 bytes behind."""
    base = (value & 0xF0) << 8 | (value >> 160 & 0xFFFF) << 16
    return _window(base, (value & 0xF000) | 0xFFF | (value >> 176) << 16, 8)


def _memory_window(value: int) -> str:
    return _window((value & 0xFFF0) << 16, (value >> 16 & 0xFFF0) << 16 | 0xFFFFF, 8)


def _wide_window(value: int) -> str:
    """Spell the prefetchable window: base, limit, upper base, upper limit, in the order of the registers."""
    base = (value & 0xFFF0) << 16 | (value >> 32 & 0xFFFFFFFF) << 32
    limit = (value >> 16 & 0xFFF0) << 16 | 0xFFFFF | (value >> 64) << 32
    return _window(base, limit, 16)


def _io_is_wide(around: Surroundings) -> bool:
    return around.get(r.PCI_IO_BASE, 1) & 0x0F == 1


def _io_is_narrow(around: Surroundings) -> bool:
    return not _io_is_wide(around)


def _prefetchable_is_wide(around: Surroundings) -> bool:
    return around.get(r.PCI_PREF_MEMORY_BASE, 1) & 0x0F == 1


def _prefetchable_is_narrow(around: Surroundings) -> bool:
    return not _prefetchable_is_wide(around)


_BUSES = (
    hexadecimal("Primary Bus Number", 0xFF, "primary={}"),
    hexadecimal("Secondary Bus Number", 0xFF00, "secondary={}"),
    hexadecimal("Subordinate Bus Number", 0xFF0000, "subordinate={}"),
    number("Secondary Latency Timer", 0xFF000000, "sec-latency={}"),
)

TYPE_1 = Capability(
    "Type 1 header",
    -1,
    "PCIe 6.0, 7.5.1",
    (
        *COMMON,
        *regions(2),
        Register("Bus Numbers", r.PCI_PRIMARY_BUS, 4, _BUSES, "7.5.1.3.1", "Bus"),
        Register(
            "I/O Window",
            r.PCI_IO_BASE,
            2,
            (computed("I/O Window", 0xF0F0, lambda value: _io_window(value << 4), "^{}"),),
            "7.5.1.3.4",
            "I/O behind bridge",
            _io_is_narrow,
        ),
        Register(
            "I/O Window",
            r.PCI_IO_BASE,
            24,
            (computed("I/O Window", 0xFFFF | 0xFFFFFFFF << 160, _wide_io_window, "^{}"),),
            "7.5.1.3.9",
            "I/O behind bridge",
            _io_is_wide,
        ),
        Register(
            "Secondary Status",
            r.PCI_SEC_STATUS,
            2,
            (
                *_STATUS_FIELDS,
                flag("Received System Error", r.PCI_STATUS_SIG_SYSTEM_ERROR, "<SERR"),
                flag("Detected Parity Error", r.PCI_STATUS_DETECTED_PARITY, "<PERR"),
            ),
            "7.5.1.3.5",
            "Secondary status",
        ),
        Register(
            "Memory Window",
            r.PCI_MEMORY_BASE,
            4,
            (computed("Memory Window", 0xFFFFFFFF, _memory_window, "^{}"),),
            "7.5.1.3.6",
            "Memory behind bridge",
        ),
        Register(
            "Prefetchable Memory Window",
            r.PCI_PREF_MEMORY_BASE,
            4,
            (computed("Prefetchable Memory Window", 0xFFFFFFFF, _memory_window, "^{}"),),
            "7.5.1.3.7",
            "Prefetchable memory behind bridge",
            _prefetchable_is_narrow,
        ),
        Register(
            "Prefetchable Memory Window",
            r.PCI_PREF_MEMORY_BASE,
            12,
            (computed("Prefetchable Memory Window", (1 << 96) - 1, _wide_window, "^{}"),),
            "7.5.1.3.8",
            "Prefetchable memory behind bridge",
            _prefetchable_is_wide,
        ),
        _rom(r.PCI_ROM_ADDRESS1),
        *INTERRUPT,
        Register(
            "Bridge Control",
            r.PCI_BRIDGE_CONTROL,
            2,
            (
                flag("Parity Error Response Enable", r.PCI_BRIDGE_CTL_PARITY, "Parity"),
                flag("SERR# Enable", r.PCI_BRIDGE_CTL_SERR, "(?<!Tmr)SERR"),
                flag("ISA Enable", r.PCI_BRIDGE_CTL_ISA, "NoISA"),
                flag("VGA Enable", r.PCI_BRIDGE_CTL_VGA, "VGA"),
                flag("VGA 16-bit Decode", 0x10, "VGA16"),
                flag("Master Abort Mode", r.PCI_BRIDGE_CTL_MASTER_ABORT, "MAbort"),
                flag("Secondary Bus Reset", r.PCI_BRIDGE_CTL_BUS_RESET, ">Reset"),
                flag("Fast Back-to-Back Transactions Enable", 0x80, "FastB2B"),
                flag("Primary Discard Timer", 0x100, "PriDiscTmr"),
                flag("Secondary Discard Timer", 0x200, "SecDiscTmr"),
                flag("Discard Timer Status", 0x400, "DiscTmrStat"),
                flag("Discard Timer SERR# Enable", 0x800, "DiscTmrSERREn"),
            ),
            "7.5.1.3.13",
            "BridgeCtl",
        ),
    ),
    short="bridge-header",
)

TYPE_2 = Capability(
    "CardBus header",
    -1,
    "PC Card Standard 8.0, volume 7, 4.5",
    (
        *COMMON,
        Register("CardBus Bus Numbers", 0x18, 4, _BUSES, lspci="Bus"),
        *INTERRUPT,
        Register(
            "Bridge Control",
            r.PCI_BRIDGE_CONTROL,
            2,
            (
                flag("Parity Error Response Enable", 0x01, "Parity"),
                flag("SERR# Enable", 0x02, "SERR"),
                flag("ISA Enable", 0x04, "ISA"),
                flag("VGA Enable", 0x08, "VGA"),
                flag("Master Abort Mode", 0x20, "MAbort"),
                flag("CardBus Reset", 0x40, ">Reset"),
                flag("IREQ-INT Enable", 0x80, "16bInt"),
                flag("Memory 0 Prefetch Enable", 0x100),
                flag("Memory 1 Prefetch Enable", 0x200),
                flag("Write Posting Enable", 0x400, "PostWrite"),
            ),
            lspci="BridgeCtl",
        ),
    ),
    short="cardbus-header",
)

HEADERS = {
    r.PCI_HEADER_TYPE_NORMAL: TYPE_0,
    r.PCI_HEADER_TYPE_BRIDGE: TYPE_1,
    r.PCI_HEADER_TYPE_CARDBUS: TYPE_2,
}
UNKNOWN_HEADER = Capability("Header of unknown type", -1, "PCIe 6.0, 7.5.1", COMMON, short="unknown-header")
