"""Switching Access Control Services on (drivers/pci/pci.c, quirks.c)."""

from __future__ import annotations

from quiesce.kernel import changes
from quiesce.kernel.group_view import DeviceView, KernelView
from quiesce.kernel.pci_acs import REQ_ACS_FLAGS, SPT_ACS_CTRL, knows, quirks_for
from quiesce.kernel.pci_config import pci_read_config, pci_write_config
from quiesce.machine import pci_regs as r

_REDIRECT = r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_EC
_ENABLED_BY_QUIRK = (("intel_pch", "PCH"), ("intel_spt", "SPT PCH"))


def pci_acs_init(k: KernelView, dev: DeviceView) -> None:
    """drivers/pci/pci.c, at enumeration. Kept: isolation is switched on here, in v7.0+ only when the device's DMA is
    configured; v5.9 and the first of v5.10 passed over devices without the capability, and so over the quirks for them.
    """
    if k.has(changes.ACS_IN_DMA_CONFIGURE):
        return
    cached = k.has(changes.ACS_CAP_CACHED) and not k.has(changes.ACS_ENABLED_WITHOUT_CAP)
    if not cached or dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS):
        pci_enable_acs(k, dev)


def pci_enable_acs(k: KernelView, dev: DeviceView) -> None:
    """drivers/pci/pci.c. Kept: only if an IOMMU driver asked (``pci_request_acs``); a quirk takes the place of the
    standard way; then what the command line says, IOMMU or not.

    v6.11 asked no quirk for a device without the capability. Left out: Translation Blocking for untrusted devices and
    with ``pci=noats``.
    """
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if not base and k.has(changes.CONFIG_ACS_PARAMETER) and not k.has(changes.ACS_QUIRK_BEFORE_CAP):
        return
    firmware = pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2) if base else 0
    if k.machine.iommu is not None and not pci_dev_specific_enable_acs(k, dev) and base:
        wanted = pci_read_config(k, dev, base + r.PCI_ACS_CAP, 2) & REQ_ACS_FLAGS
        pci_write_config(k, dev, base + r.PCI_ACS_CTRL, 2, firmware | wanted)
    if k.parameters.disable_acs_redir or k.parameters.config_acs:
        _apply_parameters(k, dev, base, firmware)


def pci_dev_specific_enable_acs(k: KernelView, dev: DeviceView) -> bool:
    """drivers/pci/quirks.c. Kept: Intel PCH root ports without the capability, and those whose registers lie
    elsewhere; whether one of them was served.

    Left out: the chipset registers (RCBA, UPDCR, MPC) behind the PCH quirk, which can fail only where firmware hides
    them.
    """
    if dev.hw.pcie_type != r.PCI_EXP_TYPE_ROOT_PORT:
        return False
    for kind, name in _ENABLED_BY_QUIRK:
        if _listed(k, dev, kind):
            dev.acs_enabled_quirk = True
            k.printk("info", f"pci {dev.bdf}: Intel {name} root port ACS workaround enabled")
            return True
    return False


def _listed(k: KernelView, dev: DeviceView, kind: str) -> bool:
    entries = quirks_for(dev.hw.vendor, dev.hw.device)
    return any(quirk.kind == kind and knows(k, quirk) for quirk in entries)


# -- the command line --------------------------------------------------------------------------------------------


def _apply_parameters(k: KernelView, dev: DeviceView, base: int, firmware: int) -> None:
    """``pci_disable_acs_redir`` (v4.19+), ``__pci_config_acs`` (v6.11+). Kept: the first entry that names the device
    counts; v6.11+ both start from what firmware had set, so that what the kernel set by itself is lost.
    """
    if any(spec.matches(dev.hw) for spec in k.parameters.disable_acs_redir) and k.has(changes.DISABLE_ACS_REDIR):
        _disable_redirect(k, dev, base, firmware)
    request = next((entry for entry in k.parameters.config_acs if entry.where.matches(dev.hw)), None)
    if request is None or not base or not k.has(changes.CONFIG_ACS_PARAMETER):
        return
    if not _disable_spt_redirect(k, dev, base):
        _configure(k, dev, base, firmware & ~request.clear | request.set)


def _disable_redirect(k: KernelView, dev: DeviceView, base: int, firmware: int) -> None:
    if _disable_spt_redirect(k, dev, base):
        return
    if not base:
        text = "cannot disable ACS redirect for this hardware as it does not have ACS capabilities"
        k.printk("warn", f"pci {dev.bdf}: {text}")
    elif k.has(changes.CONFIG_ACS_PARAMETER):
        _configure(k, dev, base, firmware & ~_REDIRECT)
    else:
        control = pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2)
        pci_write_config(k, dev, base + r.PCI_ACS_CTRL, 2, control & ~_REDIRECT)
        k.printk("info", f"pci {dev.bdf}: disabled ACS redirect")


def _configure(k: KernelView, dev: DeviceView, base: int, control: int) -> None:
    pci_write_config(k, dev, base + r.PCI_ACS_CTRL, 2, control)
    k.printk("info", f"pci {dev.bdf}: Configured ACS to {control:#06x}")


def _disable_spt_redirect(k: KernelView, dev: DeviceView, base: int) -> bool:
    """drivers/pci/quirks.c ``pci_quirk_disable_intel_spt_pch_acs_redir``. Kept: whether the port was served; the mark
    that its controls are on goes.
    """
    port = dev.hw.pcie_type == r.PCI_EXP_TYPE_ROOT_PORT
    if not base or not port or not _listed(k, dev, "intel_spt"):
        return False
    control = pci_read_config(k, dev, base + SPT_ACS_CTRL, 4)
    pci_write_config(k, dev, base + SPT_ACS_CTRL, 4, control & ~_REDIRECT)
    dev.acs_enabled_quirk = False
    k.printk("info", f"pci {dev.bdf}: Intel SPT PCH root port workaround: disabled ACS redirect")
    return True
