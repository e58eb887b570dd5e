"""All outcomes of one unit: booted once for every combination of what the snapshot leaves open and the kernel asks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from quiesce.groups.coverage import BY_DRIVER, coverage_is_open
from quiesce.groups.kernel import LightDevice, LightKernel
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.silicon import Silicon
from quiesce.groups.units import in_scan_order
from quiesce.kernel import changes
from quiesce.kernel.pci_acs import acs_answer
from quiesce.snapshot.bdf import Bdf

Partition = tuple[tuple[str, ...], ...]
"""Groups, each in bus order, in the order of their first members."""

MOST_RUNS = 2048
"""So many combinations of one unit are tried; a unit with more is reported as incomplete."""

MOST_WORK = 8_000
"""So many devices are probed for one unit over all combinations, so that an answer takes seconds at most."""

NewKernel = Callable[[], LightKernel]


class Choices:
    """Enumerates combinations depth first: each run repeats a script of picks and goes on with first options."""

    def __init__(self) -> None:
        self.script: list[int] = []
        self.asked: list[tuple[Hashable, int]] = []

    def pick(self, key: Hashable, count: int) -> int:
        """Return which of ``count`` options this run takes."""
        number = len(self.asked)
        self.asked.append((key, count))
        if number == len(self.script):
            self.script.append(0)
        return self.script[number]

    def next(self) -> bool:
        """Go on to the next combination; False when there is none."""
        counts = [count for _, count in self.asked]
        self.asked = []
        while self.script and self.script[-1] + 1 >= counts[len(self.script) - 1]:
            self.script.pop()
        if not self.script:
            return False
        self.script[-1] += 1
        return True


class Outcome(NamedTuple):
    """What became of one unit."""

    groups: Partition
    """Those that come out whatever the open questions' answers are."""
    ungrouped: tuple[str, ...]
    functions: tuple[str, ...] = ()
    """Those whose grouping is open."""
    alternatives: tuple[Partition, ...] = ()
    without_group: tuple[tuple[str, ...], ...] = ()
    conditions: tuple[tuple[str, ...], ...] = ()
    """For each alternative, what was assumed in one way to it."""
    asked: tuple[str, ...] = ()
    """What the snapshot leaves open and the outcome depends on, in words."""
    complete: bool = True
    messages: tuple[str, ...] = ()


class _Run(NamedTuple):
    groups: Partition
    ungrouped: tuple[str, ...]
    assumed: tuple[str, ...]
    messages: tuple[str, ...]


def every_outcome(
    m: LightMachine, new_kernel: NewKernel, unit: Sequence[LightFunction], order: Sequence[str] = ()
) -> Outcome:
    """Boot a unit in every way that matters."""
    choices = Choices()
    asked: dict[Hashable, None] = {}
    runs: dict[tuple[Partition, tuple[str, ...]], _Run] = {}
    complete = False
    for _ in range(min(MOST_RUNS, max(2, MOST_WORK // len(unit)))):
        run = _boot(m, new_kernel(), unit, order, choices)
        runs.setdefault((run.groups, run.ungrouped), run)
        asked.update(dict.fromkeys(key for key, _ in choices.asked))
        if not choices.next():
            complete = True
            break
    return _summary(list(runs.values()), [question(m, key) for key in asked], complete)


def _boot(
    m: LightMachine, k: LightKernel, unit: Sequence[LightFunction], order: Sequence[str], choices: Choices
) -> _Run:
    boot(m, k, unit, order, choices)
    devices = [k.devices[fn.bdf] for fn in sorted(unit, key=lambda fn: fn.bdf)]
    return _Run(_partition(devices), _alone(devices), assumed(unit), tuple(k.messages))


def boot(
    m: LightMachine, k: LightKernel, unit: Sequence[LightFunction], order: Sequence[str], choices: Choices
) -> None:
    """Let a kernel find the devices of a unit and form their groups, with what is open as ``choices`` says."""
    for fn in unit:
        _reset(fn, k, choices)
    _place(m, unit, choices)
    for fn in unit:
        if coverage_is_open(k, m, fn) and fn.path not in order:
            k.decided_coverage[fn.bdf] = bool(choices.pick(("covered", fn.bdf), 2))
    k.enumerate(unit)
    k.form_groups(_probe_order(k, unit, order, choices))


def assumed(unit: Sequence[LightFunction]) -> tuple[str, ...]:
    """Return what the last boot took for granted about functions that the snapshot leaves open, in words."""
    return tuple(f"{fn.bdf.short} is {fn.chosen.assumed}" for fn in unit if fn.open and fn.chosen is not None)


def _reset(fn: LightFunction, k: LightKernel, choices: Choices) -> None:
    fn.written = {}
    if not fn.open:
        return
    fn.chosen = None

    def decide(fn: LightFunction) -> Silicon:
        options = fn.ways = fn.ways or distinct(k, fn)
        fn.chosen = options[choices.pick(fn.bdf, len(options))] if len(options) > 1 else options[0]
        if fn in k.enabled:
            k.enable_now(fn)
        return fn.chosen

    fn.decide = decide


def distinct(k: LightKernel, fn: LightFunction) -> list[Silicon]:
    """Return one silicon for each way in which a function can behave when groups are formed: isolated or not, once its
    controls are set (before that it has no group that others could join). What a bridge makes of requester ids from
    below matters only where it is isolated: below one that is not, all join it either way.
    """
    found: dict[Hashable, Silicon] = {}
    for silicon in fn.options:
        fn.chosen, fn.written = silicon, {}
        dev = LightDevice(fn)
        if not k.has(changes.ACS_IN_DMA_CONFIGURE) or k.has(changes.IOMMU_PROBE_IN_CORE):
            k.devices[fn.bdf], kept = dev, k.devices.get(fn.bdf)
            k.enable_now(fn)
            if kept is not None:
                k.devices[fn.bdf] = kept
        after = acs_answer(k, dev).enabled
        passes = after and silicon.is_bridge and silicon.pcie_type in _PASSING
        found.setdefault((after, passes), silicon)
    fn.chosen, fn.written = None, {}
    return list(found.values())


_PASSING = (4, 5, 6)


def _place(m: LightMachine, unit: Sequence[LightFunction], choices: Choices) -> None:
    """Choose a bridge for every bus of which the snapshot does not tell where it hangs."""
    buses: dict[tuple[int, ...], list[LightFunction]] = {}
    for fn in unit:
        if fn in m.unplaced_set:
            buses.setdefault(fn.bdf[:2], []).append(fn)
    taken: set[Bdf] = set()
    for (segment, bus), members in sorted(buses.items()):
        places = [bridge for bridge in m.places[segment] if bridge.bdf.bus < bus and bridge.bdf not in taken]
        number = choices.pick(("bus", segment, bus), len(places) + 1)
        above = places[number] if number < len(places) else None
        if above is not None:
            taken.add(above.bdf)
        for fn in members:
            fn.upstream = above


def _probe_order(
    k: LightKernel, unit: Sequence[LightFunction], order: Sequence[str], choices: Choices
) -> list[LightFunction]:
    """Return the order in which devices meet the IOMMU: as found, those that ``order`` names first. Where that happens
    when a driver binds (device tree and IORT before v6.15), a port may come before or after what is below it.
    """
    first = {bdf: number for number, bdf in enumerate(order)}
    late: set[Bdf] = set()
    if k.machine.iommu in BY_DRIVER and not k.has(changes.IOMMU_PROBE_IN_CORE) and not first:
        bridges = dict.fromkeys(fn.upstream for fn in unit if fn.upstream is not None and not fn.is_virtfn)
        late = {bridge.bdf for bridge in bridges if choices.pick(("order", bridge.bdf), 2)}
    ordered = in_scan_order(unit)
    ordered.sort(key=lambda fn: (fn.is_virtfn, fn.bdf in late))
    return sorted(ordered, key=lambda fn: first.get(str(fn.bdf), len(first)))


# -- summing up --------------------------------------------------------------------------------------------------


def _partition(devices: Sequence[LightDevice]) -> Partition:
    groups: dict[int, list[str]] = {}
    for dev in devices:
        if dev.iommu_group is not None:
            groups.setdefault(id(dev.iommu_group), []).append(dev.bdf)
    return tuple(tuple(members) for members in groups.values())


def _alone(devices: Sequence[LightDevice]) -> tuple[str, ...]:
    return tuple(dev.bdf for dev in devices if dev.iommu_group is None)


def _summary(runs: Sequence[_Run], asked: Sequence[str], complete: bool) -> Outcome:
    groups = tuple(group for group in runs[0].groups if complete and all(group in run.groups for run in runs))
    ungrouped = tuple(bdf for bdf in runs[0].ungrouped if all(bdf in run.ungrouped for run in runs))
    if len(runs) == 1 and complete:
        return Outcome(groups, ungrouped, messages=runs[0].messages)
    settled = set(groups)
    rest = [tuple(group for group in run.groups if group not in settled) for run in runs]
    without = [tuple(bdf for bdf in run.ungrouped if bdf not in ungrouped) for run in runs]
    functions = {bdf for groups, alone in zip(rest, without, strict=True) for bdf in (*alone, *sum(groups, ()))}
    return Outcome(
        groups,
        ungrouped,
        tuple(sorted(functions)),
        tuple(rest),
        tuple(without),
        tuple(run.assumed for run in runs),
        tuple(asked),
        complete,
        runs[0].messages,
    )


def question(m: LightMachine, key: Hashable) -> str:
    """Say in words what a key of ``Choices`` asks."""
    if not isinstance(key, Bdf):
        assert isinstance(key, tuple)
        if key[0] == "order":
            return f"whether {key[1]} meets the IOMMU before what is below it"
        if key[0] == "covered":
            what = "has a driver" if m.iommu in BY_DRIVER else "is covered by the IOMMU (no IVRS table)"
            return f"whether {key[1]} {what}"
        return f"behind which bridge bus {key[2]:02x} of segment {key[1]:04x} is"
    knows = m.functions[str(key)].knows
    if not knows.ids_known and not m.functions[str(key)].item.attributes.get("vendor"):
        return f"what {key} is (no ids)"
    if not knows.type_known:
        return f"whether {key} is PCI Express and has ACS"
    return f"whether {key} has ACS (no extended capabilities in the source)"
