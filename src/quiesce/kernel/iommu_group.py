"""IOMMU groups and domains as objects: who is in them, who holds them, when they go (drivers/iommu/iommu.c)."""

from __future__ import annotations

import errno
from types import ModuleType
from typing import Any

from quiesce.kernel import changes
from quiesce.kernel.base_core import dev_printk
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.world import Field, State, StateList, StateSet

DMA, IDENTITY, UNMANAGED, BLOCKED = "dma", "identity", "unmanaged", "blocked"
"""Domain types, include/linux/iommu.h; DMA-FQ is ``dma`` with ``flush_queue``."""


class IommuDomain(State):
    """An address space (``struct iommu_domain``); path ``domain/N``, its page table is ``pt/N``."""

    mortal = True
    type: Field[str] = Field(UNMANAGED)
    flush_queue: Field[bool] = Field(False)
    """DMA-FQ: what is unmapped stays in the IOTLB until the queue is flushed."""
    devices: StateList[PciDev] = StateList()
    """Devices attached, kept by ``attach_dev`` and ``detach_dev`` of the IOMMU driver."""
    dma_mappings: StateList[Any] = StateList()
    """The ``DmaMapping`` of every driver that was made in it and not taken back, oldest first."""
    vtd_infos: StateList[Any] = StateList()
    """The ``DeviceDomainInfo`` of every device and alias that is in it (VT-d), oldest first."""

    @property
    def number(self) -> int:
        """The number that the hardware's entries hold; -1 for a static domain, which none of them names."""
        last = self.path.rsplit("/", 1)[1]
        return int(last) if last.isdecimal() else -1

    @property
    def page_table(self) -> hardware.PageTable:
        """What the domain maps."""
        return hardware.page_table(self.world, self.number)


class IommuGroup(State):
    """The devices that the IOMMU can not tell apart (``struct iommu_group``); path ``group/N``."""

    mortal = True
    devices: StateList[PciDev] = StateList()
    domain: Field[IommuDomain | None] = Field(None)
    """What the devices are attached to, as far as the core knows."""
    default_domain: Field[IommuDomain | None] = Field(None)
    blocking_domain: Field[IommuDomain | None] = Field(None)
    owner: Field[Any] = Field(None)
    """Who claimed the DMA of the group for user space (v5.19+)."""
    owner_cnt: Field[int] = Field(0)
    refs: StateSet[Any] = StateSet()
    """Who holds a reference besides the devices: State objects, or texts; one that begins with ``static:`` is meant to
    be kept for ever."""
    name: Field[str | None] = Field(None)


class IommuCore(State):
    """What the IOMMU core knows as a whole; path ``iommu``. A scenario sets the default type before boot."""

    registered: Field[bool] = Field(False)
    """An IOMMU driver serves the PCI bus."""
    default_type: Field[str] = Field(DMA)
    """Type of default domains unless the driver asks for another: ``iommu=pt`` makes it ``identity``."""
    strict: Field[bool] = Field(True)
    """``iommu.strict=1``: every unmap invalidates. Off, default domains get a flush queue."""
    release_domain: Field[IommuDomain | None] = Field(None)
    """The driver's static blocking domain for devices that leave (VT-d, v6.9+)."""


def iommu_core(k: Kernel) -> IommuCore:
    """Return the state of the IOMMU core."""
    return IommuCore.get(k.world, "iommu")


def iommu_ops(k: Kernel) -> ModuleType:
    """Return the module of the machine's IOMMU driver; its functions are the kernel's ``iommu_ops``.

    Imported here because the drivers call back into the core.
    """
    from quiesce.kernel import amd_iommu, intel_iommu

    return amd_iommu if k.machine.iommu == "amd" else intel_iommu


def probes_devices(k: Kernel) -> bool:
    """Whether the driver has ``probe_device`` and ``release_device`` (v5.8+) instead of ``add_device``."""
    return k.has(changes.AMD_PROBE_DEVICE if k.machine.iommu == "amd" else changes.VTD_PROBE_DEVICE)


# -- domains -----------------------------------------------------------------------------------------------------


def iommu_domain_alloc(k: Kernel, kind: str = UNMANAGED) -> IommuDomain | None:
    """drivers/iommu/iommu.c. Kept: the allocation can fail. Left out: page sizes, apertures, reserved regions."""
    if not k.alloc("iommu_domain"):
        return None
    return IommuDomain.fresh(k.world, "domain", type=kind)


def static_blocking_domain(k: Kernel) -> IommuDomain:
    """Return the driver's own blocking domain, which always exists and maps nothing."""
    domain = IommuDomain.get(k.world, "domain/static-blocked")
    return domain if domain.exists else IommuDomain.new(k.world, domain.path, type=BLOCKED)


def iommu_domain_free(k: Kernel, domain: IommuDomain) -> None:
    """drivers/iommu/iommu.c. Kept: page table and IOTLB entries go with the domain; the driver's ``domain_free``, if it
    has one, first detaches what is left in it.
    """
    driver_free = getattr(iommu_ops(k), "domain_free", None)
    if driver_free is not None:
        driver_free(k, domain)
    domain.page_table.mappings.clear()
    hardware.invalidate(k.world, domain.number)
    domain.delete()


# -- groups ------------------------------------------------------------------------------------------------------


def iommu_group_alloc(k: Kernel) -> IommuGroup:
    """drivers/iommu/iommu.c. Kept: the lowest free number. The caller adds a device or puts the group.

    Left out: failure; the callers in the model have no way back from it.
    """
    return IommuGroup.fresh(k.world, "group")


def iommu_group_get(k: Kernel, dev: PciDev, holder: Any) -> IommuGroup | None:
    """drivers/iommu/iommu.c. Kept: the device's group with a reference for ``holder``."""
    group: IommuGroup | None = dev.iommu_group
    return None if group is None else iommu_group_ref_get(group, holder)


def iommu_group_ref_get(group: IommuGroup, holder: Any) -> IommuGroup:
    """drivers/iommu/iommu.c. Kept: one reference per holder."""
    group.refs.add(holder)
    return group


def iommu_group_put(k: Kernel, group: IommuGroup, holder: Any = None) -> None:
    """drivers/iommu/iommu.c. Kept: the group goes with the last reference, and its default and blocking domain with
    it.
    """
    if holder is not None:
        group.refs.discard(holder)
    if not group.devices and not group.refs:
        _free_core_domains(k, group)
        group.delete()


def _free_core_domains(k: Kernel, group: IommuGroup) -> None:
    domains = group.default_domain, group.blocking_domain
    if group.domain in domains:
        group.domain = None
    group.default_domain = group.blocking_domain = None
    for domain in domains:
        if domain is not None and domain.exists:
            iommu_domain_free(k, domain)


def attach_device(k: Kernel, domain: IommuDomain, dev: PciDev) -> int:
    """drivers/iommu/iommu.c, ``__iommu_attach_device``. Left out: attaching later because of old tables (kdump)."""
    return int(iommu_ops(k).attach_dev(k, domain, dev))


def iommu_group_add_device(k: Kernel, group: IommuGroup, dev: PciDev) -> int:
    """drivers/iommu/iommu.c. Kept: the allocation can fail; v4.2+: the device joins the domain the group is in.

    Left out: sysfs links; listeners of the group, which the bus notifier calls in the model.
    """
    if not k.alloc("struct group_device"):
        return -errno.ENOMEM
    group.devices.append(dev)
    dev.iommu_group = group
    if k.has(changes.CORE_DEFAULT_DOMAINS) and group.domain is not None:
        error = attach_device(k, group.domain, dev)
        if error:
            group.devices.remove(dev)
            dev.iommu_group = None
            return error
    _print_change(k, dev, "Adding", "to", group)
    return 0


def iommu_group_remove_device(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/iommu.c. Kept: the reference that membership was; v6.6+: the last device takes the group's own
    domains with it even if somebody still holds the group; v6.15+: the dma-iommu mark goes.
    """
    group: IommuGroup | None = dev.iommu_group
    if group is None:
        return
    _print_change(k, dev, "Removing", "from", group)
    group.devices.remove(dev)
    dev.iommu_group = None
    if k.has(changes.DMA_IOMMU_FLAG_CLEARED):
        dev.dma_iommu = False
    if k.has(changes.GROUP_ENDS_WITH_LAST_DEVICE) and not group.devices:
        _check_emptied(k, group)
        _free_core_domains(k, group)
    iommu_group_put(k, group)


def _check_emptied(k: Kernel, group: IommuGroup) -> None:
    if group.owner_cnt or group.domain not in (None, group.default_domain):
        k.warn(
            "WARNING: at drivers/iommu/iommu.c __iommu_group_free_device",
            "iommu/emptied-while-owned",
            f"the last device leaves group {group.number} while it is owned or attached to another domain",
            "__iommu_group_free_device",
        )


def _print_change(k: Kernel, dev: PciDev, verb: str, preposition: str, group: IommuGroup) -> None:
    if k.has(changes.IOMMU_DEV_PRINTK):
        dev_printk(k, "info", dev, f"{verb} {preposition} iommu group {group.number}")
    elif k.has(changes.IOMMU_GROUP_MESSAGES):
        k.printk("info", f"iommu: {verb} device {dev.bdf} {preposition} group {group.number}")
