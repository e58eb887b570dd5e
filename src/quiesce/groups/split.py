"""Units with too many open questions: taken apart, so that every part's groupings can still be listed.

A slot below a bridge, seen by itself, is grouped either as if it were on a root bus, where the way up is isolated, or
is one block with whatever is above. What is lost is which parts join each other; what is said of a part stays true.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.possible import NewKernel, Outcome, Partition, every_outcome
from quiesce.kernel.pci_acs import acs_answer
from quiesce.snapshot.bdf import Bdf

Unit = Sequence[LightFunction]


def outcomes_of(m: LightMachine, new_kernel: NewKernel, unit: Unit, order: Sequence[str]) -> list[Outcome]:
    """Return what becomes of a unit: in one piece where all combinations can be tried, else part by part."""
    whole = every_outcome(m, new_kernel, unit, order)
    if whole.complete or len({fn.bdf.slot for fn in unit}) == 1:
        return [whole]
    found: list[Outcome] = []
    below = list(_below(m, unit))
    merging = {bridge.bdf for bridge in dict.fromkeys(bridge for bridge, _ in below) if _may_merge(new_kernel, bridge)}
    for part in _slots(m, [fn for fn in unit if fn.upstream is None or fn.is_virtfn]):
        joined = [fn.path for fn in part if fn.bdf in merging]
        found += [_joined_from_below(outcome, joined) for outcome in _apart(m, new_kernel, part, order)]
    for bridge, part in below:
        found += _apart(m, new_kernel, part, order, bridge.bdf in merging, bridge)
    return found


def _slots(m: LightMachine, functions: Unit) -> list[list[LightFunction]]:
    """Return the functions on root buses by slot, without what is below; those without a known place by slot too."""
    slots: dict[tuple[int, ...], list[LightFunction]] = {}
    for fn in functions:
        if fn.upstream is None:
            slots.setdefault(fn.bdf.slot, []).append(fn)
    return list(slots.values())


def _below(m: LightMachine, unit: Unit) -> Iterator[tuple[LightFunction, list[LightFunction]]]:
    """Yield each slot directly below the root buses with all that is below it, and the bridge above."""
    parts: dict[tuple[int, ...], list[LightFunction]] = {}
    bridges: dict[tuple[int, ...], LightFunction] = {}
    for fn in unit:
        top, above = fn, fn.upstream
        if above is None:
            continue
        while above.upstream is not None:
            top, above = above, above.upstream
        slot = (top.physfn or top).bdf.slot
        parts.setdefault(slot, []).append(fn)
        bridges[slot] = above
    yield from ((bridges[slot], part) for slot, part in parts.items())


def _apart(
    m: LightMachine,
    new_kernel: NewKernel,
    part: list[LightFunction],
    order: Sequence[str],
    may_merge: bool = False,
    bridge: LightFunction | None = None,
) -> list[Outcome]:
    """Return the outcomes of a part as if it were on a root bus, each with the block that it may be instead."""
    placed = [fn for fn in part if fn not in m.unplaced_set]
    loose = len(placed) < len(part)
    tops = [fn for fn in part if bridge is not None and fn.upstream is bridge]
    for fn in tops:
        fn.upstream = None
    places, m.unplaced_set = m.unplaced_set, m.unplaced_set - set(part)
    found = outcomes_of(m, new_kernel, part, order)
    m.unplaced_set = places
    for fn in tops:
        fn.upstream = bridge
    if not (may_merge or loose):
        return found
    above = bridge.path if bridge is not None else "a bridge that the source does not tell"
    return [_with_block(outcome, above) for outcome in found]


def _with_block(outcome: Outcome, above: str) -> Outcome:
    """Add the alternative that all of a part are one group with what is above."""
    covered = tuple(sorted({bdf for group in outcome.groups for bdf in group} | set(outcome.functions)))
    if len(covered) == 0:
        return outcome
    rest = outcome.alternatives or ((),)
    alternatives = [tuple(sorted((*outcome.groups, *item))) for item in rest]
    conditions = list(outcome.conditions or ((),))
    without = list(outcome.without_group or ((),))
    block: Partition = (covered,)
    if block not in alternatives:
        alternatives.append(block)
        conditions.append((f"the way up through {above} is not isolated: one group with what is there",))
        without.append(())
    asked = (*outcome.asked, f"whether the way up through {above} is isolated (all functions here may join it)")
    return outcome._replace(
        groups=(),
        functions=covered,
        alternatives=tuple(alternatives),
        without_group=tuple(without),
        conditions=tuple(conditions),
        asked=asked,
    )


def _joined_from_below(outcome: Outcome, bridges: Sequence[str]) -> Outcome:
    """Leave groups open that what is below some bridges may join; their other members are as they are."""
    if not bridges:
        return outcome
    words = f"whether {' '.join(bridges)} isolates what is below (it may join the group)"
    rest, conditions = outcome.alternatives or ((),), outcome.conditions or ((),)
    return outcome._replace(
        groups=(),
        functions=tuple(sorted({bdf for group in outcome.groups for bdf in group} | set(outcome.functions))),
        alternatives=tuple(tuple(sorted((*outcome.groups, *item))) for item in rest),
        without_group=outcome.without_group or ((),),
        conditions=conditions,
        asked=(*outcome.asked, words),
    )


def _may_merge(new_kernel: NewKernel, bridge: LightFunction) -> bool:
    """Whether a bridge may be one that does not isolate what is below it."""
    if bridge.open:
        return True
    k = new_kernel()
    bridge.written = {}
    k.enumerate([bridge])
    return not acs_answer(k, k.devices[Bdf(*bridge.bdf)]).enabled
