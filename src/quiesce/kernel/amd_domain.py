"""AMD-Vi: which device is in which domain, in the driver's data and in the device table (drivers/iommu/amd_iommu.c,
later drivers/iommu/amd/iommu.c).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from quiesce.kernel import changes, dma_iova
from quiesce.kernel.amd_dev_data import (
    AmdDevData,
    amd_vi,
    check_device,
    entries_of,
    get_dev_data,
    search_dev_data,
)
from quiesce.kernel.iommu_group import (
    BLOCKED,
    DMA,
    IDENTITY,
    IommuDomain,
    IommuGroup,
    iommu_core,
    iommu_domain_alloc,
)
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf

# -- attaching ---------------------------------------------------------------------------------------------------


def attach_dev(k: Kernel, domain: IommuDomain, dev: PciDev) -> int:
    """drivers/iommu/amd_iommu.c ``amd_iommu_attach_device``. Kept: out of the old domain, into the new one."""
    data = get_dev_data(dev)
    if data is None or not check_device(k, dev):
        return -errno.EINVAL
    if data.domain is domain and dev in domain.devices:
        return 0
    if data.domain is not None:
        detach_device(k, data, dev)
    return _attach(k, data, domain, dev)


def detach_dev(k: Kernel, domain: IommuDomain, dev: PciDev) -> None:
    """drivers/iommu/amd_iommu.c ``amd_iommu_detach_device``. Kept: whatever domain it is in is left."""
    data = get_dev_data(dev)
    if data is not None and data.domain is not None:
        detach_device(k, data, dev)


def _attach(k: Kernel, data: AmdDevData, domain: IommuDomain, dev: PciDev) -> int:
    """``__attach_device``. Kept: up to v4.1 the alias is attached with its first user and binds all others to its
    domain.
    """
    alias = data.alias_data
    if alias is not None:
        if alias.domain not in (None, domain) or data.domain not in (None, domain):
            return -errno.EBUSY
        if alias.domain is None:
            _do_attach(k, alias, domain, iter([Bdf.parse(alias.bdf)]))
        alias.bind += 1
    if data.domain is None:
        _do_attach(k, data, domain, entries_of(k, dev))
    data.bind = 1
    _leave(domain, dev)
    domain.devices.append(dev)
    _map_unity(k, domain, dev)
    return 0


def _do_attach(k: Kernel, data: AmdDevData, domain: IommuDomain, rids: Iterator[Bdf]) -> None:
    """``do_attach`` and ``set_dte_entry``. Kept: the entries of the device and its aliases, whoever wrote them before;
    the IOTLB is flushed. Left out: ATS.
    """
    data.domain = domain
    for rid in rids:
        dte = hardware.amd_dte(k.world, rid)
        if domain.type == BLOCKED:
            dte.delete()
        else:
            dte.valid, dte.domain, dte.translated = True, domain.number, domain.type != IDENTITY
        data.entries.append(str(rid))
    hardware.invalidate(k.world, domain.number)


def _map_unity(k: Kernel, domain: IommuDomain, dev: PciDev) -> None:
    """``init_unity_mappings_for_device``: memory that firmware wants mapped, of which one page stands for all."""
    ivrs = k.machine.ivrs
    if ivrs is None or domain.type != DMA:
        return
    for item in ivrs.memory:
        if item.unity and item.first <= dev.hw.bdf.requester_id <= item.last:
            domain.page_table.mappings.add(item.start)


def detach_device(k: Kernel, data: AmdDevData, dev: PciDev) -> None:
    """``__detach_device``. Kept: up to v4.1 the alias stays attached as long as another device uses it."""
    domain, alias = data.domain, data.alias_data
    if alias is not None and alias.domain is not None:
        alias.bind -= 1
        if alias.bind == 0:
            _do_detach(k, alias)
    data.bind = 0
    _do_detach(k, data)
    if domain is not None and domain.exists:
        _leave(domain, dev)


def _leave(domain: IommuDomain, dev: PciDev) -> None:
    """Take a device off the domain's list, and earlier devices of its slot with it: they shared their data."""
    slot = dev.path.partition("~")[0]
    domain.devices.replace(tuple(item for item in domain.devices if item.path.partition("~")[0] != slot))


def _do_detach(k: Kernel, data: AmdDevData) -> None:
    """``do_detach`` and ``clear_dte_entry``. Kept: the entries block, also those that another device wrote since."""
    domain, data.domain = data.domain, None
    for text in data.entries:
        hardware.amd_dte(k.world, Bdf.parse(text)).delete()
    data.entries.clear()
    if domain is not None:
        hardware.invalidate(k.world, domain.number)


def domain_free(k: Kernel, domain: IommuDomain) -> None:
    """drivers/iommu/amd_iommu.c ``amd_iommu_domain_free``. Kept: what is still in the domain is detached first
    (``cleanup_domain``), devices that are long gone among it.
    """
    dma_iova.forget_domain(k, domain)
    for data in amd_vi(k).dev_data_list:
        if data.domain is domain:
            _do_detach(k, data)
            data.bind = 0


# -- domains for the DMA API, up to v5.4 -------------------------------------------------------------------------


def prealloc_domain(k: Kernel, dev: PciDev) -> None:
    """``prealloc_protection_domains`` at boot, ``device_change_notifier`` later; up to v4.1."""
    data = get_dev_data(dev)
    assert data is not None
    dev.dma_ops = None if data.passthrough else "amd"
    if data.passthrough:
        domain = _shared_domain(k, "pt_domain", IDENTITY)
        if domain is not None:
            _attach(k, data, domain, dev)
        return
    if domain_for_device(k, data, dev) is not None or _find_protection_domain(k, data) is not None:
        return
    data.own_domain = _new_domain(k)
    if data.own_domain is not None and k.system.phase == "off":
        _attach(k, data, data.own_domain, dev)


def _new_domain(k: Kernel) -> IommuDomain | None:
    domain = iommu_domain_alloc(k, DMA)
    if domain is not None:
        domain.flush_queue = not iommu_core(k).strict
    return domain


def _shared_domain(k: Kernel, name: str, kind: str) -> IommuDomain | None:
    vi = amd_vi(k)
    domain: IommuDomain | None = getattr(vi, name)
    if domain is None:
        domain = _new_domain(k) if kind == DMA else iommu_domain_alloc(k, kind)
        setattr(vi, name, domain)
    return domain


def domain_for_device(k: Kernel, data: AmdDevData, dev: PciDev) -> IommuDomain | None:
    """``domain_for_device``. Kept: the domain of the alias takes the device in."""
    if data.domain is None and data.alias_data is not None and data.alias_data.domain is not None:
        _attach(k, data, data.alias_data.domain, dev)
    return data.domain


def _find_protection_domain(k: Kernel, data: AmdDevData) -> IommuDomain | None:
    """``find_protection_domain``: the domain made for this requester id or for its alias, attached or not."""
    alias = data.alias_data
    return data.own_domain or (None if alias is None else alias.own_domain)


def get_domain(k: Kernel, dev: PciDev) -> tuple[int, IommuDomain | None]:
    """drivers/iommu/amd_iommu.c, up to v5.4. Returns 0 and the domain to map in, -EINVAL for a device that no IOMMU
    covers, -EBUSY for one that is somebody else's.

    Kept: up to v4.1 a device that is in no domain is attached here, without a word, be it bound to a driver or not.
    """
    data = get_dev_data(dev) or search_dev_data(k, dev.hw.bdf)
    if data is None or not check_device(k, dev):
        return -errno.EINVAL, None
    domain = _group_domain(dev) if k.has(changes.CORE_DEFAULT_DOMAINS) else domain_for_device(k, data, dev)
    if domain is None and not k.has(changes.CORE_DEFAULT_DOMAINS):
        domain = _find_protection_domain(k, data) or _shared_domain(k, "default_domain", DMA)
        if domain is not None and _attach(k, data, domain, dev) == 0 and dev.driver is None:
            why = f"{dev.bdf} has no driver, but is attached to domain {domain.number} again and may write what it maps"
            k.find("iommu/reattached-without-driver", why, "get_domain")
    if domain is None or domain.type != DMA:
        return -errno.EBUSY, None
    return 0, domain


def _group_domain(dev: PciDev) -> IommuDomain | None:
    group: IommuGroup | None = dev.iommu_group
    return None if group is None else group.domain
