"""Enabling devices, bus mastering, INTx and BAR regions (drivers/pci/pci.c).

Names that other kernel files use and that live in the neighbouring modules (configuration access, power states, saved
state, resets) are offered here too, because the kernel has them all in one file.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, EIO

from quiesce.kernel import changes, pci_devres, x86_irq
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_D0, PciDev
from quiesce.kernel.pci_access import (
    pci_bars,
    pci_change_command,
    pci_dev_is_disconnected,
    pci_dev_of,
    pci_device_is_present,
    pci_read_command,
    pci_read_config,
    pci_write_config,
    upstream_bridge,
)
from quiesce.kernel.pci_power import pci_set_power_state, pci_update_current_state
from quiesce.kernel.pci_reset import pci_reset_function, pci_reset_function_locked, pci_try_reset_function
from quiesce.kernel.pci_state import (
    pci_load_saved_state,
    pci_restore_state,
    pci_save_state,
    pci_store_saved_state,
)
from quiesce.machine import pci_regs as r

__all__ = [
    "leaked_regions",
    "pci_bars",
    "pci_check_and_mask_intx",
    "pci_check_and_unmask_intx",
    "pci_clear_master",
    "pci_dev_is_disconnected",
    "pci_dev_of",
    "pci_device_is_present",
    "pci_disable_device",
    "pci_disable_enabled_device",
    "pci_enable_bridges",
    "pci_enable_device",
    "pci_intx",
    "pci_intx_mask_supported",
    "pci_intx_unmanaged",
    "pci_is_enabled",
    "pci_load_saved_state",
    "pci_read_config",
    "pci_reenable_device",
    "pci_release_region",
    "pci_release_regions",
    "pci_request_region",
    "pci_request_regions",
    "pci_reset_function",
    "pci_reset_function_locked",
    "pci_restore_state",
    "pci_save_state",
    "pci_set_master",
    "pci_set_power_state",
    "pci_store_saved_state",
    "pci_try_reset_function",
    "pci_write_config",
    "upstream_bridge",
]


# -- enabling and disabling ----------------------------------------------------------------------------------


def pci_is_enabled(dev: PciDev) -> bool:
    """include/linux/pci.h. Kept: the enable count is positive."""
    return dev.enable_cnt > 0


_EVERYTHING = ("mem", "io")


def pci_enable_device_mem(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: as ``pci_enable_device``, but I/O decoding stays as it is."""
    return pci_enable_device(k, dev, ("mem",))


def pci_enable_device(k: Kernel, dev: PciDev, wanted: tuple[str, ...] = _EVERYTHING) -> int:
    """drivers/pci/pci.c. Kept: the power state is read again; only the first of several enables does anything; the
    bridges above are enabled and made bus master first (v3.13+; before, enumeration did that); the count goes back when
    it fails. ``wanted`` are the kinds of resources to switch on.
    """
    pci_update_current_state(k, dev, dev.current_state)
    dev.enable_cnt += 1
    if dev.enable_cnt > 1:
        return 0
    bridge = upstream_bridge(k, dev)
    if bridge is not None and k.has(changes.ENABLE_UPSTREAM_BRIDGE):
        _pci_enable_bridge(k, bridge)
    error = _do_pci_enable_device(k, dev, wanted)
    if error < 0:
        dev.enable_cnt -= 1
    return error


def _pci_enable_bridge(k: Kernel, bridge: PciDev) -> None:
    above = upstream_bridge(k, bridge)
    if above is not None:
        _pci_enable_bridge(k, above)
    if pci_is_enabled(bridge):
        if not bridge.is_busmaster:
            pci_set_master(k, bridge)
        return
    error = pci_enable_device(k, bridge)
    if error:
        k.printk("err", f"pci {bridge.bdf}: Error enabling bridge ({error}), continuing")
    pci_set_master(k, bridge)


def pci_enable_bridges(k: Kernel) -> None:
    """drivers/pci/bus.c, up to v3.12. Kept: enumeration enables every bridge and makes it bus master.

    Does nothing in a kernel where enabling a device enables the bridges above it.
    """
    if k.has(changes.ENABLE_UPSTREAM_BRIDGE):
        return
    for dev in k.system.devices:
        if dev.hw.header_type == r.PCI_HEADER_TYPE_BRIDGE and not pci_is_enabled(dev):
            pci_enable_device(k, dev)
            pci_set_master(k, dev)


def _do_pci_enable_device(k: Kernel, dev: PciDev, wanted: tuple[str, ...]) -> int:
    error = pci_set_power_state(k, dev, PCI_D0)
    if error < 0 and error != -EIO:
        return error
    error = _pcibios_enable_device(k, dev, wanted)
    if error < 0:
        return error
    if not (dev.msi_enabled or dev.msix_enabled) and pci_read_config(k, dev, r.PCI_INTERRUPT_PIN, 1):
        pci_change_command(k, dev, clear=r.PCI_COMMAND_INTX_DISABLE)
    return 0


def _pcibios_enable_device(k: Kernel, dev: PciDev, wanted: tuple[str, ...]) -> int:
    """arch/x86/pci/common.c. Kept: decoding on, and the legacy interrupt set up only while MSI and MSI-X are off; not
    at all in v4.3 and v4.4, where probing does that.
    """
    if k.may_fail(f"pci_enable_resources {dev.bdf}"):
        return -EINVAL
    kinds = {kind for _, kind in pci_bars(dev) if kind in wanted}
    bits = (r.PCI_COMMAND_IO if "io" in kinds else 0) | (r.PCI_COMMAND_MEMORY if "mem" in kinds else 0)
    pci_change_command(k, dev, set=bits)
    if dev.msi_enabled or dev.msix_enabled or k.has(changes.PCIBIOS_ALLOC_IRQ):
        return 0
    return x86_irq.pcibios_enable_irq(k, dev)


def pci_reenable_device(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: what enabling does to the registers, once more, if the device counts as enabled."""
    return _do_pci_enable_device(k, dev, _EVERYTHING) if pci_is_enabled(dev) else 0


def pci_disable_device(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: only the last disable counts, and all it clears is bus mastering; decoding stays on;
    the legacy interrupt is given back only if MSI and MSI-X are off by now; the record of a managed device learns of
    it up to v6.10, from v6.11 on the managed disable comes on top.

    Left out: the warning comes each time, the kernel prints it once per boot and not before v3.9.
    """
    pci_devres.note_disabled(k, dev)
    if dev.enable_cnt <= 0:
        k.warn(
            f"pci {dev.bdf}: disabling already-disabled device",
            "device/disabled-twice",
            f"{dev.bdf} is disabled more often than it was enabled; its enable count is wrong from here on",
            "pci_disable_device",
        )
    dev.enable_cnt -= 1
    if dev.enable_cnt != 0:
        return
    _do_pci_disable_device(k, dev)
    dev.is_busmaster = False


def _do_pci_disable_device(k: Kernel, dev: PciDev) -> None:
    pci_change_command(k, dev, clear=r.PCI_COMMAND_MASTER)
    if not (dev.msi_enabled or dev.msix_enabled or k.has(changes.PCIBIOS_ALLOC_IRQ)):
        x86_irq.pcibios_disable_irq(k, dev)


def pci_disable_enabled_device(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: disabled in the registers without a change of the count, for suspend."""
    if pci_is_enabled(dev):
        _do_pci_disable_device(k, dev)


def pci_set_master(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: the bit and the belief. Left out: the latency timer."""
    pci_change_command(k, dev, set=r.PCI_COMMAND_MASTER)
    dev.is_busmaster = True


def pci_clear_master(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: the bit and the belief."""
    pci_change_command(k, dev, clear=r.PCI_COMMAND_MASTER)
    dev.is_busmaster = False


# -- INTx ----------------------------------------------------------------------------------------------------


def pci_intx(k: Kernel, dev: PciDev, enable: bool) -> None:
    """drivers/pci/pci.c. Kept, by version:

    * up to v6.10 the first change is noted in the record that ``pcim_enable_device`` made; no memory is allocated;
    * v6.11-rc1: on a managed device every call goes to ``pcim_intx``, which may allocate;
    * v6.11-rc2 to v6.13: only a call that changes the bit does;
    * v6.14+: never managed.
    """
    unchanged = _intx_is(k, dev, enable)
    hybrid = k.has(changes.PCIM_INTX) and not k.has(changes.PCI_INTX_NEVER_MANAGED)
    if hybrid and dev.is_managed and not (unchanged and k.has(changes.PCI_INTX_RECORDS_IF_CHANGED)):
        if pci_devres.pcim_intx(k, dev, enable) != 0:
            k.warn("WARNING: drivers/pci/pci.c: pci_intx")
    elif not unchanged:
        pci_intx_unmanaged(k, dev, enable)
        pci_devres.note_intx(k, dev, enable)


def _intx_is(k: Kernel, dev: PciDev, enable: bool) -> bool:
    return enable is not bool(pci_read_command(k, dev) & r.PCI_COMMAND_INTX_DISABLE)


def pci_intx_unmanaged(k: Kernel, dev: PciDev, enable: bool) -> None:
    """drivers/pci/pci.c. Kept: the bit and nothing else (exported for a while in the v6.14 cycle)."""
    bit = r.PCI_COMMAND_INTX_DISABLE
    pci_change_command(k, dev, set=0 if enable else bit, clear=bit if enable else 0)


def pci_check_and_mask_intx(k: Kernel, dev: PciDev) -> bool:
    """drivers/pci/pci.c. Kept: masks INTx if the device asserts it and says so. A device that is gone reads as ones and
    hence seems to assert it, marked as disconnected or not.
    """
    return _pci_check_and_set_intx_mask(k, dev, mask=True)


def pci_check_and_unmask_intx(k: Kernel, dev: PciDev) -> bool:
    """drivers/pci/pci.c. Kept: unmasks INTx unless the device has an interrupt pending; False if it has."""
    return _pci_check_and_set_intx_mask(k, dev, mask=False)


def _pci_check_and_set_intx_mask(k: Kernel, dev: PciDev, *, mask: bool) -> bool:
    with k.spinlock("pci_lock"):
        command = dev.hw.read_config(r.PCI_COMMAND, 2)
        pending = bool(dev.hw.read_config(r.PCI_STATUS, 2) & r.PCI_STATUS_INTERRUPT)
        if mask is not pending:
            return False
        new = command & ~r.PCI_COMMAND_INTX_DISABLE | (r.PCI_COMMAND_INTX_DISABLE if mask else 0)
        if new != command:
            dev.hw.write_config(r.PCI_COMMAND, 2, new)
        return True


def pci_intx_mask_supported(k: Kernel, dev: PciDev) -> bool:
    """drivers/pci/pci.c. Kept: DisINTx can be written, and no quirk says that it does not work.

    Left out: since v4.13 the bit is tried out once at enumeration, before that at every call.
    """
    register = dev.hw.config.registers.get("COMMAND")
    writable = register is not None and bool(register.writable & r.PCI_COMMAND_INTX_DISABLE)
    return writable and not dev.broken_intx_masking


# -- BAR regions ---------------------------------------------------------------------------------------------


def pci_request_region(k: Kernel, dev: PciDev, bar: int, name: str) -> int:
    """drivers/pci/pci.c. Kept: a BAR can be held once; on a managed device the region is released at detach (up to
    v6.15), by the one record up to v6.10 and by a node of its own after that. Left out: exclusive requests.
    """
    if not _pci_has_bar(dev, bar):
        return 0
    if dev.is_managed and _regions_have_nodes(k):
        return pci_devres.pcim_request_region(k, dev, bar, name)
    if pci_take_region(k, dev, bar, name) != 0:
        return -EBUSY
    pci_devres.note_region(k, dev, bar, taken=True)
    return 0


def _pci_has_bar(dev: PciDev, bar: int) -> bool:
    return any(number == bar for number, _ in pci_bars(dev))


def _regions_have_nodes(k: Kernel) -> bool:
    return k.has(changes.PCIM_SEPARATE_ACTIONS) and not k.has(changes.REGIONS_NEVER_MANAGED)


def pci_take_region(k: Kernel, dev: PciDev, bar: int, name: str) -> int:
    """Mark a BAR as held by ``name``; -EBUSY with the kernel's message when somebody has it."""
    if bar in dev.regions or k.may_fail(f"request region {bar} of {dev.bdf}"):
        kind = next(kind for number, kind in pci_bars(dev) if number == bar)
        start = dev.hw.config.static(r.PCI_BASE_ADDRESS_0 + 4 * bar, 4) & ~0xF
        k.printk("warn", f"pci {dev.bdf}: BAR {bar}: can't reserve [{kind} {start:#010x}]")
        return -EBUSY
    dev.regions[bar] = name
    return 0


def pci_drop_region(dev: PciDev, bar: int) -> None:
    """Give a BAR back."""
    if bar in dev.regions:
        del dev.regions[bar]


def pci_release_region(k: Kernel, dev: PciDev, bar: int) -> None:
    """drivers/pci/pci.c. Kept: gives a BAR back. v6.11 to v6.15: on a managed device only a region that was requested
    as managed; one requested before ``pcim_enable_device`` stays held.
    """
    if not _pci_has_bar(dev, bar):
        return
    if dev.is_managed and _regions_have_nodes(k):
        pci_devres.pcim_release_region(k, dev, bar)
        return
    pci_drop_region(dev, bar)
    pci_devres.note_region(k, dev, bar, taken=False)


def pci_request_regions(k: Kernel, dev: PciDev, name: str) -> int:
    """drivers/pci/pci.c. Kept: all BARs or none."""
    taken: list[int] = []
    for bar, _ in pci_bars(dev):
        if pci_request_region(k, dev, bar, name) != 0:
            for held in reversed(taken):
                pci_release_region(k, dev, held)
            return -EBUSY
        taken.append(bar)
    return 0


def pci_release_regions(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: gives every BAR back."""
    for bar, _ in pci_bars(dev):
        pci_release_region(k, dev, bar)


def leaked_regions(dev: PciDev) -> tuple[tuple[int, str], ...]:
    """Return BARs that somebody holds although no driver is bound (rule ``leak/regions``)."""
    return dev.regions.items() if dev.driver is None else ()
