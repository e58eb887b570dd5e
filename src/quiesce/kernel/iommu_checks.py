"""What must hold of groups, domains and the IOMMU's tables; pure functions over the state, for the rules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from quiesce.kernel.iommu_group import IommuDomain, IommuGroup
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_group import pci_for_each_dma_alias
from quiesce.machine import iommu as hardware
from quiesce.machine.requester import all_requester_ids, requester_ids
from quiesce.snapshot.bdf import Bdf
from quiesce.world import State


def isolation_breaches(k: Kernel) -> list[tuple[str, str, str]]:
    """Return pairs of functions that the IOMMU can not tell apart though they are in different groups, and why."""
    found: dict[tuple[str, str], str] = {}
    for rid, users in _users(k).items():
        for one, other in combinations(users, 2):
            if one.iommu_group is not other.iommu_group:
                numbers = f"groups {one.iommu_group.number} and {other.iommu_group.number}"
                found.setdefault((one.bdf, other.bdf), f"both send DMA under {rid} but are in {numbers}")
    return [(one, other, why) for (one, other), why in found.items()]


def _users(k: Kernel) -> dict[Bdf, list[PciDev]]:
    """Return the devices in groups by the requester ids under which the IOMMU sees them."""
    users: dict[Bdf, list[PciDev]] = {}
    for dev in k.system.devices:
        if dev.iommu_group is not None and hardware.unit_of(k.machine, dev.hw) is not None:
            for rid in requester_ids(k.machine, dev.hw):
                users.setdefault(rid, []).append(dev)
    return users


def stale_translations(k: Kernel) -> list[str]:
    """Return which freed IOVAs a device can still reach, because the IOTLB keeps them.

    In a domain with a flush queue that is so by design, until the queue is flushed; such are left out.
    """
    return [
        f"domain {number} still translates {iova:#x}, which is not mapped any more"
        for number, iova in hardware.stale_translations(k.machine)
        if not _has_flush_queue(k, number)
    ]


def _has_flush_queue(k: Kernel, number: int) -> bool:
    domain = IommuDomain.get(k.world, f"domain/{number}")
    return domain.exists and domain.flush_queue


def live_entries_of_absent(k: Kernel) -> list[str]:
    """Return the requester ids for which the IOMMU lets DMA pass though no device that the kernel has uses them."""
    if k.machine.iommu is None:
        return []
    used = {rid for dev in k.system.devices for rid in ids_in_use(k, dev)}
    entries = ((rid, hardware.live_domain(k.machine, rid)) for rid in all_requester_ids(k.machine))
    return [
        f"the entry of {rid} still {'passes all' if number < 0 else f'leads to domain {number}'}, no device uses it"
        for rid, number in entries
        if number is not None and rid not in used
    ]


def ids_in_use(k: Kernel, dev: PciDev) -> set[Bdf]:
    """Return every requester id that stands for a device, by the kernel's belief and in truth."""
    believed = {rid for _, rid in pci_for_each_dma_alias(k, dev)}
    return believed | set(requester_ids(k.machine, dev.hw))


def dangling_domains(k: Kernel) -> list[str]:
    """Return the requester ids whose entry leads to a domain that has been freed."""
    if k.machine.iommu is None:
        return []
    found = []
    for rid in all_requester_ids(k.machine):
        number = hardware.live_domain(k.machine, rid)
        if number is not None and number >= 0 and not IommuDomain.get(k.world, f"domain/{number}").exists:
            found.append(f"the entry of {rid} leads to domain {number}, which has been freed")
    return found


def leaked_group_references(k: Kernel) -> list[str]:
    """Return the groups that no device is in and that only holders keep which can not put them any more."""
    return [
        f"group {group.number} has no device and is held by {_name(holder)}, which is gone"
        for group in _all_groups(k)
        if not group.devices
        for holder in group.refs
        if _is_gone(holder)
    ]


def groups_kept_empty(k: Kernel) -> list[str]:
    """Return the groups that no device is in and that somebody keeps on purpose, for ever."""
    return [
        f"group {group.number} has no device and is kept by {str(holder).removeprefix('static:')}"
        for group in _all_groups(k)
        if not group.devices
        for holder in group.refs
        if not _is_gone(holder)
    ]


def _all_groups(k: Kernel) -> Iterator[IommuGroup]:
    """Yield every group there is, empty ones among them; there are at most as many as functions."""
    for number in range(len(k.machine.functions) + 1):
        group = IommuGroup.get(k.world, f"group/{number}")
        if group.exists:
            yield group


def _is_gone(holder: object) -> bool:
    if isinstance(holder, State):
        return not holder.exists
    return not str(holder).startswith("static:")


def _name(holder: object) -> str:
    return holder.path if isinstance(holder, State) else str(holder)
