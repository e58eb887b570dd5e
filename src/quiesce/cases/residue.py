"""What a driver leaves behind: a device never bound, against the same device bound and released again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quiesce.cases.case import Case
from quiesce.cases.scenario import build
from quiesce.cases.verdict import make_search
from quiesce.drivers import models
from quiesce.explore.model import Model, Outcome, Step
from quiesce.explore.replay import play
from quiesce.explore.search import Bounds, Violation
from quiesce.snapshot.errors import BadInput
from quiesce.world import Change

_NUMBERING = ("genirq", "dma.", "system")
"""Registries that only say which numbers are in use."""


@dataclass(frozen=True, slots=True)
class Tripped:
    """A rule that another driver breaks on the device only because of its history."""

    driver: str
    violation: Violation


@dataclass(frozen=True, slots=True)
class Residue:
    """The answer: fields that differ, and drivers for which that matters."""

    bound: Outcome
    left: tuple[Change, ...]
    tripped: tuple[Tripped, ...]


def residue(case: Case, driver: str, bdf: str, others: tuple[str, ...]) -> Residue:
    """Bind and release ``driver`` on ``bdf``, compare with a device that was never bound, and let every other driver
    live on both for up to ``case.depth`` events. Raises BadInput for a device that the driver does not take.
    """
    model = build(replace(case, drivers=(driver,), devices=(bdf,)))
    if not _offers(model, driver, bdf):
        raise BadInput(driver, f"device {bdf}", "a driver that takes such a device")
    mark = model.world.mark()
    bound = play(model, Step(f"bind {driver} {bdf}"))
    if bound.answer == 0:
        play(model, Step(f"unbind {bdf}"))
    left = tuple(change for change in model.world.diff(mark) if not change.path.startswith(_NUMBERING))
    history = (Step(f"bind {driver} {bdf}"), Step(f"unbind {bdf}")) if bound.answer == 0 else ()
    if not left or not history:
        return Residue(bound, left, ())
    tripped = [one for other in (driver, *others) for one in _trips(case, driver, bdf, other, history)]
    return Residue(bound, left, tuple(tripped))


def _trips(case: Case, driver: str, bdf: str, other: str, history: tuple[Step, ...]) -> list[Tripped]:
    drivers = tuple(dict.fromkeys((driver, other)))
    if not _offers(build(replace(case, drivers=drivers, devices=(bdf,))), other, bdf):
        return []
    events = tuple(f"{word} {bdf}" for word in _words(case, other))
    fresh = replace(case, drivers=drivers, devices=(bdf,), events=events)
    used = replace(fresh, setup=(*case.setup, *history))
    before, after = (_violations(one) for one in (fresh, used))
    return [Tripped(other, after[rule]) for rule in sorted(after.keys() - before.keys())]


def _offers(model: Model, driver: str, bdf: str) -> bool:
    return any(event.text == f"bind {driver} {bdf}" for event in model.events)


def _words(case: Case, driver: str) -> list[str]:
    operations = models((driver,))[driver].operations()
    return [f"bind {driver}", "unbind", "interrupt", *(operation.name for operation in operations)]


def _violations(case: Case) -> dict[str, Violation]:
    return make_search(case, Bounds(depth=case.depth, seconds=60)).run().violations
