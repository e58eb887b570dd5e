"""The way of a memory request from one function to another that no IOMMU sees."""

from __future__ import annotations

from dataclasses import dataclass

from quiesce.groups.evidence import acs_registers, kind_of
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.machine import topology


@dataclass(frozen=True, slots=True)
class Hop:
    """One part that the request passes."""

    function: str
    what: str
    """What it is and does."""
    evidence: str = ""


def peer_path(m: LightMachine, one: str, other: str) -> tuple[Hop, ...]:
    """Return the hops from ``one`` to ``other``: up to the first place that leads to both, and down again.

    PCI Express specification 6.0, 6.12: without redirection a port sends a request for an address of a peer straight
    on. What root ports do among themselves is up to the chip set.
    """
    start, end = m.functions[one], m.functions[other]
    up, down = _way_up(start), _way_up(end)
    shared = next((fn for fn in up if fn in down), None)
    rising = up[1 : up.index(shared)] if shared in up else up[1:]
    falling = down[1 : down.index(shared)] if shared in down else down[1:]
    hops = [Hop(one, f"{kind_of(start)}: sends a memory request for an address in a BAR of {end.bdf.short}")]
    hops += [Hop(fn.path, f"{kind_of(fn)}: sends it on", acs_registers(fn)) for fn in rising]
    hops.append(_turn(shared, start, end, rising, falling))
    hops += [Hop(fn.path, f"{kind_of(fn)}: lets it through", acs_registers(fn)) for fn in reversed(falling)]
    if shared is not end:
        hops.append(Hop(other, f"{kind_of(end)}: takes it for a request of the processor"))
    return tuple(hops)


def _way_up(fn: LightFunction) -> list[LightFunction]:
    owner = fn.physfn or fn
    return [fn, *topology.chain(owner)]


def _turn(
    shared: LightFunction | None,
    start: LightFunction,
    end: LightFunction,
    rising: list[LightFunction],
    falling: list[LightFunction],
) -> Hop:
    tops = rising[-1] if rising else start, falling[-1] if falling else end
    if shared is end:
        return Hop(end.path, f"{kind_of(end)}: the request is for the port itself", acs_registers(end))
    if tops[0].bdf.slot == tops[1].bdf.slot:
        where = "inside the root complex" if shared is None and rising else "inside the device"
        return Hop("", f"{where}, from {tops[0].bdf.short} to {tops[1].bdf.short}; no IOMMU is on this way")
    if shared is None:
        return Hop("", "inside the root complex, if the chip set forwards between ports; no IOMMU is on this way")
    return Hop(shared.path, f"{kind_of(shared)}: turns it round below; no IOMMU is on this way", acs_registers(shared))
