"""Machines that might be: the same one with a card in another slot, without a card, with other ACS capabilities.

Pure functions on descriptions. Firmware tables stay as they are; a firmware that boots the changed machine would write
its own, so ranges of requester ids in them may fit less well than they do there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from quiesce.groups.acs_edit import with_capability
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput


@dataclass(frozen=True)
class Edited:
    """A changed machine."""

    description: MachineDescription
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Former address -> new one, of functions that have another address now."""
    gone: frozenset[str] = frozenset()
    """Functions that are not there any more."""


# -- who belongs together ----------------------------------------------------------------------------------------


def card_of(m: LightMachine, bdf: str) -> tuple[str, ...]:
    """Return what is on one card: the slot's functions, virtual ones, and all below. In bus order."""
    fn = m.functions[bdf]
    owner = fn.physfn or fn
    return below(m, [other for other in m.functions.values() if other.bdf.slot == owner.bdf.slot])


def below(m: LightMachine, tops: Iterable[LightFunction]) -> tuple[str, ...]:
    """Return functions with their virtual functions and everything behind them, in bus order."""
    wanted = set(tops)
    return tuple(bdf for bdf, fn in m.functions.items() if any(step in wanted for step in _way_up(fn)))


def _way_up(fn: LightFunction) -> Iterable[LightFunction]:
    while True:
        yield fn
        if fn.physfn is not None:
            fn = fn.physfn
            yield fn
        if fn.upstream is None:
            return
        fn = fn.upstream


def tops_of(m: LightMachine, place: str) -> tuple[LightFunction, ...]:
    """Return the functions that ``01:00.0`` or, for a whole slot, ``01:00`` names; raises BadInput.

    Function 0 stands for its slot: without it the kernel finds none of the others (drivers/pci/probe.c).
    """
    bdf = parse_place(place)
    fn = m.functions.get(str(bdf))
    if fn is not None and "." in place and bdf.function:
        return (fn,)
    slot = (other for other in m.functions.values() if other.bdf.slot == bdf.slot and not other.is_virtfn)
    found = tuple(slot) if fn is not None or "." not in place else ()
    if not found:
        raise BadInput("command line", place, "a function or slot that the machine has")
    return found


def parse_place(place: str) -> Bdf:
    """Read the address of a function or slot; raises BadInput."""
    try:
        return Bdf.parse(place if "." in place else f"{place}.0")
    except ValueError:
        raise BadInput("command line", place, "an address such as 01:00.0 or 0000:01:00") from None


# -- ACS ---------------------------------------------------------------------------------------------------------


def with_acs(description: MachineDescription, bdf: str, bits: int | None) -> MachineDescription:
    """Return the machine with an ACS capability that offers ``bits`` at a function, None for no capability. The kernel
    switches on what is offered; what is not counts as hard-wired on (v3.12+). Raises BadInput.
    """
    changed = [with_capability(item, bits) if str(item.bdf) == bdf else item for item in description.functions]
    if not any(str(item.bdf) == bdf for item in description.functions):
        raise BadInput("command line", bdf, "a function that the machine has")
    return replace(description, functions=tuple(changed))


# -- without a card ----------------------------------------------------------------------------------------------


def removed(description: MachineDescription, place: str) -> Edited:
    """Return the machine without a function or slot and everything behind it; raises BadInput."""
    m = LightMachine(description, None)
    gone = frozenset(below(m, tops_of(m, place)))
    kept = tuple(item for item in description.functions if str(item.bdf) not in gone)
    return Edited(replace(description, functions=kept), gone=gone)
