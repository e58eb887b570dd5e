"""The AMD IOMMU driver: its hardware and its own PCI function, devices, domains (drivers/iommu/amd_iommu.c and
amd_iommu_init.c, later drivers/iommu/amd/).

Its data per requester id outlives every device. When a device leaves its domain is what changed most:

* up to v4.0 at every unbind; the DMA API attaches it again when it is used next;
* v4.1 never, not even at unplug;
* v4.2 to v4.4 when the domain is freed with the group;
* v4.5+ when the device is removed.
"""

from __future__ import annotations

import errno

from quiesce.kernel import changes, dma_iova, irq, msi, pci
from quiesce.kernel.amd_alias import get_alias
from quiesce.kernel.amd_dev_data import (
    AmdDevData,
    AmdIommu,
    AmdVi,
    amd_vi,
    check_device,
    entries_of,
    find_dev_data,
    get_dev_data,
)
from quiesce.kernel.amd_domain import (
    attach_dev,
    detach_dev,
    detach_device,
    domain_for_device,
    domain_free,
    get_domain,
    prealloc_domain,
)
from quiesce.kernel.amd_group import device_group
from quiesce.kernel.base_core import get_device
from quiesce.kernel.iommu_group import (
    DMA,
    IDENTITY,
    IommuGroup,
    iommu_core,
    iommu_group_add_device,
    iommu_group_put,
    iommu_group_remove_device,
)
from quiesce.kernel.kernel import IRQ_HANDLED, IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.kernel.pci_access import pci_dev_of
from quiesce.machine import interrupts
from quiesce.machine import iommu as hardware
from quiesce.machine import pci_regs as r

__all__ = [
    "HANDLERS",
    "AmdDevData",
    "AmdIommu",
    "AmdVi",
    "add_device",
    "amd_vi",
    "attach_dev",
    "bus_notifier",
    "def_domain_type",
    "detach_dev",
    "device_group",
    "domain_free",
    "get_domain",
    "init",
    "probe_device",
    "probe_finalize",
    "release_device",
    "remove_device",
    "teardown",
]

_DRIVER = "amd-iommu"
_HANDLER = "amd_iommu.interrupt"
_FEATURE_PPR, _FEATURE_GT = 1 << 1, 1 << 4
"""IOMMU Extended Feature Register: peripheral page requests, guest translation."""


# -- the hardware and its own function ---------------------------------------------------------------------------


def init(k: Kernel) -> None:
    """drivers/iommu/amd_iommu_init.c. Kept: all IOMMUs on, interrupt remapping (v3.7+), their PCI functions taken and
    given an interrupt; the proposed PCI driver of its own is registered if the scenario has it.

    Left out: firmware bugs that make the driver give up, a function that is missing among them; x2APIC mode.
    """
    _forget(k)
    dma_iova.forget_queue(k)
    remaps = k.has(changes.AMD_IRQ_REMAPPING) and hardware.interrupt_remapping_capable(k.machine)
    interrupts.remapping(k.machine).enabled = remaps
    if k.has(changes.AMD_IOMMU_PCI_DRIVER) and _DRIVER in k.drivers and _DRIVER not in k.system.loaded:
        from quiesce.kernel import base_dd  # the driver core calls bus listeners, of which this module is one

        base_dd.driver_register(k, _DRIVER)
    for number, unit in enumerate(hardware.units(k.machine)):
        unit.enabled, unit.interrupt_remapping = True, remaps
        _iommu_init_pci(k, number)
    if not k.has(changes.IOMMU_GROUP_OBJECTS):
        for dev in k.system.devices:
            add_device(k, dev)


def _forget(k: Kernel) -> None:
    """A kernel that starts knows nothing of what an earlier one kept."""
    vi = amd_vi(k)
    for data in vi.dev_data_list:
        data.delete()
    for domain in (vi.default_domain, vi.pt_domain):
        if domain is not None and domain.exists:
            domain.delete()
    vi.delete()


def _iommu_init_pci(k: Kernel, number: int) -> None:
    """``iommu_init_pci``. Kept: the function enabled; v4.3 to v6.15 no driver may bind to it; its structure stays
    for as long as the IOMMU runs, even if it is removed.
    """
    dev = _function(k, number)
    if dev is None:
        return
    iommu = AmdIommu.get(k.world, f"amd/iommu/{number}")
    get_device(k, dev, iommu)
    iommu.dev, iommu.int_enabled = dev, False
    if k.has(changes.AMD_IOMMU_UNBINDABLE) and not k.has(changes.AMD_IOMMU_PCI_DRIVER):
        dev.match_driver = False
    pci.pci_enable_device(k, dev)
    iommu.int_enabled = iommu_setup_msi(k, iommu) == 0


def _function(k: Kernel, number: int) -> PciDev | None:
    ivrs = k.machine.ivrs
    if ivrs is not None:
        return pci_dev_of(k, str(ivrs.units[number].bdf))
    found = [dev for dev in k.system.devices if dev.hw.class_code >> 8 == r.PCI_CLASS_SYSTEM_IOMMU]
    return found[0] if found else None


def iommu_setup_msi(k: Kernel, iommu: AmdIommu) -> int:
    """drivers/iommu/amd_iommu_init.c. Kept: MSI on a function without driver, and the handler on its number.

    Left out: the three interrupts of x2APIC mode, which are not the PCI function's.
    """
    dev = iommu.dev
    assert dev is not None
    error = msi.pci_enable_msi(k, dev)
    if error:
        return error
    k.irq_handlers.setdefault(_HANDLER, amd_iommu_int_handler)
    error = irq.request_irq(k, dev.irq, IrqAction("AMD-Vi", _HANDLER, iommu))
    if error:
        msi.pci_disable_msi(k, dev)
    return error


def amd_iommu_int_handler(k: Kernel, irq: int, iommu: AmdIommu) -> str:
    """drivers/iommu/amd_iommu.c. Kept: claims every interrupt. Left out: what the logs say."""
    assert iommu.dev is not None
    iommu.dev.hw.irq_status = False
    return IRQ_HANDLED


HANDLERS: dict[str, IrqHandler] = {_HANDLER: amd_iommu_int_handler}
"""For ``Kernel.irq_handlers``."""


def teardown(k: Kernel, dev: PciDev) -> None:
    """What removing the proposed PCI driver does: interrupt and MSI go, and nothing translates any more. That is never
    right while devices do DMA.
    """
    for number, unit in enumerate(hardware.units(k.machine)):
        iommu = AmdIommu.get(k.world, f"amd/iommu/{number}")
        if iommu.dev is not dev:
            continue
        if iommu.int_enabled:
            irq.free_irq(k, dev.irq, iommu)
            msi.pci_disable_msi(k, dev)
            iommu.int_enabled = False
        unit.enabled = unit.interrupt_remapping = False
        why = f"the driver of {dev.bdf} is unbound: no DMA is translated or blocked any more"
        k.find("iommu/unbound-live", why, "amd_iommu_remove")


# -- devices -----------------------------------------------------------------------------------------------------


def probe_device(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/amd/iommu.c, v5.8+. Kept: the data of its requester id, aliases; a failure leaves the device to DMA
    without translation.
    """
    if not check_device(k, dev):
        return -errno.ENODEV
    if dev.iommu_priv is not None:
        return 0
    error = iommu_init_device(k, dev)
    if error:
        _iommu_ignore_device(k, dev)
    return error


def add_device(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/amd_iommu.c, up to v5.7. Kept: as ``probe_device``, then a group, a domain, DMA operations.

    Before v4.2 the domain is the device's own: at boot it is attached, at hot-plug only made.
    """
    if not check_device(k, dev):
        return -errno.ENODEV
    if dev.iommu_priv is not None:
        return 0
    error = iommu_init_device(k, dev)
    if error:
        _iommu_ignore_device(k, dev)
        return error
    error = _join_group(k, dev)
    if not k.has(changes.CORE_DEFAULT_DOMAINS):
        prealloc_domain(k, dev)
    elif not error:
        probe_finalize(k, dev)
    return error


def iommu_init_device(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/amd_iommu.c. Kept: data found from an earlier life of the slot, or made; the alias's too."""
    data = find_dev_data(k, dev.hw.bdf)
    if data is None:
        return -errno.ENOMEM
    alias = get_alias(k, dev)
    if alias != dev.hw.bdf and not k.has(changes.CORE_DEFAULT_DOMAINS):
        data.alias_data = find_dev_data(k, alias)
        if data.alias_data is None:
            k.printk("err", f"AMD-Vi: Warning: Unhandled device {dev.bdf}")
            return -errno.EOPNOTSUPP
    data.passthrough = def_domain_type(k, dev) == IDENTITY or iommu_core(k).default_type == IDENTITY
    dev.iommu_priv = data
    return 0


def _iommu_ignore_device(k: Kernel, dev: PciDev) -> None:
    """``iommu_ignore_device``. Kept: an entry of zeros lets all pass. Left out: the lookup table."""
    for rid in entries_of(k, dev):
        dte = hardware.amd_dte(k.world, rid)
        dte.valid, dte.domain, dte.translated = True, -1, False


def _join_group(k: Kernel, dev: PciDev) -> int:
    if not k.has(changes.IOMMU_GROUP_OBJECTS):
        return 0
    if k.has(changes.CENTRAL_GROUP_LOOKUP):
        from quiesce.kernel import iommu  # the core imports its drivers

        return iommu.iommu_group_get_for_dev(k, dev)
    group = device_group(k, dev)
    error = iommu_group_add_device(k, group, dev)
    if error:
        iommu_group_put(k, group)
    return error


def probe_finalize(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/amd/iommu.c, and the end of ``add_device`` from v4.2 on. Kept: DMA operations for a device in a
    DMA domain; from v6.12 on a flag that the core sets takes their place.
    """
    group: IommuGroup | None = dev.iommu_group
    domain = None if group is None else group.default_domain
    ops = "iommu" if k.has(changes.AMD_DMA_IOMMU) else "amd"
    if domain is None or domain.type != DMA or k.has(changes.DMA_IOMMU_FLAG):
        dev.dma_ops = None
    else:
        dev.dma_ops = ops


def remove_device(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/amd_iommu.c ``iommu_uninit_device``, up to v5.7. Kept: v4.5+ the device leaves its domain; it
    leaves its group; v4.2 to v5.4 it loses its DMA operations. The data of its requester id stays.
    """
    data = get_dev_data(dev)
    if data is not None and data.domain is not None and k.has(changes.AMD_DETACH_AT_REMOVE):
        detach_device(k, data, dev)
    iommu_group_remove_device(k, dev)
    if k.has(changes.CORE_DEFAULT_DOMAINS) and not k.has(changes.AMD_DMA_IOMMU):
        dev.dma_ops = None


def release_device(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/amd/iommu.c, v5.8+. Kept: out of its domain, pointer cleared; DMA operations stay as they are."""
    data = get_dev_data(dev)
    if data is None:
        return
    if data.domain is not None:
        detach_device(k, data, dev)
    dev.iommu_priv = None


def bus_notifier(k: Kernel, action: str, dev: PciDev) -> None:
    """drivers/iommu/amd_iommu.c ``device_change_notifier``. Kept: up to v4.0 an unbound device leaves its domain,
    unless all DMA passes through; v3.5, which has no groups, learns of new devices here.
    """
    if k.machine.iommu != "amd" or not any(unit.enabled for unit in hardware.units(k.machine)):
        return
    if action == "ADD_DEVICE" and not k.has(changes.IOMMU_GROUP_OBJECTS):
        add_device(k, dev)
    elif action == "UNBOUND_DRIVER" and not k.has(changes.AMD_NO_DETACH_AT_UNBIND):
        data = get_dev_data(dev)
        if data is not None and not data.passthrough and domain_for_device(k, data, dev) is not None:
            detach_device(k, data, dev)


def def_domain_type(k: Kernel, dev: PciDev) -> str | None:
    """drivers/iommu/amd_iommu.c. Kept: a device that can use process address spaces passes untranslated, if the IOMMU
    can do its part.

    Left out: memory encryption, which forbids that; v3.6 to v5.7 decided after the group had a domain.
    """
    ivrs = k.machine.ivrs
    unit = None if ivrs is None else ivrs.unit_of(dev.hw.bdf.requester_id, dev.hw.bdf.segment)
    if unit is None or unit.features & (_FEATURE_PPR | _FEATURE_GT) != _FEATURE_PPR | _FEATURE_GT:
        return None
    needed = (r.PCI_EXT_CAP_ID_ATS, r.PCI_EXT_CAP_ID_PRI, r.PCI_EXT_CAP_ID_PASID)
    return IDENTITY if all(dev.hw.find_ext_capability(cap) for cap in needed) else None
