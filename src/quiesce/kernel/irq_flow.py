"""How one interrupt is handled (kernel/irq/chip.c second half, handle.c), and all that are due (``settle``)."""

from __future__ import annotations

from quiesce.kernel.irq_desc import desc, mask_irq
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, Crash, Kernel
from quiesce.kernel.objects import IrqAction, IrqDesc, PciDev
from quiesce.kernel.spurious import line_stuck, poll_spurious_irqs
from quiesce.machine import interrupts
from quiesce.world import State

MASKED = "masked"
"""Besides IRQ_HANDLED and IRQ_NONE, what ``handle_irq`` returns: no handler ran and the line is masked."""

ROUNDS = 16
"""How often in a row a line may be serviced and still be asserted; a device with more to say than that is none."""
ARRIVALS = 256
"""How many interrupts may be due at once before they count as never ending."""


def handle_irq(k: Kernel, irq: int) -> str:
    """kernel/irq/chip.c. Kept: one arrival goes to ``handle_fasteoi_irq`` (level) or ``handle_edge_irq``.

    Returns IRQ_HANDLED, IRQ_NONE, or MASKED.
    """
    d = desc(k, irq)
    if not d.allocated:
        _no_handler(k, irq)
        return IRQ_NONE
    return handle_fasteoi_irq(k, d) if d.level else handle_edge_irq(k, d)


def handle_fasteoi_irq(k: Kernel, d: IrqDesc) -> str:
    """kernel/irq/chip.c, for level inputs of the IO-APIC. Kept: without handler, or disabled, the line is masked and
    that is all: nothing is counted and nothing is printed.
    """
    if not d.actions or d.depth > 0:
        d.pending = True
        mask_irq(k, d)
        return MASKED
    return handle_irq_event(k, d)


def handle_edge_irq(k: Kernel, d: IrqDesc) -> str:
    """kernel/irq/chip.c, for messages. Kept: without handler, or disabled, the interrupt is remembered and replayed
    when the line starts; the chip is masked meanwhile. Left out: one that arrives while its handler runs.
    """
    if not d.actions or d.depth > 0:
        d.pending = True
        mask_irq(k, d)
        return MASKED
    return handle_irq_event(k, d)


def handle_irq_event(k: Kernel, d: IrqDesc) -> str:
    """kernel/irq/handle.c. Kept: every handler on the line runs, whoever claims it. Left out: threads."""
    d.pending = False
    d.in_progress = True
    results = [run_action(k, d.number, action) for action in d.actions]
    d.in_progress = False
    return IRQ_HANDLED if IRQ_HANDLED in results else IRQ_NONE


def run_action(k: Kernel, irq: int, action: IrqAction) -> str:
    """Run one handler in hard interrupt context, on data that must still be there."""
    _check_data(k, irq, action)
    _check_other_handler(k, irq, action)
    with k.in_hardirq():
        return k.irq_handlers[action.handler](k, irq, action.dev_id)


def _check_data(k: Kernel, irq: int, action: IrqAction) -> None:
    owner = action.dev_id
    driver = action.handler.partition(".")[0]
    if isinstance(owner, State) and owner.mortal and not owner.exists:
        gone = f"{owner.path}, which it works on, is freed"
    elif isinstance(owner, PciDev) and driver in k.drivers and owner.driver != driver:
        gone = f"{driver} is not bound to {owner.bdf} any more and its data is freed"
    else:
        return
    raise k.crash(
        "irq/handler-on-freed-data",
        f"BUG: KASAN: use-after-free in {action.handler}",
        f"the handler {action.name} is still on irq {irq}, but {gone}",
        "handle_irq_event",
    )


def _check_other_handler(k: Kernel, irq: int, action: IrqAction) -> None:
    """A device interrupts by messages or by its pin, never both; its driver need not keep the two handlers apart."""
    owner = action.dev_id
    if not isinstance(owner, PciDev):
        return
    for entry in owner.msi_descs:
        if entry.irq != irq and not entry.is_msix and desc(k, entry.irq).in_progress:
            why = f"the handler of {owner.bdf} for its pin runs while the one for its message {entry.irq} has not ended"
            k.find("irq/msi-intx-race", why, "handle_irq_event")


def _no_handler(k: Kernel, irq: int) -> None:
    """arch/x86/kernel/irq.c. Left out: the number of the vector, the rate limit, the wording from v6.17 on."""
    k.printk("emerg", "do_IRQ: No irq handler for vector")
    why = f"a message with the data of irq {irq} arrives after irq {irq} was given back"
    k.find("irq/no-handler-for-vector", why, "do_IRQ")


# -- all that are due ----------------------------------------------------------------------------------------


def settle(k: Kernel) -> None:
    """Deliver every interrupt that is asserted or on its way, until it is quiet.

    It always ends: a line that stays asserted is switched off, masked or a finding, and so are interrupts that keep
    raising each other. With interrupts off on the CPU, all of them wait.
    """
    if k.irqs_off:
        return
    for _ in range(ARRIVALS):
        if not (_deliver_message(k) or _deliver_line(k)):
            break
    else:
        raise _storm(k, "handlers keep raising new interrupts")
    if k.system.phase != "suspended":
        poll_spurious_irqs(k, run_action)
    _report_lost(k)


def _deliver_message(k: Kernel) -> bool:
    pending = interrupts.lapic(k.machine).pending
    if not pending:
        return False
    irq = pending[0]
    pending.remove(irq)
    handle_irq(k, irq)
    return True


def _deliver_line(k: Kernel) -> bool:
    for gsi in interrupts.io_apic(k.machine).inputs:
        pin = interrupts.pin_of(k.machine, gsi)
        if not pin.masked and pin.irq >= 0 and interrupts.line_asserted(k.machine, gsi):
            _service_line(k, pin, gsi)
            return True
    return False


def _service_line(k: Kernel, pin: interrupts.IoApicPin, gsi: int) -> None:
    irq = pin.irq
    for _ in range(ROUNDS):
        result = handle_irq(k, irq)
        if pin.masked or not interrupts.line_asserted(k.machine, gsi):
            return
        if result == IRQ_NONE:
            line_stuck(k, desc(k, irq))
    guilty = ", ".join(str(fn.bdf) for fn in interrupts.asserting(k.machine, gsi))
    names = ", ".join(action.name for action in desc(k, irq).actions)
    raise _storm(k, f"{guilty} keeps input {gsi} asserted while {names} claims every interrupt of irq {irq}")


def _storm(k: Kernel, why: str) -> Crash:
    return k.crash("irq/storm", "watchdog: BUG: soft lockup - CPU#0 stuck", why, "handle_irq")


def _report_lost(k: Kernel) -> None:
    """Say which messages did not arrive. The remapping unit reports those it refuses; of the others a real kernel says
    nothing, and those lines have the level ``note``.
    """
    lost = interrupts.lapic(k.machine).lost
    for bdf, reason in lost.items():
        if reason.startswith(interrupts.REMAP_FAULT):
            _remap_fault(k, bdf, int(reason.rsplit(" ", 1)[1]))
        else:
            k.printk("note", f"{bdf}: message interrupt lost: {reason}")
    if lost:
        lost.clear()


def _remap_fault(k: Kernel, bdf: str, irq: int) -> None:
    """drivers/iommu/dmar.c; an AMD IOMMU drops the message and tells nobody unless asked to."""
    if k.machine.iommu == "intel":
        k.printk("err", "DMAR: DRHD: handling fault status reg 2")
        place = bdf.partition(":")[2]
        text = f"fault index {irq:#x} [fault reason 0x22] Present field in the IRTE entry is clear"
        k.printk("err", f"DMAR: [INTR-REMAP] Request device [{place}] {text}")
    why = f"{bdf} sends a message of irq {irq}, for which it has no valid remapping entry; the interrupt is lost"
    k.find("irq/remap-fault", why, "dmar_fault")
