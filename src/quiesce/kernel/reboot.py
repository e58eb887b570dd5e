"""Leaving a kernel: reboot, kexec, crash; and what the next kernel finds (kernel/reboot.c, kernel/kexec_core.c).

::

    reboot   device_shutdown   firmware resets everything
    kexec    device_shutdown   bus masters off   the gap   the next kernel enumerates
    kdump                                        the gap   the next kernel enumerates

In the gap the devices go on with what nobody told them to stop.
"""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.kernel import base_core, boot, iommu, irq
from quiesce.kernel.amd_dev_data import AmdIommu, amd_vi
from quiesce.kernel.dma_iova import DeviceMappings, dma_state
from quiesce.kernel.files import FileTable
from quiesce.kernel.intel_domain import device_domain_list, vtd
from quiesce.kernel.iommu_group import BLOCKED, IommuDomain, IommuGroup
from quiesce.kernel.irq_desc import NR_LEGACY_IRQS, allocated_irqs, desc, genirq
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev, System
from quiesce.kernel.vfio import VfioGroup
from quiesce.machine import interrupts
from quiesce.machine import iommu as iommu_hw
from quiesce.machine.function import Function
from quiesce.machine.requester import all_requester_ids
from quiesce.world import State

KINDS = ("reboot", "kexec")
CRASHED = "crashed"
"""``System.phase`` between ``crash_kexec`` and the next kernel."""
_OF_THE_SEARCH = ("windows_left", "faults_left")
"""Fields of System that are no belief of the kernel."""


def shutdown(k: Kernel, how: str) -> None:
    """kernel/reboot.c, ``kernel_restart_prepare``; ``how`` is ``reboot`` or ``kexec``. Kept: ``kexec_in_progress`` is
    set before the devices are shut down; interrupts stay on and handlers registered; only one task at a time does it.

    Left out: notifiers, other CPUs, user space.
    """
    if how not in KINDS:
        raise ValueError(f"{how!r} is none of {', '.join(KINDS)}")
    with k.mutex("system_transition_mutex"):
        k.system.kexec_in_progress = how == "kexec"
        base_core.device_shutdown(k)
        k.system.phase = "shutdown"


def crash_kexec(k: Kernel) -> None:
    """kernel/kexec_core.c, ``__crash_kexec``. Kept: nothing is shut down, and nothing of the old kernel runs again."""
    k.system.phase = CRASHED


def machine_restart(k: Kernel) -> None:
    """arch/x86/kernel/reboot.c. Kept: firmware starts with all devices reset; nothing of the kernel is left."""
    _reset_interrupt_hardware(k)
    _reset_iommu_hardware(k)
    interrupts.remapping(k.machine).delete()
    _forget_everything(k)
    k.machine.power_cycle()


# -- the next kernel -----------------------------------------------------------------------------------------


def start_second_kernel(k: Kernel) -> None:
    """arch/x86/kernel/machine_kexec_64.c and the next kernel's start. Kept: the hardware stays as it is, but the
    IO-APIC is masked and the IOMMU off; the next kernel believes nothing, takes interrupts before it has found any
    device, and then enumerates. After a crash it lives in memory of its own, which no device writes, and is made for
    devices that still interrupt: nothing of that is a finding.

    Left out: drivers of the next kernel (bind them), tables that it takes over after a crash, VT-d before v5.5 (which
    is still on until the next kernel switches it off).
    """
    crashed = k.system.phase == CRASHED
    if not crashed:
        _report_dma(k)
    _reset_interrupt_hardware(k)
    _reset_iommu_hardware(k)
    _forget_everything(k)
    _early_interrupts(k, expected=crashed)
    k.alone = True
    boot.enumerate_all(k)
    iommu.iommu_init(k)
    k.alone = False
    k.system.phase = "second"
    irq.settle(k)


def still_writes(k: Kernel, fn: Function) -> bool:
    """Whether a device does DMA now, without any driver's help: it runs, has targets, and its requests get through."""
    running = fn.behaviour.can_dma(fn) and bool(fn.dma_target)
    return running and not iommu_hw.can_send(k.machine, fn)


def _report_dma(k: Kernel) -> None:
    for fn in k.machine.functions.values():
        if still_writes(k, fn):
            why = (
                f"{fn.bdf} runs and is bus master: it writes to buffers of the old kernel, which are the new one's now"
            )
            k.find("memory/dma-into-next-kernel", why, "machine_kexec")


def _early_interrupts(k: Kernel, *, expected: bool) -> None:
    """Let every device that runs, or has something to say, interrupt before the next kernel knows any device.

    A message finds no handler. A pin is masked, so that it waits for whoever sets up its line.
    """
    for fn in k.machine.functions.values():
        if not (fn.behaviour.can_interrupt(fn) or (fn.irq_status and fn.behaviour.awake(fn))):
            continue
        if interrupts.raise_interrupt(k.machine, fn) == interrupts.SENT:
            k.printk("emerg", "do_IRQ: No irq handler for vector")
            interrupts.lapic(k.machine).pending.clear()
            if not expected:
                why = f"{fn.bdf} still sends messages with vectors of the old kernel; it may send as many as it likes"
                k.find("irq/msi-into-next-kernel", why, "start_kernel")
    if expected:
        interrupts.lapic(k.machine).lost.clear()


_NO_REFERENCE = frozenset(
    [
        "saved_config",
        "regions",
        "dma_alias_mask",
        "driver",
        "pci_driver",
        "driver_override",
        "reset_methods",
        "reset_methods_found",
        "loaded",
        "dynids",
    ]
)
"""Fields that are empty by default like a reference, and never hold one."""


# -- what goes with the old kernel ---------------------------------------------------------------------------


def _reset_interrupt_hardware(k: Kernel) -> None:
    """``disable_IO_APIC`` and what the next kernel's set-up of the APICs and of interrupt remapping empties."""
    for gsi in interrupts.io_apic(k.machine).inputs:
        interrupts.pin_of(k.machine, gsi).delete()
    for number in allocated_irqs(k):
        interrupts.irte(k.machine, number).delete()
    interrupts.lapic(k.machine).delete()


def _reset_iommu_hardware(k: Kernel) -> None:
    for unit in iommu_hw.units(k.machine):
        unit.enabled = False
    entry = iommu_hw.amd_dte if k.machine.iommu == "amd" else iommu_hw.vtd_context
    for rid in all_requester_ids(k.machine) if k.machine.iommu else ():
        entry(k.world, rid).delete()
    iommu_hw.iotlb(k.world).delete()


def _forget_everything(k: Kernel) -> None:
    """End every object of the kernel that can be reached from its devices, interrupts, files and groups.

    Objects that the old kernel itself has lost are in memory nobody looks at; they stay. Found by following references,
    not by looking through the world, so that the same state always does the same.
    """
    for obj in tuple(_beliefs(k)):
        if isinstance(obj, IommuDomain) and obj.type != BLOCKED:
            obj.page_table.delete()
        obj.delete()
    core = iommu.iommu_core(k)
    core.registered, core.release_domain = False, None
    for field in System.fields:
        if field.name not in _OF_THE_SEARCH:
            setattr(k.system, field.name, field.default)
    k.system.devices.clear()


def _beliefs(k: Kernel) -> Iterator[State]:
    seen: dict[str, State] = {}
    todo = list(_roots(k))
    while todo:
        obj = todo.pop()
        gone = obj.mortal and not obj.exists
        if gone or obj.path in seen or type(obj).__module__.startswith("quiesce.machine"):
            continue
        seen[obj.path] = obj
        todo += [value for item in _references(obj) for value in _states(item)]
        if isinstance(obj, IommuGroup):
            todo.append(VfioGroup.get(k.world, f"vfio-{obj.path}"))
    configured = (k.system, iommu.iommu_core(k))
    return (obj for obj in seen.values() if obj not in configured)


def _references(obj: State) -> Iterator[object]:
    """Yield the fields that may lead to another object; what else an object holds goes unread with it."""
    for item in obj.fields:
        if (item.default is None or isinstance(item.default, tuple)) and item.name not in _NO_REFERENCE:
            yield obj.world.read(obj.first + item.index)


def _roots(k: Kernel) -> Iterator[State]:
    yield k.system
    yield genirq(k)
    yield iommu.iommu_core(k)
    yield dma_state(k)
    yield from (DeviceMappings.at(k, bdf) for bdf in k.machine.functions)
    yield FileTable.get(k.world, "files")
    yield from _iommu_driver(k)
    for number in (*range(NR_LEGACY_IRQS), *allocated_irqs(k)):
        yield desc(k, number)
    for bdf in k.machine.functions:
        path, number = f"pci/{bdf}", 1
        while PciDev.get(k.world, path).exists:
            yield PciDev.get(k.world, path)
            number += 1
            path = f"pci/{bdf}~{number}"


def _iommu_driver(k: Kernel) -> Iterator[State]:
    if k.machine.iommu == "intel":
        yield vtd(k)
        yield from device_domain_list(k)
    elif k.machine.iommu == "amd":
        yield amd_vi(k)
        for number, _ in enumerate(iommu_hw.units(k.machine)):
            yield AmdIommu.get(k.world, f"amd/iommu/{number}")


def _states(value: object) -> Iterator[State]:
    if isinstance(value, State):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _states(item)
