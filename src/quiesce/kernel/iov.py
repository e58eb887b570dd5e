"""Virtual functions: made, removed, brought back after sleep (drivers/pci/iov.c)."""

from __future__ import annotations

from contextlib import ExitStack
from errno import EINVAL, ENOMEM, ENOSYS

from quiesce.kernel import base_core, changes, pci_probe, pci_remove
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_dev_of, pci_read_config, pci_write_config
from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function

_ENABLE = r.PCI_SRIOV_CTRL_VFE | r.PCI_SRIOV_CTRL_MSE


def _capability(dev: PciDev) -> int:
    return dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_SRIOV)


def pci_sriov_get_totalvfs(dev: PciDev) -> int:
    """drivers/pci/iov.c. Kept: how many there can be, as far as the machine has them. Left out: a driver's limit."""
    return len(dev.hw.virtfns)


# -- enabling ------------------------------------------------------------------------------------------------


def pci_enable_sriov(k: Kernel, dev: PciDev, num_vfs: int) -> int:
    """drivers/pci/iov.c, ``sriov_enable``. Kept: the hardware's enable bit first, then the functions one by one, each
    with an IOMMU and a driver before the next exists; the count is set when all are there; a failure removes those
    that were made and switches the hardware off. v6.18 takes the rescan lock in here.

    Left out: dependency links, resources, bus numbers, migration.
    """
    k.might_sleep("pci_enable_sriov")
    if not _capability(dev):
        return -ENOSYS
    if num_vfs == 0:
        return 0
    if dev.num_vfs or not 0 < num_vfs <= pci_sriov_get_totalvfs(dev):
        return -EINVAL
    _switch(k, dev, num_vfs)
    with _rescan_lock(k):
        error = _sriov_add_vfs(k, dev, num_vfs)
    if error:
        _switch(k, dev, 0)
        return error
    dev.num_vfs = num_vfs
    return 0


def _rescan_lock(k: Kernel) -> ExitStack:
    """v6.18 only: taken again by a driver's remove() when the device is removed under it."""
    stack = ExitStack()
    if k.has(changes.SRIOV_RESCAN_LOCK):
        stack.enter_context(pci_remove.pci_lock_rescan_remove(k))
    return stack


def _switch(k: Kernel, dev: PciDev, num_vfs: int) -> None:
    """Write NumVFs and VF Enable: before the functions come, after they are gone."""
    base = _capability(dev)
    control = pci_read_config(k, dev, base + r.PCI_SRIOV_CTRL, 2)
    if num_vfs:
        pci_write_config(k, dev, base + r.PCI_SRIOV_NUM_VF, 2, num_vfs)
        pci_write_config(k, dev, base + r.PCI_SRIOV_CTRL, 2, control | _ENABLE)
    else:
        pci_write_config(k, dev, base + r.PCI_SRIOV_CTRL, 2, control & ~_ENABLE)
        pci_write_config(k, dev, base + r.PCI_SRIOV_NUM_VF, 2, 0)


def _sriov_add_vfs(k: Kernel, dev: PciDev, num_vfs: int) -> int:
    for number in range(num_vfs):
        error = _pci_iov_add_virtfn(k, dev, dev.hw.virtfns[number])
        if error:
            for made in reversed(range(number)):
                _pci_iov_remove_virtfn(k, dev, dev.hw.virtfns[made])
            return error
        k.window(f"pci_enable_sriov {dev.bdf}: function {number + 1} of {num_vfs} added")
    return 0


def _pci_iov_add_virtfn(k: Kernel, pf: PciDev, fn: Function) -> int:
    """Kept: the physical function is referenced for as long as the virtual one exists."""
    if k.may_fail(f"virtual function {fn.bdf}"):
        return -ENOMEM
    virtfn = pci_probe.pci_alloc_dev(k, str(fn.bdf))
    virtfn.is_virtfn = True
    virtfn.physfn = pf
    base_core.get_device(k, pf, virtfn)
    pci_probe.pci_setup_device(k, virtfn)
    pci_probe.pci_device_add(k, virtfn)
    pci_probe.pci_bus_add_device(k, virtfn)
    return 0


# -- disabling -----------------------------------------------------------------------------------------------


def pci_disable_sriov(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/iov.c, ``sriov_disable``. Kept: the functions are removed one by one in ascending order, with the
    hardware still on; a function that is in use blocks it.
    """
    k.might_sleep("pci_disable_sriov")
    if not dev.num_vfs:
        return
    with _rescan_lock(k):
        for number in range(dev.num_vfs):
            _pci_iov_remove_virtfn(k, dev, dev.hw.virtfns[number])
            k.window(f"pci_disable_sriov {dev.bdf}: function {number + 1} of {dev.num_vfs} removed")
    _switch(k, dev, 0)
    dev.num_vfs = 0


def _pci_iov_remove_virtfn(k: Kernel, pf: PciDev, fn: Function) -> None:
    """Kept: a function that is gone already, with the bus or by hand, is passed over, and its reference on the physical
    function stays.
    """
    virtfn = pci_dev_of(k, str(fn.bdf))
    if virtfn is not None and virtfn.is_virtfn:
        pci_remove.pci_stop_and_remove_bus_device(k, virtfn)
        base_core.put_device(k, pf, virtfn)


# -- after sleep and reset -----------------------------------------------------------------------------------


def pci_restore_iov_state(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/iov.c. Kept: NumVFs and VF Enable come back if the hardware lost them, and the functions with them.

    Left out: ARI, VF BARs, page size.
    """
    base = _capability(dev)
    if not base or not dev.num_vfs:
        return
    if not pci_read_config(k, dev, base + r.PCI_SRIOV_CTRL, 2) & r.PCI_SRIOV_CTRL_VFE:
        _switch(k, dev, dev.num_vfs)
