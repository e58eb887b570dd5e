"""Descriptors and numbers of message interrupts, and their registers (drivers/pci/msi.c, kernel/irq/msi.c).

Since v5.17 what the kernel keeps per device is a devres node: a device that has it counts as having resources, and when
the node goes the kernel has forgotten vectors that are still on.
"""

from __future__ import annotations

from errno import ENOMEM, ENOSPC

from quiesce.kernel import changes, devres
from quiesce.kernel.irq_desc import (
    allocated_irqs,
    desc,
    irq_alloc_desc,
    irq_free_desc,
    irq_has_action,
    nr_irqs,
)
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PCI_D0, Devres, MsiDesc, PciDev, address_of
from quiesce.kernel.pci_access import pci_dev_is_disconnected, pci_read_config, pci_write_config
from quiesce.machine import interrupts
from quiesce.machine import pci_regs as r

DEVICE_DATA = "msi_device_data_release"
"""Kind of the devres node with the per-device data."""


# -- registers -----------------------------------------------------------------------------------------------


def msi_cap(dev: PciDev) -> int:
    """Return the offset of the MSI capability, or 0."""
    return dev.hw.find_capability(r.PCI_CAP_ID_MSI)


def msix_cap(dev: PciDev) -> int:
    """Return the offset of the MSI-X capability, or 0."""
    return dev.hw.find_capability(r.PCI_CAP_ID_MSIX)


def pci_msi_set_enable(k: Kernel, dev: PciDev, on: bool) -> None:
    """drivers/pci/msi.c. Kept: the enable bit of MSI."""
    control = pci_read_config(k, dev, msi_cap(dev) + r.PCI_MSI_FLAGS, 2) & ~r.PCI_MSI_FLAGS_ENABLE
    pci_write_config(k, dev, msi_cap(dev) + r.PCI_MSI_FLAGS, 2, control | (r.PCI_MSI_FLAGS_ENABLE if on else 0))
    interrupts.release_pending(k.machine, dev.hw)


def pci_msix_clear_and_set_ctrl(k: Kernel, dev: PciDev, clear: int, set: int) -> None:  # noqa: A002
    """drivers/pci/msi.c. Kept: the control register of MSI-X; what a mask held back goes out when it is lifted."""
    control = pci_read_config(k, dev, msix_cap(dev) + r.PCI_MSIX_FLAGS, 2)
    pci_write_config(k, dev, msix_cap(dev) + r.PCI_MSIX_FLAGS, 2, control & ~clear | set)
    interrupts.release_pending(k.machine, dev.hw)


def pci_msi_update_mask(k: Kernel, entry: MsiDesc, mask: int) -> None:
    """drivers/pci/msi.c. Kept: the mask bits of MSI, as far as the function has them, and the copy of them."""
    dev = _device(entry)
    if pci_dev_is_disconnected(k, dev) or "MSI_MASK" not in dev.hw.config.registers:
        return
    entry.msi_mask = mask
    interrupts.mask_msi(k.machine, dev.hw, mask)


def msi_multi_mask(dev: PciDev) -> int:
    """Return a mask bit for each vector that the function can have."""
    return (1 << msi_vec_count(dev)) - 1


def msi_vec_count(dev: PciDev) -> int:
    """Return how many MSI vectors the function can have."""
    return 1 << ((dev.hw.config.static(msi_cap(dev) + r.PCI_MSI_FLAGS, 2) & r.PCI_MSI_FLAGS_QMASK) >> 1)


def pci_write_msi_msg(k: Kernel, entry: MsiDesc) -> None:
    """drivers/pci/msi.c. Kept: address and data are written in D0 only, and not to a device marked as disconnected."""
    dev = _device(entry)
    if dev.current_state != PCI_D0 or pci_dev_is_disconnected(k, dev):
        return
    if entry.is_msix:
        interrupts.program_msix(k.machine, dev.hw, entry.index, entry.irq, entry.masked)
        return
    flags = msi_cap(dev) + r.PCI_MSI_FLAGS
    control = pci_read_config(k, dev, flags, 2) & ~r.PCI_MSI_FLAGS_QSIZE
    pci_write_config(k, dev, flags, 2, control | (entry.nvec_used - 1).bit_length() << 4)
    interrupts.program_msi(k.machine, dev.hw, entry.irq)


def _device(entry: MsiDesc) -> PciDev:
    assert entry.dev is not None
    return entry.dev


# -- descriptors ---------------------------------------------------------------------------------------------


def msi_add_desc(k: Kernel, dev: PciDev, *, is_msix: bool = False, index: int = 0, nvec: int = 1) -> MsiDesc:
    """kernel/irq/msi.c, ``msi_add_msi_desc``. Kept: a descriptor with what it replaces, on the device's list.

    Left out: the allocation failing; callers ask ``k.alloc`` once for all, because one failure undoes all.
    """
    where = f"msi_desc/{address_of(dev)}"
    entry = MsiDesc.fresh(k.world, where, dev=dev, is_msix=is_msix, index=index, default_irq=dev.irq)
    entry.nvec_used = nvec
    if is_msix:
        found = dev.hw.msix_table.get(index)
        entry.masked = found is None or found[1]
    else:
        entry.msi_mask = dev.hw.read_register("MSI_MASK")
    dev.msi_descs.append(entry)
    return entry


def pci_msi_setup_msi_irqs(k: Kernel, dev: PciDev) -> int:
    """kernel/irq/msi.c, ``msi_domain_alloc_irqs``. Kept: a number and a message for each vector; several MSI vectors of
    one function need interrupt remapping. Returns 0, how many there could be, or -ENOSPC.

    Left out: vectors running out anywhere but at the first and the last; affinity.
    """
    entries = dev.msi_descs.as_tuple()
    if entries[0].nvec_used > 1 and not interrupts.remaps(k.machine, dev.hw):
        return 1
    for done, entry in enumerate(entries):
        if entry in (entries[0], entries[-1]) and k.may_fail(f"MSI vector {done} of {dev.bdf}"):
            return done or (1 if entry.nvec_used > 1 else -ENOSPC)
        if not _alloc_numbers(k, entry):
            return done or (1 if entry.nvec_used > 1 else -ENOSPC)
        pci_write_msi_msg(k, entry)
    return 0


def _alloc_numbers(k: Kernel, entry: MsiDesc) -> bool:
    """Give a descriptor the lowest free numbers; False when there are none."""
    dev = _device(entry)
    first = interrupts.gsi_top(k.machine)
    while any(desc(k, first + n).allocated for n in range(entry.nvec_used)):
        first += 1
    if first + entry.nvec_used > nr_irqs(k):
        return False
    entry.irq = first
    for irq in range(first, first + entry.nvec_used):
        irq_alloc_desc(k, "msi", msi_desc=entry, start=irq)
        if interrupts.remaps(k.machine, dev.hw):
            remap = interrupts.irte(k.machine, irq)
            remap.present, remap.source = True, str(dev.hw.bdf)
    return True


def free_msi_irqs(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: numbers, remapping entries and descriptors go; a handler that is still there is a BUG up
    to v5.16 and loses its number after that. Messages are emptied, as the interrupt domains do.
    """
    entries = dev.msi_descs.as_tuple()
    if not k.has(changes.MSI_FREE_WITHOUT_BUG):
        for entry in entries:
            _check_no_action(k, entry)
    dev.msi_descs.clear()
    for entry in entries:
        _free_entry(k, entry)


def _numbers(entry: MsiDesc) -> range:
    return range(entry.irq, entry.irq + entry.nvec_used) if entry.irq else range(0)


def _check_no_action(k: Kernel, entry: MsiDesc) -> None:
    for irq in _numbers(entry):
        if irq_has_action(k, irq):
            raise k.crash(
                "msi/disabled-with-action",
                "kernel BUG at drivers/pci/msi.c! BUG_ON(irq_has_action)",
                f"MSI of {_device(entry).bdf} is switched off while {desc(k, irq).actions[0].name} "
                f"still has its handler on irq {irq}",
                "free_msi_irqs",
            )


def _free_entry(k: Kernel, entry: MsiDesc) -> None:
    for irq in _numbers(entry):
        irq_free_desc(k, irq)
        interrupts.irte(k.machine, irq).delete()
    if entry.irq:
        entry.irq, entry.masked = -1, True
        pci_write_msi_msg(k, entry)
    entry.delete()


# -- per-device data (v5.17+) --------------------------------------------------------------------------------


def msi_setup_device_data(k: Kernel, dev: PciDev) -> int:
    """kernel/irq/msi.c, v5.17+. Kept: made once per device, as a devres node whoever the owner of the device is."""
    if not k.has(changes.MSI_DATA_IS_DEVRES) or dev.msi_data:
        return 0
    if not k.alloc(f"devres {DEVICE_DATA}"):
        return -ENOMEM
    dev.msi_data = True
    devres.devres_add(k, dev, devres.devres_alloc(k, dev, DEVICE_DATA))
    return 0


def msi_device_data_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    """kernel/irq/msi.c, v5.17+. Kept: vectors that are still there are forgotten, with a warning, and one more for the
    device's own interrupt domain, which goes too (v6.2+).
    """
    if dev.msi_descs:
        if k.has(changes.PER_DEVICE_MSI_DOMAIN):
            k.printk("WARN", "WARNING: kernel/irq/irqdomain.c: irq_domain_remove")
        on = "MSI-X" if dev.msix_enabled else "MSI"
        k.warn(
            "WARNING: kernel/irq/msi.c: msi_device_data_release",
            "msi/data-freed-with-vectors",
            f"the driver of {dev.bdf} leaves {on} on; the kernel forgets its vectors, switching them off will crash",
            "msi_device_data_release",
        )
    dev.msi_descs.clear()
    dev.msi_data = False


devres.RELEASE[DEVICE_DATA] = msi_device_data_release


def check_device_data(k: Kernel, dev: PciDev, function: str) -> None:
    """``msi_lock_descs``, v5.17+. Kept: it takes a mutex in the per-device data, there or not."""
    k.might_sleep(function)
    if k.has(changes.MSI_DATA_IS_DEVRES) and not dev.msi_data:
        raise no_vectors(k, dev, "BUG: kernel NULL pointer dereference", "msi_lock_descs")


def no_vectors(k: Kernel, dev: PciDev, text: str, function: str) -> Crash:
    """Return the crash of a function that needs the vectors of a device whose MSI is on and that has none."""
    why = f"MSI of {dev.bdf} counts as enabled and the kernel has no vectors for it"
    return k.crash("msi/enabled-without-vectors", text, why, function)


def leaked_vectors(k: Kernel) -> tuple[tuple[int, str], ...]:
    """Return interrupt numbers, with their device, that nothing will give back (rule ``leak/msi-vectors``): their
    descriptor is forgotten, their device is gone, or it has no driver and nobody handles them.
    """
    leaks = []
    for irq in allocated_irqs(k):
        entry = desc(k, irq).msi_desc
        if entry is None:
            continue
        dev = _device(entry)
        unused = dev.exists and dev.driver is None and not irq_has_action(k, irq)
        if not dev.exists or entry not in dev.msi_descs or unused:
            leaks.append((irq, dev.path.removeprefix("pci/")))
    return tuple(leaks)
