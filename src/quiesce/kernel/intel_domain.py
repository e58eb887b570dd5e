"""VT-d: which device is in which domain, on the driver's list and in the context entries (drivers/iommu/intel-iommu.c,
later drivers/iommu/intel/iommu.c).
"""

from __future__ import annotations

from quiesce.kernel import changes
from quiesce.kernel.handover import rmrr_is_relaxable
from quiesce.kernel.iommu_group import (
    DMA,
    IDENTITY,
    IommuDomain,
    IommuGroup,
    iommu_core,
    iommu_domain_alloc,
    iommu_domain_free,
)
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_group import pci_for_each_dma_alias
from quiesce.machine import iommu as hardware
from quiesce.machine import topology
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.dmar import Rmrr
from quiesce.world import Field, State, StateList, StateSet


class DeviceDomainInfo(State):
    """``struct device_domain_info``; path ``vtd/info/BDF``."""

    mortal = True
    bdf: Field[str] = Field("")
    dev: Field[PciDev | None] = Field(None)
    """The device; None for an alias that is no device of its own. Nothing keeps the structure alive for it."""
    domain: Field[IommuDomain | None] = Field(None)
    contexts: StateList[str] = StateList()
    """Addresses whose context entries lead the device's requests."""
    deferred: Field[bool] = Field(False)
    """Its end waits for the driver's last unmap; only the proposal vtd-defer-teardown."""
    group: Field[IommuGroup | None] = Field(None)
    """The group that is held until then, and its domain with it."""


class VtdState(State):
    """What the driver keeps as a whole; path ``vtd``."""

    registered: Field[bool] = Field(False)
    """The driver's DMA operations are those of every device (up to v5.7)."""
    aliases: StateList[DeviceDomainInfo] = StateList()
    """Entries of the driver's list for ids that are no function of the machine. Those of functions are found by their
    address, so that what happens to one device does not depend on which others are on the list."""
    released: StateSet[str] = StateSet()
    """Addresses of devices that were released, which only the instrumented kernel's switches remember."""
    si_domain: Field[IommuDomain | None] = Field(None)
    """The static identity domain (up to v5.2; later one of the core's)."""


def vtd(k: Kernel) -> VtdState:
    """Return the driver's state."""
    return VtdState.get(k.world, "vtd")


def get_info(dev: PciDev) -> DeviceDomainInfo | None:
    """Return what the device points to (``dev->archdata.iommu``, later ``dev->iommu->priv``)."""
    info = dev.iommu_priv
    assert info is None or isinstance(info, DeviceDomainInfo)
    return info


def find_domain(dev: PciDev) -> IommuDomain | None:
    """drivers/iommu/intel-iommu.c. Kept: the way is the device's own pointer, whatever the list says."""
    info = get_info(dev)
    return None if info is None else info.domain


def dmar_search_domain_by_dev_info(k: Kernel, bdf: Bdf) -> DeviceDomainInfo | None:
    """drivers/iommu/intel-iommu.c. Kept: the list is searched by segment, bus and devfn."""
    info = DeviceDomainInfo.get(k.world, f"vtd/info/{bdf}")
    return info if info.exists else None


def device_domain_list(k: Kernel) -> tuple[DeviceDomainInfo, ...]:
    """Return the driver's list, by address."""
    known = (DeviceDomainInfo.get(k.world, f"vtd/info/{bdf}") for bdf in k.machine.functions)
    return (*(info for info in known if info.exists), *vtd(k).aliases)


def alloc_info(k: Kernel, bdf: Bdf, dev: PciDev | None) -> DeviceDomainInfo | None:
    """Make the data of a device, or of an alias, and enter it into the list; None when there is no memory."""
    if not k.alloc(f"device_domain_info of {bdf}"):
        return None
    info = DeviceDomainInfo.new(k.world, f"vtd/info/{bdf}", bdf=str(bdf), dev=dev)
    if str(bdf) not in k.machine.functions:
        vtd(k).aliases.append(info)
    if dev is not None:
        dev.iommu_priv = info
    return info


def free_info(k: Kernel, info: DeviceDomainInfo) -> None:
    """``unlink_domain_info``. Kept: off the list; the device it names loses its pointer. Naming one whose memory is
    gone is found.
    """
    dev = info.dev
    if dev is not None and not dev.exists:
        why = f"{info.path} names {dev.path}, whose memory has been freed, and is taken apart"
        k.find("memory/dangling-device", why, "unlink_domain_info")
    elif dev is not None and dev.iommu_priv is info:
        dev.iommu_priv = None
    if info.bdf not in k.machine.functions:
        vtd(k).aliases.remove(info)
    info.delete()


# -- attaching ---------------------------------------------------------------------------------------------------


def dmar_insert_one_dev_info(k: Kernel, dev: PciDev, domain: IommuDomain) -> IommuDomain | None:
    """drivers/iommu/intel-iommu.c, ``dmar_insert_dev_info`` and the like. Returns the domain the device is in now,
    which can be another than the one asked for.

    Kept: the device's own domain wins; then that of an entry of the list with its address, **which gets the new device
    while the device gets no pointer to it**; the proposed VTD_REPOPULATE_AT_REPLUG sets the pointer too.
    """
    found = find_domain(dev)
    if found is not None:
        return found
    info = get_info(dev) or dmar_search_domain_by_dev_info(k, dev.hw.bdf)
    if info is not None and info.domain is not None:
        info.dev = dev
        if k.has(changes.VTD_REPOPULATE_AT_REPLUG):
            dev.iommu_priv = info
        return info.domain
    info = info or alloc_info(k, dev.hw.bdf, dev)
    if info is None:
        return None
    _enter(info, domain)
    domain.devices.append(dev)
    _map_reserved(k, domain, dev)
    for rid in requester_ids(k, dev):
        _domain_context_mapping_one(k, info, domain, rid)
    return domain


def _enter(info: DeviceDomainInfo, domain: IommuDomain) -> None:
    info.domain = domain
    domain.vtd_infos.append(info)


def requester_ids(k: Kernel, dev: PciDev) -> list[Bdf]:
    """Return the ids under which the driver expects a device's requests, its own first."""
    return list(dict.fromkeys(rid for _, rid in pci_for_each_dma_alias(k, dev)))


def _domain_context_mapping_one(k: Kernel, info: DeviceDomainInfo, domain: IommuDomain, rid: Bdf) -> None:
    """drivers/iommu/intel-iommu.c. Kept: an entry that is present stays as it is, whoever wrote it."""
    info.contexts.append(str(rid))
    context = hardware.vtd_context(k.world, rid)
    if not context.present:
        context.present, context.domain, context.passthrough = True, domain.number, domain.type == IDENTITY
        hardware.invalidate(k.world, domain.number)


def dmar_remove_one_dev_info(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/intel-iommu.c. Kept: the context entries of the device and its aliases are cleared, whoever else
    needs them; v5.19+ the data stays until the device is released.
    """
    info = get_info(dev)
    if info is not None:
        remove_info(k, info)


def remove_info(k: Kernel, info: DeviceDomainInfo) -> None:
    """``__dmar_remove_one_dev_info``: take the device of an entry of the list out of its domain."""
    domain_context_clear(k, info)
    domain, dev = info.domain, info.dev
    info.domain = None
    if domain is not None and domain.exists:
        domain.vtd_infos.remove(info)
        slot = "" if dev is None else dev.path.partition("~")[0]
        domain.devices.replace(tuple(item for item in domain.devices if item.path.partition("~")[0] != slot))
        hardware.invalidate(k.world, domain.number)
    if not k.has(changes.VTD_INFO_AT_PROBE):
        free_info(k, info)


def domain_context_clear(k: Kernel, info: DeviceDomainInfo) -> None:
    """drivers/iommu/intel-iommu.c. Kept: whatever these requester ids send from now on is blocked."""
    for text in info.contexts:
        hardware.vtd_context(k.world, Bdf.parse(text)).delete()
    info.contexts.clear()


# -- reserved memory ---------------------------------------------------------------------------------------------


def reserved(k: Kernel, dev: PciDev) -> tuple[Rmrr, ...]:
    """Return the memory that firmware reserves for a device (RMRR)."""
    dmar = k.machine.dmar
    if dmar is None or not dmar.memory:
        return ()
    path = (dev.hw.bdf, *(bridge.bdf for bridge in topology.chain(dev.hw)))
    return dmar.reserved_for(path, lambda bdf: _secondary(k, bdf))


def _secondary(k: Kernel, bdf: Bdf) -> int | None:
    fn = k.machine.functions.get(str(bdf))
    return fn.secondary_bus if fn is not None and fn.is_bridge else None


def device_is_rmrr_locked(k: Kernel, dev: PciDev) -> bool:
    """drivers/iommu/intel-iommu.c. Kept: reserved memory ties a device, except USB and graphics."""
    return not rmrr_is_relaxable(dev.hw.class_code) and bool(reserved(k, dev))


def _map_reserved(k: Kernel, domain: IommuDomain, dev: PciDev) -> None:
    """``iommu_prepare_rmrr_dev``, later ``iommu_create_device_direct_mappings``; one page stands for all."""
    if domain.type == DMA:
        for item in reserved(k, dev):
            domain.page_table.mappings.add(item.base)


# -- domains of the driver's own, up to v5.2 ---------------------------------------------------------------------


def get_valid_domain_for_dev(k: Kernel, dev: PciDev) -> IommuDomain | None:
    """drivers/iommu/intel-iommu.c, up to v5.2. Kept: a domain for any device that has none, bound or not, shared by
    those that send under the same id.
    """
    domain = find_domain(dev)
    if domain is not None:
        return domain
    rid = requester_ids(k, dev)[-1]
    alias = dmar_search_domain_by_dev_info(k, rid) if rid != dev.hw.bdf else None
    domain = _new_domain(k) if alias is None else alias.domain
    if domain is None:
        return None
    if rid != dev.hw.bdf and alias is None:
        _insert_alias(k, rid, domain)
    if dev.driver is None and k.system.phase != "off":  # start-up maps reserved memory without driver
        why = f"{dev.bdf} has no driver, but gets domain {domain.number} and may write what it maps"
        k.find("iommu/reattached-without-driver", why, "get_domain_for_dev")
    return dmar_insert_one_dev_info(k, dev, domain)


def _insert_alias(k: Kernel, rid: Bdf, domain: IommuDomain) -> None:
    info = alloc_info(k, rid, None)
    if info is not None:
        _enter(info, domain)


def _new_domain(k: Kernel) -> IommuDomain | None:
    domain = iommu_domain_alloc(k, DMA)
    if domain is not None:
        domain.flush_queue = not iommu_core(k).strict
    return domain


def si_domain(k: Kernel) -> IommuDomain | None:
    """The static identity domain, made when it is first needed; up to v5.2."""
    state = vtd(k)
    if state.si_domain is None:
        state.si_domain = iommu_domain_alloc(k, IDENTITY)
    return state.si_domain


def exit_if_unused(k: Kernel, domain: IommuDomain) -> None:
    """``domain_exit`` of a domain of the driver's own, up to v5.2. Left out: that the entry of an alias kept it."""
    own = domain.type == DMA and not k.has(changes.VTD_CORE_DEFAULT_DOMAINS)
    if own and domain.exists and not domain.devices:
        iommu_domain_free(k, domain)


def infos_in(domain: IommuDomain) -> tuple[DeviceDomainInfo, ...]:
    """Return the entries of the list that are in a domain."""
    return domain.vtd_infos.as_tuple()
