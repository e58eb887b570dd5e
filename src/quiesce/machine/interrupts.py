"""How interrupts travel: pins through bridges to the IO-APIC, messages through bus mastering and remapping to a CPU.

An INTx line is a level: it is asserted while any function on it asserts its pin. A message is an event: it arrives
once, waits in the device while a mask holds it back, or is lost. What waits for the CPU and what got lost is kept
until the kernel takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function
from quiesce.machine.topology import chain, has_ari
from quiesce.world import Field, State, StateDict, StateList, StateSet

if TYPE_CHECKING:
    from quiesce.machine.machine import Machine

FIRST_PCI_INPUT = 16
"""The first IO-APIC input for PCI where the firmware tables are not known, as on Intel chipsets and QEMU's q35."""
PCI_INPUTS = 8
FIRST_INPUTS = 24
"""Inputs of the first IO-APIC."""
MESSAGE_ADDRESS = 0xFEE00000

SENT, PENDING, LOST, INTX, HELD = "sent", "pending", "lost", "intx", "held"
"""What became of an interrupt: on its way to the CPU, waiting in the device behind a mask, gone, on the pin, or inside
the device because the pin may not be asserted."""


class IoApic(State):
    """The IO-APICs as one; path ``ioapic``. What is declared without a Field never changes."""

    inputs: dict[int, tuple[Function, ...]]
    """IO-APIC input -> the functions wired to it."""
    messages: int
    """How many message interrupts there can be."""


class IoApicPin(State):
    """One IO-APIC input; path ``ioapic/N``."""

    masked: Field[bool] = Field(True)
    irq: Field[int] = Field(-1)
    """The interrupt number that the kernel has put into the entry, or -1."""


class Lapic(State):
    """The CPU's side; path ``lapic``."""

    pending: StateList[int] = StateList()
    """Interrupt numbers that arrived as messages and were not taken yet; a second one of the same number merges."""
    lost: StateDict[str, str] = StateDict()
    """Function -> why its last message did not arrive; the kernel's interrupt entry empties it."""


class InterruptRemapping(State):
    """The interrupt remapping unit; path ``ir``. Off until the kernel switches it on."""

    enabled: Field[bool] = Field(False)


class Irte(State):
    """One entry of the interrupt remapping table; path ``irte/IRQ``."""

    present: Field[bool] = Field(False)
    source: Field[str] = Field("")
    """Address of the function whose messages may use it."""


class PendingVectors(State):
    """The pending bits of one function; path ``pba/BDF``. They count only while ``Function.message_pending``."""

    vectors: StateSet[int] = StateSet()


# -- pins ----------------------------------------------------------------------------------------------------


def swizzle(pin: int, device: int) -> int:
    """Return the pin of a bridge on which the pin of a device below it appears."""
    return (pin - 1 + device) % 4 + 1


def gsi_of(m: Machine, fn: Function) -> int:
    """Return the IO-APIC input that a function's pin is wired to, or -1."""
    if fn.pin == 0:
        return -1
    pin, here = fn.pin, fn
    for bridge in chain(fn):
        pin = swizzle(pin, 0 if has_ari(here) else here.bdf.device)
        here = bridge
    default = FIRST_PCI_INPUT + (here.bdf.device + pin - 1) % PCI_INPUTS
    return m.routing.get((here.bdf.segment, here.bdf.bus, here.bdf.device, pin), default)


def io_apic(m: Machine) -> IoApic:
    """Return the IO-APIC with its wiring, which follows from the machine alone."""
    apic = IoApic.get(m.world, "ioapic")
    if "inputs" not in vars(apic):
        wired: dict[int, tuple[Function, ...]] = {}
        for fn in m.functions.values():
            gsi = gsi_of(m, fn)
            if gsi >= 0:
                wired[gsi] = (*wired.get(gsi, ()), fn)
        apic.inputs = dict(sorted(wired.items()))
    return apic


def gsi_top(m: Machine) -> int:
    """Return the number of IO-APIC inputs; interrupt numbers above them are free for messages."""
    return max((FIRST_INPUTS, *(gsi + 1 for gsi in io_apic(m).inputs)))


def message_capacity(m: Machine) -> int:
    """Return how many message interrupts all functions together can have."""
    apic = io_apic(m)
    if "messages" not in vars(apic):
        apic.messages = sum(max(fn.msi_limit, fn.msix_limit) for fn in m.functions.values())
    return apic.messages


def pin_of(m: Machine, gsi: int) -> IoApicPin:
    """Return the state of one IO-APIC input."""
    return IoApicPin.get(m.world, f"ioapic/{gsi}")


def intx_asserted(m: Machine, fn: Function) -> bool:
    """Whether a function asserts its pin: there and awake, something to say, a pin that it may use, no messages."""
    if not fn.irq_status or fn.pin == 0:
        return False
    if fn.intx_disabled or fn.msi_enabled or fn.msix_enabled:
        return False
    return fn.alive and fn.power_state == r.D0 and all(bridge.alive for bridge in chain(fn))


def asserting(m: Machine, gsi: int) -> tuple[Function, ...]:
    """Return the functions that assert an IO-APIC input now."""
    return tuple(fn for fn in io_apic(m).inputs.get(gsi, ()) if intx_asserted(m, fn))


def line_asserted(m: Machine, gsi: int) -> bool:
    """Whether an IO-APIC input is asserted."""
    return any(intx_asserted(m, fn) for fn in io_apic(m).inputs.get(gsi, ()))


# -- messages ------------------------------------------------------------------------------------------------


def lapic(m: Machine) -> Lapic:
    """Return the CPU's side."""
    return Lapic.get(m.world, "lapic")


def remapping(m: Machine) -> InterruptRemapping:
    """Return the interrupt remapping unit."""
    return InterruptRemapping.get(m.world, "ir")


def remaps(m: Machine, fn: Function) -> bool:
    """Whether the messages of a function are remapped; those of an AMD IOMMU's own function never are."""
    return remapping(m).enabled and not _is_iommu(fn)


def irte(m: Machine, irq: int) -> Irte:
    """Return the remapping entry for an interrupt number."""
    return Irte.get(m.world, f"irte/{irq}")


def raise_interrupt(m: Machine, fn: Function, vector: int = 0) -> str:
    """Let a device have an interrupt condition: a message when MSI or MSI-X is on, else its pin.

    Returns SENT, PENDING or LOST for a message, INTX or HELD for the pin, LOST for a device that is not awake.
    """
    if not (fn.alive and fn.power_state == r.D0):
        return LOST
    fn.irq_status = True
    if fn.msi_enabled or fn.msix_enabled:
        return send_message(m, fn, vector)
    return INTX if intx_asserted(m, fn) else HELD


def send_message(m: Machine, fn: Function, vector: int = 0) -> str:
    """Let a device send one of its messages; returns SENT, PENDING or LOST.

    A lost one leaves its reason in ``Lapic.lost``.
    """
    if not (fn.alive and fn.power_state == r.D0 and (fn.msi_enabled or fn.msix_enabled)):
        return LOST
    irq, masked = _vector(fn, vector)
    if masked:
        _hold_back(fn, vector)
        return PENDING
    obstacle = _obstacle(m, fn, irq)
    if obstacle:
        lapic(m).lost[str(fn.bdf)] = obstacle
        return LOST
    post(m, irq)
    return SENT


def post(m: Machine, irq: int) -> None:
    """Make an edge interrupt arrive at the CPU; also how the kernel replays one (``irq_retrigger``)."""
    pending = lapic(m).pending
    if irq not in pending:
        pending.append(irq)


def _vector(fn: Function, vector: int) -> tuple[int, bool]:
    """Return the interrupt number in a vector's data and whether a mask holds it back."""
    if fn.msix_enabled:
        irq, masked = fn.msix_table.get(vector) or (-1, True)
        return irq, masked or fn.msix_masked
    enabled = 1 << ((fn.msi_control & r.PCI_MSI_FLAGS_QSIZE) >> 4)
    vector %= enabled
    return fn.msi_data + vector, bool(fn.msi_mask >> vector & 1)


def _obstacle(m: Machine, fn: Function, irq: int) -> str:
    """Return why a message does not get to the CPU, or nothing."""
    if not (fn.bus_master or _is_iommu(fn)):
        return f"Bus Master of {fn.bdf} is off"
    for bridge in chain(fn):
        if not bridge.alive:
            return f"{bridge.bdf} above is gone"
        if not bridge.bus_master:
            return f"Bus Master of {bridge.bdf} above is off"
    if remaps(m, fn) and not (irte(m, irq).present and irte(m, irq).source == str(fn.bdf)):
        return f"{REMAP_FAULT} {irq}"
    return ""


REMAP_FAULT = "no remapping entry"
"""How the reason of a message begins that the interrupt remapping unit refused."""


def _is_iommu(fn: Function) -> bool:
    return fn.class_code >> 8 == r.PCI_CLASS_SYSTEM_IOMMU


def _hold_back(fn: Function, vector: int) -> None:
    waiting = _pending_bits(fn)
    if not fn.message_pending:
        waiting.vectors.clear()
    waiting.vectors.add(vector)
    fn.message_pending = True


def _pending_bits(fn: Function) -> PendingVectors:
    return PendingVectors.get(fn.world, f"pba/{fn.bdf}")


def release_pending(m: Machine, fn: Function) -> None:
    """Let a device send what a mask held back, as far as no mask holds it back any more."""
    if not fn.message_pending:
        return
    waiting = tuple(_pending_bits(fn).vectors)
    _pending_bits(fn).vectors.clear()
    fn.message_pending = False
    for vector in waiting:
        send_message(m, fn, vector)


# -- what the kernel does to vectors -------------------------------------------------------------------------


def program_msi(m: Machine, fn: Function, irq: int) -> None:
    """Write the one address and data that all MSI vectors share: the interrupt number is the data, -1 empties both."""
    fn.write_register("MSI_ADDRESS_LO", MESSAGE_ADDRESS if irq >= 0 else 0)
    fn.write_register("MSI_DATA", max(irq, 0))


def mask_msi(m: Machine, fn: Function, mask: int) -> None:
    """Write the per-vector mask bits of MSI; a function without them has nothing to mask with."""
    fn.write_register("MSI_MASK", mask)
    release_pending(m, fn)


def program_msix(m: Machine, fn: Function, vector: int, irq: int, masked: bool) -> None:
    """Write an entry of the MSI-X table, which is in memory: nothing happens when the function does not answer.

    An ``irq`` of -1 is an empty address and data. Whether memory decoding is on is not looked at.
    """
    if not (fn.reachable and fn.power_state == r.D0):
        return
    if irq >= 0 or not masked:
        fn.msix_table[vector] = (irq, masked)
    elif vector in fn.msix_table:
        del fn.msix_table[vector]
    release_pending(m, fn)


def mask_msix(m: Machine, fn: Function, vector: int, masked: bool) -> None:
    """Write the mask bit of an entry of the MSI-X table."""
    entry = fn.msix_table.get(vector)
    irq = entry[0] if entry is not None else -1
    program_msix(m, fn, vector, irq, masked)


def mask_all_msix(m: Machine, fn: Function) -> None:
    """Mask every entry of the MSI-X table that was ever written."""
    for vector in tuple(fn.msix_table):
        mask_msix(m, fn, vector, True)
