"""Why functions are in one group, or are not: chains of reasons, taken from the search that formed the groups."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from quiesce.groups.conditions import Conditions
from quiesce.groups.covered import coverage, no_iommu
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.possible import Choices, assumed, boot, question
from quiesce.groups.power import power_groups
from quiesce.groups.step import Step
from quiesce.groups.trace import TracingKernel
from quiesce.groups.units import in_scan_order, units_of
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput

MOST_RUNS = 512
"""So many combinations of what a snapshot leaves open are tried."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One possible answer with its reasons."""

    verdict: str
    """Of one function: ``alone``, ``shared``, ``no group``. Of two: ``together``, ``apart``, ``no group``."""
    group: tuple[str, ...]
    """The group of the first function, in bus order."""
    other: tuple[str, ...]
    """The group of the second one; the same when they are together."""
    steps: tuple[Step, ...]
    """Whether each unit covers them; then the search for the group of each, up to where they meet or to its founder."""
    assumed: tuple[str, ...] = ()
    """What was taken for granted in one way to it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is to be said about one or two functions."""

    functions: tuple[str, ...]
    kernel: str
    iommu: str | None
    answers: tuple[Answer, ...]
    """One when the machine is known well enough."""
    missing: tuple[str, ...] = ()
    """What the snapshot leaves open and the answer depends on."""
    complete: bool = True
    history: tuple[Step, ...] = ()
    """Changes to the kernel that turn the answer."""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The answer in a word."""
        return self.answers[0].verdict if len(self.answers) == 1 else "undecided"


def find_function(m: LightMachine, text: str) -> LightFunction:
    """Return the function at an address; raises BadInput."""
    try:
        fn = m.functions.get(str(Bdf.parse(text)))
    except ValueError:
        fn = None
    if fn is None:
        raise BadInput(m.description.name, text, "the address of a function that the machine has")
    return fn


def explain(
    description: MachineDescription, conditions: Conditions, functions: Sequence[str], history: bool = True
) -> Explanation:
    """Explain the group of one function, or why two are together or apart. Raises BadInput."""
    from quiesce.groups.decisive import mark_decisive
    from quiesce.groups.history import timeline

    m = conditions.machine(description)
    named = [find_function(m, text) for text in functions]
    names = tuple(fn.path for fn in named)
    if m.iommu is None:
        steps = tuple(no_iommu(description, conditions.parameters, conditions.iommu))
        return Explanation(names, conditions.kernel.name, None, (Answer("no group", (), (), steps),))
    if m.iommu == "power":
        return Explanation(names, conditions.kernel.name, m.iommu, (_on_power(m, names),))
    outcome = every_answer(m, conditions, names)
    found = Explanation(
        names,
        conditions.kernel.name,
        m.iommu,
        tuple(outcome.answers.values()),
        tuple(outcome.asked),
        outcome.complete,
    )
    if found.verdict == "apart":
        answer = replace(found.answers[0], steps=mark_decisive(description, conditions, names, found.answers[0].steps))
        found = replace(found, answers=(answer,))
    if not history:
        return found
    turns, supposed = timeline(m, conditions, names)
    return replace(found, history=turns, notes=(supposed,) if supposed and turns else ())


# -- answers -----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """All answers that are possible."""

    answers: dict[Hashable, Answer]
    asked: dict[str, None]
    complete: bool = True


def every_answer(
    m: LightMachine, conditions: Conditions, names: Sequence[str], most: int = MOST_RUNS, reasons: bool = True
) -> Outcome:
    """Boot the units of some functions in every way that the snapshot leaves open; one answer of each kind is kept."""
    unit = _unit_of(m, names)
    choices, found = Choices(), Outcome({}, {}, complete=False)
    asked: dict[Hashable, None] = {}
    for _ in range(most):
        k = TracingKernel(m, conditions.kernel, conditions.parameters)
        boot(m, k, unit, conditions.order, choices)
        answer = _answer(m, k, names, reasons, (*assumed(unit), *_placed(choices)))
        key = (answer.verdict, answer.group) if len(names) == 1 else answer.verdict
        _keep(found.answers, key, answer)
        asked.update(dict.fromkeys(key for key, _ in choices.asked))
        if not choices.next():
            found.complete = True
            break
    if len(found.answers) > 1:
        found.asked = dict.fromkeys(question(m, key) for key in asked)
        common = set.intersection(*(set(answer.assumed) for answer in found.answers.values()))
        for kind, one in tuple(found.answers.items()):
            taken = tuple(words for words in one.assumed if words not in common)
            found.answers[kind] = replace(one, assumed=taken)
    return found


def _keep(answers: dict[Hashable, Answer], key: Hashable, answer: Answer) -> None:
    """Keep of the ways to one answer the one that assumes most of what the first answer of all does, so that what is
    said to make the difference is little.
    """
    first = next(iter(answers.values()), answer)
    known = answers.setdefault(key, answer)
    if known is not first and _distance(answer, first) < _distance(known, first):
        answers[key] = answer


def _distance(one: Answer, other: Answer) -> int:
    return len(set(one.assumed) ^ set(other.assumed))


def _placed(choices: Choices) -> Iterator[str]:
    """Say what a run took for granted besides what functions are: the order in which they come."""
    for (key, _), picked in zip(choices.asked, choices.script, strict=False):
        if isinstance(key, tuple) and key[0] == "order":
            yield f"{key[1]} meets the IOMMU {'after' if picked else 'before'} what is below it"


def _on_power(m: LightMachine, names: Sequence[str]) -> Answer:
    """POWER's groups follow from buses alone, see ``quiesce.groups.power``."""
    all_groups, _ = power_groups(m.functions.values())
    groups = [next((tuple(group) for group in all_groups if name in group), ()) for name in names]
    steps = []
    for name, group in zip(names, groups, strict=True):
        fact = "is in the partitionable endpoint of its bus: all of the bus is one group"
        if not group:
            fact = "is a bridge on a bus where no other function came before it: it stays without a group"
        bus = m.functions[name].bdf.bus
        steps.append(Step("covered" if group else "uncovered", name, name, fact, f"bus {bus:02x}, PowerNV firmware"))
    return Answer(_verdict(groups), groups[0], groups[-1], tuple(steps))


def _verdict(groups: Sequence[tuple[str, ...]]) -> str:
    if not all(groups):
        return "no group"
    if len(groups) == 1:
        return "alone" if len(groups[0]) == 1 else "shared"
    return "together" if groups[0] == groups[1] else "apart"


def _unit_of(m: LightMachine, names: Sequence[str]) -> tuple[LightFunction, ...]:
    wanted = {m.functions[name] for name in names}
    found = [fn for unit in units_of(m) if wanted.intersection(unit) for fn in unit]
    return tuple(in_scan_order(found))


def _answer(m: LightMachine, k: TracingKernel, names: Sequence[str], reasons: bool, taken: tuple[str, ...]) -> Answer:
    groups = [members(k, name) for name in names]
    verdict = _verdict(groups)
    steps: tuple[Step, ...] = ()
    if reasons:
        covered = [coverage(k, m, m.functions[name]) for name in names]
        steps = (*covered, *_settled(k, _reasons(k, names, verdict)))
    return Answer(verdict, groups[0], groups[-1], steps, taken)


def members(k: TracingKernel, name: str) -> tuple[str, ...]:
    """Return the group of a function, in bus order; empty when it has none."""
    group = k.devices[Bdf.parse(name)].iommu_group or []
    return tuple(dev.bdf for dev in sorted(group, key=lambda dev: dev.hw.bdf))


def _reasons(k: TracingKernel, names: Sequence[str], verdict: str) -> Iterator[Step]:
    if verdict == "no group":
        return
    if verdict == "together":
        yield from _to_where_they_meet(k, names[0], names[1])
    elif verdict == "apart":
        for name in names:
            for link in _links(k, name):
                yield from k.steps[link]
    else:
        for name in sorted(members(k, names[0]), key=lambda name: (name != names[0], k.met.index(name))):
            yield from k.steps[name]


def _links(k: TracingKernel, name: str) -> list[str]:
    """Return a function, the one whose group it joined, and so on to the founder of the group."""
    found = [name]
    dev = k.devices[Bdf.parse(name)]
    while dev.found is not None and dev.found.via is not None:
        dev = dev.found.via
        found.append(dev.bdf)
    return found


def _to_where_they_meet(k: TracingKernel, one: str, other: str) -> Iterator[Step]:
    ways = _links(k, one), _links(k, other)
    meeting = next(name for name in ways[0] if name in ways[1])
    for way in ways:
        for name in way[: way.index(meeting)]:
            yield from k.steps[name]


def _settled(k: TracingKernel, steps: Iterator[Step]) -> Iterator[Step]:
    """Say of functions that had no group when they were asked whether they got one later: then the order decided."""
    for step in steps:
        dev = k.devices.get(Bdf.parse(step.function)) if step.kind == "ungrouped" else None
        if dev is None or dev.iommu_group is None:
            yield replace(step, fact="has no group: no IOMMU covers it") if step.kind == "ungrouped" else step
            continue
        numbers = k.met.index(step.function) + 1, k.met.index(step.subject) + 1
        fact = f"had no group yet: it met the IOMMU after {step.subject}, which therefore could not join it"
        evidence = f"order: {step.function} as number {numbers[0]}, {step.subject} as number {numbers[1]}"
        yield Step("order", step.subject, step.function, fact, evidence)
