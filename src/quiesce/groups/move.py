"""A machine with a card in another slot."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from quiesce.groups.edit import Edited, below, card_of, parse_place, tops_of
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.machine import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput

_SLOT_PORTS = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_DOWNSTREAM)


@dataclass
class _Plan:
    """New addresses of what moves."""

    places: dict[Bdf, Bdf] = field(default_factory=dict)
    secondary: dict[Bdf, int] = field(default_factory=dict)
    """Former address of a bridge -> bus below it now."""


def moved(description: MachineDescription, place: str, port: str) -> Edited:
    """Return the machine with the card at a function or slot, all below it included, behind another port.

    The card gets the port's bus number and starts at device 0; buses within the card keep their numbers where these
    still fit, and get free ones otherwise. What is behind the target port goes to where the card was. Raises BadInput.
    """
    m = LightMachine(description, None)
    top = min(tops_of(m, place), key=lambda fn: fn.bdf)
    card = card_of(m, top.path)
    target = m.functions.get(str(parse_place(port)))
    if target is None or not is_slot(target):
        raise BadInput("command line", port, "a root port or downstream port of a switch that the machine has")
    source = _slot_of(m, top, card, target, place)
    plan = _Plan()
    occupant = behind(m, target)
    moving = {*card, *occupant}
    _plan_card(plan, m, card, target, moving)
    if occupant:
        _plan_card(plan, m, occupant, source, moving)
    functions = sorted((_placed(m, item, plan) for item in description.functions), key=lambda item: item.bdf)
    renamed = {str(old): str(new) for old, new in plan.places.items() if old != new}
    return Edited(replace(description, functions=_widened(functions)), renamed)


def _slot_of(
    m: LightMachine, top: LightFunction, card: Collection[str], target: LightFunction, place: str
) -> LightFunction:
    """Return the port that the card is behind; raises BadInput where it cannot be moved."""
    source = (top.physfn or top).upstream
    if source is None:
        raise BadInput("command line", place, "a card behind a port; this one is part of the root complex")
    if target.path in card or source is target:
        raise BadInput("command line", target.path, f"another port than that of {place}, and none of its own")
    if top.path in behind(m, target):
        raise BadInput("command line", target.path, f"a port that does not lead to {place} already")
    if not is_slot(source):
        raise BadInput("command line", place, f"a card in a slot of PCI Express; {source.path} is no port")
    return source


def is_slot(fn: LightFunction) -> bool:
    """Whether a card can be behind it: a root or downstream port with a known bus number."""
    if not fn.is_bridge or not fn.knows.type_known or fn.pcie_type not in _SLOT_PORTS:
        return False
    return fn.knows.known(r.PCI_SECONDARY_BUS, 1) and fn.item.config[r.PCI_SECONDARY_BUS] > fn.bdf.bus


def behind(m: LightMachine, port: LightFunction) -> tuple[str, ...]:
    """Return everything behind a port."""
    return below(m, [fn for fn in m.functions.values() if fn.upstream is port and not fn.is_virtfn])


# -- numbers -----------------------------------------------------------------------------------------------------


def _plan_card(plan: _Plan, m: LightMachine, card: Iterable[str], port: LightFunction, moving: Collection[str]) -> None:
    """Give every function of a card its address behind a port."""
    members = [m.functions[bdf] for bdf in card]
    top = members[0].bdf
    segment, first = port.bdf.segment, port.item.config[r.PCI_SECONDARY_BUS]
    buses = {top.bus: first}
    used = _used_buses(m, segment, moving) | set(plan.secondary.values()) | {bdf.bus for bdf in plan.places.values()}
    for fn in (fn for fn in members if _knows_bus(fn)):
        own = fn.item.config[r.PCI_SECONDARY_BUS]
        buses[own] = plan.secondary[fn.bdf] = _bus_for(own, buses.get(fn.bdf.bus, first), used)
        used.add(buses[own])
    for fn in members:
        owner = fn.physfn or fn
        shift = top.device if owner.bdf.bus == top.bus else 0
        new = Bdf(segment, buses.get(owner.bdf.bus, owner.bdf.bus), owner.bdf.device - shift, owner.bdf.function)
        distance = fn.bdf.requester_id - owner.bdf.requester_id
        plan.places[fn.bdf] = Bdf.from_devid(new.requester_id + distance & 0xFFFF, segment)


def _knows_bus(fn: LightFunction) -> bool:
    return fn.is_bridge and fn.knows.known(r.PCI_SECONDARY_BUS, 1)


def _used_buses(m: LightMachine, segment: int, moving: Collection[str]) -> set[int]:
    rest = [fn for bdf, fn in m.functions.items() if bdf not in moving and fn.bdf.segment == segment]
    return {fn.bdf.bus for fn in rest} | {fn.item.config[r.PCI_SECONDARY_BUS] for fn in rest if _knows_bus(fn)}


def _bus_for(own: int, above: int, used: Collection[int]) -> int:
    """Return a free bus number that is higher than the bridge's own bus: the present one if it can be."""
    if own > above and own not in used:
        return own
    free = next((bus for bus in range(above + 1, 256) if bus not in used), None)
    if free is None:
        raise BadInput("command line", f"bus {own:02x}", f"a free bus number above {above:02x} for it")
    return free


# -- writing them ------------------------------------------------------------------------------------------------


def _placed(m: LightMachine, item: FunctionDescription, plan: _Plan) -> FunctionDescription:
    new = plan.places.get(item.bdf)
    if new is None:
        return item
    config, attributes = bytearray(item.config), dict(item.attributes)
    if item.bdf in plan.secondary:
        bus = plan.secondary[item.bdf]
        config[r.PCI_PRIMARY_BUS : r.PCI_SUBORDINATE_BUS + 1] = bytes((new.bus, bus, bus))
    owner = m.functions[str(item.bdf)].physfn
    if "virtual" in attributes and owner is not None:
        attributes["virtual"] = str(plan.places.get(owner.bdf, owner.bdf))
    return replace(item, bdf=new, config=bytes(config), attributes=attributes)


def _widened(functions: Iterable[FunctionDescription]) -> tuple[FunctionDescription, ...]:
    """Let the range of every bridge reach as far as the buses below it do now."""
    found = {item.bdf: item for item in functions}
    m = LightMachine(MachineDescription("", tuple(found.values())), None)
    for fn in m.functions.values():
        bus, above = fn.bdf.bus, fn.upstream
        while above is not None:
            item = found[above.bdf]
            if item.config[r.PCI_SUBORDINATE_BUS] < bus:
                config = bytearray(item.config)
                config[r.PCI_SUBORDINATE_BUS] = bus
                found[above.bdf] = replace(item, config=bytes(config))
            above = above.upstream
    return tuple(found.values())
