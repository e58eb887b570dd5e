"""Power states, and virtual functions that stand and fall with a physical one."""

from __future__ import annotations

from quiesce.groups.machine import LightFunction
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.plan import facts
from quiesce.plan.model import NO, UNKNOWN, YES, Power

_STATES = ("D0", "D1", "D2", "D3hot")


def power(fn: LightFunction) -> Power:
    """Return what the snapshot tells of power."""
    at = facts.capability(fn, r.PCI_CAP_ID_PM)
    state = facts.field(fn, at, r.PCI_PM_CTRL, 2, r.PCI_PM_CTRL_STATE_MASK) if at else None
    keeps = facts.field(fn, at, r.PCI_PM_CTRL, 2, r.PCI_PM_CTRL_NO_SOFT_RESET) if at else None
    return Power(
        state=fn.item.attributes.get("power_state", "" if state is None else _STATES[state]),
        d3hot=UNKNOWN if at is None else YES if at else NO,
        keeps_state=facts.answer(keeps),
        d3cold={"0": NO, "1": YES}.get(fn.item.attributes.get("d3cold_allowed", ""), UNKNOWN),
        port="" if fn.upstream is None else fn.upstream.path,
        enabled_vfs=enabled_virtual_functions(fn),
        physical="" if fn.physfn is None else fn.physfn.path,
    )


def enabled_virtual_functions(fn: LightFunction) -> int:
    """Return how many virtual functions were on when the snapshot was taken, as far as it tells."""
    stated = fn.item.attributes.get("sriov_numvfs", "")
    if stated.isascii() and stated.isdecimal():
        return int(stated[:9])
    at = facts.extended(fn, r.PCI_EXT_CAP_ID_SRIOV)
    if not at or not fn.knows.known(at + r.PCI_SRIOV_CTRL, 2) or not fn.knows.known(at + r.PCI_SRIOV_NUM_VF, 2):
        return 0
    return topology.enabled_virtual_functions(fn.item.config, at)
