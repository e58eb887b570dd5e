"""Groups of POWER machines with PowerNV firmware: partitionable endpoints, one for each bus
(arch/powerpc/platforms/powernv/pci-ioda.c).
"""

from __future__ import annotations

from collections.abc import Iterable

from quiesce.groups.machine import LightFunction
from quiesce.machine import pci_regs as r
from quiesce.machine import topology

Place = tuple[int, int]
"""Segment and bus."""


def power_groups(functions: Iterable[LightFunction]) -> tuple[list[list[str]], list[str]]:
    """Return groups and the functions without one. Kept: all of a bus is one endpoint, below a PCIe-to-PCI bridge all
    buses are; one gets a group when its first function comes that is no bridge, and bridges before it stay without.

    Left out: virtual functions, whose endpoints follow from the segments of their BARs; NVLink.
    """
    groups: dict[Place, list[str]] = {}
    alone: list[str] = []
    for fn in functions:
        place = _endpoint(fn)
        if place in groups or not fn.is_bridge:
            groups.setdefault(place, []).append(fn.path)
        else:
            alone.append(fn.path)
    return list(groups.values()), alone


def _endpoint(fn: LightFunction) -> Place:
    place = fn.bdf[:2]
    for bridge in topology.chain(fn):
        if bridge.pcie_type == r.PCI_EXP_TYPE_PCI_BRIDGE:
            place = bridge.bdf.segment, bridge.config.static(r.PCI_SECONDARY_BUS, 1)
    return place
