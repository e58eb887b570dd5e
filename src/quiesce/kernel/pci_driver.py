"""The PCI bus: which driver fits, and what happens around its callbacks (drivers/pci/pci-driver.c)."""

from __future__ import annotations

from collections.abc import Callable
from errno import ENODEV

from quiesce.kernel import changes, iommu, msi, pci, pci_acs_enable, pci_power, x86_irq
from quiesce.kernel.base_core import dev_printk, get_device, put_device
from quiesce.kernel.changes import Change
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PCI_UNKNOWN, PciDev

BOUND = "driver"
"""Name under which a bound driver holds its reference on the device."""

_ANY = DeviceId()

_MANAGES_DMA: dict[str, Change] = {
    "pci-stub": changes.PCI_STUB_MANAGED_DMA,
    "pcieport": changes.PORTDRV_MANAGED_DMA,
    "vfio-pci": changes.VFIO_CLAIMS_OWNERSHIP,
}
"""Drivers that say ``driver_managed_dma`` from a change on."""


# -- matching ------------------------------------------------------------------------------------------------


def pci_match_device(k: Kernel, name: str, dev: PciDev) -> DeviceId | None:
    """drivers/pci/pci-driver.c. Kept: driver_override (v3.16+) excludes every other driver and makes its own fit
    whatever the tables say; dynamic ids come before the table; ``override_only`` entries need an override.

    A driver with a method ``matches(k, dev)`` has a table that it narrows at run time. Left out: subsystem ids.
    """
    override = dev.driver_override if k.has(changes.DRIVER_OVERRIDE) else None
    if override is not None and override != name:
        return None
    hw = dev.hw
    if (name, hw.vendor, hw.device) in k.system.dynids:
        return DeviceId(hw.vendor, hw.device)
    for entry in k.drivers[name].ids:
        if (override is not None or not entry.override_only) and entry.matches(hw) and _narrowed(k, name, dev):
            return entry
    return _ANY if override is not None else None


def _narrowed(k: Kernel, name: str, dev: PciDev) -> bool:
    matches: Callable[[Kernel, PciDev], bool] | None = getattr(k.drivers[name], "matches", None)
    return matches is None or matches(k, dev)


def pci_bus_match(k: Kernel, name: str, dev: PciDev) -> bool:
    """drivers/pci/pci-driver.c. Kept: nothing fits a device whose ``match_driver`` is off."""
    return dev.match_driver and pci_match_device(k, name, dev) is not None


# -- probe and remove ----------------------------------------------------------------------------------------


def pci_device_probe(k: Kernel, name: str, dev: PciDev) -> int:
    """drivers/pci/pci-driver.c. Kept: a virtual function may be barred from probing; **the legacy interrupt is taken
    before the id table is asked (hooks: v4.3+, x86 does something in v4.3 and v4.4)** and given back on any error,
    whatever the device uses it for; a reference for the bound driver.

    Left out: ``pci_assign_irq``, which x86 does not use; running on a CPU near the device.
    """
    if not _pci_device_can_probe(k, dev):
        return -ENODEV
    error = x86_irq.pcibios_alloc_irq(k, dev)
    if error < 0:
        return error
    get_device(k, dev, BOUND)
    error = _pci_call_probe(k, name, dev)
    if error:
        if k.has(changes.SWITCH_IRQ_ZEROED):
            dev.irq = 0
        x86_irq.pcibios_free_irq(k, dev)
        put_device(k, dev, BOUND)
    return error


def _pci_device_can_probe(k: Kernel, dev: PciDev) -> bool:
    if not (k.has(changes.SRIOV_AUTOPROBE) and dev.is_virtfn and dev.physfn is not None):
        return True
    overridden = dev.driver_override is not None and k.has(changes.VF_OVERRIDE_PROBES)
    return dev.physfn.drivers_autoprobe or overridden


def _pci_call_probe(k: Kernel, name: str, dev: PciDev) -> int:
    """``__pci_device_probe`` and ``local_pci_probe``. Kept: -ENODEV when the tables do not fit; ``pci_dev->driver`` is
    set during probe (v3.6 set it afterwards) and forgotten on failure; a positive answer counts as success.
    """
    if pci_match_device(k, name, dev) is None:
        return -ENODEV
    dev.pci_driver = name
    answer = k.drivers[name].probe(k, dev)
    if answer < 0:
        dev.pci_driver = None
        return answer
    if answer > 0:
        dev_printk(k, "warn", dev, f"Driver probe function unexpectedly returned {answer}")
    return 0


def pci_device_remove(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci-driver.c. Kept: the driver's remove, the legacy interrupt given back (hooks), virtual functions
    left on are only complained about, **a device in D0 becomes PCI_UNKNOWN (up to v7.1)**, the bound driver's
    reference. The core disables nothing and frees nothing.

    Left out: runtime PM.
    """
    if dev.pci_driver is not None:
        k.drivers[dev.pci_driver].remove(k, dev)
    x86_irq.pcibios_free_irq(k, dev)
    dev.pci_driver = None
    _pci_iov_remove(k, dev)
    if dev.current_state == PCI_D0 and not k.has(changes.REMOVE_KEEPS_POWER_STATE):
        dev.current_state = PCI_UNKNOWN
    put_device(k, dev, BOUND)


def _pci_iov_remove(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/iov.c. Kept: a warning; the virtual functions stay. Left out: before v5.0 nothing was printed."""
    if dev.num_vfs:
        dev_printk(k, "warn", dev, "driver left SR-IOV enabled after remove")


# -- DMA -----------------------------------------------------------------------------------------------------


def pci_dma_configure(k: Kernel, name: str | None, dev: PciDev) -> int:
    """drivers/pci/pci-driver.c. Kept: ACS switched on (v7.0+); use of the default DMA domain claimed unless the driver
    manages DMA itself (v5.19+). The IOMMU core calls it with no driver (v6.15+).

    Left out: firmware's description of the device's DMA.
    """
    if k.has(changes.ACS_IN_DMA_CONFIGURE):
        pci_acs_enable.pci_enable_acs(k, dev)
    if name is None or not k.has(changes.PCI_CLAIMS_DEFAULT_DOMAIN) or _manages_dma(k, name):
        return 0
    return iommu.iommu_device_use_default_domain(k, dev)


def pci_dma_cleanup(k: Kernel, name: str, dev: PciDev) -> None:
    """drivers/pci/pci-driver.c. Kept: use of the default DMA domain given back (v5.19+)."""
    if k.has(changes.PCI_CLAIMS_DEFAULT_DOMAIN) and not _manages_dma(k, name):
        iommu.iommu_device_unuse_default_domain(k, dev)


def _manages_dma(k: Kernel, name: str) -> bool:
    since = _MANAGES_DMA.get(name)
    return k.drivers[name].driver_managed_dma and (since is None or k.has(since))


# -- shutdown ------------------------------------------------------------------------------------------------


def pci_device_shutdown(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci-driver.c. Kept: the driver's callback, then by version

    * MSI and MSI-X off (up to v4.11); proposed: only on the way to kexec, or with INTx disabled besides;
    * bus mastering off: through ``pci_disable_device`` (v3.5 to v3.8), always (v3.9 to v3.12, sparing D3cold and
      unknown states), for kexec only (v3.13+).

    Left out: runtime PM, wake-up; v3.5 to v3.8 also counted down devices that were not enabled.
    """
    driver = _driver(k, dev)
    if driver is not None and driver.has_shutdown(k):
        driver.shutdown(k, dev)
        k.window(f"pci_device_shutdown {dev.bdf}: driver shut down")
    if k.has(changes.SHUTDOWN_DISABLES_MSI):
        _shutdown_messages(k, dev)
    _shutdown_dma(k, dev)


def _shutdown_messages(k: Kernel, dev: PciDev) -> None:
    if k.has(changes.MSI_OFF_ONLY_FOR_KEXEC) and not k.system.kexec_in_progress:
        return
    msi.pci_msi_shutdown(k, dev)
    msi.pci_msix_shutdown(k, dev)
    if k.has(changes.SHUTDOWN_DISABLES_INTX):
        pci.pci_intx(k, dev, False)


def _shutdown_dma(k: Kernel, dev: PciDev) -> None:
    if not k.has(changes.SHUTDOWN_CLEARS_MASTER):
        if k.has(changes.SHUTDOWN_DISABLES_DEVICE) and pci.pci_is_enabled(dev):
            pci.pci_disable_device(k, dev)
        return
    if k.has(changes.SHUTDOWN_CLEARS_MASTER_FOR_KEXEC) and not k.system.kexec_in_progress:
        return
    if k.has(changes.SHUTDOWN_SKIPS_D3COLD) and dev.current_state > PCI_D3HOT:
        return
    pci.pci_clear_master(k, dev)


# -- system sleep --------------------------------------------------------------------------------------------


def _driver(k: Kernel, dev: PciDev) -> PciDriver | None:
    return None if dev.pci_driver is None else k.drivers[dev.pci_driver]


def _pm_driver(k: Kernel, dev: PciDev) -> PciDriver | None:
    """Return the driver if it takes part in system sleep; None puts the device on the default path."""
    driver = _driver(k, dev)
    return driver if driver is not None and driver.has_pm_ops else None


def pci_pm_suspend(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci-driver.c. Kept: the driver's suspend; without one, an enabled device that is no bridge is
    disabled in its registers.

    Left out: legacy callbacks and the new ones are one thing here; runtime suspended devices, PTM.
    """
    driver = _pm_driver(k, dev)
    if driver is None:
        if not dev.hw.is_bridge:
            pci.pci_disable_enabled_device(k, dev)
        return 0
    dev.state_saved = False
    return driver.suspend(k, dev)


def pci_pm_suspend_noirq(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci-driver.c. Kept: config saved unless the driver did it; a device with a driver is put to D3hot
    if it can, a bridge and a device without driver stay in D0; D0 becomes unknown.

    Left out: noirq callbacks of drivers, the platform's choice of a state, suspend to idle.
    """
    if _pm_driver(k, dev) is None:
        pci.pci_save_state(k, dev)
    elif not dev.state_saved:
        pci.pci_save_state(k, dev)
        if not dev.hw.is_bridge:
            pci_power.pci_prepare_to_sleep(k, dev)
    pci_power.pci_pm_set_unknown_state(dev)
    return 0


def pci_pm_resume_noirq(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci-driver.c. Kept: D0, then config restored **and MSI programmed again, interrupts being off**.

    Left out: noirq callbacks of drivers, bridges that wait for what is below them.
    """
    pci_power.pci_pm_power_up_and_verify_state(k, dev)
    pci.pci_restore_state(k, dev)
    return 0


def pci_pm_resume(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci-driver.c. Kept: what is still saved is restored (a suspend that was called off); the driver's
    resume; without one, an enabled device is enabled again, and bus master again if it was.
    """
    if dev.state_saved:
        pci.pci_set_power_state(k, dev, PCI_D0)
        pci.pci_restore_state(k, dev)
    driver = _pm_driver(k, dev)
    if driver is not None:
        return driver.resume(k, dev)
    error = pci.pci_reenable_device(k, dev)
    if dev.is_busmaster:
        pci.pci_set_master(k, dev)
    return error
