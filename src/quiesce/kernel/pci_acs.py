"""Access Control Services: which functions are isolated from their peers (drivers/pci/pci.c, quirks.c).

The answers are about *effective* isolation: a function that has no peers to talk to needs no capability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quiesce.kernel import changes
from quiesce.kernel.acs_table import ACS_QUIRKS
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import pci_dev_of, pci_read_config, pci_write_config, upstream_bridge
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS, Quirk

REQ_ACS_FLAGS = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
"""What a path needs for the devices behind it to be told apart (drivers/iommu/iommu.c)."""

_FUNCTION_FLAGS = r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_EC | r.PCI_ACS_DT
_ENDPOINT_FLAGS = REQ_ACS_FLAGS | r.PCI_ACS_TB | r.PCI_ACS_DT
_SPT_ACS_CTRL = r.PCI_ACS_CAP + 4
_PORTS = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_DOWNSTREAM)
_NEVER_ISOLATED = (r.PCI_EXP_TYPE_PCIE_BRIDGE, r.PCI_EXP_TYPE_PCI_BRIDGE, r.PCI_EXP_TYPE_RC_EC)
_CHANGES = {quirk.change: changes.find(quirk.change) for quirk in (*ACS_QUIRKS, *DMA_ALIAS_QUIRKS)}


def knows(k: Kernel, quirk: Quirk) -> bool:
    """Whether this kernel has an entry of a quirk table."""
    return k.has(_CHANGES[quirk.change])


def pci_is_root_bus(dev: PciDev) -> bool:
    """include/linux/pci.h. Whether no bridge is above the device."""
    return dev.hw.upstream is None


def pci_multifunction(dev: PciDev) -> bool:
    """``pci_dev->multifunction``, drivers/pci/probe.c. Kept: the header's bit; every function but the first of a slot
    has it whatever its header says; virtual functions never have it.
    """
    hw = dev.hw
    if hw.is_virtfn:
        return False
    first = hw.bdf.devfn == 0 if topology.forwards_ari(hw) else hw.bdf.function == 0
    return hw.multifunction or not first


# -- is it isolated? ---------------------------------------------------------------------------------------------


def pci_acs_enabled(k: Kernel, dev: PciDev, flags: int = REQ_ACS_FLAGS) -> bool:
    """drivers/pci/pci.c. Kept: quirks answer first; conventional devices and bridges to them never pass; root and
    downstream ports need the capability; all others need it only as part of a multifunction device. Before v3.12 a
    control that the capability does not offer counted as off.
    """
    answer = pci_dev_specific_acs_enabled(k, dev, flags)
    if answer is not None:
        return answer
    kind = dev.hw.pcie_type
    if kind is None:
        return False
    if not k.has(changes.ACS_BY_PORT_TYPE):
        return _acs_enabled_old(k, dev, flags)
    if kind in _NEVER_ISOLATED:
        return False
    if kind in _PORTS or pci_multifunction(dev):
        return pci_acs_flags_enabled(k, dev, flags)
    return True


def _acs_enabled_old(k: Kernel, dev: PciDev, flags: int) -> bool:
    """v3.6 to v3.11: one test for ports and for functions of a multifunction device."""
    if pci_multifunction(dev):
        flags &= _FUNCTION_FLAGS
    if dev.hw.pcie_type not in _PORTS and not pci_multifunction(dev):
        return True
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    return bool(base) and pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2) & flags == flags


def pci_acs_flags_enabled(k: Kernel, dev: PciDev, flags: int) -> bool:
    """drivers/pci/pci.c. Kept: what the capability register does not offer counts as hard-wired on, except egress
    control. A device marked as disconnected reads as ones and passes.
    """
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if not base:
        return False
    flags &= pci_read_config(k, dev, base + r.PCI_ACS_CAP, 2) | r.PCI_ACS_EC
    return pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2) & flags == flags


def pci_acs_path_enabled(k: Kernel, start: PciDev, end: PciDev | None = None, flags: int = REQ_ACS_FLAGS) -> bool:
    """drivers/pci/pci.c. Kept: every hop from ``start`` up to ``end``, or to the root bus, must pass."""
    dev: PciDev | None = start
    while dev is not None:
        if not pci_acs_enabled(k, dev, flags):
            return False
        if dev is end:
            return True
        dev = upstream_bridge(k, dev)
    return end is None


def pci_dev_specific_acs_enabled(k: Kernel, dev: PciDev, flags: int) -> bool | None:
    """drivers/pci/quirks.c. Kept: the first entry with an answer decides; None when no entry has one."""
    for quirk in ACS_QUIRKS:
        if quirk.vendor == dev.hw.vendor and knows(k, quirk):
            answer = _ANSWERS[quirk.kind](k, dev, flags, quirk)
            if answer is not None:
                return answer
    return None


def _provides(flags: int, provided: int) -> bool:
    return flags & provided == flags


def _covered(dev: PciDev, quirk: Quirk) -> bool:
    return quirk.covers(dev.hw.vendor, dev.hw.device)


def _amd_southbridge(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    """No peer-to-peer in a southbridge with an AMD IOMMU; the IVRS table tells that there is one."""
    if not _covered(dev, quirk) or not pci_multifunction(dev) or not pci_is_root_bus(dev) or k.machine.ivrs is None:
        return None
    return _provides(flags & _FUNCTION_FLAGS, r.PCI_ACS_RR | r.PCI_ACS_CR)


def _mf_endpoint(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    return _provides(flags, _ENDPOINT_FLAGS) if _covered(dev, quirk) else None


def _integrated_endpoint(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    return _provides(flags, REQ_ACS_FLAGS) if dev.hw.pcie_type == r.PCI_EXP_TYPE_RC_END else None


def _ids(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    return _provides(flags, REQ_ACS_FLAGS) if _covered(dev, quirk) else None


def _root_port_of_ids(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    return _ids(k, dev, flags, quirk) if dev.hw.pcie_type == r.PCI_EXP_TYPE_ROOT_PORT else None


def _intel_pch(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    if dev.hw.pcie_type != r.PCI_EXP_TYPE_ROOT_PORT or not _covered(dev, quirk):
        return None
    return _provides(flags, REQ_ACS_FLAGS if dev.acs_enabled_quirk else 0)


def _intel_spt(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    """Capability and control are double words, so the control register is two bytes further on."""
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if dev.hw.pcie_type != r.PCI_EXP_TYPE_ROOT_PORT or not _covered(dev, quirk) or not base:
        return None
    capability = pci_read_config(k, dev, base + r.PCI_ACS_CAP, 4)
    control = pci_read_config(k, dev, base + _SPT_ACS_CTRL, 4)
    if dev.acs_enabled_quirk:
        control |= capability & REQ_ACS_FLAGS
    return _provides(flags & (capability | r.PCI_ACS_EC), control)


def _known_or_denied(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    """One function for all devices of a vendor: it says no to those that it does not list."""
    entries = (item for item in ACS_QUIRKS if (item.vendor, item.kind) == (quirk.vendor, quirk.kind) and knows(k, item))
    return any(_covered(dev, item) for item in entries) and _provides(flags, REQ_ACS_FLAGS)


def _known_port_or_denied(k: Kernel, dev: PciDev, flags: int, quirk: Quirk) -> bool | None:
    return _known_or_denied(k, dev, flags, quirk) if dev.hw.pcie_type in _PORTS else None


_Answer = Callable[[Kernel, PciDev, int, Quirk], bool | None]
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


# -- switching it on ---------------------------------------------------------------------------------------------


def pci_acs_init(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c, at enumeration. Kept: isolation is switched on here; in v7.0+ only when the device's DMA is
    configured.
    """
    if not k.has(changes.ACS_IN_DMA_CONFIGURE):
        pci_enable_acs(k, dev)


def pci_enable_acs(k: Kernel, dev: PciDev) -> None:
    """drivers/pci/pci.c. Kept: only if an IOMMU driver asked (``pci_request_acs``); a quirk takes the place of the
    standard way; v6.11 asked no quirk for a device without the capability.

    Left out: the kernel parameters that clear or set controls, Translation Blocking for untrusted devices.
    """
    if k.machine.iommu is None:
        return
    base = dev.hw.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if not base and k.has(changes.CONFIG_ACS_PARAMETER) and not k.has(changes.ACS_QUIRK_BEFORE_CAP):
        return
    if pci_dev_specific_enable_acs(k, dev) or not base:
        return
    wanted = pci_read_config(k, dev, base + r.PCI_ACS_CAP, 2) & REQ_ACS_FLAGS
    control = pci_read_config(k, dev, base + r.PCI_ACS_CTRL, 2)
    pci_write_config(k, dev, base + r.PCI_ACS_CTRL, 2, control | wanted)


def pci_dev_specific_enable_acs(k: Kernel, dev: PciDev) -> bool:
    """drivers/pci/quirks.c. Kept: Intel PCH root ports without the capability, and those whose registers lie
    elsewhere; whether one of them was served.

    Left out: the chipset registers (RCBA, UPDCR, MPC) behind the PCH quirk, which can fail only where firmware hides
    them.
    """
    if dev.hw.pcie_type != r.PCI_EXP_TYPE_ROOT_PORT:
        return False
    for kind, name in (("intel_pch", "PCH"), ("intel_spt", "SPT PCH")):
        known = (quirk for quirk in ACS_QUIRKS if quirk.kind == kind and knows(k, quirk))
        if any(_covered(dev, quirk) for quirk in known):
            dev.acs_enabled_quirk = True
            k.printk("info", f"pci {dev.bdf}: Intel {name} root port ACS workaround enabled")
            return True
    return False


# -- the older drivers' way from a device to the one whose group it joins -----------------------------------------


def pci_get_dma_source(k: Kernel, dev: PciDev) -> PciDev:
    """drivers/pci/quirks.c, v3.6 to v3.15. Kept: some Ricoh functions send under the id of function 0 of their slot."""
    for quirk in DMA_ALIAS_QUIRKS:
        if quirk.kind == "function_0_old" and _covered(dev, quirk):
            return pci_dev_of(k, str(dev.hw.bdf._replace(function=0))) or dev
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
            dev = pci_dev_of(k, str(dev.hw.bdf._replace(function=0))) or dev
    bridge = upstream_bridge(k, dev)
    while bridge is not None and not pci_acs_path_enabled(k, bridge):
        dev, bridge = bridge, upstream_bridge(k, bridge)
    return dev
