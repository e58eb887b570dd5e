"""How a device is brought back to a known state between two users: which methods are there, in the kernel's order."""

from __future__ import annotations

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel.handover import no_flr, no_pm_reset, quirk_of, reset_order
from quiesce.kernel.kernelset import KernelSet
from quiesce.machine import pci_regs as r
from quiesce.plan import facts
from quiesce.plan.model import NO, UNKNOWN, YES, ResetMethod, Resets

_Answer = tuple[str, str]
_AF_NEEDED = 0x03
"""Transaction pending and FLR: without either the kernel does not use AF."""
_CXL_VENDOR, _CXL_PORT_DVSEC = 0x1E98, 3


def resets(m: LightMachine, k: KernelSet, fn: LightFunction) -> Resets:
    """Return what drivers/pci/pci.c finds when it asks every method whether it fits.

    Left out: the reset of a hot-plug slot, which ``bus`` tries first and which has the same effect.
    """
    running = fn.item.attributes.get("reset_method", "")
    ask = {"flr": _flr, "af_flr": _af_flr, "pm": _pm}
    methods = []
    for name in reset_order(k):
        if name in ask:
            there, why = ask[name](k, fn)
        elif name == "device_specific":
            quirk = quirk_of(k, fn, "device_reset")
            there, why = (YES, quirk.subject) if quirk else (NO, "no entry for these ids")
        elif name == "acpi":
            there, why = _acpi(running)
        elif name == "bus":
            there, why = _bus(m, k, fn)
        else:
            there, why = _cxl(fn)
        methods.append(ResetMethod(name, there, why))
    sure = next((method.name for method in methods if method.there == YES), "")
    maybe = any(method.there == UNKNOWN for method in methods)
    mates = () if fn.upstream is None or fn.is_virtfn else tuple(str(o.bdf) for o in facts.on_bus(m, fn))
    works = YES if sure else UNKNOWN if maybe else NO
    return Resets(tuple(methods), works, sure, mates, _hot(m, k, fn), running)


def _acpi(running: str) -> _Answer:
    if running:
        return facts.answer("acpi" in running.split()), "by reset_method of the running kernel"
    return UNKNOWN, "whether firmware has a _RST method stands in no listing"


def _flr(k: KernelSet, fn: LightFunction) -> _Answer:
    revision = facts.known(fn, r.PCI_REVISION_ID, 1)
    quirk = no_flr(k, fn, 1 if revision is None else revision)
    if quirk is not None:
        return NO, f"{quirk.subject} ({quirk.change})"
    found = facts.field(fn, fn.knows.express, r.PCI_EXP_DEVCAP, 4, r.PCI_EXP_DEVCAP_FLR)
    return facts.answer(found), _words(found, "the PCI Express capability", "FLReset")


def _af_flr(k: KernelSet, fn: LightFunction) -> _Answer:
    at = facts.capability(fn, r.PCI_CAP_ID_AF)
    if at == 0:
        return NO, "no Advanced Features capability"
    if no_flr(k, fn, 1) is not None:
        return NO, "FLR is not to be used"
    found = facts.field(fn, at, r.PCI_AF_CAP, 1, _AF_NEEDED)
    both = None if found is None else found == _AF_NEEDED
    return facts.answer(both), _words(both, "the Advanced Features capability", "TP and FLR")


def _pm(k: KernelSet, fn: LightFunction) -> _Answer:
    at = facts.capability(fn, r.PCI_CAP_ID_PM)
    if at == 0:
        return NO, "no power management capability"
    quirk = no_pm_reset(k, fn, fn.upstream is None)
    if quirk is not None:
        return NO, f"{quirk.subject} ({quirk.change})"
    keeps = facts.field(fn, at, r.PCI_PM_CTRL, 2, r.PCI_PM_CTRL_NO_SOFT_RESET)
    if keeps is None:
        return UNKNOWN, "whether it keeps its state in D3hot (NoSoftRst) is not known"
    return (
        (NO, "it keeps its state in D3hot (NoSoftRst+)") if keeps else (YES, "it loses its state in D3hot (NoSoftRst-)")
    )


def _bus(m: LightMachine, k: KernelSet, fn: LightFunction) -> _Answer:
    """``pci_parent_bus_reset``: alone on a bus below a bridge."""
    if fn.is_virtfn:
        return NO, "a virtual function"
    if fn in m.unplaced_set:
        return UNKNOWN, "which bridge leads here is not known"
    if fn.upstream is None:
        return NO, "on a root bus"
    quirk = quirk_of(k, fn, "no_bus_reset")
    if quirk is not None:
        return NO, f"{quirk.subject} ({quirk.change})"
    mates = facts.on_bus(m, fn)
    if mates:
        return NO, f"not alone on bus {fn.bdf.bus:02x}: {' '.join(other.bdf.short for other in mates[:8])}"
    return YES, f"alone on bus {fn.bdf.bus:02x} below {fn.upstream.bdf.short}"


def _cxl(fn: LightFunction) -> _Answer:
    if fn.upstream is None:
        return NO, "on a root bus"
    found = _cxl_port(fn.upstream)
    return facts.answer(
        found
    ), "below a CXL port" if found else "not below a CXL port" if found is False else "not known"


def _cxl_port(port: LightFunction) -> bool | None:
    at, seen = (r.PCI_CFG_SPACE_SIZE if port.knows.express != 0 else 0), set[int]()
    while at >= r.PCI_CFG_SPACE_SIZE and at not in seen:
        header = facts.known(port, at, 4)
        if header is None:
            return None
        if header in (0, 0xFFFFFFFF):
            return False
        if header & 0xFFFF == r.PCI_EXT_CAP_ID_DVSEC:
            vendor, number = facts.known(port, at + 4, 2), facts.known(port, at + 8, 2)
            if vendor is None or number is None:
                return None
            if (vendor, number) == (_CXL_VENDOR, _CXL_PORT_DVSEC):
                return True
        seen.add(at)
        at = header >> 20 & ~3
    return False


def _hot(m: LightMachine, k: KernelSet, fn: LightFunction) -> str:
    """Whether VFIO can reset the bus for a user that holds all on it (VFIO_DEVICE_PCI_HOT_RESET)."""
    if fn.upstream is None or fn.is_virtfn:
        return UNKNOWN if fn in m.unplaced_set else NO
    on_it = (fn, *facts.on_bus(m, fn))
    return NO if any(quirk_of(k, other, "no_bus_reset") for other in on_it) else YES


def _words(value: int | bool | None, where: str, bit: str) -> str:
    if value is None:
        return f"{where}: not known whether it is there with {bit}"
    return f"{where} {'says' if value else 'is absent or does not say'} {bit}"
