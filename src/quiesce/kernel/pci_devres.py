"""Managed PCI resources (drivers/pci/devres.c since v6.10, before that the ``pcim_`` part of drivers/pci/pci.c).

Up to v6.10 one node, ``pcim_release``, with one release function stands for everything that is managed::

    pcim_release   enabled, pinned, orig_intx, restore_intx, mwi, region_mask

From v6.11 on each thing has a node, released in the reverse order of creation::

    pcim_disable_device  made by pcim_enable_device, hence released last
    pcim_intx_restore    orig_intx
    pcim_msi_release     since v5.17, so that it comes before pcim_release then
    pcim_addr_resource_release   bar
"""

from __future__ import annotations

from errno import EBUSY, ENOMEM

from quiesce.kernel import changes, devres, msi, pci
from quiesce.kernel.kernel import Gfp, Kernel
from quiesce.kernel.objects import Devres, PciDev
from quiesce.kernel.pci_access import pci_bars, pci_change_command, pci_read_command
from quiesce.machine import pci_regs as r

RELEASE_ALL = "pcim_release"
DISABLE = "pcim_disable_device"
INTX = "pcim_intx_restore"
MSI = "pcim_msi_release"
MWI = "__pcim_clear_mwi"
IOMAP = "pcim_iomap_release"
REGION = "pcim_addr_resource_release"
_BARS = range(6)
_GONE = 0xFFFF


# -- enabling ------------------------------------------------------------------------------------------------


def pcim_enable_device(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/devres.c. Kept: the device counts as managed from here on; what that means is decided by the calls
    that follow. Up to v6.10 a second call does nothing, from v6.11 on it counts.
    """
    if k.has(changes.PCIM_SEPARATE_ACTIONS):
        return _pcim_enable_with_action(k, dev)
    node = devres.devres_find(k, dev, RELEASE_ALL)
    if node is None:
        node = _add(k, dev, RELEASE_ALL)
    if node is None:
        return -ENOMEM
    if node.data.get("enabled"):
        return 0
    error = pci.pci_enable_device(k, dev)
    if not error:
        dev.is_managed = True
        node.data["enabled"] = True
    return error


def _pcim_enable_with_action(k: Kernel, dev: PciDev) -> int:
    node = _add(k, dev, DISABLE)
    if node is None:
        return -ENOMEM
    error = pci.pci_enable_device(k, dev)
    if error:
        _forget(dev, node)
        return error
    dev.is_managed = True
    return 0


def _add(k: Kernel, dev: PciDev, kind: str, gfp: Gfp = Gfp.KERNEL, **data: object) -> Devres | None:
    if not k.alloc(f"devres {kind}", gfp):
        return None
    node = devres.devres_alloc(k, dev, kind, **data)
    devres.devres_add(k, dev, node)
    return node


def _forget(dev: PciDev, node: Devres) -> None:
    dev.devres.remove(node)
    node.delete()


def _record(k: Kernel, dev: PciDev) -> Devres | None:
    """``find_pci_dr``: the one node up to v6.10. While it is being released it is on no list any more."""
    return devres.devres_find(k, dev, RELEASE_ALL) if dev.is_managed else None


def pcim_pin_device(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/devres.c. Kept: the device stays enabled at detach. From v6.11 on the mark is in the device and
    outlives the driver, so that the next managed driver's device stays enabled too.
    """
    if k.has(changes.PCIM_SEPARATE_ACTIONS):
        dev.pinned = True
        return
    node = _record(k, dev)
    if node is None or not node.data.get("enabled"):
        k.warn("WARNING: drivers/pci/pci.c: pcim_pin_device")
    if node is not None:
        node.data["pinned"] = True


def note_disabled(k: Kernel, dev: PciDev) -> None:
    """The part of ``pci_disable_device`` that tells the record of it, up to v6.10."""
    node = None if k.has(changes.PCIM_SEPARATE_ACTIONS) else _record(k, dev)
    if node is not None:
        node.data["enabled"] = False


# -- INTx ----------------------------------------------------------------------------------------------------


def note_intx(k: Kernel, dev: PciDev, enable: bool) -> None:
    """The part of ``pci_intx`` that records the first change, up to v6.10; it allocates nothing."""
    node = None if k.has(changes.PCIM_INTX) else _record(k, dev)
    if node is not None and "orig_intx" not in node.data:
        node.data["orig_intx"] = not enable


def pcim_intx(k: Kernel, dev: PciDev, enable: bool) -> int:
    """drivers/pci/devres.c, v6.11+. Kept: finds or allocates a record of its own. Up to v6.13 the value to restore is
    the negation of the **last** call; v6.14+: the value found by the first.
    """
    was = not pci_read_command(k, dev) & r.PCI_COMMAND_INTX_DISABLE
    node = devres.devres_find(k, dev, INTX)
    if node is None:
        gfp = Gfp.ATOMIC if k.has(changes.INTX_GFP_ATOMIC) else Gfp.KERNEL
        node = _add(k, dev, INTX, gfp, orig_intx=was)
        if node is None:
            return -ENOMEM
        _remember_intx(k, dev, was)
    if not k.has(changes.PCIM_INTX_RESTORES_FIRST):
        node.data["orig_intx"] = not enable
    pci.pci_intx_unmanaged(k, dev, enable)
    return 0


def _remember_intx(k: Kernel, dev: PciDev, was: bool) -> None:
    """Keep, for the check at detach only, what INTx was before the driver touched it."""
    node = devres.devres_find(k, dev, DISABLE)
    if node is not None and "intx_found" not in node.data:
        node.data["intx_found"] = was


def _pcim_intx_restore(k: Kernel, dev: PciDev, node: Devres) -> None:
    pci.pci_intx_unmanaged(k, dev, bool(node.data["orig_intx"]))


def _check_intx_restored(k: Kernel, dev: PciDev, node: Devres) -> None:
    """Find a detach that leaves INTx in a state that it was not in before; a device that is gone has none."""
    command = pci_read_command(k, dev)
    if "intx_found" not in node.data or dev.msi_enabled or dev.msix_enabled or command == _GONE:
        return
    found = bool(node.data["intx_found"])
    left = not command & r.PCI_COMMAND_INTX_DISABLE
    if left is not found:
        states = {True: "enabled", False: "disabled"}
        why = f"the driver found INTx of {dev.bdf} {states[found]}; detaching it leaves it {states[left]}"
        k.find("devres/wrong-intx-restore", why, INTX)


# -- MSI -----------------------------------------------------------------------------------------------------


def pcim_setup_msi_release(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/msi/msi.c, v5.17+. Kept: the vectors are given back at detach if the device was managed when they
    were enabled first. Up to v5.16 ``pcim_release`` does that.
    """
    if not k.has(changes.MSI_DATA_IS_DEVRES) or not dev.is_managed or dev.is_msi_managed:
        return 0
    if _add(k, dev, MSI) is None:
        return -ENOMEM
    dev.is_msi_managed = True
    return 0


def _pcim_msi_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    dev.is_msi_managed = False
    msi.pci_free_irq_vectors(k, dev)


# -- regions and mappings ------------------------------------------------------------------------------------


def note_region(k: Kernel, dev: PciDev, bar: int, *, taken: bool) -> None:
    """The part of requesting and releasing a region that the record learns of, up to v6.10."""
    node = None if k.has(changes.PCIM_SEPARATE_ACTIONS) else _record(k, dev)
    if node is not None:
        mask = int(node.data.get("region_mask") or 0)
        node.data["region_mask"] = mask | 1 << bar if taken else mask & ~(1 << bar)


def pcim_request_region(k: Kernel, dev: PciDev, bar: int, name: str) -> int:
    """drivers/pci/devres.c, v6.11+. Kept: a node per BAR."""
    node = _add(k, dev, REGION, bar=bar)
    if node is None:
        return -ENOMEM
    error = pci.pci_take_region(k, dev, bar, name)
    if error:
        _forget(dev, node)
    return error


def pcim_release_region(k: Kernel, dev: PciDev, bar: int) -> None:
    """drivers/pci/devres.c, v6.11+. Kept: releases what has a node and nothing else."""
    devres.devres_release(k, dev, REGION, bar=bar)


def pcim_iomap_regions(k: Kernel, dev: PciDev, bars: tuple[int, ...], name: str) -> int:
    """drivers/pci/devres.c. Kept: requests and maps BARs, all or none; the mappings are one node, undone at detach.

    Left out: what is mapped where.
    """
    present = [number for number, _ in pci_bars(dev)]
    taken: list[int] = []
    for bar in bars:
        error = _pcim_request_for_map(k, dev, bar, name) if bar in present else -EBUSY
        if error:
            for held in taken:
                _pcim_release_after_map(k, dev, held)
            return error
        taken.append(bar)
    if devres.devres_find(k, dev, IOMAP) is None and _add(k, dev, IOMAP) is None:
        for held in taken:
            _pcim_release_after_map(k, dev, held)
        return -ENOMEM
    return 0


def _pcim_request_for_map(k: Kernel, dev: PciDev, bar: int, name: str) -> int:
    if k.has(changes.PCIM_SEPARATE_ACTIONS):
        return pcim_request_region(k, dev, bar, name)
    return pci.pci_request_region(k, dev, bar, name)


def _pcim_release_after_map(k: Kernel, dev: PciDev, bar: int) -> None:
    if k.has(changes.PCIM_SEPARATE_ACTIONS):
        pcim_release_region(k, dev, bar)
    else:
        pci.pci_release_region(k, dev, bar)


def _pcim_addr_resource_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    pci.pci_drop_region(dev, int(node.data["bar"]))


def pcim_set_mwi(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/devres.c. Kept: Memory Write and Invalidate is switched off at detach."""
    if k.has(changes.PCIM_SEPARATE_ACTIONS):
        if _add(k, dev, MWI) is None:
            return -ENOMEM
    else:
        node = _record(k, dev)
        if node is None:
            return -ENOMEM
        node.data["mwi"] = True
    pci_change_command(k, dev, set=r.PCI_COMMAND_INVALIDATE)
    return 0


# -- release -------------------------------------------------------------------------------------------------


def _pcim_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    """Up to v6.10: MSI off (up to v5.16), regions, mwi, INTx as it was, disabled unless pinned."""
    if not k.has(changes.MSI_DATA_IS_DEVRES):
        if dev.msi_enabled:
            msi.pci_disable_msi(k, dev)
        if dev.msix_enabled:
            msi.pci_disable_msix(k, dev)
    mask = int(node.data.get("region_mask") or 0)
    for bar in _BARS:
        if mask & 1 << bar:
            pci.pci_release_region(k, dev, bar)
    if node.data.get("mwi"):
        _pcim_clear_mwi(k, dev, node)
    if "orig_intx" in node.data:
        pci.pci_intx(k, dev, bool(node.data["orig_intx"]))
    if node.data.get("enabled") and not node.data.get("pinned"):
        pci.pci_disable_device(k, dev)


def _pcim_disable_device(k: Kernel, dev: PciDev, node: Devres) -> None:
    """v6.11+: disabled unless pinned; ``is_managed`` is cleared since the final v6.11."""
    _check_intx_restored(k, dev, node)
    if not dev.pinned:
        pci.pci_disable_device(k, dev)
    if k.has(changes.IS_MANAGED_CLEARED):
        dev.is_managed = False


def _pcim_clear_mwi(k: Kernel, dev: PciDev, node: Devres) -> None:
    pci_change_command(k, dev, clear=r.PCI_COMMAND_INVALIDATE)


def _pcim_iomap_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    """The mappings go; the model has no state for them."""


devres.RELEASE.update(
    {
        RELEASE_ALL: _pcim_release,
        DISABLE: _pcim_disable_device,
        INTX: _pcim_intx_restore,
        MSI: _pcim_msi_release,
        MWI: _pcim_clear_mwi,
        IOMAP: _pcim_iomap_release,
        REGION: _pcim_addr_resource_release,
    }
)
