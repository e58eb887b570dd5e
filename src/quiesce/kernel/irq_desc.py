"""Interrupt descriptors (kernel/irq/irqdesc.c) and what the chip below them does (kernel/irq/chip.c, first half).

``depth`` counts disables and is 1 in a fresh descriptor, ``masked`` is what the kernel believes of the chip. Disabling
is lazy: the chip is masked by the next interrupt that arrives, unless ``disable_unlazy``.
"""

from __future__ import annotations

from typing import cast

from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import IrqDesc, MsiDesc, PciDev
from quiesce.kernel.pci_access import pci_dev_is_disconnected
from quiesce.machine import interrupts
from quiesce.world import State, StateSet

NR_LEGACY_IRQS = 16
"""Numbers of the ISA interrupts: they exist from the start, 0 is the timer's, and no PCI pin is wired to them."""
TIMER_IRQ = 0
MESSAGES = 224
"""Numbers for message interrupts: one for each vector that a CPU has for devices."""


class Genirq(State):
    """The interrupt core as a whole; path ``genirq``."""

    killed: StateSet[int] = StateSet()
    """Numbers that the spurious detector has switched off, which its timer polls."""

    numbers: tuple[IrqDesc, ...]
    """The descriptors of all numbers that PCI functions can have; which they are follows from the machine."""


def genirq(k: Kernel) -> Genirq:
    """Return the state of the interrupt core."""
    return Genirq.get(k.world, "genirq")


def desc(k: Kernel, irq: int) -> IrqDesc:
    """Return the handle of a number's descriptor, allocated or not (``irq_to_desc``)."""
    return IrqDesc.get(k.world, f"irq/{irq}")


def nr_irqs(k: Kernel) -> int:
    """Return how many numbers there can be (``nr_irqs``)."""
    return interrupts.gsi_top(k.machine) + min(MESSAGES, interrupts.message_capacity(k.machine))


def allocated_irqs(k: Kernel) -> list[int]:
    """Return the numbers with a descriptor, those of the ISA interrupts not among them."""
    core = genirq(k)
    if "numbers" not in vars(core):
        core.numbers = tuple(desc(k, irq) for irq in range(NR_LEGACY_IRQS, nr_irqs(k)))
    return [irq for irq, d in enumerate(core.numbers, start=NR_LEGACY_IRQS) if d.allocated]


def irq_exists(d: IrqDesc) -> bool:
    """Whether the number has a descriptor."""
    return d.allocated or 0 <= d.number < NR_LEGACY_IRQS


def irq_alloc_desc(
    k: Kernel, chip: str, *, gsi: int = -1, level: bool = False, msi_desc: MsiDesc | None = None, start: int = 16
) -> int:
    """kernel/irq/irqdesc.c. Kept: the lowest free number from ``start`` on. Left out: running out of numbers."""
    irq = start
    while desc(k, irq).allocated:
        irq += 1
    d = desc(k, irq)
    d.allocated = True
    d.chip, d.gsi, d.level, d.msi_desc = chip, gsi, level, msi_desc
    return irq


def irq_free_desc(k: Kernel, irq: int) -> None:
    """kernel/irq/irqdesc.c, ``irq_free_descs``. Kept: the directory in /proc warns of a handler that is still there;
    the handler is lost with the descriptor, and the number is free.
    """
    d = desc(k, irq)
    if not d.allocated:
        return
    _unregister_irq_proc(k, d)
    if d.gsi >= 0:
        interrupts.pin_of(k.machine, d.gsi).masked = True
        interrupts.pin_of(k.machine, d.gsi).irq = -1
    genirq(k).killed.discard(irq)
    d.delete()


def _unregister_irq_proc(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/proc.c and fs/proc/generic.c."""
    if not d.actions:
        return
    name = d.actions[0].name
    k.warn(
        f"remove_proc_entry: removing non-empty directory 'irq/{d.number}', leaking at least '{name}'",
        "irq/freed-with-action",
        f"irq {d.number} is given back while {name} still has its handler on it",
        "irq_free_descs",
    )


def irq_get_msi_desc(k: Kernel, irq: int) -> MsiDesc | None:
    """include/linux/irq.h. Kept: None for a number without descriptor and for one that is no message interrupt."""
    return desc(k, irq).msi_desc


def irq_has_action(k: Kernel, irq: int) -> bool:
    """include/linux/irqdesc.h."""
    return bool(desc(k, irq).actions)


# -- the chip ------------------------------------------------------------------------------------------------


def mask_irq(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/chip.c. Kept: only if not masked already."""
    if not d.masked:
        d.masked = True
        _chip_mask(k, d, True)


def unmask_irq(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/chip.c. Kept: only if masked."""
    if d.masked:
        d.masked = False
        _chip_mask(k, d, False)


def _chip_mask(k: Kernel, d: IrqDesc, masked: bool) -> None:
    if d.gsi >= 0:
        interrupts.pin_of(k.machine, d.gsi).masked = masked
    elif d.msi_desc is not None:
        pci_msi_mask_irq(k, d.msi_desc, d.number, masked)


def pci_msi_mask_irq(k: Kernel, entry: MsiDesc, irq: int, masked: bool) -> None:
    """drivers/pci/msi.c, ``pci_msi_mask_irq`` and its opposite. Kept: the mask bit of the vector and the copy of it
    that a restore writes again. MSI without mask bits keeps sending.
    """
    dev = cast(PciDev, entry.dev)
    if entry.is_msix:
        entry.masked = masked
        interrupts.mask_msix(k.machine, dev.hw, entry.index, masked)
    elif not pci_dev_is_disconnected(k, dev):
        bit = 1 << (irq - entry.irq)
        entry.msi_mask = entry.msi_mask | bit if masked else entry.msi_mask & ~bit
        interrupts.mask_msi(k.machine, dev.hw, entry.msi_mask)


def irq_startup(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/chip.c. Kept: enabled, unmasked, a remembered edge is replayed; a level needs no replay."""
    d.depth = 0
    unmask_irq(k, d)
    if d.pending:
        d.pending = False
        if not d.level:
            interrupts.post(k.machine, d.number)


def irq_shutdown(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/chip.c. Kept: disabled once, however often it was disabled before, and masked."""
    d.depth = 1
    mask_irq(k, d)


def irq_disable(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/chip.c. Kept: lazily; the caller has counted ``depth``."""
    if d.disable_unlazy:
        mask_irq(k, d)
