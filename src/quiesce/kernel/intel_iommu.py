"""The Intel IOMMU driver (drivers/iommu/intel-iommu.c, later drivers/iommu/intel/iommu.c).

Its generations differ in when a device leaves its domain, and in what a driver meets that unmaps after that:

* up to v3.17 at every unbind, v3.18 to v5.2 at removal, by a notifier of the driver's own; a late unmap is a BUG;
* v5.3-rc1 to rc3 never: what is known of the slot stays and is found again by address at re-plug;
* v5.3 to v5.7 in ``remove_device``: a BUG again;
* v5.8+ in ``release_device``, v6.9+ after a blocking domain was attached; the DMA operations are the device's own then.
"""

from __future__ import annotations

import errno

from quiesce.kernel import changes, dma_iova
from quiesce.kernel.base_core import dev_printk
from quiesce.kernel.device_group import intel_old_group, pci_device_group
from quiesce.kernel.dma_iova import DmaMapping
from quiesce.kernel.intel_domain import (
    DeviceDomainInfo,
    VtdState,
    alloc_info,
    device_domain_list,
    device_is_rmrr_locked,
    dmar_insert_one_dev_info,
    dmar_remove_one_dev_info,
    dmar_search_domain_by_dev_info,
    exit_if_unused,
    find_domain,
    free_info,
    get_info,
    get_valid_domain_for_dev,
    infos_in,
    remove_info,
    reserved,
    si_domain,
    vtd,
)
from quiesce.kernel.iommu_group import (
    BLOCKED,
    DMA,
    IDENTITY,
    UNMANAGED,
    IommuDomain,
    IommuGroup,
    iommu_core,
    iommu_group_add_device,
    iommu_group_put,
    iommu_group_ref_get,
    iommu_group_remove_device,
)
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import interrupts
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf

__all__ = [
    "DeviceDomainInfo",
    "VtdState",
    "add_device",
    "attach_dev",
    "bus_notifier",
    "dangling_devices",
    "def_domain_type",
    "detach_dev",
    "device_group",
    "domain_for_map",
    "domain_for_unmap",
    "domain_free",
    "init",
    "probe_device",
    "probe_finalize",
    "release_device",
    "remove_device",
    "unmapped",
    "vtd",
]


def init(k: Kernel) -> None:
    """drivers/iommu/intel-iommu.c ``intel_iommu_init``. Kept: all units on, interrupt remapping where the platform has
    it; up to v5.7 every device gets the driver's DMA operations; up to v5.2 identity mappings and devices with
    reserved memory are set up here.

    Left out: units that are ignored, old tables of a kernel before.
    """
    _forget(k)
    dma_iova.forget_queue(k)
    remaps = hardware.interrupt_remapping_capable(k.machine)
    interrupts.remapping(k.machine).enabled = remaps
    for unit in hardware.units(k.machine):
        unit.enabled, unit.interrupt_remapping = True, remaps
    vtd(k).registered = True
    if not k.has(changes.VTD_CORE_DEFAULT_DOMAINS):
        for dev in k.system.devices:
            if not _iommu_no_mapping(k, dev) and reserved(k, dev):
                get_valid_domain_for_dev(k, dev)


def _forget(k: Kernel) -> None:
    """A kernel that starts knows nothing of what an earlier one kept."""
    state = vtd(k)
    domain = state.si_domain
    for item in (*device_domain_list(k), *((domain,) if domain is not None else ())):
        if item.exists:
            item.delete()
    state.delete()


# -- devices -----------------------------------------------------------------------------------------------------


def _covered(k: Kernel, dev: PciDev) -> bool:
    return hardware.unit_of(k.machine, dev.hw) is not None


def probe_device(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/intel/iommu.c, v5.8+. Kept: -ENODEV when no unit covers the device; v5.19+ its data."""
    if not _covered(k, dev):
        return -errno.ENODEV
    if k.has(changes.VTD_INFO_AT_PROBE) and dev.iommu_priv is None and alloc_info(k, dev.hw.bdf, dev) is None:
        return -errno.ENOMEM
    return 0


def add_device(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/intel-iommu.c ``intel_iommu_add_device``, up to v5.7. Kept: the device joins its group."""
    if not _covered(k, dev):
        return -errno.ENODEV
    if k.has(changes.CENTRAL_GROUP_LOOKUP):
        from quiesce.kernel import iommu  # the core imports its drivers

        return iommu.iommu_group_get_for_dev(k, dev)
    group = device_group(k, dev)
    error = iommu_group_add_device(k, group, dev)
    if error:
        iommu_group_put(k, group)
    return error


def device_group(k: Kernel, dev: PciDev) -> IommuGroup:
    """drivers/iommu/intel-iommu.c. Kept: the driver's own search up to v3.16, the common one since."""
    return pci_device_group(k, dev) if k.has(changes.CENTRAL_GROUP_LOOKUP) else intel_old_group(k, dev)


def def_domain_type(k: Kernel, dev: PciDev) -> str | None:
    """drivers/iommu/intel-iommu.c. Kept: nothing is asked for. Left out: chipset quirks for graphics and audio, units
    that cannot pass requests through, untrusted devices, of which a snapshot says nothing.
    """
    return None


def probe_finalize(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/intel/iommu.c, v5.8+. Kept: DMA operations for a device in a DMA domain: the driver's own up to
    v5.10, dma-iommu's up to v6.11; then a flag that the core sets takes their place.
    """
    group: IommuGroup | None = dev.iommu_group
    domain = None if group is None else group.default_domain
    if not k.has(changes.VTD_DMA_OPS_PER_DEVICE):
        return
    if domain is None or domain.type != DMA or k.has(changes.DMA_IOMMU_FLAG):
        dev.dma_ops = None
    else:
        dev.dma_ops = "iommu" if k.has(changes.VTD_DMA_IOMMU) else "intel"


def remove_device(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/intel-iommu.c, up to v5.7. Kept: v5.3-rc4+ the device leaves its domain first; then its group."""
    if k.has(changes.VTD_DETACH_AT_REMOVE):
        _let_go(k, dev)
    elif k.has(changes.VTD_DROPS_NOTIFIER):
        _keep_domain(dev)
    iommu_group_remove_device(k, dev)


def _keep_domain(dev: PciDev) -> None:
    """v5.3-rc1 to rc3: what the list says of the slot stays, and the domain with it, as was reported.

    Source suggests that the domain stayed only where it outlives the group (identity domains, groups with more
    devices), because a domain that is freed takes its entries along. The model holds the group in every case.
    """
    info = get_info(dev)
    group: IommuGroup | None = dev.iommu_group
    if info is not None and group is not None:
        iommu_group_ref_get(group, f"static:{info.path}")


def release_device(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/intel/iommu.c, v5.8+. Kept: the device leaves its domain, its data goes, and so do its DMA
    operations; none of it for a device that a unit names (see below). The flag of v6.12+ is not the driver's to clear.
    """
    if k.has(changes.SWITCH_NO_DATA) or k.has(changes.SWITCH_UNMAP_BUG):
        vtd(k).released.add(str(dev.hw.bdf))
    if _is_struck_first(k, dev):
        _leave_unreleased(k, dev)
        return
    if _let_go(k, dev):
        dev.dma_ops = None
    info = get_info(dev)
    if info is not None and k.has(changes.VTD_INFO_AT_PROBE):
        free_info(k, info)


def _is_struck_first(k: Kernel, dev: PciDev) -> bool:
    """drivers/iommu/intel/dmar.c, read in v5.10. Kept: its notifier comes before the IOMMU core's, and strikes a device
    that a unit names from the unit's list, so that ``release_device`` finds no unit and returns.

    Left out: the same in v5.11 to v5.18, which was not tried.
    """
    if not k.has(changes.VTD_DMA_OPS_PER_DEVICE) or k.has(changes.VTD_DMA_IOMMU) or k.machine.dmar is None:
        return False
    bdf = dev.hw.bdf
    scopes = (scope for unit in k.machine.dmar.units if unit.segment == bdf.segment for scope in unit.scopes)
    return any(scope.kind == "endpoint" and scope.resolve(bdf.segment, _no_bridge) == bdf for scope in scopes)


def _no_bridge(bridge: Bdf) -> int | None:
    """Only devices on a root bus are looked for: what is behind a bridge is not struck with the bridge."""
    return None


def _leave_unreleased(k: Kernel, dev: PciDev) -> None:
    """The DMA operations stay, and what the list says of the slot as long as its domain, which goes with the group."""
    group: IommuGroup | None = dev.iommu_group
    if group is None or len(group.devices) < 2:
        _leave_domain(k, dev)
    dev.iommu_priv = None


def bus_notifier(k: Kernel, action: str, dev: PciDev) -> None:
    """drivers/iommu/intel-iommu.c ``device_notifier``, up to v5.2. Kept: at UNBOUND_DRIVER (v3.18+: REMOVED_DEVICE) the
    device leaves its domain, and a domain of the driver's own goes with its last device. Identity mappings stay over
    an unbind.
    """
    if k.machine.iommu != "intel" or not vtd(k).registered or k.has(changes.VTD_DROPS_NOTIFIER):
        return
    at_removal = k.has(changes.VTD_DETACH_AT_REMOVED_DEVICE)
    if action != ("REMOVED_DEVICE" if at_removal else "UNBOUND_DRIVER"):
        return
    if at_removal or iommu_core(k).default_type != IDENTITY:
        _let_go(k, dev)


def _let_go(k: Kernel, dev: PciDev) -> bool:
    """Take a device that leaves, or was unbound, out of its domain; returns whether that has been done.

    Proposals: VTD_UNMAP_AT_REMOVAL unmaps first what the driver still has mapped; VTD_DEFER_TEARDOWN waits for the
    driver's last unmap and holds the group until then. The latter was about the driver's own DMA operations only.
    """
    if k.has(changes.VTD_UNMAP_AT_REMOVAL):
        _unmap_all(k, dev)
    info = get_info(dev)
    if _defers(k) and info is not None and dma_iova.mappings_of(k, dev):
        _hold(info, dev.iommu_group)
        return False
    _leave_domain(k, dev)
    return True


def _leave_domain(k: Kernel, dev: PciDev) -> None:
    domain = find_domain(dev)
    dmar_remove_one_dev_info(k, dev)
    if domain is not None:
        exit_if_unused(k, domain)


def _unmap_all(k: Kernel, dev: PciDev) -> None:
    for mapping in dma_iova.mappings_of(k, dev):
        domain = mapping.domain
        if domain is not None and domain.exists:
            dma_iova.unmap_page(k, domain, mapping.iova)
        dma_iova.leave_domain(mapping)


def _defers(k: Kernel) -> bool:
    return k.has(changes.VTD_DEFER_TEARDOWN) and not k.has(changes.VTD_DMA_IOMMU)


def _hold(info: DeviceDomainInfo, group: IommuGroup | None) -> None:
    info.deferred = True
    if group is not None:
        info.group = iommu_group_ref_get(group, info)


# -- attaching ---------------------------------------------------------------------------------------------------


def attach_dev(k: Kernel, domain: IommuDomain, dev: PciDev) -> int:
    """drivers/iommu/intel-iommu.c ``intel_iommu_attach_device``. Kept: reserved memory forbids a domain of user space
    (v3.17+); out of the old domain, into the new one; -EBUSY when the slot is known to be in another.
    """
    if not _covered(k, dev):
        return -errno.ENODEV
    if domain.type == UNMANAGED and k.has(changes.VTD_RMRR_LOCKED) and device_is_rmrr_locked(k, dev):
        text = "Device is ineligible for IOMMU domain attach due to platform RMRR requirement."
        dev_printk(k, "warn", dev, f"{text}  Contact your platform vendor.")
        return -errno.EPERM
    old = find_domain(dev)
    if old is domain:
        return 0
    if old is not None or domain.type == BLOCKED:
        _leave_domain(k, dev)
    if domain.type == BLOCKED:
        return 0
    joined = dmar_insert_one_dev_info(k, dev, domain)
    if joined is None:
        return -errno.ENOMEM
    return 0 if joined is domain else -errno.EBUSY


def detach_dev(k: Kernel, domain: IommuDomain, dev: PciDev) -> None:
    """drivers/iommu/intel-iommu.c ``intel_iommu_detach_device``. Kept: whatever domain it is in is left."""
    if find_domain(dev) is not None:
        dmar_remove_one_dev_info(k, dev)


def domain_free(k: Kernel, domain: IommuDomain) -> None:
    """drivers/iommu/intel-iommu.c ``domain_exit``. Kept: the devices still in it leave it, those of aliases too."""
    dma_iova.forget_domain(k, domain)
    for info in infos_in(domain):
        remove_info(k, info)


# -- the driver's own DMA operations, up to v5.10 ----------------------------------------------------------------


def _iommu_no_mapping(k: Kernel, dev: PciDev) -> bool:
    """``iommu_no_mapping``, later the opposite of ``iommu_need_mapping``. Kept: identity by the device's own pointer;
    up to v5.2 a device without a domain is put into the identity domain here if all are to be in it.
    """
    if not _covered(k, dev):
        return True
    domain = find_domain(dev)
    if domain is not None:
        return domain.type == IDENTITY
    if k.has(changes.VTD_CORE_DEFAULT_DOMAINS) or iommu_core(k).default_type != IDENTITY:
        return False
    identity = si_domain(k)
    return identity is not None and dmar_insert_one_dev_info(k, dev, identity) is identity


def domain_for_map(k: Kernel, dev: PciDev) -> tuple[int, IommuDomain | None]:
    """``__intel_map_single``. Returns 0 and the domain, -EINVAL where the device addresses memory itself, -ENOMEM when
    it has no domain: up to v5.2 it gets one then. A device that the list knows while it does not is found.
    """
    if _iommu_no_mapping(k, dev):
        return -errno.EINVAL, None
    core_has_domains = k.has(changes.VTD_CORE_DEFAULT_DOMAINS)
    domain = find_domain(dev) if core_has_domains else get_valid_domain_for_dev(k, dev)
    if domain is not None:
        return 0, domain
    if get_info(dev) is None and dmar_search_domain_by_dev_info(k, dev.hw.bdf) is not None:
        why = f"the list knows the slot of {dev.bdf}, but {dev.path} does not point there; it cannot map anything"
        k.find("iommu/device-without-data", why, "__intel_map_single")
    return -errno.ENOMEM, None


def domain_for_unmap(k: Kernel, dev: PciDev, mapping: DmaMapping) -> tuple[int, IommuDomain | None]:
    """``intel_unmap``. Kept: **a device without domain is a BUG**. Returns as ``domain_for_map``; with
    VTD_LATE_UNMAP_WARNS or VTD_UNMAP_AT_REMOVAL (proposed) -ENOENT, when nothing can be or needs to be unmapped.
    """
    if _iommu_no_mapping(k, dev):
        return -errno.EINVAL, None
    domain = find_domain(dev)
    if domain is not None:
        return 0, domain
    if k.has(changes.VTD_UNMAP_AT_REMOVAL) and mapping.domain is None:
        return -errno.ENOENT, None
    why = f"{mapping.tag} of {dev.bdf} is unmapped after the device has left its domain"
    where = "drivers/iommu/intel-iommu.c" if not k.has(changes.VTD_PROBE_DEVICE) else "drivers/iommu/intel/iommu.c"
    if k.has(changes.VTD_LATE_UNMAP_WARNS):
        k.warn(
            f"WARNING: at {where} intel_unmap", "leak/dma-mapping", f"{why}: it stays allocated for ever", "intel_unmap"
        )
        return -errno.ENOENT, None
    raise k.crash(
        "iommu/unmap-without-domain",
        f"kernel BUG at {where}! BUG_ON(!domain)",
        f"{why}: BUG_ON(!domain)",
        "intel_unmap",
    )


def unmapped(k: Kernel, dev: PciDev) -> None:
    """Called after every unmap: with VTD_DEFER_TEARDOWN (proposed) the last one of a removed device lets it go."""
    info = get_info(dev) if k.has(changes.VTD_DEFER_TEARDOWN) else None
    if info is None or not info.deferred or dma_iova.mappings_of(k, dev):
        return
    group = info.group
    _leave_domain(k, dev)
    dev.dma_ops = None
    if group is not None:
        iommu_group_put(k, group, info)


# -- for the rules -----------------------------------------------------------------------------------------------


def dangling_devices(k: Kernel) -> list[str]:
    """Return the entries of the driver's list that name a device whose memory has been freed."""
    return [
        f"{info.path} names {info.dev.path}, whose memory has been freed"
        for info in device_domain_list(k)
        if info.dev is not None and not info.dev.exists
    ]
