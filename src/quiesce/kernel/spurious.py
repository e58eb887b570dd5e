"""The detector of interrupts that nobody handles (kernel/irq/spurious.c).

The kernel counts: of 100,000 interrupts more than 99,900 must go unhandled. The model does not count, because a line
that stays asserted while no handler claims it interrupts as fast as the CPU can take it and gets there within a second:
``line_stuck`` is that moment. ``note_interrupt`` holds the kernel's arithmetic for those who want the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from quiesce.kernel import changes
from quiesce.kernel.irq_desc import desc, genirq, irq_disable
from quiesce.kernel.kernel import IRQ_HANDLED, Kernel
from quiesce.kernel.objects import IrqAction, IrqDesc, PciDev
from quiesce.machine import interrupts
from quiesce.machine.function import Function

RunAction = Callable[[Kernel, int, IrqAction], str]
"""Runs one handler: ``run(kernel, irq, action)``."""

WINDOW = 100_000
UNHANDLED = 99_900


class SpuriousCount(NamedTuple):
    """The counters of one line."""

    irq_count: int = 0
    irqs_unhandled: int = 0


def note_interrupt(k: Kernel, count: SpuriousCount, handled: bool) -> tuple[SpuriousCount, bool]:
    """kernel/irq/spurious.c. Kept: how one interrupt moves the counters, and whether it is the one that kills the line.

    Up to v5.12 every interrupt moves the window on, from v5.13 on only those after an unhandled one. Left out: a pause
    of 100 ms between unhandled ones starts their count again; threaded handlers; irqfixup.
    """
    total, unhandled = count
    if not handled:
        unhandled += 1
    if unhandled == 0 and k.has(changes.SPURIOUS_COUNT_AFTER_UNHANDLED):
        return count, False
    total += 1
    if total < WINDOW:
        return SpuriousCount(total, unhandled), False
    return SpuriousCount(), unhandled > UNHANDLED


def interrupts_until_killed(k: Kernel, handled_before: int = 0) -> int:
    """Return after how many unhandled interrupts in a row a line is killed that saw ``handled_before`` good ones."""
    if k.has(changes.SPURIOUS_COUNT_AFTER_UNHANDLED):
        return WINDOW
    first = WINDOW - handled_before % WINDOW
    return first if first > UNHANDLED else first + WINDOW


def line_stuck(k: Kernel, d: IrqDesc) -> None:
    """kernel/irq/spurious.c, the end of ``note_interrupt``. Kept: the messages, the line disabled, the poll timer.

    Left out: the list of handlers and the stack.
    """
    k.printk("err", f'irq {d.number}: nobody cared (try booting with the "irqpoll" option)')
    k.printk("emerg", f"Disabling IRQ #{d.number}")
    k.find("irq/nobody-cared", _why_stuck(k, d), "note_interrupt")
    d.spurious_disabled = True
    d.depth += 1
    irq_disable(k, d)
    genirq(k).killed.add(d.number)


def _why_stuck(k: Kernel, d: IrqDesc) -> str:
    guilty = interrupts.asserting(k.machine, d.gsi)
    names = ", ".join(f"{fn.bdf}" for fn in guilty)
    innocent = ", ".join(action.name for action in d.actions if _function(action) not in guilty)
    most = interrupts_until_killed(k, WINDOW - UNHANDLED)
    loss = f"{innocent} on the same line gets none any more" if innocent else "nobody else is on the line"
    after = f"after {most:,} interrupts at most, irq {d.number} is switched off"
    return f"{names} keeps input {d.gsi} asserted and no handler claims it; {after}: {loss}"


def _function(action: IrqAction) -> Function | None:
    owner = action.dev_id
    return owner.hw if isinstance(owner, PciDev) and owner.exists else None


def poll_spurious_irqs(k: Kernel, run: RunAction) -> None:
    """kernel/irq/spurious.c. Kept: every 100 ms the handlers of a killed shared line run; what they find then has
    waited that long, which is the finding. Lines nobody asserts are not polled: nothing would come of it.
    """
    for irq in tuple(genirq(k).killed):
        d = desc(k, irq)
        if not d.actions or not d.actions[0].shared or not interrupts.line_asserted(k.machine, d.gsi):
            continue
        for action in d.actions:
            if run(k, irq, action) == IRQ_HANDLED:
                _report_victim(k, irq, action)


def _report_victim(k: Kernel, irq: int, action: IrqAction) -> None:
    k.find(
        "irq/line-dead-for-sharer",
        f"{action.name} interrupts on irq {irq}, which was switched off because of another device; "
        "it is served by the poll timer only, ten times a second",
        "poll_spurious_irqs",
    )


def revive(k: Kernel, d: IrqDesc) -> None:
    """Forget that the line was killed, as requesting it again does."""
    d.spurious_disabled = False
    genirq(k).killed.discard(d.number)
