"""Which changes to the kernel turn an answer about groups: release by release, and one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quiesce.groups.conditions import Conditions
from quiesce.groups.machine import LightMachine
from quiesce.groups.step import Step
from quiesce.groups.why import every_answer
from quiesce.kernel import changes
from quiesce.kernel.kernelset import NEWEST, Change, KernelSet, kernel, releases, version_key

FIRST = "v3.18"
"""Before, groups were looked for in other ways, for which see ``kernel/amd_group.py`` and ``kernel/pci_group.py``."""
MOST_RUNS = 8
"""A machine that leaves more open than this many combinations gets no history."""
_AREAS = ("PCI core", "PCI core ACS", "PCI quirks", "iommu", "iommu/amd", "iommu/vt-d")

State = frozenset[object]


def timeline(m: LightMachine, conditions: Conditions, names: Sequence[str]) -> tuple[tuple[Step, ...], str]:
    """Return one step for every release at which the answer turned, then for every single change that would turn it
    now; and what had to be supposed for that, where the snapshot leaves too much open. No steps when nothing turns it.
    """
    now, supposed = state(m, conditions, names), ""
    if now is None or len(now) > 1:
        m, supposed = conditions.machine(m.description), _SUPPOSED
        suppose(m)
        now = state(m, conditions, names)
    if now is None:
        return (), ""
    return (*_releases(m, conditions, names), *_single(m, conditions, names, now)), supposed


_SUPPOSED = (
    "since and change suppose what the source leaves open: PCIe without ACS, buses behind bridges in their order"
)


def suppose(m: LightMachine) -> None:
    """Settle everything that a snapshot leaves open, in the way that real machines are most often."""
    for fn in m.functions.values():
        if fn.open:
            fn.options = (next((item for item in fn.options if item.pcie_type is not None), fn.options[0]),)
    rest = {segment: list(places) for segment, places in m.places.items()}
    for bus in sorted({fn.bdf[:2] for fn in m.unplaced}):
        above = next((bridge for bridge in rest.get(bus[0], ()) if bridge.bdf.bus < bus[1]), None)
        if above is None:
            continue
        rest[bus[0]].remove(above)
        for fn in m.unplaced:
            fn.upstream = above if fn.bdf[:2] == bus else fn.upstream
    m.places, m.unplaced, m.unplaced_set = {}, (), frozenset()


def state(m: LightMachine, conditions: Conditions, names: Sequence[str]) -> State | None:
    """Return all answers that are possible; None when there are too many combinations."""
    found = every_answer(m, conditions, names, MOST_RUNS, reasons=False)
    return frozenset(found.answers) if found.complete else None


def words(found: State | None, names: Sequence[str]) -> str:
    """Say what the answers are."""
    if found is None:
        return "not known"
    return " or ".join(sorted({_word(item) for item in found}))


def _word(item: object) -> str:
    if isinstance(item, str):
        return item
    assert isinstance(item, tuple)
    verdict, group = item
    return str(verdict) if verdict != "shared" else f"in a group of {len(group)}"


def relevant() -> list[Change]:
    """Return the changes that groups may depend on."""
    return [change for change in changes.every() if change.subsystem in _AREAS]


def _tags() -> list[tuple[str, list[Change]]]:
    wanted = set(relevant())
    found = ((tag, [change for change in new if change in wanted]) for tag, new in releases())
    first, last = version_key(FIRST), version_key(NEWEST)
    return [(tag, new) for tag, new in found if new and first < version_key(tag) <= last]


def _releases(m: LightMachine, conditions: Conditions, names: Sequence[str]) -> Iterator[Step]:
    before = state(m, conditions.on(kernel(FIRST)), names)
    for tag, new in _tags():
        here = kernel(tag)
        after = state(m, conditions.on(here), names)
        if after != before and after is not None and before is not None:
            fact = f"since {tag}: {words(after, names)}; before: {words(before, names)}"
            for change in _responsible(m, conditions, names, here, new, after):
                yield Step("since", names[0], names[-1], f"{fact}: {change.subject}", "", change.id, tag)
        before = after


def _responsible(
    m: LightMachine, conditions: Conditions, names: Sequence[str], here: KernelSet, new: Sequence[Change], after: State
) -> list[Change]:
    """Return the changes of a release without any one of which the answer is another, else all of them."""
    found = [c for c in new if state(m, conditions.on(KernelSet(here.name, here.changes - {c})), names) != after]
    return found or list(new)


def _single(m: LightMachine, conditions: Conditions, names: Sequence[str], now: State) -> Iterator[Step]:
    """Changes that, added to this kernel or taken out of it, turn the answer."""
    present = set(conditions.kernel.changes)
    for change in relevant():
        if change.since is None:
            continue
        with_, without = ((), (change.id,)) if change in present else ((change.id,), ())
        try:
            other = state(m, conditions.on(conditions.kernel.edited(with_, without)), names)
        except AssertionError:
            continue
        if other is not None and other != now:
            verb = "without" if change in present else "with"
            fact = f"{verb} this change: {words(other, names)}: {change.subject}"
            yield Step("change", names[0], names[-1], fact, f"--{verb} {change.id}", change.id, change.since)
