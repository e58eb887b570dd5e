"""Which lives of a case are worth living on a real kernel: those that break its rules, and a few that do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

from quiesce.cases.case import Case
from quiesce.cases.scenario import long_form
from quiesce.cases.verdict import run
from quiesce.explore.model import Step
from quiesce.explore.search import Violation
from quiesce.snapshot.errors import BadInput
from quiesce.testbed.model_side import ModelSide
from quiesce.testbed.steps import CANNOT

MOST_VIOLATIONS = 4
"""How many of the rules that break get their shortest life tried, besides the one the case is about."""
SAMPLES = 2
"""How many more lives are drawn at random from the case's events."""

Events = tuple[str, ...]


def moved(case: Case, places: Mapping[str, str]) -> Case:
    """Return a case with its devices where the guest has them."""

    def text(line: str) -> str:
        return " ".join(places.get(word, word) for word in long_form(line).split())

    return replace(
        case,
        devices=tuple(text(bdf) for bdf in case.devices),
        events=tuple(text(event) for event in case.events),
        steps=tuple(moved_steps(case.steps, places)),
        setup=tuple(moved_steps(case.setup, places)),
    )


def moved_steps(steps: Iterable[Step], places: Mapping[str, str]) -> list[Step]:
    """Return steps with the devices where the guest has them."""
    return [
        Step(" ".join(places.get(word, word) for word in long_form(step.event).split()), step.choices) for step in steps
    ]


def lives_of(case: Case, places: Mapping[str, str], real: Case) -> list[Events]:
    """Return the lives to try. ``case`` is as it was written; ``real`` is the same on the guest's machine and kernel.

    First the shortest life that breaks the case's rule where the case says so, then what breaks on this kernel, then
    samples. Lives that need a failure or interference at a chosen moment are left out: nothing can be made to fail
    or to come in between at will in a stock kernel.
    """
    if case.steps:
        return [tuple(step.event for step in real.steps)]
    wanted = [tuple(moved_steps(one.steps, places)) for one in _violations(replace(case, windows=0, faults=0), 1)]
    wanted += [one.steps for one in _violations(replace(real, windows=0, faults=0), MOST_VIOLATIONS)]
    lives = [tuple(step.event for step in steps) for steps in wanted if not any(step.choices for step in steps)]
    return list(dict.fromkeys(life for life in [*lives, *_samples(real)] if life))


def left_out(case: Case) -> str:
    """Return what a written life says that a stock kernel cannot be made to do, or an empty text."""
    chosen = [f"{what} = {option}" for step in case.steps for what, option in step.choices]
    return f"without what it chooses: {', '.join(chosen)}" if chosen else ""


def _violations(case: Case, most: int) -> list[Violation]:
    try:
        verdict = run(case)
    except BadInput:
        return []
    rest = sorted(verdict.result.violations.values(), key=lambda one: (len(one.steps), one.finding.rule))
    first = [verdict.first] if verdict.first else []
    return [*first, *(one for one in rest if one is not verdict.first)][:most]


def _samples(case: Case) -> list[Events]:
    return [_up_to_kexec(_sample(case, number)) for number in range(SAMPLES)]


def _up_to_kexec(life: Events) -> Events:
    """Leave the second kernel, which takes ten seconds to come up, to the lives that are about it."""
    return life[: life.index("kexec") + 1] if "kexec" in life else life


def _sample(case: Case, number: int) -> Events:
    """Draw a life of the case's depth from its events."""
    rng = Random(f"{case.name}/{number}")
    side = ModelSide.of(case)
    life: list[str] = []
    while len(life) < case.depth:
        possible = side.possible(_tried(side))
        if not possible:
            break
        life.append(rng.choice(possible))
        told = side.play(Step(life[-1]))
        if told is None or told.ended:
            break
    return tuple(life)


def _tried(side: ModelSide) -> Sequence[str]:
    return [event.text for event in side.model.searched if event.text.split()[0] not in (*CANNOT, "boot")]
