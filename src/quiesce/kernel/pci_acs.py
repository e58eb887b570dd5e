"""Access Control Services: which functions are isolated from their peers (drivers/pci/pci.c, quirks.c).

The answers are about *effective* isolation: a function that has no peers to talk to needs no capability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from quiesce.kernel import changes
from quiesce.kernel.acs_table import ACS_QUIRKS
from quiesce.kernel.group_view import DeviceView, KernelView
from quiesce.kernel.pci_config import pci_read_config, upstream_bridge
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS, Quirk, by_vendor

if TYPE_CHECKING:
    from quiesce.kernel.kernel import Kernel
    from quiesce.kernel.objects import PciDev

REQ_ACS_FLAGS = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
"""What a path needs for the devices behind it to be told apart (drivers/iommu/iommu.c)."""
SPT_ACS_CTRL = r.PCI_ACS_CAP + 4
"""Where ports of the Sunrise Point family have the control register: both registers are double words there."""

_FUNCTION_FLAGS = r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_EC | r.PCI_ACS_DT
_ENDPOINT_FLAGS = REQ_ACS_FLAGS | r.PCI_ACS_TB | r.PCI_ACS_DT
_PORTS = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_DOWNSTREAM)
_NEVER_ISOLATED = (r.PCI_EXP_TYPE_PCIE_BRIDGE, r.PCI_EXP_TYPE_PCI_BRIDGE)
_OVERRIDE_FUNCTIONS = (
    r.PCI_EXP_TYPE_ENDPOINT,
    r.PCI_EXP_TYPE_UPSTREAM,
    r.PCI_EXP_TYPE_LEG_END,
    r.PCI_EXP_TYPE_RC_END,
)
_CHANGES = {quirk.change: changes.find(quirk.change) for quirk in (*ACS_QUIRKS, *DMA_ALIAS_QUIRKS)}


class AcsAnswer(NamedTuple):
    """Whether a function is isolated from its peers, and what decided it."""

    enabled: bool
    reason: str
    """``quirk``, ``override``, ``conventional``, ``bridge`` (a type that never is), ``collector``, ``port`` or
    ``function`` (the capability decided), ``alone`` (no other functions to talk to)."""
    quirk: Quirk | None = None
    flags: int = 0
    """The controls that were asked for."""


def knows(k: KernelView, quirk: Quirk) -> bool:
    """Whether this kernel has an entry of a quirk table."""
    return k.has(_CHANGES[quirk.change])


def pci_is_root_bus(dev: DeviceView) -> bool:
    """include/linux/pci.h. Whether no bridge is above the device."""
    return dev.hw.upstream is None


def pci_multifunction(dev: DeviceView) -> bool:
    """``pci_dev->multifunction``, drivers/pci/probe.c. Kept: the header's bit; every function but the first of a slot
    has it whatever its header says; virtual functions never have it.
    """
    hw = dev.hw
    if hw.is_virtfn:
        return False
    first = hw.bdf.devfn == 0 if topology.forwards_ari(hw) else hw.bdf.function == 0
    return hw.multifunction or not first


# -- is it isolated? ---------------------------------------------------------------------------------------------


def pci_acs_enabled(k: KernelView, dev: DeviceView, flags: int = REQ_ACS_FLAGS) -> bool:
    """drivers/pci/pci.c. Kept: see ``acs_answer``."""
    return acs_answer(k, dev, flags).enabled


def acs_answer(k: KernelView, dev: DeviceView, flags: int = REQ_ACS_FLAGS) -> AcsAnswer:
    """drivers/pci/pci.c ``pci_acs_enabled``. Kept: quirks answer first; conventional devices and bridges to them never
    pass; root and downstream ports need the capability; all others need it only as part of a multifunction device.
    Before v3.12 a control that the capability does not offer counted as off.
    """
    quirk = pci_dev_specific_acs_enabled(k, dev, flags)
    if quirk is not None:
        return quirk
    kind = dev.hw.pcie_type
    if kind is None:
        return AcsAnswer(False, "conventional", flags=flags)
    if not k.has(changes.ACS_BY_PORT_TYPE):
        return _acs_answer_old(k, dev, flags)
    if kind in _NEVER_ISOLATED:
        return AcsAnswer(False, "bridge", flags=flags)
    if kind == r.PCI_EXP_TYPE_RC_EC:
        return AcsAnswer(False, "collector", flags=flags)
    if kind in _PORTS or pci_multifunction(dev):
        name = "port" if kind in _PORTS else "function"
        return AcsAnswer(pci_acs_flags_enabled(k, dev, flags), name, flags=flags)
    return AcsAnswer(True, "alone", flags=flags)


def _acs_answer_old(k: KernelView, dev: DeviceView, flags: int) -> AcsAnswer:
    """v3.6 to v3.11: one test for ports and for functions of a multifunction device."""
    port = dev.hw.pcie_type in _PORTS
    if pci_multifunction(dev):
        flags &= _FUNCTION_FLAGS
    if not port and not pci_multifunction(dev):
        return AcsAnswer(True, "alone", flags=flags)
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    enabled = bool(base) and pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2) & flags == flags
    return AcsAnswer(enabled, "port" if port else "function", flags=flags)


def pci_acs_flags_enabled(k: KernelView, dev: DeviceView, flags: int) -> bool:
    """drivers/pci/pci.c. Kept: what the capability register does not offer counts as hard-wired on, except egress
    control. A device marked as disconnected reads as ones and passes.
    """
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if not base:
        return False
    flags &= pci_read_config(k, dev, base + r.PCI_ACS_CAP, 2) | r.PCI_ACS_EC
    return pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2) & flags == flags


def pci_acs_path_enabled(
    k: KernelView, start: DeviceView, end: DeviceView | None = None, flags: int = REQ_ACS_FLAGS
) -> bool:
    """drivers/pci/pci.c. Kept: every hop from ``start`` up to ``end``, or to the root bus, must pass."""
    dev: DeviceView | None = start
    while dev is not None:
        if not pci_acs_enabled(k, dev, flags):
            return False
        if dev is end:
            return True
        dev = upstream_bridge(k, dev)
    return end is None


def pci_dev_specific_acs_enabled(k: KernelView, dev: DeviceView, flags: int) -> AcsAnswer | None:
    """drivers/pci/quirks.c. Kept: the first entry with an answer decides; None when no entry has one. The patch that
    brings ``pcie_acs_override=`` has its entry behind all others.
    """
    for quirk in quirks_for(dev.hw.vendor, dev.hw.device):
        if knows(k, quirk):
            answer = _ANSWERS[quirk.kind](k, dev, flags, quirk)
            if answer is not None:
                return AcsAnswer(answer, "quirk", quirk, flags)
    return AcsAnswer(True, "override", flags=flags) if _overridden(k, dev) else None


def _overridden(k: KernelView, dev: DeviceView) -> bool:
    """The patch "pci: Enable overrides for missing ACS capabilities". Kept: only functions of PCI Express without an
    ACS capability; ports by ``downstream``, functions of a multifunction device by ``multifunction``, any by its ids.
    """
    wanted = k.parameters
    if not (wanted.override or wanted.override_ids):
        return False
    hw = dev.hw
    if not hw.is_pcie or hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS):
        return False
    if (hw.vendor, hw.device) in wanted.override_ids:
        return True
    if hw.pcie_type in _PORTS:
        return "downstream" in wanted.override
    return hw.pcie_type in _OVERRIDE_FUNCTIONS and "multifunction" in wanted.override and pci_multifunction(dev)


def _provides(flags: int, provided: int) -> bool:
    return flags & provided == flags


def _covered(dev: DeviceView, quirk: Quirk) -> bool:
    return quirk.covers(dev.hw.vendor, dev.hw.device)


def _amd_southbridge(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    """No peer-to-peer in a southbridge with an AMD IOMMU; the IVRS table tells that there is one."""
    if not _covered(dev, quirk) or not pci_multifunction(dev) or not pci_is_root_bus(dev) or k.machine.iommu != "amd":
        return None
    return _provides(flags & _FUNCTION_FLAGS, r.PCI_ACS_RR | r.PCI_ACS_CR)


def _mf_endpoint(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    return _provides(flags, _ENDPOINT_FLAGS) if _covered(dev, quirk) else None


def _integrated_endpoint(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    return _provides(flags, REQ_ACS_FLAGS) if dev.hw.pcie_type == r.PCI_EXP_TYPE_RC_END else None


def _ids(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    return _provides(flags, REQ_ACS_FLAGS) if _covered(dev, quirk) else None


def _root_port_of_ids(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    return _ids(k, dev, flags, quirk) if dev.hw.pcie_type == r.PCI_EXP_TYPE_ROOT_PORT else None


def _intel_pch(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    if dev.hw.pcie_type != r.PCI_EXP_TYPE_ROOT_PORT or not _covered(dev, quirk):
        return None
    return _provides(flags, REQ_ACS_FLAGS if dev.acs_enabled_quirk else 0)


def _intel_spt(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    """Capability and control are double words, so the control register is two bytes further on."""
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if dev.hw.pcie_type != r.PCI_EXP_TYPE_ROOT_PORT or not _covered(dev, quirk) or not base:
        return None
    capability = pci_read_config(k, dev, base + r.PCI_ACS_CAP, 4)
    control = pci_read_config(k, dev, base + SPT_ACS_CTRL, 4)
    if dev.acs_enabled_quirk:
        control |= capability & REQ_ACS_FLAGS
    return _provides(flags & (capability | r.PCI_ACS_EC), control)


def _known_or_denied(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    """One function for all devices of a vendor: it says no to those that it does not list."""
    entries = (item for item in ACS_QUIRKS if (item.vendor, item.kind) == (quirk.vendor, quirk.kind) and knows(k, item))
    return any(_covered(dev, item) for item in entries) and _provides(flags, REQ_ACS_FLAGS)


def _known_port_or_denied(k: KernelView, dev: DeviceView, flags: int, quirk: Quirk) -> bool | None:
    return _known_or_denied(k, dev, flags, quirk) if dev.hw.pcie_type in _PORTS else None


_Answer = Callable[[KernelView, DeviceView, int, Quirk], bool | None]
_ANSWERS: dict[str, _Answer] = {
    "amd_sb": _amd_southbridge,
    "mf_endpoint": _mf_endpoint,
    "rciep": _integrated_endpoint,
    "root_port_ids": _ids,
    "root_ports_only": _root_port_of_ids,
    "intel_pch": _intel_pch,
    "intel_spt": _intel_spt,
    "ids_or_nothing": _known_or_denied,
    "ports_only": _known_port_or_denied,
}

_QUIRKS_OF = by_vendor(ACS_QUIRKS)
_WHATEVER_IDS = ("rciep", "ids_or_nothing", "ports_only")
"""Kinds of entries that have an answer for devices that they do not list."""


@lru_cache(maxsize=4096)
def quirks_for(vendor: int, device: int) -> tuple[Quirk, ...]:
    """Return the entries that can have an answer for a device with these ids, in the order in which they are asked."""
    entries = _QUIRKS_OF.get(vendor, ())
    return tuple(quirk for quirk in entries if quirk.kind in _WHATEVER_IDS or quirk.covers(vendor, device))


# -- the older drivers' way from a device to the one whose group it joins -----------------------------------------


def pci_get_dma_source(k: Kernel, dev: PciDev) -> PciDev:
    """drivers/pci/quirks.c, v3.6 to v3.15. Kept: some Ricoh functions send under the id of function 0 of their slot."""
    for quirk in DMA_ALIAS_QUIRKS:
        if quirk.kind == "function_0_old" and _covered(dev, quirk):
            return k.dev_at(dev.hw.bdf._replace(function=0)) or dev
    return dev


def slot_functions(k: Kernel, dev: PciDev) -> Iterator[PciDev]:
    """Yield the functions of the device's slot that the kernel knows, itself among them, lowest first."""
    slot = dev.hw.bdf.slot
    yield from sorted((other for other in k.system.devices if other.hw.bdf.slot == slot), key=lambda other: other.bdf)


def acs_path_root(k: Kernel, dev: PciDev) -> PciDev:
    """drivers/iommu/intel-iommu.c and amd_iommu.c, v3.6 to v3.16 (later there ``get_isolation_root``). Kept: from the
    device to its DMA source, from a function without isolation to function 0 of its slot (v3.11+: to the lowest such
    function), then up to where the path to the root is isolated.
    """
    dev = pci_get_dma_source(k, dev)
    if pci_multifunction(dev) and not pci_acs_enabled(k, dev):
        if k.has(changes.GROUP_LOWEST_FUNCTION):
            dev = next((other for other in slot_functions(k, dev) if not pci_acs_enabled(k, other)), dev)
        else:
            dev = k.dev_at(dev.hw.bdf._replace(function=0)) or dev
    bridge = upstream_bridge(k, dev)
    while bridge is not None and not pci_acs_path_enabled(k, bridge):
        dev, bridge = bridge, upstream_bridge(k, bridge)
    return dev
