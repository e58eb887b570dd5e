"""What is known to go wrong: the lifecycle model searched on this machine, for the devices that a plan moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from quiesce.cases.case import Case
from quiesce.cases.library import shipped
from quiesce.cases.scenario import build
from quiesce.cases.verdict import watcher
from quiesce.drivers import all_drivers
from quiesce.explore.model import Model, Step
from quiesce.explore.replay import play
from quiesce.explore.search import Bounds, Result, Violation
from quiesce.explore.search import Search as LifeSearch
from quiesce.kernel.kernelset import NEWEST, Change, every, releases, version_key
from quiesce.plan.model import BIND, CONDITIONAL, POSSIBLE, Member, Plan, Search, Trouble
from quiesce.plan.part import part_of
from quiesce.rules.registry import invariants
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput

DEPTH = 6
"""Events in a life, after the drivers of today have been bound."""
MOST_STATES = 100_000
MOST_DEVICES = 3
_OF_USER = (
    "vfio-open",
    "vfio-close",
    "vfio-reset",
    "vfio-intx-on",
    "vfio-intx-mask",
    "vfio-intx-unmask",
    "vfio-msi-on",
    "vfio-msix-on",
    "interrupt",
)


@dataclass(frozen=True, slots=True)
class _Scene:
    """A case on a described machine."""

    case: Case
    description: MachineDescription

    def model(self, kernel: str | None = None) -> Model:
        """Return the model after its setup; raises BadInput."""
        return build(self.case if kernel is None else self.case.on(kernel), self.description)


def searched(plan: Plan, description: MachineDescription, seconds: float) -> Plan:
    """Return the plan with what a bounded search over the lives of its devices found; trouble is a condition."""
    found = _search(plan, description, seconds)
    worse = found.troubles and plan.verdict == POSSIBLE
    return replace(plan, search=found, verdict=CONDITIONAL if worse else plan.verdict)


def _search(plan: Plan, description: MachineDescription, seconds: float) -> Search:
    members = next((one.members for one in plan.alternatives if one.steps), ())
    if not members:
        return Search(False, "the plan is refused")
    moved = sorted((item for item in members if item.action == BIND), key=lambda item: item.bdf != plan.device)
    moved = moved[:MOST_DEVICES]
    part = part_of(description, plan.iommu, [item.bdf for item in members])
    if part.why_not:
        return Search(False, part.why_not)
    drivers, notes = _drivers(plan, moved)
    setup = (Step("boot"), *(Step(f"bind {drivers[item.bdf]} {item.bdf}") for item in moved if item.bdf in drivers))
    case = Case(
        name="plan",
        machine=description.source or description.name,
        kernel=plan.kernel,
        drivers=tuple(dict.fromkeys((*drivers.values(), plan.to))),
        devices=tuple(item.bdf for item in moved),
        depth=DEPTH,
        setup=setup,
    )
    scene = _Scene(case, part.description)
    try:
        model = scene.model()
    except BadInput as error:
        return Search(False, f"the model cannot begin there: {error.expected}")
    differs = _differs(model, plan, members)
    if differs:
        return Search(False, differs)
    model.restrict([event for event in model.events if event.text in _wanted(case, drivers, plan)])
    bounds = Bounds(DEPTH, MOST_STATES, seconds)
    result = LifeSearch(model, watcher(case), invariants(), bounds).run()
    return _told(scene, plan, result, (*part.notes, *notes))


def _drivers(plan: Plan, moved: Sequence[Member]) -> tuple[dict[str, str], list[str]]:
    """Return the models of the drivers that have the devices now, and what is said about those without."""
    known = {name.replace("_", "-"): name for name in all_drivers()}
    found, notes = {}, []
    for item in moved:
        name = known.get((item.driver or "").replace("_", "-"))
        if name is not None and name != plan.to:
            found[item.bdf] = name
        elif item.driver and item.driver != plan.to:
            notes.append(f"no model of {item.driver}: what it leaves on {item.bdf} is not looked at")
        elif item.driver is None:
            notes.append(f"the driver of {item.bdf} is not known: what it leaves is not looked at (--held BDF=DRIVER)")
    return found, notes


def _differs(model: Model, plan: Plan, members: Sequence[Member]) -> str:
    """The model runs on a part of the machine: there the device must be in the same group."""
    wanted = {item.bdf for item in members}
    for dev in model.kernel.system.devices:
        if dev.bdf == plan.device:
            group = dev.iommu_group
            found = set() if group is None else {other.bdf for other in group.devices}
            if found == wanted & {other.bdf for other in model.kernel.system.devices}:
                return ""
    return "the running model groups it otherwise than predicted"


def _wanted(case: Case, drivers: dict[str, str], plan: Plan) -> set[str]:
    texts = set()
    for bdf in case.devices:
        texts |= {f"unbind {bdf}", f"bind {plan.to} {bdf}"}
        if bdf in drivers:
            texts.add(f"bind {drivers[bdf]} {bdf}")
    return texts | {f"{word} {plan.device}" for word in _OF_USER}


def _told(scene: _Scene, plan: Plan, result: Result, notes: Iterable[str]) -> Search:
    found = sorted(result.violations.values(), key=lambda item: (len(item.steps), item.finding.rule))
    case = scene.case
    return Search(
        ran=True,
        reason="",
        drivers=case.drivers,
        devices=case.devices,
        before=tuple(step.event for step in case.setup),
        bound=result.bound,
        depth=result.depth,
        states=result.states,
        seconds=round(result.seconds, 2),
        troubles=tuple(_trouble(scene, plan, violation) for violation in found),
        notes=tuple(notes),
    )


def _trouble(scene: _Scene, plan: Plan, violation: Violation) -> Trouble:
    rule = violation.finding.rule
    life = tuple(step.event for step in violation.steps)
    return Trouble(rule, violation.finding.why, life, tuple(_cures(scene, violation)), _case_about(scene, rule))


def _case_about(scene: _Scene, rule: str) -> str:
    """Return a shipped case whose page names the rule and which has the same drivers."""
    drivers = set(scene.case.drivers)
    for name, case in shipped().items():
        if set(case.drivers) <= drivers and case.never and fnmatchcase(rule, case.never[0]):
            return name
    return ""


# -- cures -------------------------------------------------------------------------------------------------------


def _cures(scene: _Scene, violation: Violation) -> list[str]:
    """Return the changes that cure this life: the first release without the fault names the merged ones among its
    changes; without one, each fix that was only proposed is tried.
    """
    base = scene.case.kernel
    if _breaks(scene, f"{NEWEST}", violation):
        proposals = [change for change in every() if change.since is None and not change.id.startswith("switch-")]
        return [_named(change) for change in proposals if not _breaks(scene, f"{base} + {change.id}", violation)]
    tag, added = _first_good(scene, violation, base.split()[0])
    cures = [change for change in added if not _breaks(scene, f"{base} + {change.id}", violation)]
    return [_named(change) for change in cures] or ([f"{tag} (no single change of it)"] if tag else [])


def _first_good(scene: _Scene, violation: Violation, base: str) -> tuple[str, list[Change]]:
    later = [item for item in releases() if version_key(item[0]) > version_key(base)]
    low, high = 0, len(later) - 1
    while low < high:
        middle = (low + high) // 2
        if _breaks(scene, later[middle][0], violation):
            low = middle + 1
        else:
            high = middle
    return later[low] if later else ("", [])


def _named(change: Change) -> str:
    return f"{change.id} ({change.since or 'proposed'}): {change.subject}"


def _breaks(scene: _Scene, kernel: str, violation: Violation) -> bool:
    """Whether the same life breaks the same rule on another kernel; one that cannot take place there does not."""
    try:
        model = scene.model(kernel)
    except BadInput:
        return False
    rule = violation.finding.rule
    for step in violation.steps:
        outcome = play(model, step)
        if any(finding.rule == rule for finding in outcome.findings):
            return True
        if outcome.crashed or not outcome.enabled:
            return False
    return any(finding.rule == rule for check in invariants() for finding in check.check(model.kernel))
