"""Requesting, freeing, enabling and disabling interrupts (kernel/irq/manage.c, pm.c).

Descriptors and chips are in ``irq_desc``, the flow of an interrupt in ``irq_flow``, the detector of unhandled ones in
``spurious``; what other files use of them is offered here.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOMEM, ENOSYS
from typing import Any

from quiesce.kernel.irq_desc import (
    TIMER_IRQ,
    allocated_irqs,
    desc,
    irq_alloc_desc,
    irq_disable,
    irq_exists,
    irq_free_desc,
    irq_get_msi_desc,
    irq_has_action,
    irq_shutdown,
    irq_startup,
)
from quiesce.kernel.irq_flow import handle_irq, settle
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import IrqAction, IrqDesc
from quiesce.kernel.spurious import revive

__all__ = [
    "desc",
    "disable_irq",
    "disable_irq_nosync",
    "enable_irq",
    "free_irq",
    "handle_irq",
    "irq_alloc_desc",
    "irq_free_desc",
    "irq_get_msi_desc",
    "irq_has_action",
    "irq_set_disable_unlazy",
    "request_irq",
    "resume_device_irqs",
    "settle",
    "suspend_device_irqs",
    "synchronize_irq",
]

IRQF_SHARED = 0x00000080
IRQF_NO_SUSPEND = 0x00004000
IRQF_NO_AUTOEN = 0x00080000
_TIMER_FLAGS = 0x00015A00


# -- requesting ----------------------------------------------------------------------------------------------


def request_irq(k: Kernel, irq: int, action: IrqAction) -> int:
    """kernel/irq/manage.c, ``request_threaded_irq``. Kept: -EINVAL without descriptor or for a shared handler that
    could not be told from others, -ENOSYS for a number without chip, -ENOMEM, -EBUSY when the flags do not fit those
    already on the line (irq 0 is the timer's).

    Left out: threads, trigger types, per-CPU interrupts, vectors running out at activation.
    """
    d = desc(k, irq)
    if not irq_exists(d) or (action.shared and (action.dev_id is None or action.no_autoen)):
        return -EINVAL
    if d.allocated and not d.chip:
        return -ENOSYS
    if not k.alloc(f"request_irq {irq} for {action.name}"):
        return -ENOMEM
    return _setup_irq(k, d, action)


def _setup_irq(k: Kernel, d: IrqDesc, new: IrqAction) -> int:
    """``__setup_irq``. Kept: a further handler gives a line another chance that the spurious detector had killed."""
    if d.number == TIMER_IRQ:
        return _mismatch(k, d, new, _TIMER_FLAGS, "timer")
    if d.actions:
        old = d.actions[0]
        if not (old.shared and new.shared):
            return _mismatch(k, d, new, irq_flags(old), old.name)
        d.actions.append(new)
        if d.spurious_disabled:
            revive(k, d)
            _enable(k, d)
        return 0
    revive(k, d)
    d.in_progress = False
    if new.no_autoen:
        d.depth = 1
    else:
        irq_startup(k, d)
    d.actions.append(new)
    return 0


def irq_flags(action: IrqAction) -> int:
    """Return the flags of a handler as messages show them."""
    shared = IRQF_SHARED if action.shared else 0
    no_suspend = IRQF_NO_SUSPEND if action.no_suspend else 0
    return shared | no_suspend | (IRQF_NO_AUTOEN if action.no_autoen else 0)


def _mismatch(k: Kernel, d: IrqDesc, new: IrqAction, flags: int, name: str) -> int:
    text = f"{irq_flags(new):08x} ({new.name}) vs. {flags:08x} ({name})"
    k.printk("err", f"genirq: Flags mismatch irq {d.number}. {text}")
    return -EBUSY


def free_irq(k: Kernel, irq: int, dev_id: Any) -> None:
    """kernel/irq/manage.c. Kept: warnings for a handler that is not there and for hard interrupt context, waiting for
    the handler, the line shut down with its last handler. A number without descriptor is ignored.

    Left out: CONFIG_DEBUG_SHIRQ's extra call.
    """
    d = desc(k, irq)
    if not irq_exists(d):
        return
    if k.hardirq:
        why = f"free_irq() of irq {irq} in interrupt context, where it must not wait"
        k.warn(f"Trying to free IRQ {irq} from IRQ context!", "irq/free-in-interrupt", why, "free_irq")
    else:
        k.might_sleep(f"free_irq({irq})")
    action = next((action for action in d.actions if action.dev_id == dev_id), None)
    if action is None:
        why = f"free_irq() of irq {irq} for {_name(dev_id)}, which has no handler there"
        k.warn(f"Trying to free already-free IRQ {irq}", "irq/free-without-request", why, "free_irq")
        return
    d.actions.remove(action)
    if not d.actions:
        d.disable_unlazy = False
        irq_shutdown(k, d)
    synchronize_irq(k, irq)


def _name(dev_id: Any) -> str:
    return str(getattr(dev_id, "path", dev_id))


# -- enabling ------------------------------------------------------------------------------------------------


def enable_irq(k: Kernel, irq: int) -> None:
    """kernel/irq/manage.c. Kept: undoes one disable; a warning when there is none to undo. Left out: irq_bus_lock."""
    d = desc(k, irq)
    if not irq_exists(d):
        return
    if d.allocated and not d.chip:
        k.warn(f"enable_irq before setup/request_irq: irq {irq}")
        return
    _enable(k, d)


def _enable(k: Kernel, d: IrqDesc) -> None:
    """``__enable_irq``."""
    if d.depth == 0 or (d.depth == 1 and d.suspended):
        state = "while it is suspended" if d.suspended else "more often than disabled"
        why = f"irq {d.number} is enabled {state}"
        k.warn(f"Unbalanced enable for IRQ {d.number}", "irq/unbalanced-enable", why, "enable_irq")
    elif d.depth == 1:
        irq_startup(k, d)
    else:
        d.depth -= 1


def disable_irq_nosync(k: Kernel, irq: int) -> None:
    """kernel/irq/manage.c. Kept: counts; the chip is not touched until the next interrupt arrives."""
    d = desc(k, irq)
    if irq_exists(d):
        _disable(k, d)


def _disable(k: Kernel, d: IrqDesc) -> None:
    """``__disable_irq``."""
    d.depth += 1
    if d.depth == 1:
        irq_disable(k, d)


def disable_irq(k: Kernel, irq: int) -> None:
    """kernel/irq/manage.c. Kept: disables, then waits until the handler has ended."""
    if not k.hardirq:
        k.might_sleep(f"disable_irq({irq})")
    disable_irq_nosync(k, irq)
    synchronize_irq(k, irq)


def synchronize_irq(k: Kernel, irq: int) -> None:
    """kernel/irq/manage.c. Kept: waits for a running handler, for ever when that is the caller itself."""
    if desc(k, irq).in_progress:
        raise k.crash(
            "wait/own-interrupt-handler",
            "watchdog: BUG: soft lockup - CPU#0 stuck",
            f"a handler of irq {irq} waits for itself to end",
            "synchronize_irq",
        )


def irq_set_disable_unlazy(k: Kernel, irq: int, on: bool = True) -> None:
    """include/linux/irq.h, IRQ_DISABLE_UNLAZY. Kept: disabling masks the chip at once, until the last handler goes."""
    desc(k, irq).disable_unlazy = on


# -- system sleep --------------------------------------------------------------------------------------------


def suspend_device_irqs(k: Kernel) -> None:
    """kernel/irq/pm.c. Kept: every line with a handler is disabled, unless one handler on it has IRQF_NO_SUSPEND.

    Left out: wake-up interrupts.
    """
    for irq in allocated_irqs(k):
        d = desc(k, irq)
        if d.actions and not any(action.no_suspend for action in d.actions):
            d.suspended = True
            _disable(k, d)


def resume_device_irqs(k: Kernel) -> None:
    """kernel/irq/pm.c. Kept: undoes ``suspend_device_irqs``. Left out: forced and early resume."""
    for irq in allocated_irqs(k):
        d = desc(k, irq)
        if d.suspended:
            d.suspended = False
            _enable(k, d)
