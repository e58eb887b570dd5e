"""The IOMMU core: which devices it serves, their groups and default domains, over their lives (drivers/iommu/iommu.c).

The driver behind it is a module, ``amd_iommu`` or ``intel_iommu``, that has ``init``, ``device_group``,
``attach_dev``, ``detach_dev``, ``def_domain_type``, and ``probe_device``/``release_device`` (v5.8+) or
``add_device``/``remove_device``; ``probe_finalize`` and ``domain_free`` if it needs them.
"""

from __future__ import annotations

import errno

from quiesce.kernel import changes
from quiesce.kernel.base_core import dev_printk
from quiesce.kernel.iommu_group import (
    BLOCKED,
    DMA,
    IDENTITY,
    UNMANAGED,
    IommuCore,
    IommuDomain,
    IommuGroup,
    attach_device,
    iommu_core,
    iommu_domain_alloc,
    iommu_domain_free,
    iommu_group_add_device,
    iommu_group_alloc,
    iommu_group_get,
    iommu_group_put,
    iommu_group_ref_get,
    iommu_group_remove_device,
    iommu_ops,
    probes_devices,
    static_blocking_domain,
)
from quiesce.kernel.iommu_owner import (
    iommu_attach_group,
    iommu_detach_group,
    iommu_device_claim_dma_owner,
    iommu_device_release_dma_owner,
    iommu_device_unuse_default_domain,
    iommu_device_use_default_domain,
    iommu_group_claim_dma_owner,
    iommu_group_dma_owner_claimed,
    iommu_group_release_dma_owner,
    pci_dev_reset_iommu_done,
    pci_dev_reset_iommu_prepare,
)
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev

__all__ = [
    "BLOCKED",
    "DMA",
    "IDENTITY",
    "UNMANAGED",
    "IommuCore",
    "IommuDomain",
    "IommuGroup",
    "group_type_store",
    "groups",
    "iommu_attach_group",
    "iommu_bus_notifier",
    "iommu_core",
    "iommu_detach_group",
    "iommu_device_claim_dma_owner",
    "iommu_device_release_dma_owner",
    "iommu_device_unuse_default_domain",
    "iommu_device_use_default_domain",
    "iommu_domain_alloc",
    "iommu_domain_free",
    "iommu_get_dma_domain",
    "iommu_get_domain_for_dev",
    "iommu_group_add_device",
    "iommu_group_alloc",
    "iommu_group_claim_dma_owner",
    "iommu_group_dma_owner_claimed",
    "iommu_group_get",
    "iommu_group_get_for_dev",
    "iommu_group_put",
    "iommu_group_ref_get",
    "iommu_group_release_dma_owner",
    "iommu_group_remove_device",
    "iommu_init",
    "iommu_probe_device",
    "iommu_release_device",
    "pci_dev_reset_iommu_done",
    "pci_dev_reset_iommu_prepare",
]


# -- boot --------------------------------------------------------------------------------------------------------


def iommu_init(k: Kernel) -> None:
    """drivers/iommu/amd_iommu_init.c, intel-iommu.c, iommu.c. Kept: the hardware is set up, then the driver is
    registered and every device of the bus probed in bus order. Without groups as objects (v3.5) the drivers serve
    devices alone.
    """
    if k.machine.iommu is None:
        return
    ops = iommu_ops(k)
    ops.init(k)
    core = iommu_core(k)
    core.registered = k.has(changes.IOMMU_GROUP_OBJECTS)
    if k.machine.iommu == "intel" and k.has(changes.VTD_RELEASE_DOMAIN):
        core.release_domain = static_blocking_domain(k)
    if core.registered:
        bus_iommu_probe(k)


def bus_iommu_probe(k: Kernel) -> None:
    """drivers/iommu/iommu.c. Kept: v5.8+ first forms all groups, then gives each its default domain by what all of its
    devices ask for; before, each device is added by itself.
    """
    for dev in k.system.devices:
        if probes_devices(k):
            _probe_into_group(k, dev)
        else:
            iommu_ops(k).add_device(k, dev)
    if probes_devices(k):
        for group in _groups(k):
            _setup_default_domain(k, group)


def _setup_default_domain(k: Kernel, group: IommuGroup) -> None:
    if group.default_domain is None and _alloc_default_domain(k, group, _type_for_group(k, group)) == 0:
        for dev in group.devices:
            _attach_default(k, group, dev)
            _probe_finalize(k, dev)


# -- one device --------------------------------------------------------------------------------------------------


def iommu_bus_notifier(k: Kernel, action: str, dev: PciDev) -> None:
    """drivers/iommu/iommu.c. Kept: a new device is probed; a removed one is released, up to v4.1 before it left the
    bus, since then after.
    """
    if not iommu_core(k).registered:
        return
    last = "REMOVED_DEVICE" if k.has(changes.IOMMU_CORE_AT_REMOVED_DEVICE) else "DEL_DEVICE"
    if action == "ADD_DEVICE":
        iommu_probe_device(k, dev)
    elif action == last:
        iommu_release_device(k, dev)


def iommu_probe_device(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/iommu.c. Kept: v6.15+ configures the device's DMA first, which in v7.0+ switches ACS on; the
    driver's own data; group; default domain unless somebody owns the group; DMA operations last.

    Left out: firmware descriptions, deferred attach.
    """
    if not iommu_core(k).registered:
        return -errno.ENODEV
    if not probes_devices(k):
        return int(iommu_ops(k).add_device(k, dev))
    error = _probe_into_group(k, dev)
    if error:
        return error
    group: IommuGroup = dev.iommu_group
    if group.default_domain is None:
        _alloc_default_domain(k, group, _type_for(k, dev))
    error = _attach_default(k, group, dev)
    if error:
        iommu_release_device(k, dev)
        return error
    _probe_finalize(k, dev)
    return 0


def _probe_into_group(k: Kernel, dev: PciDev) -> int:
    """``__iommu_probe_device``: the driver's data and the group; a device that is in a group was probed before."""
    if dev.iommu_group is not None:
        return 0
    if k.has(changes.IOMMU_PROBE_IN_CORE) and dev.driver is None:
        _dma_configure(k, dev)
    ops = iommu_ops(k)
    dev.iommu_attached = True
    error = int(ops.probe_device(k, dev))
    if error:
        dev.iommu_attached = False
        return error
    error = _join_group(k, dev)
    if error:
        ops.release_device(k, dev)
        dev.iommu_attached = False
    return error


def _dma_configure(k: Kernel, dev: PciDev) -> None:
    from quiesce.kernel import pci_driver  # the bus calls the core and the core the bus

    pci_driver.pci_dma_configure(k, None, dev)


def _join_group(k: Kernel, dev: PciDev) -> int:
    group: IommuGroup = iommu_ops(k).device_group(k, dev)
    error = iommu_group_add_device(k, group, dev)
    if error:
        iommu_group_put(k, group)
    return error


def iommu_group_get_for_dev(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/iommu.c, v3.17 to v5.7, called by ``add_device``. Kept: the device's group found or made, v4.2+
    with a default domain if the driver has such; the device added to it. Older drivers call it with their own search
    behind ``device_group``.
    """
    if dev.iommu_group is not None:
        return 0
    group: IommuGroup = iommu_ops(k).device_group(k, dev)
    if k.has(changes.CORE_DEFAULT_DOMAINS) and group.default_domain is None:
        _alloc_default_domain(k, group, _type_for(k, dev))
    error = iommu_group_add_device(k, group, dev)
    if error:
        iommu_group_put(k, group)
    return error


def iommu_release_device(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/iommu.c. Kept: v5.8+ the driver lets go, then the device leaves its group (in v5.8-rc1 to rc5 the
    other way round, so that a driver that cleans up nothing in ``domain_free`` worked on a domain that was gone); VT-d
    v6.9+ blocks the device first.
    """
    if not probes_devices(k):
        if dev.iommu_group is not None:
            iommu_ops(k).remove_device(k, dev)
        return
    if not dev.iommu_attached:
        return
    if not k.has(changes.RELEASE_BEFORE_LEAVING_GROUP):
        iommu_group_remove_device(k, dev)
        iommu_ops(k).release_device(k, dev)
    else:
        release_domain = iommu_core(k).release_domain
        if release_domain is not None:
            attach_device(k, release_domain, dev)
        iommu_ops(k).release_device(k, dev)
        iommu_group_remove_device(k, dev)
    dev.iommu_attached = False


# -- default domains ---------------------------------------------------------------------------------------------


def _type_for(k: Kernel, dev: PciDev) -> str:
    """``iommu_get_def_domain_type``: what the driver wants for the device, else the system's default."""
    return iommu_ops(k).def_domain_type(k, dev) or iommu_core(k).default_type


def _type_for_group(k: Kernel, group: IommuGroup) -> str:
    """What the devices of the group want; the system's default when they disagree."""
    wanted: list[tuple[PciDev, str]] = []
    for dev in group.devices:
        kind = iommu_ops(k).def_domain_type(k, dev)
        if not kind:
            continue
        if wanted and wanted[0][1] != kind:
            other, its = wanted[0]
            text = (
                f"Device needs domain type {kind}, but device {other.bdf} in the same iommu group requires type {its}"
            )
            dev_printk(k, "warn", dev, f"{text} - using default")
            return iommu_core(k).default_type
        wanted.append((dev, kind))
    return wanted[0][1] if wanted else iommu_core(k).default_type


def _alloc_default_domain(k: Kernel, group: IommuGroup, kind: str) -> int:
    """``iommu_group_alloc_default_domain``. Kept: VT-d before v5.3 has none; another type that can not be had falls
    back to DMA.
    """
    if k.machine.iommu == "intel" and not k.has(changes.VTD_CORE_DEFAULT_DOMAINS):
        return -errno.EINVAL
    domain = iommu_domain_alloc(k, kind)
    if domain is None and kind != DMA:
        domain = iommu_domain_alloc(k, DMA)
    if domain is None:
        return -errno.ENOMEM
    domain.flush_queue = domain.type == DMA and not iommu_core(k).strict
    group.default_domain = domain
    if group.domain is None:
        group.domain = domain
    return 0


def _attach_default(k: Kernel, group: IommuGroup, dev: PciDev) -> int:
    if group.default_domain is None or group.owner is not None:
        return 0
    return attach_device(k, group.default_domain, dev)


def _probe_finalize(k: Kernel, dev: PciDev) -> None:
    """``iommu_setup_dma_ops`` and the driver's ``probe_finalize``. Kept: v6.12+ marks a device in a DMA domain."""
    domain = iommu_get_dma_domain(dev)
    if k.has(changes.DMA_IOMMU_FLAG):
        dev.dma_iommu = domain is not None and domain.type == DMA
    finalize = getattr(iommu_ops(k), "probe_finalize", None)
    if finalize is not None:
        finalize(k, dev)


def iommu_get_domain_for_dev(dev: PciDev) -> IommuDomain | None:
    """drivers/iommu/iommu.c. Kept: the domain the device's group is in; None without a group."""
    group: IommuGroup | None = dev.iommu_group
    return None if group is None else group.domain


def iommu_get_dma_domain(dev: PciDev) -> IommuDomain | None:
    """drivers/iommu/iommu.c. Kept: the group's default domain; the real one reads through the group without a test, so
    a caller that may run after the device left its group must look at ``dev.iommu_group`` itself.
    """
    group: IommuGroup | None = dev.iommu_group
    return None if group is None else group.default_domain


# -- sysfs -------------------------------------------------------------------------------------------------------

_TYPES = {"identity": (IDENTITY, False), "DMA": (DMA, False), "DMA-FQ": (DMA, True), "auto": ("", False)}


def group_type_store(k: Kernel, group: IommuGroup, text: str) -> int:
    """drivers/iommu/iommu.c, ``iommu_group_store_type`` (v5.11+). Kept: who may stand in the way: up to v6.3 a second
    device or a bound driver, v6.4+ whoever owns the group's DMA; a flush queue can be added to a live DMA domain.

    Left out: DMA-FQ came with v5.15.
    """
    if not k.has(changes.GROUP_TYPE_WRITABLE):
        return -errno.EACCES
    old = group.default_domain
    if text not in _TYPES or old is None:
        return -errno.EINVAL
    kind, flush_queue = _TYPES[text]
    if not (flush_queue and old.type == DMA and not old.flush_queue):
        error = _may_change_type(k, group)
        if error:
            return error
    return _change_type(k, group, old, kind or _type_for_group(k, group), flush_queue)


def _may_change_type(k: Kernel, group: IommuGroup) -> int:
    if k.has(changes.GROUP_TYPE_BY_OWNERSHIP):
        return -errno.EPERM if not group.devices or group.owner_cnt else 0
    if len(group.devices) != 1:
        k.printk("err", "iommu: Cannot change default domain: Group has more than one device")
        return -errno.EINVAL
    if group.devices[0].driver is not None:
        k.printk("err", "iommu: Device is still bound to driver")
        return -errno.EBUSY
    if group.domain is not group.default_domain:
        dev_printk(k, "err", group.devices[0], "Group not assigned to default domain")
        return -errno.EBUSY
    return 0


def _change_type(k: Kernel, group: IommuGroup, old: IommuDomain, kind: str, flush_queue: bool) -> int:
    """``iommu_change_dev_def_domain``, later ``iommu_setup_default_domain``."""
    if any(iommu_ops(k).def_domain_type(k, dev) not in (None, "", kind) for dev in group.devices):
        dev_printk(k, "err", group.devices[0], f"Device cannot be in {kind} domain")
        return -errno.EINVAL
    if kind == old.type:
        old.flush_queue = flush_queue or old.flush_queue
        return 0
    new = iommu_domain_alloc(k, kind)
    if new is None:
        return -errno.ENOMEM
    new.flush_queue = flush_queue
    for dev in group.devices:
        error = attach_device(k, new, dev)
        if error:
            for undo in group.devices:
                attach_device(k, old, undo)
            iommu_domain_free(k, new)
            return error
    group.default_domain = group.domain = new
    for dev in group.devices:
        _probe_finalize(k, dev)
    iommu_domain_free(k, old)
    return 0


# -- what came of it ---------------------------------------------------------------------------------------------


def _groups(k: Kernel) -> list[IommuGroup]:
    """Return the groups that have devices, by number."""
    found = {dev.iommu_group for dev in k.system.devices if dev.iommu_group is not None}
    return sorted(found, key=lambda group: group.number)


def groups(k: Kernel) -> list[list[str]]:
    """Return the addresses in each group, by group number and in the order in which they joined."""
    return [[dev.bdf for dev in group.devices] for group in _groups(k)]
