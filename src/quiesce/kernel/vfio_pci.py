"""PCI devices for user space (drivers/vfio/pci/vfio_pci.c, vfio_pci_core.c, vfio_pci_config.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from errno import EACCES, EAGAIN, EBUSY, EINVAL, ENODEV, ENOENT, ENOMEM

from quiesce.kernel import changes, iov, pci, pci_reset, vfio, vfio_intrs, vfio_type1
from quiesce.kernel.base_core import dev_printk
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PciDev
from quiesce.kernel.vfio_intrs import VfioPciDevice
from quiesce.machine import pci_regs as r

_VDEV = "vdev"


def vdev_of(k: Kernel, dev: PciDev) -> VfioPciDevice | None:
    """Return the VFIO device of a device bound to vfio-pci, else None."""
    vdev: VfioPciDevice | None = dev.drvdata.get(_VDEV)
    return vdev


def is_open(k: Kernel, dev: PciDev) -> bool:
    """Whether user space has the device open."""
    vdev = vdev_of(k, dev)
    return vdev is not None and vdev.open


def in_use(k: Kernel, dev: PciDev) -> bool:
    """Whether user space has the device open, or is opening or closing it."""
    vdev = vdev_of(k, dev)
    return vdev is not None and vdev.refs > 0


def _opened(k: Kernel, dev: PciDev) -> VfioPciDevice:
    vdev = vdev_of(k, dev)
    assert vdev is not None
    return vdev


# -- binding -------------------------------------------------------------------------------------------------


def vfio_pci_probe(k: Kernel, dev: PciDev) -> int:
    """``vfio_pci_probe`` and ``vfio_pci_core_register_device``. Kept: no bridges, no device outside an IOMMU group, no
    physical function whose virtual ones are on; D0, then idle in D3hot (v4.1+).

    Left out: VGA arbitration.
    """
    if dev.hw.header_type != r.PCI_HEADER_TYPE_NORMAL or dev.iommu_group is None:
        return -EINVAL
    if dev.num_vfs:
        dev_printk(k, "warn", dev, "Cannot bind to PF with SR-IOV enabled")
        return -EBUSY
    if not k.alloc("vfio_pci_core_device"):
        return -ENOMEM
    vdev = VfioPciDevice.new(k.world, f"vfio/{dev.path.removeprefix('pci/')}", dev=dev)
    error = vfio.vfio_add_group_dev(k, dev)
    if error:
        vdev.delete()
        return error
    dev.drvdata[_VDEV] = vdev
    if k.has(changes.VFIO_D3HOT_IDLE):
        vfio_pci_set_power_state(k, vdev, PCI_D0)
        _idle(k, vdev)
    return 0


def vfio_pci_remove(k: Kernel, dev: PciDev) -> None:
    """``vfio_pci_remove``. Kept: virtual functions off (v5.7+), which waits for their users; then nothing happens
    before the user has closed the device; then D0 again.
    """
    vdev = _opened(k, dev)
    if k.has(changes.VFIO_VF_TOKEN):
        iov.pci_disable_sriov(k, dev)
    vfio.wait_for_user(k, dev)
    vfio.vfio_del_group_dev(k, dev)
    _wake(k, vdev)
    _check_quiet(k, vdev)
    del dev.drvdata[_VDEV]
    vdev.delete()


def vfio_pci_sriov_configure(k: Kernel, dev: PciDev, num_vfs: int) -> int:
    """``vfio_pci_core_sriov_configure``, v5.7+ (before, there is none). Kept: a device with virtual functions stays
    awake.

    Left out: the module parameter without which it refuses.
    """
    if not k.has(changes.VFIO_VF_TOKEN):
        return -ENOENT
    if num_vfs == 0:
        iov.pci_disable_sriov(k, dev)
        return 0
    _wake(k, _opened(k, dev))
    return iov.pci_enable_sriov(k, dev, num_vfs) or num_vfs


def _may_open(k: Kernel, dev: PciDev) -> bool:
    """``vfio_pci_validate_vf_token``, v5.7+. Kept: who opens a virtual function of a physical one that is with user
    space too must know the token that its user has set.
    """
    parent = dev.physfn if k.has(changes.VFIO_VF_TOKEN) and dev.is_virtfn else None
    return parent is None or parent.driver != vfio.DRIVER or is_open(k, parent)


def vfio_pci_request(k: Kernel, dev: PciDev) -> None:
    """``vfio_pci_core_request``, v4.0+. Kept: a user that listens is asked to leave, and does, while whoever removes
    the device keeps his locks. Left out: that it is repeated every ten seconds.
    """
    vdev = _opened(k, dev)
    if not (vdev.open and vdev.req_trigger):
        dev_printk(k, "warn", dev, "No device request channel registered, blocked until released by user")
        return
    dev_printk(k, "notice", dev, "Relaying device request to user (#0)")
    vfio_pci_close(k, dev)


# -- power ---------------------------------------------------------------------------------------------------


def vfio_pci_set_power_state(k: Kernel, vdev: VfioPciDevice, state: int) -> int:
    """``vfio_pci_set_power_state``. Kept: for a device that loses its config in D3hot (v5.1+; before, only the BARs
    came back) it is saved on the way down and restored on the way up. A device whose state is unknown, because its
    last driver has left, counts as low: v6.19+ it then gets back what was saved last, by whomever.
    """
    dev = vfio_intrs.pdev(vdev)
    was_low, goes_low = dev.current_state >= PCI_D3HOT, state >= PCI_D3HOT
    keeps = k.has(changes.VFIO_SAVES_STATE_AT_D3HOT) and not _no_soft_reset(k, dev)
    if keeps and goes_low and not was_low:
        pci.pci_save_state(k, dev)
    error = pci.pci_set_power_state(k, dev, state)
    if error or not keeps or was_low is goes_low:
        return error
    if goes_low:
        vdev.pm_save = pci.pci_store_saved_state(dev)
    else:
        _restore(k, vdev)
    return 0


def _restore(k: Kernel, vdev: VfioPciDevice) -> None:
    dev = vfio_intrs.pdev(vdev)
    pci.pci_load_saved_state(dev, vdev.pm_save)
    vdev.pm_save = None
    pci.pci_restore_state(k, dev)


def _no_soft_reset(k: Kernel, dev: PciDev) -> bool:
    base = dev.hw.find_capability(r.PCI_CAP_ID_PM)
    return not base or bool(pci.pci_read_config(k, dev, base + r.PCI_PM_CTRL, 2) & r.PCI_PM_CTRL_NO_SOFT_RESET)


def _idle(k: Kernel, vdev: VfioPciDevice) -> None:
    """An unused device sleeps, unless it has virtual functions: by hand from v4.1 on, by runtime PM from v5.19 on,
    which saves and restores the config of every device, of one that has no other power state too.
    """
    dev = vfio_intrs.pdev(vdev)
    if dev.num_vfs or not k.has(changes.VFIO_D3HOT_IDLE):
        return
    if not k.has(changes.VFIO_RUNTIME_PM):
        vfio_pci_set_power_state(k, vdev, PCI_D3HOT)
    elif vdev.pm_save is None:
        pci.pci_save_state(k, dev)
        vdev.pm_save = pci.pci_store_saved_state(dev)
        pci.pci_set_power_state(k, dev, PCI_D3HOT)


def _wake(k: Kernel, vdev: VfioPciDevice) -> None:
    if not k.has(changes.VFIO_D3HOT_IDLE):
        return
    if not k.has(changes.VFIO_RUNTIME_PM):
        vfio_pci_set_power_state(k, vdev, PCI_D0)
    elif vdev.pm_save is not None:
        pci.pci_set_power_state(k, vfio_intrs.pdev(vdev), PCI_D0)
        _restore(k, vdev)


@contextmanager
def awake(k: Kernel, dev: PciDev) -> Iterator[None]:
    """``pm_runtime_get_sync`` and ``pm_runtime_put``. Kept: what runtime PM let sleep (v5.19+) wakes meanwhile."""
    vdev = vdev_of(k, dev) if k.has(changes.VFIO_RUNTIME_PM) else None
    asleep = vdev is not None and vdev.pm_save is not None
    if vdev is not None and asleep:
        _wake(k, vdev)
    yield
    if vdev is not None and asleep:
        _idle(k, vdev)


# -- opening and closing -------------------------------------------------------------------------------------


def vfio_pci_open(k: Kernel, dev: PciDev) -> int:
    """Open group, container and device. Kept: one opener; the device cannot go away from the first step on."""
    vdev = vdev_of(k, dev)
    if vdev is None:
        return -ENODEV
    if vdev.refs:
        return -EBUSY
    if not _may_open(k, dev):
        dev_printk(k, "info", dev, "VF token required to access device")
        return -EACCES
    vdev.refs = 1
    error = _open(k, dev, vdev)
    vdev.open = error == 0
    if error:
        vdev.refs = 0
    return error


def _open(k: Kernel, dev: PciDev, vdev: VfioPciDevice) -> int:
    error = vfio.vfio_group_set_container(k, dev)
    if error:
        return error
    with k.mutex(_dev_set_lock(k, dev)):
        error = vfio_pci_core_enable(k, vdev)
    if error:
        vfio.vfio_group_unset_container(k, dev)
    return error


def _dev_set_lock(k: Kernel, dev: PciDev) -> str:
    """Name of the mutex around opening and closing of all devices that can only be reset together."""
    above = dev.hw.upstream
    return f"dev_set {dev.bdf if above is None or dev.is_virtfn else above.bdf}"


def vfio_pci_core_enable(k: Kernel, vdev: VfioPciDevice) -> int:
    """``vfio_pci_core_enable``. Kept: awake, no bus master in the state that is saved, enabled, reset if the device's
    lock can be had at once (v3.14+, else -EAGAIN; before, it was waited for), saved, and whether DisINTx works.

    Left out: the virtual view of config space, zPCI, the MSI-X table's place.
    """
    dev = vfio_intrs.pdev(vdev)
    _wake(k, vdev)
    pci.pci_clear_master(k, dev)
    error = pci.pci_enable_device(k, dev)
    if error:
        _idle(k, vdev)
        return error
    reset = pci.pci_try_reset_function if k.has(changes.VFIO_TRY_RESET) else pci.pci_reset_function
    error = reset(k, dev)
    if error == -EAGAIN:
        pci.pci_disable_device(k, dev)
        _idle(k, vdev)
        return error
    vdev.reset_works = error == 0
    pci.pci_save_state(k, dev)
    vdev.pci_saved_state = pci.pci_store_saved_state(dev)
    vdev.pci_2_3 = pci.pci_intx_mask_supported(k, dev)
    if vdev.pci_2_3:
        vfio_config_write(k, vdev, clear=r.PCI_COMMAND_INTX_DISABLE)
    return 0


def vfio_pci_close(k: Kernel, dev: PciDev) -> None:
    """Close device, container and group. Kept: the file is gone before anything else is undone."""
    vdev = _opened(k, dev)
    vdev.open = vdev.req_trigger = False
    with k.mutex(_dev_set_lock(k, dev)):
        vfio_pci_core_disable(k, vdev)
    vfio_type1.vfio_dma_unmap(k, vdev)
    vfio.vfio_group_unset_container(k, dev)
    vdev.refs = 0


def vfio_pci_core_disable(k: Kernel, vdev: VfioPciDevice) -> None:
    """``vfio_pci_core_disable``. Kept, in this order: D0, DMA off, interrupts torn down, the state saved at open
    loaded, COMMAND silenced, **reset if the device's lock is free**, state restored, disabled, its bus reset if that
    is still needed and nobody uses it, idle.
    """
    dev = vfio_intrs.pdev(vdev)
    _wake(k, vdev)
    pci.pci_clear_master(k, dev)
    vfio_intrs.vfio_disable_irqs(k, vdev)
    vdev.virq_disabled = False
    vdev.needs_reset = True
    if vdev.pci_saved_state is not None:
        pci.pci_load_saved_state(dev, vdev.pci_saved_state)
        vdev.pci_saved_state = None
    pci.pci_write_config(k, dev, r.PCI_COMMAND, 2, r.PCI_COMMAND_INTX_DISABLE)
    if vdev.reset_works:
        _reset_unless_locked(k, vdev)
    pci.pci_restore_state(k, dev)
    pci.pci_disable_device(k, dev)
    _try_set_reset(k, vdev)
    _idle(k, vdev)


def _reset_unless_locked(k: Kernel, vdev: VfioPciDevice) -> None:
    """Kept: whoever removes the device holds its lock, so a close that he waits for does without the reset (v3.14+);
    before, it waited for the lock, and both waited for ever. v7.0+ the same goes for the lock of the bridge above.
    """
    dev = vfio_intrs.pdev(vdev)
    bridge = pci.upstream_bridge(k, dev) if k.has(changes.VFIO_CLOSE_LOCKS_BRIDGE) else None
    needed = (dev,) if bridge is None else (bridge, dev)
    if not any(f"device_lock {item.bdf}" in (*k.mutexes, *k.others) for item in needed):
        with ExitStack() as locks:
            for item in needed:
                locks.enter_context(pci_reset.pci_dev_lock(k, item))
            if pci_reset._pci_reset_function_locked(k, dev) == 0:
                vdev.needs_reset = False
    elif not k.has(changes.VFIO_TRY_RESET):
        raise k.crash(
            "wait/deadlock",
            "INFO: task blocked for more than 120 seconds",
            f"removing {dev.bdf} holds its lock and waits for the user, whose close waits for the lock to reset it",
            "vfio_pci_disable",
        )


def _try_set_reset(k: Kernel, vdev: VfioPciDevice) -> None:
    """``vfio_pci_dev_set_try_reset``. Kept: the bus is reset when every device on it is a VFIO device and none is open.
    A virtual function is in a set of its own, which cannot be reset (v6.17+); before, it was in that of its bus.

    Left out: slots. A root bus cannot be reset.
    """
    dev = vfio_intrs.pdev(vdev)
    bridge = pci.upstream_bridge(k, dev)
    alone = dev.is_virtfn and k.has(changes.VFIO_VF_PRIVATE_SET)
    if bridge is None or alone or not vdev.needs_reset or not k.has(changes.VFIO_TRY_RESET):
        return
    found = [pci.pci_dev_of(k, str(fn.bdf)) for fn in bridge.hw.children if fn.present]
    members = [None if member is None else vdev_of(k, member) for member in found]
    if any(member is None or (member.refs and member is not vdev) for member in members):
        return
    if pci_reset.pci_reset_bus(k, bridge) == 0:
        for member in members:
            if member is not None:
                member.needs_reset = False


def _check_quiet(k: Kernel, vdev: VfioPciDevice) -> None:
    """A device that the user left running must not be handed on without a reset that would have been possible.

    One that loses its state in D3hot is reset by the sleep between close and remove, if there is one.
    """
    hw = vfio_intrs.pdev(vdev).hw
    if vdev.reset_works and vdev.needs_reset and hw.alive and hw.engine == "running":
        why = f"the user left {hw.bdf} running, and its close could not reset it; the next driver finds it active"
        k.find("vfio/close-without-reset", why, "vfio_pci_core_disable")


# -- what user space asks for --------------------------------------------------------------------------------


def vfio_config_write(k: Kernel, vdev: VfioPciDevice, *, set: int = 0, clear: int = 0) -> None:  # noqa: A002
    """``vfio_basic_config_write`` on COMMAND. Kept: bus mastering and decoding go to the device."""
    dev = vfio_intrs.pdev(vdev)
    command = pci.pci_read_config(k, dev, r.PCI_COMMAND, 2)
    pci.pci_write_config(k, dev, r.PCI_COMMAND, 2, command & ~clear | set)


def vfio_config_write_disintx(k: Kernel, vdev: VfioPciDevice, disabled: bool) -> None:
    """``vfio_basic_config_write``, the part that emulates DisINTx."""
    if vdev.virq_disabled is not disabled:
        vdev.virq_disabled = disabled
        vfio_intrs.external_intx_mask(k, vdev, disabled)


def vfio_device_reset(k: Kernel, vdev: VfioPciDevice) -> int:
    """``vfio_pci_ioctl_reset``. Kept: D0, then a function reset that gives up when the device is locked."""
    if not vdev.reset_works:
        return -EINVAL
    vfio_pci_set_power_state(k, vdev, PCI_D0)
    return pci.pci_try_reset_function(k, vfio_intrs.pdev(vdev))


def vfio_set_irqs(k: Kernel, vdev: VfioPciDevice, change: Callable[[], int | None]) -> int:
    """``vfio_pci_set_irqs_ioctl``. Kept: everything that user space changes is under ``igate``."""
    with k.mutex(vfio_intrs.igate(vdev)):
        return change() or 0


def vfio_mmio(k: Kernel, vdev: VfioPciDevice) -> None:
    """A program touches a BAR that it has mapped. Kept: since v5.8 the mapping is gone while decoding is off and the
    program gets a signal; before, the access reached a device that does not answer, which can stop the machine.
    """
    hw = vfio_intrs.pdev(vdev).hw
    if not hw.present or hw.command & r.PCI_COMMAND_MEMORY or k.has(changes.VFIO_ZAPS_ON_MEMORY_OFF):
        return
    why = f"a program accesses the memory of {hw.bdf} while its decoding is off; some platforms stop the machine for it"
    k.find("vfio/access-while-decode-off", why, "vfio_pci_mmap")
