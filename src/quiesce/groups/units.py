"""The parts of a machine that cannot influence each other's groups."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS_OF
from quiesce.machine.requester import quirk_devfns, volume_manager
from quiesce.snapshot.bdf import Bdf


def units_of(m: LightMachine) -> list[tuple[LightFunction, ...]]:
    """Return the units in bus order, each in the order in which the kernel finds its devices: a slot of a root bus and
    all below it. Slots that alias quirks, firmware tables or a volume manager tie together are one unit, and so is
    everything of a segment that may hang in a place the snapshot does not tell.
    """
    ties = _Ties()
    tops = {fn.bdf: _top_slot(fn) for fn in m.functions.values()}
    for fn in m.functions.values():
        ties.add(tops[fn.bdf])
        for other in _tied_to(m, fn):
            ties.tie(tops[fn.bdf], tops[other.bdf])
    for fn in m.unplaced:
        ties.tie(tops[fn.bdf], ("unplaced", fn.bdf.segment))
        for bridge in m.places[fn.bdf.segment]:
            ties.tie(tops[bridge.bdf], ("unplaced", fn.bdf.segment))
    units: dict[Hashable, list[LightFunction]] = {}
    for fn in in_scan_order(m.functions.values()):
        units.setdefault(ties.root(tops[fn.bdf]), []).append(fn)
    return [tuple(unit) for unit in units.values()]


def in_scan_order(functions: Iterable[LightFunction]) -> list[LightFunction]:
    """Return functions by address, virtual ones behind the others: they come into being when a driver enables them."""
    return sorted(functions, key=lambda fn: (fn.is_virtfn, fn.bdf))


def _top_slot(fn: LightFunction) -> Hashable:
    owner = fn.physfn or fn
    while owner.upstream is not None:
        owner = owner.upstream
    return owner.bdf.slot


def _tied_to(m: LightMachine, fn: LightFunction) -> Iterator[LightFunction]:
    places = set(_aliases(m, fn))
    for place in places:
        other = m.functions.get(str(place))
        if other is not None:
            yield other
    manager = volume_manager(m, fn)
    if manager is not None:
        yield manager


def _aliases(m: LightMachine, fn: LightFunction) -> Iterator[Bdf]:
    if fn.upstream is None:
        for quirk in DMA_ALIAS_QUIRKS_OF.get(fn.options[0].vendor, ()):
            if quirk.covers(fn.options[0].vendor, fn.options[0].device):
                for devfn in quirk_devfns(quirk.kind, fn.bdf):
                    yield fn.bdf._replace(device=devfn >> 3, function=devfn & 7)
    if m.ivrs is not None and m.iommu == "amd":
        alias = m.ivrs.alias_of(fn.bdf.requester_id, fn.bdf.segment)
        if alias != fn.bdf.requester_id:
            yield Bdf.from_devid(alias, fn.bdf.segment)


class _Ties:
    """Disjoint sets."""

    def __init__(self) -> None:
        self._up: dict[Hashable, Hashable] = {}

    def add(self, item: Hashable) -> None:
        self._up.setdefault(item, item)

    def root(self, item: Hashable) -> Hashable:
        self.add(item)
        while self._up[item] != item:
            self._up[item] = item = self._up[self._up[item]]
        return item

    def tie(self, one: Hashable, other: Hashable) -> None:
        self._up[self.root(one)] = self.root(other)
