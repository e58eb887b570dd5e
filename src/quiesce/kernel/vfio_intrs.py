"""Interrupts of VFIO devices (drivers/vfio/pci/vfio_pci_intrs.c).

On INTx the kernel knows nothing of the device: a level stays asserted until the driver in user space services it. So
the handler masks, at the device when DisINTx works (``pci_2_3``) and else at the interrupt controller, signals an
eventfd, and user space unmasks. ``masked`` and the hardware must agree, in hard interrupt context too: hence
``irqlock``, a spinlock. Set-up is under ``igate``, a mutex.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENODEV, ENOMEM

from quiesce.kernel import changes, irq, msi, pci
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import pci_regs as r
from quiesce.world import Field, State, StateList

NONE, INTX, MSI, MSIX = "none", "intx", "msi", "msix"


class EventFd(State):
    """``struct eventfd_ctx``; path ``eventfd/N``."""

    mortal = True
    signalled: Field[bool] = Field(False)


class VfioPciDevice(State):
    """``struct vfio_pci_core_device``; path ``vfio/BDF``. Lives from probe to remove."""

    mortal = True
    dev: Field[PciDev | None] = Field(None)
    refs: Field[int] = Field(0)
    """Users, from before their open to after their close; removal waits for them."""
    open: Field[bool] = Field(False)
    """User space has the device file and can use it."""
    req_trigger: Field[bool] = Field(False)
    """The user has registered a request eventfd and answers it by closing the device."""
    irq_type: Field[str] = Field(NONE)
    masked: Field[bool] = Field(False)
    """``ctx[0].masked``: what the driver believes of INTx."""
    triggers: StateList[EventFd | None] = StateList()
    """``ctx[n].trigger``: where each vector signals; None while user space has taken the eventfd away."""
    virq_disabled: Field[bool] = Field(False)
    """The guest has set DisINTx in its view of COMMAND."""
    pci_2_3: Field[bool] = Field(False)
    """DisINTx works, so INTx can be shared."""
    reset_works: Field[bool] = Field(False)
    needs_reset: Field[bool] = Field(False)
    pci_saved_state: Field[tuple[tuple[str, int], ...] | None] = Field(None)
    pm_save: Field[tuple[tuple[str, int], ...] | None] = Field(None)
    dma: StateList[int] = StateList()
    """IOVA tokens that the user has mapped for the device."""


def pdev(vdev: VfioPciDevice) -> PciDev:
    """Return the PCI device."""
    dev = vdev.dev
    assert dev is not None
    return dev


def igate(vdev: VfioPciDevice) -> str:
    """Return the name of the mutex around interrupt set-up."""
    return f"igate {pdev(vdev).bdf}"


def _irqlock(vdev: VfioPciDevice) -> str:
    return f"irqlock {pdev(vdev).bdf}"


def eventfd_signal(k: Kernel, trigger: EventFd | None, dev: PciDev) -> None:
    """fs/eventfd.c. Kept: a signal to nowhere is an oops."""
    if trigger is None:
        raise k.crash(
            "vfio/null-eventfd",
            "BUG: kernel NULL pointer dereference, eventfd_signal",
            f"INTx of {dev.bdf} is signalled after user space has taken its eventfd away",
            "vfio_send_intx_eventfd",
        )
    trigger.signalled = True


def _put(trigger: EventFd | None) -> None:
    if trigger is not None:
        trigger.delete()


# -- INTx: masking -------------------------------------------------------------------------------------------


def _pci_intx(k: Kernel, vdev: VfioPciDevice, enable: bool) -> None:
    """Call ``pci_intx``; the proposed VFIO_UNMANAGED_INTX calls the one that never manages."""
    if k.has(changes.VFIO_UNMANAGED_INTX):
        pci.pci_intx_unmanaged(k, pdev(vdev), enable)
    else:
        pci.pci_intx(k, pdev(vdev), enable)


def vfio_send_intx_eventfd(k: Kernel, vdev: VfioPciDevice) -> None:
    """Kept: only in INTx mode and unless the guest has disabled INTx; v6.9+ copes with an eventfd taken away."""
    if vdev.irq_type != INTX or vdev.virq_disabled:
        return
    trigger = vdev.triggers[0]
    if trigger is not None or not k.has(changes.VFIO_INTX_HANDLER_LIVES_WITH_MODE):
        eventfd_signal(k, trigger, pdev(vdev))


def intx_mask(k: Kernel, vdev: VfioPciDevice) -> None:
    """``__vfio_pci_intx_mask``. Kept: the physical bit follows the virtual one outside INTx mode too; the flag and the
    hardware change together under ``irqlock``, which the proposed VFIO_INTX_OUTSIDE_LOCK gives up.
    """
    outside = k.has(changes.VFIO_INTX_OUTSIDE_LOCK)
    at_device = vdev.pci_2_3 and (vdev.irq_type != INTX or not vdev.masked)
    with k.spinlock(_irqlock(vdev)):
        if at_device and not outside:
            _pci_intx(k, vdev, False)
        if vdev.irq_type == INTX and not vdev.masked:
            if not vdev.pci_2_3:
                irq.disable_irq_nosync(k, pdev(vdev).irq)
            vdev.masked = True
    if at_device and outside:
        k.window("vfio: INTx masked in the flag, not at the device")
        _pci_intx(k, vdev, False)
        _check_agreement(k, vdev)


def intx_unmask(k: Kernel, vdev: VfioPciDevice) -> None:
    """``__vfio_pci_intx_unmask`` and its handler. Kept: an interrupt that is pending already is signalled again
    instead.
    """
    outside = k.has(changes.VFIO_INTX_OUTSIDE_LOCK)
    follow = vdev.irq_type != INTX and vdev.pci_2_3
    pending = False
    with k.spinlock(_irqlock(vdev)):
        if follow and not outside:
            _pci_intx(k, vdev, True)
        elif vdev.irq_type == INTX and vdev.masked and not vdev.virq_disabled:
            pending = _unmask_hardware(k, vdev)
            vdev.masked = pending
    if follow and outside:
        _pci_intx(k, vdev, True)
    _check_enabled(k, vdev)
    if pending:
        vfio_send_intx_eventfd(k, vdev)


def _unmask_hardware(k: Kernel, vdev: VfioPciDevice) -> bool:
    """Unmask, and say whether that was not done because an interrupt is pending."""
    if vdev.pci_2_3:
        return not pci.pci_check_and_unmask_intx(k, pdev(vdev))
    irq.enable_irq(k, pdev(vdev).irq)
    return False


def _check_agreement(k: Kernel, vdev: VfioPciDevice) -> None:
    """``masked`` and DisINTx must agree whenever ``irqlock`` is free."""
    hw = pdev(vdev).hw
    if vdev.irq_type == INTX and hw.reachable and vdev.masked is not hw.intx_disabled:
        states = {True: "masked", False: "unmasked"}
        real, believed = states[hw.intx_disabled], states[vdev.masked]
        why = f"INTx of {hw.bdf} is {real} at the device, the driver takes it for {believed}"
        k.find("vfio/intx-mask-disagrees", why, "vfio_pci_intx_mask")


def _check_enabled(k: Kernel, vdev: VfioPciDevice) -> None:
    """A line that only this driver uses and that it believes to be unmasked must be enabled."""
    if vdev.irq_type != INTX or vdev.pci_2_3 or vdev.masked or not vdev.triggers:
        return
    line = irq.desc(k, pdev(vdev).irq)
    if line.actions and line.depth > 0:
        why = f"irq {line.number} was disabled twice and enabled once; {pdev(vdev).bdf} is never heard again"
        k.find("vfio/intx-stuck", why, "vfio_pci_intx_unmask_handler")


def external_intx_mask(k: Kernel, vdev: VfioPciDevice, mask: bool) -> None:
    """``vfio_pci_intx_mask`` and ``vfio_pci_intx_unmask`` for callers outside the interrupt code, such as the guest's
    write of DisINTx. Kept: since v6.9 they take ``igate``; before, they may run while INTx is being set up or torn
    down.
    """
    change = intx_mask if mask else intx_unmask
    if k.has(changes.VFIO_INTX_IGATE):
        with k.mutex(igate(vdev)):
            change(k, vdev)
    else:
        change(k, vdev)


def vfio_intx_handler(k: Kernel, line: int, vdev: VfioPciDevice) -> str:
    """Kept: claims what is ours by STATUS.INTERRUPT and masks it at the device, or claims everything and masks the
    line.
    """
    result = IRQ_NONE
    with k.spinlock(_irqlock(vdev)):
        if not vdev.pci_2_3:
            irq.disable_irq_nosync(k, line)
            vdev.masked = True
            result = IRQ_HANDLED
        elif not vdev.masked and pci.pci_check_and_mask_intx(k, pdev(vdev)):
            vdev.masked = True
            result = IRQ_HANDLED
    if result == IRQ_HANDLED:
        vfio_send_intx_eventfd(k, vdev)
    return result


# -- INTx: set-up --------------------------------------------------------------------------------------------


def vfio_intx_enable(k: Kernel, vdev: VfioPciDevice) -> int:
    """Kept: masked from the start if the guest has INTx disabled; a shared handler when DisINTx works, else an
    exclusive one; what is told to the device is not taken back when the handler cannot be had. The caller holds
    ``igate``.
    """
    if vdev.irq_type != NONE:
        return -EINVAL
    if not pdev(vdev).irq:
        return -ENODEV
    if not k.alloc("vfio_intx_enable: context"):
        return -ENOMEM
    vdev.masked = vdev.virq_disabled
    if vdev.pci_2_3:
        _pci_intx(k, vdev, not vdev.masked)
    vdev.irq_type = INTX
    vdev.triggers.replace((EventFd.fresh(k.world, "eventfd"),))
    error = _request_intx(k, vdev)
    if error:
        _forget_mode(vdev)
    return error


def _request_intx(k: Kernel, vdev: VfioPciDevice) -> int:
    """Request the handler. Kept: until v6.8 an exclusive line is requested enabled and disabled afterwards if INTx is
    masked; an interrupt in between disables it a second time. Unlazy since v6.18.
    """
    dev, exclusive = pdev(vdev), not vdev.pci_2_3
    stays_off = exclusive and vdev.masked and k.has(changes.VFIO_INTX_NO_AUTOEN)
    name = f"vfio-intx({dev.bdf})"
    if exclusive and k.has(changes.VFIO_INTX_UNLAZY):
        irq.irq_set_disable_unlazy(k, dev.irq)
    error = irq.request_irq(k, dev.irq, IrqAction(name, "vfio-pci.intx", vdev, not exclusive, no_autoen=stays_off))
    if error:
        if exclusive and k.has(changes.VFIO_INTX_UNLAZY):
            irq.irq_set_disable_unlazy(k, dev.irq, False)
        return error
    if exclusive and not k.has(changes.VFIO_INTX_NO_AUTOEN):
        k.window("vfio: exclusive INTx requested, not yet masked")
        with k.spinlock(_irqlock(vdev)):
            if vdev.masked:
                irq.disable_irq_nosync(k, dev.irq)
    return 0


def _forget_mode(vdev: VfioPciDevice) -> None:
    vdev.irq_type = NONE
    for trigger in vdev.triggers:
        _put(trigger)
    vdev.triggers.clear()
    vdev.masked = False


def vfio_intx_set_signal(k: Kernel, vdev: VfioPciDevice, present: bool) -> int:
    """Kept: user space takes the eventfd away or gives one again. Until v6.8 the handler went and came with it, while
    INTx mode stayed: what else signals then, signals to nowhere.
    """
    lives = k.has(changes.VFIO_INTX_HANDLER_LIVES_WITH_MODE)
    old = vdev.triggers[0]
    if old is not None and not lives:
        irq.free_irq(k, pdev(vdev).irq, vdev)
    vdev.triggers.replace((EventFd.fresh(k.world, "eventfd") if present else None,))
    _put(old)
    if not present or lives:
        return 0
    error = _request_intx(k, vdev)
    if error:
        _put(vdev.triggers[0])
        vdev.triggers.replace((None,))
    return error


def vfio_intx_disable(k: Kernel, vdev: VfioPciDevice) -> None:
    """Kept: the handler goes, then the mode. DisINTx stays as it is."""
    if not k.has(changes.VFIO_INTX_HANDLER_LIVES_WITH_MODE):
        vfio_intx_set_signal(k, vdev, False)
        k.window("vfio: INTx handler freed, mode still INTx")
    else:
        irq.free_irq(k, pdev(vdev).irq, vdev)
    _forget_mode(vdev)


# -- MSI and MSI-X -------------------------------------------------------------------------------------------


def vfio_msihandler(k: Kernel, line: int, trigger: EventFd) -> str:
    """Kept: signals and claims. The device's condition is the guest's to clear."""
    trigger.signalled = True
    return IRQ_HANDLED


def vfio_msi_enable(k: Kernel, vdev: VfioPciDevice, kind: str) -> int:
    """Kept: only from no mode at all, user space leaves INTx first; one vector with its handler.

    Left out: more vectors, vectors added later (v6.2+), irq bypass.
    """
    dev = pdev(vdev)
    if vdev.irq_type != NONE:
        return -EINVAL
    if not k.alloc("vfio_msi_enable: contexts"):
        return -ENOMEM
    with _memory_enabled(k, dev):
        got = msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,))
    if got < 0:
        return got
    vdev.irq_type = kind
    trigger = EventFd.fresh(k.world, "eventfd")
    action = IrqAction(f"vfio-{kind}[0]({dev.bdf})", "vfio-pci.msi", trigger)
    error = irq.request_irq(k, msi.pci_irq_vector(k, dev, 0), action)
    if error:
        trigger.delete()
        vfio_msi_disable(k, vdev)
        return error
    vdev.triggers.replace((trigger,))
    return 0


def vfio_msi_disable(k: Kernel, vdev: VfioPciDevice) -> None:
    """Kept: handlers first, then the vectors."""
    dev = pdev(vdev)
    for number, trigger in enumerate(vdev.triggers):
        if trigger is not None:
            irq.free_irq(k, msi.pci_irq_vector(k, dev, number), trigger)
    with _memory_enabled(k, dev):
        msi.pci_free_irq_vectors(k, dev)
    _forget_mode(vdev)


@contextmanager
def _memory_enabled(k: Kernel, dev: PciDev) -> Iterator[None]:
    """drivers/vfio/pci/vfio_pci_core.c, ``vfio_pci_memory_lock_and_enable`` and its counterpart, v5.8+. Kept: memory is
    decoded while the vectors change, and afterwards all of COMMAND is as it was before: DisINTx too, which the MSI code
    has just changed. Left out: the lock, and that the handler's request is bracketed in the same way.
    """
    if not k.has(changes.VFIO_ZAPS_ON_MEMORY_OFF):
        yield
        return
    before = pci.pci_read_config(k, dev, r.PCI_COMMAND, 2)
    if not before & r.PCI_COMMAND_MEMORY:
        pci.pci_write_config(k, dev, r.PCI_COMMAND, 2, before | r.PCI_COMMAND_MEMORY)
    yield
    pci.pci_write_config(k, dev, r.PCI_COMMAND, 2, before)


def vfio_disable_irqs(k: Kernel, vdev: VfioPciDevice) -> None:
    """Leave whatever mode is on, as closing does."""
    with k.mutex(igate(vdev)):
        if vdev.irq_type == INTX:
            vfio_intx_disable(k, vdev)
        elif vdev.irq_type != NONE:
            vfio_msi_disable(k, vdev)
