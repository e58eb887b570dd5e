"""System sleep (drivers/base/power/main.c, kernel/power/suspend.c): suspend to memory, in two operations.

::

    suspend   prepare all       oldest to newest   probing is blocked from here on
              suspend           newest to oldest
              suspend_noirq     newest to oldest   device interrupts are off
              the power goes
    resume    firmware runs
              resume_noirq      oldest to newest   saved configuration comes back, MSI with it
              resume            oldest to newest   device interrupts are on again
              complete all      newest to oldest
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EBUSY

from quiesce.kernel import base_core, changes, hotplug, irq, pci, pci_driver, pci_power
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_D0, PciDev

_Callback = Callable[[Kernel, PciDev], int]


def suspend(k: Kernel) -> int:
    """kernel/power/suspend.c. Kept: tasks are frozen from before the first phase until after the last, the phases and
    their order, and that a callback that fails brings back what was suspended before it and ends the attempt.

    Left out: kernel threads that are not frozen, asynchronous callbacks, the late and early phases, wake-up sources,
    suspend-to-idle.
    """
    with k.freezing():
        return _suspend_devices_and_enter(k)


def _suspend_devices_and_enter(k: Kernel) -> int:
    _dpm_prepare(k)
    done, error = _dpm_suspend(k, pci_driver.pci_pm_suspend, "suspend")
    if error:
        _dpm_resume_end(k, done)
        return error
    k.window("suspend: devices suspended, interrupts on")
    irq.suspend_device_irqs(k)
    quiet, error = _dpm_suspend(k, pci_driver.pci_pm_suspend_noirq, "suspend noirq")
    if error:
        _dpm_resume_noirq(k, quiet)
        _dpm_resume_end(k, done)
        return error
    k.machine.power_cycle()
    k.system.phase = "suspended"
    return 0


def resume(k: Kernel) -> None:
    """kernel/power/suspend.c, the second half. Kept: firmware leaves the devices as after a cold start; all the rest is
    what the kernel restores. The thread that removes a card which went away meanwhile comes before the devices resume,
    as was seen on 6.12 and 7.2.
    """
    k.machine.power_cycle()
    k.system.phase = "running"
    devices = _prepared(k)
    with k.freezing():
        _dpm_resume_noirq(k, devices)
        for port in hotplug.pciehp_resume_noirq(k):
            hotplug.pciehp_handle_presence_or_link_change(k, port)
        k.window("resume: interrupts on, devices not resumed")
        _dpm_resume_end(k, devices)


def hibernation_snapshot(k: Kernel) -> int:
    """kernel/power/hibernate.c. Kept: devices are frozen, the image is made, devices are thawed to write it; thawing
    restores their configuration (v4.13+; before, what a freeze callback lost stays lost).

    Left out: the image, powering off, and the kernel that loads it.
    """
    with k.freezing():
        return _freeze_and_thaw_devices(k)


def _freeze_and_thaw_devices(k: Kernel) -> int:
    _dpm_prepare(k)
    done, error = _dpm_suspend(k, pci_driver.pci_pm_suspend, "freeze")
    if not error:
        irq.suspend_device_irqs(k)
        quiet, error = _dpm_suspend(k, _pci_pm_freeze_noirq, "freeze noirq")
        for dev in quiet:
            _pci_pm_thaw_noirq(k, dev)
        irq.resume_device_irqs(k)
    _dpm_resume_end(k, done)
    return error


def _pci_pm_freeze_noirq(k: Kernel, dev: PciDev) -> int:
    if not dev.state_saved:
        pci.pci_save_state(k, dev)
    pci_power.pci_pm_set_unknown_state(dev)
    return 0


def _pci_pm_thaw_noirq(k: Kernel, dev: PciDev) -> None:
    if k.has(changes.THAW_RESTORES_CONFIG):
        pci_power.pci_pm_power_up_and_verify_state(k, dev)
        pci.pci_restore_state(k, dev)
    else:
        pci_power.pci_update_current_state(k, dev, PCI_D0)
    dev.state_saved = False


def _prepared(k: Kernel) -> tuple[PciDev, ...]:
    return tuple(dev for dev in k.system.devices if dev.is_prepared)


def _dpm_prepare(k: Kernel) -> None:
    """Kept: ``device_block_probing``, then ``is_prepared`` on every device."""
    base_core.device_block_probing(k)
    for dev in k.system.devices:
        dev.is_prepared = True


def _dpm_suspend(k: Kernel, callback: _Callback, phase: str) -> tuple[tuple[PciDev, ...], int]:
    """Run a callback from the newest device to the oldest; returns those it succeeded for, oldest first."""
    done: tuple[PciDev, ...] = ()
    for dev in reversed(_prepared(k)):
        error = _run(k, dev, callback, phase)
        if error:
            return done, error
        done = (dev, *done)
    return done, 0


def _run(k: Kernel, dev: PciDev, callback: _Callback, phase: str) -> int:
    """``dpm_run_callback``, under the device's lock; the callback of a bound driver is one that may fail."""
    with base_core.device_lock(k, dev):
        failed = dev.driver is not None and k.may_fail(f"{phase} {dev.bdf}")
        error = -EBUSY if failed else callback(k, dev)
    if error:
        name = dev.driver or "pci"
        k.printk("err", f"{name} {dev.bdf}: PM: failed to {phase}: error {error}")
    return error


def _dpm_resume_noirq(k: Kernel, devices: Iterable[PciDev]) -> None:
    """Kept: interrupts come back only after the last device's registers have."""
    for dev in devices:
        pci_driver.pci_pm_resume_noirq(k, dev)
    irq.resume_device_irqs(k)


def _dpm_resume_end(k: Kernel, devices: Iterable[PciDev]) -> None:
    """Kept: ``dpm_resume``, ``dpm_complete``, then probing is allowed again and what was deferred is tried."""
    for dev in devices:
        if not (dev.exists and dev.is_prepared):
            continue
        with base_core.device_lock(k, dev):
            error = pci_driver.pci_pm_resume(k, dev)
        if error:
            k.printk("err", f"{dev.driver or 'pci'} {dev.bdf}: PM: failed to resume: error {error}")
    for dev in reversed(_prepared(k)):
        dev.is_prepared = False
    base_core.device_unblock_probing(k)
