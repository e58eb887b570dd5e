"""The legacy interrupt of a PCI function on x86 with ACPI (arch/x86/pci/common.c, drivers/acpi/pci_irq.c, io_apic.c).

When a function holds a reference on its IO-APIC input, and what that does to ``dev->irq``, changed several times::

    up to v3.18       taken by pci_enable_device(); giving it back does nothing on x86
    v3.19 .. v4.2     taken by pci_enable_device(), given back by pci_disable_device(), unless MSI is on; irq_managed
    v4.3, v4.4        taken by every probe, given back after the driver; dev->irq becomes 0; v4.4: not while MSI is on
    v4.5 and later    as in v3.19
"""

from __future__ import annotations

from errno import EBUSY, ENOSPC
from typing import NamedTuple

from quiesce.kernel import changes
from quiesce.kernel.irq_desc import desc, irq_alloc_desc, irq_free_desc
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import instances
from quiesce.machine import interrupts

# -- IO-APIC inputs ------------------------------------------------------------------------------------------


def acpi_register_gsi(k: Kernel, gsi: int) -> int:
    """arch/x86/kernel/acpi/boot.c. Kept: an input's interrupt number is its own; each call takes one reference and
    the first makes the descriptor. Left out: ISA inputs, two users that want different triggering.
    """
    d = desc(k, gsi)
    if not d.allocated:
        if k.may_fail(f"IO-APIC input {gsi}"):
            return -ENOSPC
        irq_alloc_desc(k, "ioapic", gsi=gsi, level=True, start=gsi)
        interrupts.pin_of(k.machine, gsi).irq = gsi
    if k.has(changes.IRQ_MANAGED):
        d.gsi_users += 1
    return gsi


def acpi_unregister_gsi(k: Kernel, gsi: int) -> None:
    """arch/x86/kernel/acpi/boot.c. Kept: the last reference frees the descriptor (``mp_unmap_irq``); before
    ``irq_managed`` an input stays set up for ever. Left out: v3.17 and v3.18 freed it with an unbalanced count.
    """
    d = desc(k, gsi)
    if not k.has(changes.IRQ_MANAGED) or d.gsi_users == 0:
        return
    d.gsi_users -= 1
    if d.gsi_users == 0:
        irq_free_desc(k, gsi)


# -- the pin of a function -----------------------------------------------------------------------------------


def pcibios_enable_irq(k: Kernel, dev: PciDev) -> int:
    """drivers/acpi/pci_irq.c, ``acpi_pci_irq_enable``. Kept: nothing without a pin or when held already; the input is
    found through the bridges above; ``dev->irq`` becomes its number, MSI on or not. The callers look at MSI.

    Left out: interrupt link devices, the ISA fallback, runtime suspend.
    """
    if dev.pin == 0 or (dev.irq_managed and dev.irq > 0):
        return 0
    gsi = interrupts.gsi_of(k.machine, dev.hw)
    pin = f"{dev.driver or 'pci'} {dev.bdf}: PCI INT {chr(ord('A') + dev.pin - 1)}"
    if gsi < 0:
        k.printk("warn", f"{pin}: no GSI")
        return 0
    irq = acpi_register_gsi(k, gsi)
    if irq < 0:
        k.printk("warn", f"{pin}: failed to register GSI")
        return irq
    dev.irq = irq
    dev.irq_managed = k.has(changes.IRQ_MANAGED)
    return 0


def pcibios_disable_irq(k: Kernel, dev: PciDev) -> None:
    """drivers/acpi/pci_irq.c, ``acpi_pci_irq_disable``. Kept: nothing unless the function holds its input, nor while
    the system sleeps (v4.3 and v4.4 did not look at that); ``dev->irq`` keeps a number that is no longer the
    function's (v4.3 and v4.4: 0).
    """
    if dev.pin == 0 or (k.has(changes.IRQ_MANAGED) and not (dev.irq_managed and dev.irq > 0)):
        return
    if dev.is_prepared and not k.has(changes.PCIBIOS_ALLOC_IRQ):
        return
    gsi = interrupts.gsi_of(k.machine, dev.hw)
    if gsi < 0:
        return
    acpi_unregister_gsi(k, gsi)
    dev.irq_managed = False
    if k.has(changes.PCIBIOS_ALLOC_IRQ) and not k.has(changes.REVERT_MANAGED_IRQ_HELPERS):
        dev.irq = 0


def pcibios_alloc_irq(k: Kernel, dev: PciDev) -> int:
    """arch/x86/pci/common.c, before a probe and after MSI was switched off. Kept: v4.3 takes the input and overwrites
    ``dev->irq`` whatever is in it, v4.4 answers -EBUSY while MSI is on, all others do nothing.

    Proposals: ``no-alloc-irq-while-msi`` does nothing while MSI is on, ``msi-without-driver`` keeps the old number.
    """
    if not (k.has(changes.PCIBIOS_IRQ_HOOKS) and k.has(changes.PCIBIOS_ALLOC_IRQ)):
        return 0
    uses_messages = dev.msi_enabled or dev.msix_enabled
    if uses_messages and k.has(changes.NO_ALLOC_IRQ_WHILE_MSI):
        return 0
    if uses_messages and k.has(changes.NO_LEGACY_IRQ_WHILE_MSI):
        return -EBUSY
    if uses_messages and k.has(changes.MSI_WITHOUT_DRIVER):
        dev.irq_before_probe = dev.irq
    return pcibios_enable_irq(k, dev)


def pcibios_free_irq(k: Kernel, dev: PciDev) -> None:
    """arch/x86/pci/common.c, after a driver or a failed probe and when MSI is switched on. Kept: v4.3 and v4.4 give the
    input back.

    Proposals: ``free-irq-unless-msi`` keeps it while MSI is on, so that a device in MSI mode holds an input it does not
    use; ``msi-without-driver`` puts back the number that the probe path replaced.
    """
    if not (k.has(changes.PCIBIOS_IRQ_HOOKS) and k.has(changes.PCIBIOS_ALLOC_IRQ)):
        return
    if k.has(changes.FREE_IRQ_UNLESS_MSI) and (dev.msi_enabled or dev.msix_enabled):
        return
    pcibios_disable_irq(k, dev)
    if dev.irq_before_probe and (dev.msi_enabled or dev.msix_enabled):
        dev.irq = dev.irq_before_probe
    dev.irq_before_probe = 0


def pcibios_release_device(k: Kernel, dev: PciDev) -> None:
    """arch/x86/pci/common.c. Kept: a device that goes while it counts as enabled gives its input back."""
    if dev.enable_cnt > 0 and not (dev.msi_enabled or dev.msix_enabled or k.has(changes.PCIBIOS_ALLOC_IRQ)):
        pcibios_disable_irq(k, dev)


# -- what is left behind -------------------------------------------------------------------------------------


class LeakedPin(NamedTuple):
    """A reference on an IO-APIC input that nothing will give back."""

    gsi: int
    holder: str
    """The function that has it, or an empty string when the structure that had it is gone."""


def leaked_pins(k: Kernel) -> tuple[LeakedPin, ...]:
    """Return the inputs held by functions that no driver has and that are not enabled (in v4.3 and v4.4 an input
    belongs to a bound driver, whether the function is enabled or not), and those that nobody holds any more (rule
    ``leak/legacy-irq``). What a removed device still holds goes with its structure. Kernels before ``irq_managed``
    never gave an input back: they have none.
    """
    if not k.has(changes.IRQ_MANAGED):
        return ()
    living = (dev for bdf in k.machine.functions for dev in instances(k, bdf))
    holders = [(interrupts.gsi_of(k.machine, dev.hw), dev) for dev in living if dev.irq_managed]
    bound_only = k.has(changes.PCIBIOS_ALLOC_IRQ)
    leaks = [
        LeakedPin(gsi, dev.bdf)
        for gsi, dev in holders
        if dev.registered and dev.driver is None and (bound_only or dev.enable_cnt <= 0)
    ]
    for gsi in interrupts.io_apic(k.machine).inputs:
        lost = desc(k, gsi).gsi_users - sum(held == gsi for held, _ in holders)
        leaks += [LeakedPin(gsi, "")] * lost
    return tuple(leaks)
