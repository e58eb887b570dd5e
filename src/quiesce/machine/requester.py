"""Under which requester ids the DMA of a function arrives at the IOMMU.

That is a matter of silicon and wiring, whatever a kernel believes: bridges to conventional PCI take over the requests
of all behind them, some devices send under the id of another function, and firmware that knows of such a case says so
in the IVRS table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS
from quiesce.machine.view import SiliconView
from quiesce.snapshot.bdf import Bdf

if TYPE_CHECKING:
    from quiesce.machine.function import Function
    from quiesce.machine.machine import Machine

_VMD_IDS = frozenset((0x201D, 0x28C0, 0x467F, 0x4C3D, 0xA77F, 0x7D0B, 0xAD0B, 0x9A0B))
_FIRST_VMD_SEGMENT = 0x10000
_INTEL = 0x8086


def quirk_devfns(kind: str, bdf: Bdf) -> tuple[int, ...]:
    """Return the devfns of its own bus that a device of this kind of the quirk table sends under besides its own."""
    slot = bdf.device << 3
    match kind:
        case "function_0" | "function_0_old":
            devfns: tuple[int, ...] = (slot,)
        case "function_1":
            devfns = (slot | 1,)
        case "fixed_01_0":
            devfns = (1 << 3,)
        case "mic_x200":
            devfns = (0x10 << 3, 0x11 << 3, 0x12 << 3 | 3)
        case "five_per_slot":
            devfns = tuple(device << 3 | function for device in range(32) for function in range(5))
        case "whole_bus":
            devfns = tuple(range(256))
        case _:
            devfns = ()
    return tuple(devfn for devfn in devfns if devfn != bdf.devfn)


def quirk_applies(kind: str, fn: SiliconView) -> bool:
    """Whether a device that a quirk covers by its ids is concerned by its other conditions too."""
    if kind != "fixed_01_0":
        return True
    subsystem = fn.config.static(r.PCI_SUBSYSTEM_VENDOR_ID, 2), fn.config.static(r.PCI_SUBSYSTEM_ID, 2)
    return subsystem in ((0x9005, 0x02BB), (0x9005, 0x02BC))


def has_quirk(fn: SiliconView, kind: str) -> bool:
    """Whether the silicon is one that the quirk table lists under ``kind``."""
    return any(quirk.kind == kind and quirk.covers(fn.vendor, fn.device) for quirk in DMA_ALIAS_QUIRKS)


def requester_ids(m: Machine, fn: Function) -> tuple[Bdf, ...]:
    """Return the ids that the requests of a function carry when they reach the IOMMU, the usual one first.

    Left out: PCI-X bridges that pass some requests on under the sender's id.
    """
    known: dict[str, tuple[Bdf, ...]] = m.__dict__.setdefault("_requester_ids", {})
    if fn.path not in known:
        known[fn.path] = _requester_ids(m, fn)
    return known[fn.path]


def volume_manager(m: Any, fn: SiliconView) -> Any:
    """Return the Intel VMD function behind which a function hides; None for all others.

    Each VMD makes a segment of its own, numbered from 10000h, and sends on everything under its own id.
    """
    number = fn.bdf.segment - _FIRST_VMD_SEGMENT
    if number < 0:
        return None
    managers = [other for other in m.functions.values() if other.vendor == _INTEL and other.device in _VMD_IDS]
    return managers[number] if number < len(managers) else None


def _requester_ids(m: Machine, fn: Function) -> tuple[Bdf, ...]:
    manager = volume_manager(m, fn)
    if manager is not None:
        return (manager.bdf,)
    if m.iommu == "amd" and m.ivrs is not None:
        alias = m.ivrs.alias_of(fn.bdf.requester_id, fn.bdf.segment)
        if alias != fn.bdf.requester_id:
            return (Bdf.from_devid(alias, fn.bdf.segment),)
    owner = bridge_id(fn)
    return (*_sent_under(fn),) if owner is None else (owner,)


def _sent_under(fn: Function) -> Iterator[Bdf]:
    """Yield the ids on the function's own bus: those of a quirk, then its own."""
    for quirk in DMA_ALIAS_QUIRKS:
        if quirk.covers(fn.vendor, fn.device) and quirk_applies(quirk.kind, fn):
            for devfn in quirk_devfns(quirk.kind, fn.bdf):
                yield fn.bdf._replace(device=devfn >> 3, function=devfn & 7)
            break
    yield fn.bdf


def bridge_id(fn: Function) -> Bdf | None:
    """Return the id that the bridges above put in the place of a function's own; None when they leave it alone."""
    found = None
    for bridge in topology.chain(fn):
        if has_quirk(bridge, "translation_root"):
            break
        found = taken_over_by(bridge) or found
    return found


def taken_over_by(bridge: Function) -> Bdf | None:
    """Return the id under which a bridge sends on what comes from below; None when it keeps the sender's."""
    below = Bdf(bridge.bdf.segment, topology.bus_range(bridge).start, 0, 0)
    if bridge.pcie_type == r.PCI_EXP_TYPE_PCI_BRIDGE:
        return None if has_quirk(bridge, "no_alias") else below
    if bridge.pcie_type == r.PCI_EXP_TYPE_PCIE_BRIDGE:
        return bridge.bdf
    if bridge.pcie_type is None:
        return below if has_quirk(bridge, "bridge_alias") and below_pcie(bridge) else bridge.bdf
    return None


def below_pcie(bridge: SiliconView) -> bool:
    """Whether a bridge hangs off PCI Express, though it may have no such capability itself."""
    above = bridge.upstream
    return above is not None and above.is_pcie and above.pcie_type != r.PCI_EXP_TYPE_PCI_BRIDGE


def all_requester_ids(m: Machine) -> tuple[Bdf, ...]:
    """Return every id that a function of the machine has or may send under, in bus order, each once."""
    known: tuple[Bdf, ...] | None = m.__dict__.get("_all_requester_ids")
    if known is None:
        ids = {fn.bdf for fn in m.functions.values()}
        for fn in m.functions.values():
            ids.update(requester_ids(m, fn))
        known = m.__dict__["_all_requester_ids"] = tuple(sorted(ids))
    return known
