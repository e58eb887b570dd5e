"""Who holds the members of a group, and what has to happen to each before user space gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel.handover import blocks_group
from quiesce.kernel.kernelset import KernelSet
from quiesce.machine import pci_regs as r
from quiesce.plan import facts
from quiesce.plan.memory import reserved
from quiesce.plan.model import BIND, NO, RELEASE, STAYS, UNKNOWN, YES, Member

_BASE_CLASS_BRIDGE = 0x06


@dataclass(frozen=True)
class Holders:
    """Which driver has which function, from the source and from what the operator adds."""

    drivers: Mapping[str, str]
    complete: bool
    """The source names drivers, so that a function without one has none."""

    def of(self, bdf: str) -> str | None:
        """Return the driver, "" for none, None when unknown."""
        return self.drivers.get(bdf, "" if self.complete else None)


def holders(m: LightMachine, stated: Mapping[str, str]) -> Holders:
    """Return the drivers in use."""
    found = {bdf: fn.item.attributes["driver"] for bdf, fn in m.functions.items() if "driver" in fn.item.attributes}
    return Holders({**found, **stated}, bool(found))


def member(m: LightMachine, k: KernelSet, fn: LightFunction, target: LightFunction, held: Holders, what: str) -> Member:
    """Return a function of the group with what is done with it."""
    driver = held.of(fn.path)
    is_bridge = facts.header_type(fn) != r.PCI_HEADER_TYPE_NORMAL
    blocks = UNKNOWN if driver is None else NO if not driver else facts.answer(blocks_group(k, driver, is_bridge))
    action, why = _action(fn, target, driver, blocks, is_bridge)
    return Member(fn.path, what, driver, blocks, action, why, reserved(m, fn))


def _action(
    fn: LightFunction, target: LightFunction, driver: str | None, blocks: str, is_bridge: bool
) -> tuple[str, str]:
    if fn is target:
        return BIND, "the device itself"
    if is_bridge:
        if blocks == YES:
            return RELEASE, f"a bridge; {driver} keeps the group from user space"
        return STAYS, "a bridge: vfio-pci takes none, and it does not block" + (f" with {driver}" if driver else "")
    if fn.class_code >> 16 == _BASE_CLASS_BRIDGE:
        if blocks == NO:
            return STAYS, "part of the host's bridge logic, without a driver that blocks"
        return RELEASE, "part of the host's bridge logic: its driver must go, and the host loses what it did"
    if driver and blocks == NO:
        return STAYS, f"{driver} does not block"
    if blocks == NO:
        return BIND, "has no driver; bound so that none takes it while the guest runs"
    return BIND, f"{driver or 'whatever driver has it'} keeps the group from user space; its DMA lands in the guest too"
