"""Where isolation, or the lack of it, can be seen: registers, bits, ids, quirks."""

from __future__ import annotations

from typing import Any

from quiesce.groups.machine import LightFunction
from quiesce.kernel.pci_acs import AcsAnswer
from quiesce.machine import pci_regs as r

_BITS = (("SV", r.PCI_ACS_SV), ("RR", r.PCI_ACS_RR), ("CR", r.PCI_ACS_CR), ("UF", r.PCI_ACS_UF))
TYPES = {
    r.PCI_EXP_TYPE_ENDPOINT: "endpoint",
    r.PCI_EXP_TYPE_LEG_END: "legacy endpoint",
    r.PCI_EXP_TYPE_ROOT_PORT: "root port",
    r.PCI_EXP_TYPE_UPSTREAM: "upstream port",
    r.PCI_EXP_TYPE_DOWNSTREAM: "downstream port",
    r.PCI_EXP_TYPE_PCI_BRIDGE: "PCIe-to-PCI bridge",
    r.PCI_EXP_TYPE_PCIE_BRIDGE: "PCI-to-PCIe bridge",
    r.PCI_EXP_TYPE_RC_END: "integrated endpoint",
    r.PCI_EXP_TYPE_RC_EC: "event collector",
}


def kind_of(fn: LightFunction) -> str:
    """Return what a function is, in words."""
    kind = fn.pcie_type
    if kind is None:
        return "conventional bridge" if fn.is_bridge else "conventional function"
    return TYPES.get(kind, f"PCIe type {kind:x}h")


def acs_registers(fn: LightFunction) -> str:
    """Return ACSCap and ACSCtl with their offsets and bits, as the kernel has them now."""
    base = fn.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
    if fn.open:
        return "the source does not show its capabilities" + _assumed(fn)
    if not base:
        return "ACSCap: no capability" + _assumed(fn)
    wide = _is_double_word(fn)
    control = base + (8 if wide else r.PCI_ACS_CTRL)
    parts = [f"ACSCap at {base + r.PCI_ACS_CAP:x}h: {_flags(fn.read_config(base + r.PCI_ACS_CAP, 2))}"]
    parts.append(f"ACSCtl at {control:x}h: {_flags(fn.read_config(control, 4 if wide else 2))}")
    return ", ".join(parts) + _assumed(fn)


def _is_double_word(fn: LightFunction) -> bool:
    from quiesce.kernel.acs_table import ACS_QUIRKS

    return any(quirk.kind == "intel_spt" and quirk.covers(fn.vendor, fn.device) for quirk in ACS_QUIRKS)


def _flags(value: int) -> str:
    return " ".join(f"{name}{'+' if value & bit else '-'}" for name, bit in _BITS)


def _assumed(fn: LightFunction) -> str:
    return f" (assumed: {fn.silicon.assumed})" if fn.open and fn.silicon.assumed else ""


def acs_fact(fn: LightFunction, answer: AcsAnswer) -> tuple[str, str]:
    """Return what an answer about isolation says, and where that can be seen."""
    reason = answer.reason
    if answer.quirk is not None:
        return _quirk_fact(fn, answer)
    if reason in ("port", "function"):
        return _capability_fact(fn, answer)
    if reason == "override":
        return "is believed to be isolated: pcie_acs_override=; the hardware has no ACS", acs_registers(fn)
    if reason == "conventional":
        return "is conventional PCI: all on its bus see each other", "no PCI Express capability" + _assumed(fn)
    if reason == "bridge":
        return "leads to conventional PCI: never isolated", _type_evidence(fn)
    if reason == "collector":
        return "is an event collector: never isolated", _type_evidence(fn)
    return "needs no ACS: no other function shares its device", f"{kind_of(fn)}, {_header_evidence(fn)}"


def _capability_fact(fn: LightFunction, answer: AcsAnswer) -> tuple[str, str]:
    kind = kind_of(fn)
    if answer.enabled:
        return f"is isolated: ACS of the {kind} is on", acs_registers(fn)
    if fn.find_ext_capability(r.PCI_EXT_CAP_ID_ACS):
        return f"is not isolated: ACS of the {kind} is not on", acs_registers(fn)
    return f"is not isolated: the {kind} has no ACS", acs_registers(fn)


def _quirk_fact(fn: LightFunction, answer: AcsAnswer) -> tuple[str, str]:
    quirk: Any = answer.quirk
    says = "is isolated by a quirk" if answer.enabled else "is not isolated, says a quirk"
    if not answer.enabled and quirk.kind in ("intel_pch", "intel_spt"):
        says = "is not isolated: the quirk for it was not asked to switch isolation on"
    return f"{says}: {quirk.subject}", f"ids {fn.vendor:04x}:{fn.device:04x}, {acs_registers(fn)}"


def _type_evidence(fn: LightFunction) -> str:
    if fn.open:
        return kind_of(fn) + _assumed(fn)
    at = fn.silicon.capabilities.get(r.PCI_CAP_ID_EXP, 0)
    return f"{kind_of(fn)}, type {fn.pcie_type:x}h in the register at {at + r.PCI_EXP_FLAGS:x}h" + _assumed(fn)


def _header_evidence(fn: LightFunction) -> str:
    if fn.is_virtfn:
        return "virtual function"
    return "function 0, header type at 0eh has no multifunction bit" if not fn.multifunction else "device 0 under ARI"
