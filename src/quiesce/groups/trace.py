"""A light kernel that writes down why each function got its group, in the moment when it got it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from quiesce.groups.evidence import acs_fact, kind_of
from quiesce.groups.kernel import LightDevice, LightKernel
from quiesce.groups.step import Step, since_of
from quiesce.kernel.pci_acs import AcsAnswer, acs_answer, knows, pci_multifunction
from quiesce.kernel.pci_config import upstream_bridge
from quiesce.kernel.pci_group import pci_devs_are_dma_aliases, pci_for_each_dma_alias
from quiesce.machine import topology
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS
from quiesce.machine.requester import quirk_devfns
from quiesce.snapshot.bdf import Bdf


@dataclass
class TracingKernel(LightKernel):
    """Keeps the steps of every search for a group."""

    steps: dict[str, list[Step]] = field(default_factory=dict)
    met: list[str] = field(default_factory=list)
    """Functions in the order in which they met the IOMMU."""

    def probe(self, dev: LightDevice) -> None:
        """Probe, and say why it came out as it did: what was asked then is asked again before anything changes."""
        had = dev.iommu_group is not None
        super().probe(dev)
        if dev.found is not None and not had:
            self.met.append(dev.bdf)
            self.steps[dev.bdf] = list(_search(self, dev))


def _search(k: TracingKernel, dev: LightDevice) -> Iterator[Step]:
    assert dev.found is not None
    rule, base, via = dev.found.rule, dev.found.base, dev.found.via
    yield from _own_aliases(k, dev)
    holder = dev
    for holder, alias in pci_for_each_dma_alias(k, dev):
        if holder is not dev:
            yield _bridge_step(k, dev, holder, alias)
        if rule == "alias" and holder is via:
            yield _joins(k, dev, via, f"requests of {dev.bdf} arrive under an id of {via.bdf}")
            return
        if holder is not dev:
            yield Step("ungrouped", dev.bdf, holder.bdf, "has no group")
    yield from _climb(k, dev, holder, base)
    if rule == "path":
        yield _joins(k, dev, via, "what is below it cannot be told apart from it")
    elif rule == "new":
        yield from _isolation(k, dev, base)
        yield Step("founds", dev.bdf, dev.bdf, "no function that it could be taken for has a group: gets a new one")
    else:
        yield from _beside(k, dev, base, via)
        yield _joins(k, dev, via, "the two cannot be told apart")


def _joins(k: TracingKernel, dev: LightDevice, via: LightDevice, why: str) -> Step:
    place = f"met the IOMMU as number {k.met.index(via.bdf) + 1}, {dev.bdf} as number {len(k.met)}"
    return Step("joins", dev.bdf, via.bdf, f"has a group already, {dev.bdf} joins it: {why}", place)


# -- aliases -----------------------------------------------------------------------------------------------------


def _own_aliases(k: TracingKernel, dev: LightDevice) -> Iterator[Step]:
    """Other ids on its own bus that a function sends under."""
    for devfn in sorted(dev.dma_alias_mask):
        place = dev.hw.bdf._replace(device=devfn >> 3, function=devfn & 7)
        quirk = next(
            (
                item
                for item in DMA_ALIAS_QUIRKS
                if item.covers(dev.hw.vendor, dev.hw.device)
                and knows(k, item)
                and devfn in quirk_devfns(item.kind, dev.hw.bdf)
            ),
            None,
        )
        fact = f"sends under the id of {place.short} too"
        if quirk is not None:
            evidence = f"ids {dev.hw.vendor:04x}:{dev.hw.device:04x}"
            yield Step(
                "own-alias",
                dev.bdf,
                dev.bdf,
                f"{fact}: {quirk.subject}",
                evidence,
                quirk.change,
                since_of(quirk.change),
            )
        else:
            yield Step("own-alias", dev.bdf, dev.bdf, f"{fact}, says firmware", ivrs_entry(k, dev.hw.bdf))


def ivrs_entry(k: LightKernel, bdf: Bdf) -> str:
    """Return the IVRS entry that gives an id an alias."""
    ivrs = k.machine.ivrs
    found = None if ivrs is None else ivrs.alias_entry(bdf.requester_id, bdf.segment)
    if found is None:
        return "no IVRS entry"
    unit, entry = found
    first, last, alias = (Bdf.from_devid(at).short for at in (entry.first, entry.last, entry.alias or 0))
    return f"IVRS {entry.kind} entry {first}-{last} -> {alias} of the IVHD for {unit.bdf.short}"


def _bridge_step(k: LightKernel, dev: LightDevice, bridge: LightDevice, alias: Bdf) -> Step:
    if not bridge.hw.is_bridge:
        fact = f"is the volume manager that hides {dev.bdf}: requests arrive as its own"
        return Step("alias", dev.bdf, bridge.bdf, fact, f"ids {bridge.hw.vendor:04x}:{bridge.hw.device:04x}")
    fact = f"takes over the requests of what is below: they arrive as {alias.short}"
    bus = topology.bus_range(bridge.hw).start
    evidence = f"{kind_of(bridge.hw)}, secondary bus {bus:02x}"
    quirk = next(
        (
            item
            for item in DMA_ALIAS_QUIRKS
            if item.kind == "bridge_alias" and item.covers(bridge.hw.vendor, bridge.hw.device) and knows(k, item)
        ),
        None,
    )
    change = quirk.change if quirk is not None else ""
    return Step("alias", dev.bdf, bridge.bdf, fact, evidence, change, since_of(change) if change else "")


# -- the way up --------------------------------------------------------------------------------------------------


def _climb(k: LightKernel, dev: LightDevice, start: LightDevice, base: LightDevice) -> Iterator[Step]:
    """Steps from the end of the aliases up to where the path is isolated, or to a function that has a group."""
    here = start
    while here is not base:
        bridge = upstream_bridge(k, here)
        if bridge is None:
            return
        failing, answer = _first_failing(k, bridge)
        fact, evidence = acs_fact(failing.hw, answer)
        change = answer.quirk.change if answer.quirk is not None else ""
        yield Step("climbs", dev.bdf, failing.bdf, fact, evidence, change, since_of(change) if change else "")
        if bridge is not base or dev.found is None or dev.found.rule != "path":
            yield Step("ungrouped", dev.bdf, bridge.bdf, "has no group")
        here = bridge


def _first_failing(k: LightKernel, bridge: LightDevice) -> tuple[LightDevice, AcsAnswer]:
    """Return the hop that made ``pci_acs_path_enabled`` say no."""
    hop: LightDevice | None = bridge
    while hop is not None:
        answer = acs_answer(k, hop)
        if not answer.enabled:
            return hop, answer
        hop = upstream_bridge(k, hop)
    raise AssertionError(f"the path above {bridge.bdf} is isolated")


def _isolation(k: LightKernel, dev: LightDevice, base: LightDevice) -> Iterator[Step]:
    """What keeps a function that founds a group from others: its own isolation in its device, every hop above."""
    if pci_multifunction(base):
        answer = acs_answer(k, base)
        yield _answer_step("isolates" if answer.enabled else "open", dev, base, answer)
        if not answer.enabled:
            yield from _isolated_siblings(k, dev, base)
    else:
        yield Step("single", dev.bdf, base.bdf, "shares its device with no other function", _kind_if_known(base))
    bridge = upstream_bridge(k, base)
    while bridge is not None:
        yield _answer_step("isolates", dev, bridge, acs_answer(k, bridge))
        bridge = upstream_bridge(k, bridge)


def _kind_if_known(dev: LightDevice) -> str:
    """Say what a function is, unless the snapshot leaves it open and nothing has asked so far."""
    return "" if dev.hw.open and dev.hw.chosen is None else kind_of(dev.hw)


def _isolated_siblings(k: LightKernel, dev: LightDevice, base: LightDevice) -> Iterator[Step]:
    for other in k.devs_on_bus(base.hw.bdf):
        if other is not base and other.hw.bdf.device == base.hw.bdf.device:
            answer = acs_answer(k, other)
            if answer.enabled:
                yield _answer_step("isolates", dev, other, answer)


def _answer_step(kind: str, dev: LightDevice, of: LightDevice, answer: AcsAnswer) -> Step:
    fact, evidence = acs_fact(of.hw, answer)
    change = answer.quirk.change if answer.quirk is not None else ""
    return Step(kind, dev.bdf, of.bdf, fact, evidence, change, since_of(change) if change else "")


# -- beside ------------------------------------------------------------------------------------------------------


def _beside(k: LightKernel, dev: LightDevice, base: LightDevice, via: LightDevice) -> Iterator[Step]:
    """Steps from function to function of one bus, from ``base`` to the one whose group it is."""
    way = _way_beside(k, dev, base, via)
    for here, there in pairwise(way):
        if pci_devs_are_dma_aliases(here, there):
            fact = f"and {there.bdf} use one id: an alias of one of them names the other"
            yield Step("beside", dev.bdf, here.bdf, fact, "alias")
            continue
        for one in (here, there):
            yield _answer_step("beside", dev, one, acs_answer(k, one))


def _way_beside(k: LightKernel, dev: LightDevice, base: LightDevice, via: LightDevice) -> list[LightDevice]:
    """Return the functions that the kernel's walk goes through, depth first, from ``base`` to ``via``."""
    came: dict[LightDevice, LightDevice | None] = {base: None}
    stack = [(base, iter(_neighbours(k, base)))]
    while stack and via not in came:
        here, rest = stack[-1]
        following = next((other for other in rest if other not in came and other is not dev), None)
        if following is None:
            stack.pop()
            continue
        came[following] = here
        stack.append((following, iter(_neighbours(k, following))))
    way = [via]
    while (above := came.get(way[-1])) is not None:
        way.append(above)
    return way[::-1] if way[-1] is base else [base, via]


def _neighbours(k: LightKernel, dev: LightDevice) -> Iterator[LightDevice]:
    others = [other for other in k.devs_on_bus(dev.hw.bdf) if other is not dev]
    yield from (other for other in others if pci_devs_are_dma_aliases(dev, other))
    if pci_multifunction(dev) and not acs_answer(k, dev).enabled:
        same = (other for other in others if other.hw.bdf.device == dev.hw.bdf.device)
        yield from (other for other in same if not acs_answer(k, other).enabled)
