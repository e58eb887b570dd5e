"""MSI and MSI-X of PCI devices (drivers/pci/msi.c, since v5.17 drivers/pci/msi/).

MSI puts its first number into ``dev->irq`` and restores it from there; MSI-X leaves ``dev->irq`` alone and restores
from its list. Descriptors and registers are in ``msi_desc``.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL, ENOMEM, ENOSPC, ERANGE

from quiesce.kernel import changes, pci, pci_devres, x86_irq
from quiesce.kernel.irq_desc import irq_get_msi_desc
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.msi_desc import (
    check_device_data,
    free_msi_irqs,
    leaked_vectors,
    msi_add_desc,
    msi_cap,
    msi_multi_mask,
    msi_setup_device_data,
    msi_vec_count,
    msix_cap,
    no_vectors,
    pci_msi_set_enable,
    pci_msi_setup_msi_irqs,
    pci_msi_update_mask,
    pci_msix_clear_and_set_ctrl,
    pci_write_msi_msg,
)
from quiesce.kernel.objects import PCI_D0, MsiDesc, PciDev
from quiesce.kernel.pci_access import pci_dev_is_disconnected, pci_read_config
from quiesce.machine import interrupts
from quiesce.machine import pci_regs as r

__all__ = [
    "leaked_vectors",
    "pci_alloc_irq_vectors",
    "pci_disable_msi",
    "pci_disable_msix",
    "pci_enable_msi",
    "pci_enable_msix",
    "pci_free_irq_vectors",
    "pci_irq_vector",
    "pci_msi_init",
    "pci_msi_shutdown",
    "pci_msix_shutdown",
    "pci_restore_msi_state",
]

_MSIX_BIR = 7
"""The bits of the table's register that name a BAR; all of them name none."""


def pci_msi_init(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/probe.c, ``pci_msi_setup_pci_dev`` (before, ``pci_msi_init_pci_dev``). Kept: a device that is found
    with MSI or MSI-X on, left so by firmware or by the kernel before, has it switched off (v3.2+).

    Left out: kernels without CONFIG_PCI_MSI, which do so since v4.2.
    """
    if not k.has(changes.MSI_OFF_AT_ENUMERATION):
        return
    if msi_cap(dev) and dev.hw.msi_enabled:
        pci_msi_set_enable(k, dev, False)
    if msix_cap(dev) and dev.hw.msix_enabled:
        pci_msix_clear_and_set_ctrl(k, dev, r.PCI_MSIX_FLAGS_ENABLE, 0)


def pci_intx_for_msi(k: Kernel, dev: PciDev, enable: bool) -> None:
    """drivers/pci/msi.c. Kept: DisINTx, by the same function that drivers call, with what that records.

    Left out: the quirk for devices whose MSI stops with DisINTx.
    """
    pci.pci_intx(k, dev, enable)


def _usable(dev: PciDev) -> bool:
    """``pci_msi_supported``. Left out: buses that do not route messages, pci=nomsi."""
    return not dev.no_msi and dev.current_state == PCI_D0


def _setup_context(k: Kernel, dev: PciDev) -> int:
    """``pci_setup_msi_context``, v5.17+."""
    return msi_setup_device_data(k, dev) or pci_devres.pcim_setup_msi_release(k, dev)


def _enabled_twice(k: Kernel, dev: PciDev, kind: str, function: str) -> int:
    k.warn(
        f"WARNING: drivers/pci/msi.c: {function}",
        "msi/enabled-twice",
        f"{kind} of {dev.bdf} is switched on while it is on already; an earlier owner left it on",
        function,
    )
    return -EINVAL


def _retry(minvec: int, nvec: int, attempt: Callable[[int], int]) -> int:
    """Try with fewer vectors as long as ``attempt`` says how many there could be; returns how many there are."""
    while True:
        result = attempt(nvec)
        if result <= 0:
            return result or nvec
        if result < minvec:
            return -ENOSPC
        nvec = result


# -- MSI -----------------------------------------------------------------------------------------------------


def pci_enable_msi(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/msi.c. Kept: one vector; returns 0 or a negative errno."""
    return min(pci_enable_msi_range(k, dev, 1, 1), 0)


def pci_enable_msi_range(k: Kernel, dev: PciDev, minvec: int, maxvec: int) -> int:
    """drivers/pci/msi.c. Kept: refused outside D0, while MSI-X is on, and with a warning while MSI is on; fewer vectors
    when there are not enough. Left out: up to v4.x the warning did not stop it.
    """
    if not _usable(dev) or minvec < 1:
        return -EINVAL
    if dev.msix_enabled:
        k.printk("info", f"{dev.driver or 'pci'} {dev.bdf}: can't enable MSI (MSI-X already enabled)")
        return -EINVAL
    if maxvec < minvec:
        return -ERANGE
    if dev.msi_enabled:
        return _enabled_twice(k, dev, "MSI", "pci_enable_msi_range")
    if not msi_cap(dev):
        return -EINVAL
    if msi_vec_count(dev) < minvec:
        return -ENOSPC
    error = _setup_context(k, dev)
    if error:
        return error
    return _retry(minvec, min(msi_vec_count(dev), maxvec), lambda nvec: _msi_capability_init(k, dev, nvec))


def _msi_capability_init(k: Kernel, dev: PciDev, nvec: int) -> int:
    """``msi_capability_init``. Kept: off while it is set up, vectors masked, DisINTx, on, then ``dev->irq``.

    v4.3 and v4.4 give the legacy interrupt back on the way.
    """
    pci_msi_set_enable(k, dev, False)
    if not k.alloc(f"msi_desc {dev.bdf}"):
        return -ENOMEM
    entry = msi_add_desc(k, dev, nvec=nvec)
    pci_msi_update_mask(k, entry, entry.msi_mask | msi_multi_mask(dev))
    result = pci_msi_setup_msi_irqs(k, dev)
    if result:
        pci_msi_update_mask(k, entry, 0)
        free_msi_irqs(k, dev)
        return result
    pci_intx_for_msi(k, dev, False)
    pci_msi_set_enable(k, dev, True)
    dev.msi_enabled = True
    _free_legacy_irq(k, dev)
    dev.irq = entry.irq
    return 0


def _free_legacy_irq(k: Kernel, dev: PciDev) -> None:
    if k.has(changes.MSI_FREES_LEGACY_IRQ):
        x86_irq.pcibios_free_irq(k, dev)


def _alloc_legacy_irq(k: Kernel, dev: PciDev) -> None:
    if k.has(changes.MSI_FREES_LEGACY_IRQ):
        x86_irq.pcibios_alloc_irq(k, dev)


def pci_msi_shutdown(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: MSI off, INTx may be asserted again, vectors unmasked, ``dev->irq`` as before MSI.
    Numbers, descriptors and handlers stay; nobody is told to listen to the pin.
    """
    if not dev.msi_enabled:
        return
    if not dev.msi_descs:
        raise no_vectors(k, dev, "kernel BUG at drivers/pci/msi.c! BUG_ON(list_empty)", "pci_msi_shutdown")
    entry = dev.msi_descs[0]
    pci_msi_set_enable(k, dev, False)
    pci_intx_for_msi(k, dev, True)
    dev.msi_enabled = False
    k.window("pci_msi_shutdown: MSI is off, INTx may be asserted")
    pci_msi_update_mask(k, entry, 0)
    dev.irq = entry.default_irq
    _alloc_legacy_irq(k, dev)


def pci_disable_msi(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: nothing while MSI is off; else off, and all vectors given back."""
    if not dev.msi_enabled:
        return
    check_device_data(k, dev, "pci_disable_msi")
    pci_msi_shutdown(k, dev)
    free_msi_irqs(k, dev)


# -- MSI-X ---------------------------------------------------------------------------------------------------


def pci_enable_msix(k: Kernel, dev: PciDev, nvec: int) -> int:
    """drivers/pci/msi.c, ``pci_enable_msix_exact``. Kept: the first ``nvec`` entries or none; 0 or a negative errno."""
    return min(pci_enable_msix_range(k, dev, nvec, nvec), 0)


def pci_enable_msix_range(k: Kernel, dev: PciDev, minvec: int, maxvec: int) -> int:
    """drivers/pci/msi.c. Kept: refused outside D0, while MSI is on, and with a warning while MSI-X is on; fewer vectors
    when there are not enough. Left out: the choice of entries, the wording of the message from v6.2 on.
    """
    if maxvec < minvec:
        return -ERANGE
    if dev.msix_enabled:
        return _enabled_twice(k, dev, "MSI-X", "pci_enable_msix_range")
    if not _usable(dev) or not msix_cap(dev) or maxvec < 1:
        return -EINVAL
    error = _setup_context(k, dev)
    if error:
        return error
    return _retry(minvec, maxvec, lambda nvec: _enable_msix(k, dev, nvec))


def _enable_msix(k: Kernel, dev: PciDev, nvec: int) -> int:
    """``__pci_enable_msix``."""
    available = msix_vec_count(dev)
    if nvec > available:
        return available
    if dev.msi_enabled:
        k.printk("info", f"{dev.driver or 'pci'} {dev.bdf}: can't enable MSI-X (MSI IRQ already assigned)")
        return -EINVAL
    if k.has(changes.MSIX_MASKALL_FIRST):
        return _msix_capability_init(k, dev, nvec)
    return _msix_capability_init_late(k, dev, nvec)


def msix_vec_count(dev: PciDev) -> int:
    """Return the size of the MSI-X table."""
    return (dev.hw.config.static(msix_cap(dev) + r.PCI_MSIX_FLAGS, 2) & r.PCI_MSIX_FLAGS_QSIZE) + 1


def _msix_capability_init(k: Kernel, dev: PciDev, nvec: int) -> int:
    """``msix_capability_init``, v5.14+. Kept: on with everything masked before the table is touched; the whole
    table is masked, since v5.16 only when nothing can fail any more.
    """
    control = r.PCI_MSIX_FLAGS_MASKALL | r.PCI_MSIX_FLAGS_ENABLE
    pci_msix_clear_and_set_ctrl(k, dev, 0, control)
    mask_unused, late = k.has(changes.MSIX_MASK_UNUSED), k.has(changes.MSIX_MASK_AFTER_SUCCESS)
    if mask_unused and not late:
        interrupts.mask_all_msix(k.machine, dev.hw)
    result = _msix_map_region(k, dev) or _msix_setup_interrupts(k, dev, nvec)
    if result:
        pci_msix_clear_and_set_ctrl(k, dev, control, 0)
        return result
    _mask_entries(k, dev)
    pci_intx_for_msi(k, dev, False)
    if mask_unused and late:
        interrupts.mask_all_msix(k.machine, dev.hw)
    _msix_on(k, dev)
    return 0


def _msix_capability_init_late(k: Kernel, dev: PciDev, nvec: int) -> int:
    """``msix_capability_init`` up to v5.13. Kept: the table is written while MSI-X is off, and entries that are not
    used keep the mask they had.
    """
    pci_msix_clear_and_set_ctrl(k, dev, r.PCI_MSIX_FLAGS_ENABLE, 0)
    result = _msix_map_region(k, dev) or _msix_setup_interrupts(k, dev, nvec)
    if result:
        return result
    pci_msix_clear_and_set_ctrl(k, dev, 0, r.PCI_MSIX_FLAGS_MASKALL | r.PCI_MSIX_FLAGS_ENABLE)
    _mask_entries(k, dev)
    pci_intx_for_msi(k, dev, False)
    _msix_on(k, dev)
    return 0


def _msix_on(k: Kernel, dev: PciDev) -> None:
    dev.msix_enabled = True
    pci_msix_clear_and_set_ctrl(k, dev, r.PCI_MSIX_FLAGS_MASKALL, 0)
    _free_legacy_irq(k, dev)


def _msix_map_region(k: Kernel, dev: PciDev) -> int:
    """``msix_map_region``. Kept: -ENOMEM for a device that is gone, whose table seems to be in a BAR 7. Left out: that
    the mapping may fail otherwise.
    """
    table = pci_read_config(k, dev, msix_cap(dev) + r.PCI_MSIX_TABLE, 4)
    return -ENOMEM if table & _MSIX_BIR == _MSIX_BIR else 0


def _msix_setup_interrupts(k: Kernel, dev: PciDev, nvec: int) -> int:
    if not k.alloc(f"msi_desc {dev.bdf}"):
        return -ENOMEM
    for index in range(nvec):
        msi_add_desc(k, dev, is_msix=True, index=index)
    result = pci_msi_setup_msi_irqs(k, dev)
    if result:
        free_msi_irqs(k, dev)
    return result


def _mask_entries(k: Kernel, dev: PciDev) -> None:
    for entry in dev.msi_descs:
        entry.masked = True
        interrupts.mask_msix(k.machine, dev.hw, entry.index, True)


def pci_msix_shutdown(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: vectors masked, MSI-X off, INTx may be asserted again; of a device marked as
    disconnected only the belief changes (v4.12+). ``dev->irq`` was never changed, except by v4.3 and v4.4.
    """
    if not dev.msix_enabled:
        return
    if pci_dev_is_disconnected(k, dev):
        dev.msix_enabled = False
        return
    for entry in dev.msi_descs:
        interrupts.mask_msix(k.machine, dev.hw, entry.index, True)
    pci_msix_clear_and_set_ctrl(k, dev, r.PCI_MSIX_FLAGS_ENABLE, 0)
    pci_intx_for_msi(k, dev, True)
    dev.msix_enabled = False
    k.window("pci_msix_shutdown: MSI-X is off, INTx may be asserted")
    _alloc_legacy_irq(k, dev)


def pci_disable_msix(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: nothing while MSI-X is off; else off, and all vectors given back."""
    if not dev.msix_enabled:
        return
    check_device_data(k, dev, "pci_disable_msix")
    pci_msix_shutdown(k, dev)
    free_msi_irqs(k, dev)


# -- both ----------------------------------------------------------------------------------------------------


def pci_alloc_irq_vectors(k: Kernel, dev: PciDev, min_vecs: int, max_vecs: int, kinds: tuple[str, ...]) -> int:
    """drivers/pci/msi.c, v4.8+. Kept: MSI-X, then MSI, then the pin, as far as ``kinds`` (``msix``, ``msi``, ``intx``)
    allows; the pin is one vector, needs a number in ``dev->irq``, and is switched on. Left out: affinity.
    """
    got = -ENOSPC
    if "msix" in kinds:
        got = pci_enable_msix_range(k, dev, min_vecs, max_vecs)
    if got <= 0 and "msi" in kinds:
        got = pci_enable_msi_range(k, dev, min_vecs, max_vecs)
    if got <= 0 and "intx" in kinds and min_vecs == 1 and dev.irq:
        pci.pci_intx(k, dev, True)
        return 1
    return got


def pci_free_irq_vectors(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: MSI-X and MSI off; the pin stays as it is."""
    pci_disable_msix(k, dev)
    pci_disable_msi(k, dev)


def pci_irq_vector(k: Kernel, dev: PciDev, nr: int) -> int:
    """drivers/pci/msi.c. Kept: of MSI, ``dev->irq`` and what follows it up to v5.16, then the descriptor's numbers.

    Left out: the warning for a vector that does not exist (up to v5.16).
    """
    entries = dev.msi_descs
    if dev.msix_enabled:
        return entries[nr].irq if 0 <= nr < len(entries) else -EINVAL
    if not dev.msi_enabled:
        return dev.irq if nr == 0 else -EINVAL
    if not entries or nr >= entries[0].nvec_used:
        return -EINVAL
    return (entries[0].irq if k.has(changes.MSI_DATA_IS_DEVRES) else dev.irq) + nr


# -- restoring -----------------------------------------------------------------------------------------------


def pci_restore_msi_state(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/msi.c. Kept: what the kernel believes is on is written to the device again, by ``dev->irq`` for MSI
    and by the list for MSI-X. Left out: enabling memory decoding meanwhile.
    """
    if dev.msi_enabled:
        _restore_msi(k, dev)
    if dev.msix_enabled:
        _restore_msix(k, dev)


def _restore_msi(k: Kernel, dev: PciDev) -> None:
    """``__pci_restore_msi_state``. Kept: MSI is off already when the missing descriptor is read."""
    entry = irq_get_msi_desc(k, dev.irq)
    pci_intx_for_msi(k, dev, False)
    pci_msi_set_enable(k, dev, False)
    if entry is None:
        raise k.crash(
            "irq/no-descriptor",
            "BUG: kernel NULL pointer dereference",
            f"MSI of {dev.bdf} is on and dev->irq is {dev.irq}, which has no MSI descriptor; "
            f"{_right_number(dev)}the number was overwritten",
            "__pci_restore_msi_state",
        )
    _check_owner(k, dev, entry)
    pci_write_msi_msg(k, entry)
    pci_msi_update_mask(k, entry, entry.msi_mask)
    pci_msi_set_enable(k, dev, True)


def _right_number(dev: PciDev) -> str:
    return f"its vector is {dev.msi_descs[0].irq}: " if dev.msi_descs else ""


def _check_owner(k: Kernel, dev: PciDev, entry: MsiDesc) -> None:
    if entry.dev is not dev:
        why = f"dev->irq of {dev.bdf} is {dev.irq}, a vector of another device, which is written instead"
        k.find("msi/foreign-descriptor", why, "__pci_restore_msi_state")


def _restore_msix(k: Kernel, dev: PciDev) -> None:
    """``__pci_restore_msix_state``."""
    check_device_data(k, dev, "pci_restore_msi_state")
    if not dev.msi_descs:
        text = "kernel BUG at drivers/pci/msi.c! BUG_ON(list_empty)"
        raise no_vectors(k, dev, text, "__pci_restore_msix_state")
    pci_intx_for_msi(k, dev, False)
    pci_msix_clear_and_set_ctrl(k, dev, 0, r.PCI_MSIX_FLAGS_ENABLE | r.PCI_MSIX_FLAGS_MASKALL)
    for entry in dev.msi_descs:
        pci_write_msi_msg(k, entry)
    pci_msix_clear_and_set_ctrl(k, dev, r.PCI_MSIX_FLAGS_MASKALL, 0)
