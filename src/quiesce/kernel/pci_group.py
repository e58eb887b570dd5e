"""Which devices the IOMMU can not tell apart: requester id aliases and the search for a group (drivers/iommu/iommu.c,
drivers/pci/search.c, drivers/pci/quirks.c).

The search stops at the first group it meets; two groups that exist are never merged, so the order in which devices are
added can matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from quiesce.kernel import changes
from quiesce.kernel.group_view import DeviceView, KernelView
from quiesce.kernel.pci_acs import (
    knows,
    pci_acs_enabled,
    pci_acs_path_enabled,
    pci_multifunction,
)
from quiesce.kernel.pci_config import upstream_bridge
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS_OF
from quiesce.machine.requester import below_pcie, quirk_applies, quirk_devfns, volume_manager
from quiesce.snapshot.bdf import Bdf

__all__ = [
    "find_group",
    "pci_acs_enabled",
    "pci_add_dma_alias",
    "pci_devs_are_dma_aliases",
    "pci_fixup_dma_alias",
    "pci_for_each_dma_alias",
    "pci_real_dma_dev",
]

_PASS_THROUGH = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_UPSTREAM, r.PCI_EXP_TYPE_DOWNSTREAM)
_DEVICE_ALIASES = ("function_0", "function_1", "fixed_01_0", "mic_x200", "five_per_slot", "whole_bus")


_Device = TypeVar("_Device", bound=DeviceView)


class Found(NamedTuple):
    """What the search for a device's group came to."""

    group: Any
    """The group to join; None when it gets one of its own."""
    rule: str
    """``alias`` (a requester id on the way up), ``path`` (a hop that is not isolated), ``sibling-alias``, ``function``
    (functions of a slot that are not isolated from each other), ``bus`` (v3.17), or ``new``."""
    base: Any
    """The device that the way up ended at."""
    via: Any
    """The device whose group it is; None for a new one."""


# -- aliases -----------------------------------------------------------------------------------------------------


def pci_add_dma_alias(k: KernelView, dev: DeviceView, devfn: int, nr_devfns: int = 1) -> None:
    """drivers/pci/pci.c. Kept: one alias per device before v4.7 (the last one wins), any number since."""
    if not k.has(changes.DMA_ALIAS_BITMAP):
        dev.dma_alias_mask.clear()
        nr_devfns = 1
    for number in range(devfn, min(devfn + nr_devfns, 256)):
        dev.dma_alias_mask.add(number)
    place = Bdf.from_devid(devfn)
    k.printk("info", f"pci {dev.bdf}: Enabling fixed DMA alias to {place.device:02x}.{place.function}")


def pci_fixup_dma_alias(k: KernelView, dev: DeviceView) -> None:
    """drivers/pci/quirks.c, header fixups at enumeration. Kept: devices known to send under the id of another
    function, by the kernel's version of the table.

    Left out: Switchtec NTBs, whose aliases are in a table of the switch.
    """
    for quirk in DMA_ALIAS_QUIRKS_OF.get(dev.hw.vendor, ()):
        known = quirk.kind in _DEVICE_ALIASES and quirk.covers(dev.hw.vendor, dev.hw.device) and knows(k, quirk)
        if known and quirk_applies(quirk.kind, dev.hw):
            for devfn in quirk_devfns(quirk.kind, dev.hw.bdf):
                pci_add_dma_alias(k, dev, devfn)


def pci_real_dma_dev(k: KernelView, dev: _Device) -> _Device:
    """arch/x86/pci/common.c, v5.6+. Kept: what hides behind an Intel VMD does its DMA as the VMD."""
    manager = volume_manager(k.machine, dev.hw)
    if manager is None or not k.has(changes.VTD_REAL_DMA_DEV):
        return dev
    return k.dev_at(manager.bdf) or dev


def pci_devs_are_dma_aliases(one: DeviceView, other: DeviceView) -> bool:
    """drivers/pci/pci.c. Kept: either names the other; both are on one bus. Left out: VMD, which is on none."""
    return other.hw.bdf.devfn in one.dma_alias_mask or one.hw.bdf.devfn in other.dma_alias_mask


def pci_for_each_dma_alias(k: KernelView, dev: _Device) -> Iterator[tuple[_Device, Bdf]]:
    """drivers/pci/search.c, v3.16+. Yields the device on the path and each requester id that may stand for ``dev``.

    Kept: own id, alias ids, then up bus by bus: ports add nothing, bridges to conventional PCI take over, the walk
    ends at a bridge marked as the root of translation.
    """
    dev = pci_real_dma_dev(k, dev)
    bdf = dev.hw.bdf
    yield dev, bdf
    for devfn in sorted(dev.dma_alias_mask):
        yield dev, bdf._replace(device=devfn >> 3, function=devfn & 7)
    bridge = upstream_bridge(k, dev)
    while bridge is not None and not _has_flag(k, bridge, "translation_root"):
        alias = _bridge_alias(k, bridge)
        if alias is not None:
            yield bridge, alias
        bridge = upstream_bridge(k, bridge)


def _bridge_alias(k: KernelView, bridge: DeviceView) -> Bdf | None:
    """Return the requester id of what comes from below a bridge; None when it leaves ids alone."""
    kind, bdf = bridge.hw.pcie_type, bridge.hw.bdf
    below = Bdf(bdf.segment, topology.bus_range(bridge.hw).start, 0, 0)
    if kind in _PASS_THROUGH:
        return None
    if kind == r.PCI_EXP_TYPE_PCI_BRIDGE:
        return None if _has_flag(k, bridge, "no_alias") else below
    if kind is None:
        return below if _has_flag(k, bridge, "bridge_alias") and below_pcie(bridge.hw) else bdf
    return bdf if kind == r.PCI_EXP_TYPE_PCIE_BRIDGE else None


def _has_flag(k: KernelView, bridge: DeviceView, kind: str) -> bool:
    quirks = DMA_ALIAS_QUIRKS_OF.get(bridge.hw.vendor)
    if quirks is None:
        return False
    ids = bridge.hw.vendor, bridge.hw.device
    return any(quirk.kind == kind and quirk.covers(*ids) and knows(k, quirk) for quirk in quirks)


# -- the search for a group --------------------------------------------------------------------------------------


def find_group(k: KernelView, dev: DeviceView) -> Found:
    """drivers/iommu/iommu.c ``pci_device_group``, v3.17+. Kept: aliases, then isolation on the way up, then alias
    siblings and functions without isolation; the first group met wins. v3.17 knew one bus-wide rule for aliases.
    """
    for holder, _ in pci_for_each_dma_alias(k, dev):
        dev = holder
        if dev.iommu_group is not None:
            return Found(dev.iommu_group, "alias", dev, dev)
    bridge = upstream_bridge(k, dev)
    while bridge is not None and not pci_acs_path_enabled(k, bridge):
        dev, bridge = bridge, upstream_bridge(k, bridge)
        if dev.iommu_group is not None:
            return Found(dev.iommu_group, "path", dev, dev)
    if not k.has(changes.GROUP_LOOKUP_ALL_ALIASES):
        return _bus_or_slot_group(k, dev)
    return _sibling_group(k, dev)


def _same_bus(k: KernelView, dev: DeviceView) -> Iterator[DeviceView]:
    """Yield the other devices on the device's bus."""
    return (other for other in k.devs_on_bus(dev.hw.bdf) if other is not dev)


def _sibling_group(k: KernelView, base: DeviceView) -> Found:
    """drivers/iommu/iommu.c ``get_pci_alias_group`` and ``get_pci_function_alias_group``, v3.18+. Kept: from the device
    to every one of its bus that either side names as alias, and to functions of the slot that are not isolated from it
    either; the first that has a group, in the order of the kernel's recursion. A device seen before is passed over.
    """
    visited = {base.hw.bdf.devfn}
    rest: list[Iterator[tuple[str, DeviceView]]] = [_siblings(k, base)]
    while rest:
        step = next(rest[-1], None)
        if step is None:
            rest.pop()
            continue
        rule, dev = step
        if dev.hw.bdf.devfn in visited:
            continue
        visited.add(dev.hw.bdf.devfn)
        if dev.iommu_group is not None:
            return Found(dev.iommu_group, rule, base, dev)
        rest.append(_siblings(k, dev))
    return Found(None, "new", base, None)


def _siblings(k: KernelView, dev: DeviceView) -> Iterator[tuple[str, DeviceView]]:
    for other in _same_bus(k, dev):
        if pci_devs_are_dma_aliases(dev, other):
            yield "sibling-alias", other
    for other in _unisolated_siblings(k, dev):
        yield "function", other


def _unisolated_siblings(k: KernelView, dev: DeviceView) -> Iterator[DeviceView]:
    if not pci_multifunction(dev) or pci_acs_enabled(k, dev):
        return
    for other in _same_bus(k, dev):
        if other.hw.bdf.device == dev.hw.bdf.device and not pci_acs_enabled(k, other):
            yield other


def _bus_or_slot_group(k: KernelView, dev: DeviceView) -> Found:
    """v3.17. Kept: one alias quirk on a bus puts the whole bus into one group."""
    bus = list(k.devs_on_bus(dev.hw.bdf))
    if any(other.dma_alias_mask for other in bus):
        members = [other for other in bus if other.iommu_group is not None]
        if any(other.iommu_group is not members[0].iommu_group for other in members):
            k.warn("WARNING: at drivers/iommu/iommu.c iommu_group_get_for_pci_dev")
        return Found(members[0].iommu_group, "bus", dev, members[0]) if members else Found(None, "new", dev, None)
    for other in _unisolated_siblings(k, dev):
        if other.iommu_group is not None:
            return Found(other.iommu_group, "function", dev, other)
    return Found(None, "new", dev, None)
