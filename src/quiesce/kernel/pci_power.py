"""Power states of PCI devices (drivers/pci/pci.c, drivers/pci/pci-driver.c)."""

from __future__ import annotations

from errno import EINVAL, EIO

from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3COLD, PCI_D3HOT, PCI_UNKNOWN, PciDev
from quiesce.kernel.pci_access import pci_dev_is_disconnected, pci_read_config, pci_write_config
from quiesce.machine import pci_regs as r

_NAMES = ("D0", "D1", "D2", "D3hot", "D3cold", "unknown")
_ALL_ONES = 0xFFFF


def pm_cap(dev: PciDev) -> int:
    """Return the offset of the power management capability, or 0 (``dev->pm_cap``)."""
    return dev.hw.find_capability(r.PCI_CAP_ID_PM)


def _read_pmcsr(k: Kernel, dev: PciDev) -> int:
    return pci_read_config(k, dev, pm_cap(dev) + r.PCI_PM_CTRL, 2)


def _write_pmcsr(k: Kernel, dev: PciDev, value: int) -> None:
    pci_write_config(k, dev, pm_cap(dev) + r.PCI_PM_CTRL, 2, value)


def pci_power_name(state: int) -> str:
    """Return ``D0`` ... ``D3cold``, ``unknown``."""
    return _NAMES[state]


def pci_update_current_state(k: Kernel, dev: PciDev, state: int) -> None:
    """drivers/pci/pci.c. Kept: the power state is read from the capability; without one, ``state`` is believed; a
    device that answers all ones is in D3cold. Left out: what the platform firmware says.
    """
    if not pm_cap(dev):
        dev.current_state = state
        return
    pmcsr = _read_pmcsr(k, dev)
    dev.current_state = PCI_D3COLD if pmcsr == _ALL_ONES else pmcsr & r.PCI_PM_CTRL_STATE_MASK


def pci_power_up(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: D0 through the capability; returns 1 when the registers may have been lost on the way
    from D3hot, -EIO without a capability (then D0 is believed) or when the device does not answer.

    Left out: delays, platform power switching.
    """
    if not pm_cap(dev):
        dev.current_state = PCI_D0
        return -EIO
    if pci_dev_is_disconnected(k, dev):
        dev.current_state = PCI_D3COLD
        return -EIO
    pmcsr = _read_pmcsr(k, dev)
    if pmcsr == _ALL_ONES:
        name = pci_power_name(dev.current_state)
        k.printk("err", f"pci {dev.bdf}: Unable to change power state from {name} to D0, device inaccessible")
        dev.current_state = PCI_D3COLD
        return -EIO
    was = pmcsr & r.PCI_PM_CTRL_STATE_MASK
    lost = (was == PCI_D3HOT or dev.current_state >= PCI_D3HOT) and not pmcsr & r.PCI_PM_CTRL_NO_SOFT_RESET
    if was != PCI_D0:
        _write_pmcsr(k, dev, 0)
    dev.current_state = PCI_D0
    return int(lost)


def pci_set_power_state(k: Kernel, dev: PciDev, state: int) -> int:
    """drivers/pci/pci.c. Kept: to D0 by ``pci_power_up``, and BARs put back when the device lost them; downwards only;
    no transition without a capability. Left out: D3cold by the platform (D3hot is entered instead), ASPM.
    """
    if state == PCI_D0:
        return _pci_set_full_power_state(k, dev)
    if not pm_cap(dev):
        return -EIO
    target = min(state, PCI_D3HOT)
    if dev.current_state == target:
        return 0
    if dev.current_state <= PCI_D3COLD and dev.current_state > target:
        return -EINVAL
    pmcsr = _read_pmcsr(k, dev)
    if pmcsr == _ALL_ONES:
        dev.current_state = PCI_D3COLD
        return -EIO
    _write_pmcsr(k, dev, pmcsr & ~r.PCI_PM_CTRL_STATE_MASK | target)
    dev.current_state = target
    return 0


def _pci_set_full_power_state(k: Kernel, dev: PciDev) -> int:
    result = pci_power_up(k, dev)
    if result < 0:
        return 0 if dev.current_state == PCI_D0 else result
    if result > 0:
        _pci_restore_bars(k, dev)
    return 0


def _pci_restore_bars(k: Kernel, dev: PciDev) -> None:
    config = dev.hw.config
    for name, register in config.registers.items():
        if name.startswith("BASE_ADDRESS_"):
            pci_write_config(k, dev, register.offset, register.size, register.initial)


def pci_prepare_to_sleep(k: Kernel, dev: PciDev) -> int:
    """drivers/pci/pci.c. Kept: D3hot when the device can. Left out: wake-up, the platform's choice of a state."""
    return pci_set_power_state(k, dev, PCI_D3HOT)


def pci_pm_set_unknown_state(dev: PciDev) -> None:
    """drivers/pci/pci-driver.c. Kept: D0 becomes unknown, because firmware may change it behind the kernel."""
    if dev.current_state == PCI_D0:
        dev.current_state = PCI_UNKNOWN


def pci_pm_power_up_and_verify_state(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci-driver.c. Kept: D0, then the state as the device reports it."""
    pci_power_up(k, dev)
    pci_update_current_state(k, dev, PCI_D0)
