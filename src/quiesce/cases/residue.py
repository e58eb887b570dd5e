"""What a driver leaves behind: a device never bound, against the same device bound and released again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quiesce.cases.case import Case
from quiesce.cases.scenario import build
from quiesce.explore.model import Model, Outcome, Step
from quiesce.explore.replay import play
from quiesce.world import Change

_OWN = ("pci/", "hw/", "irq/", "devres/", "msi_desc/", "group/", "domain/", "pt/", "ioapic/", "irte/", "lapic", "iotlb")


@dataclass(frozen=True, slots=True)
class Tripped:
    """What happens to another driver on the device afterwards."""

    driver: str
    event: str
    fresh: Outcome
    after: Outcome

    @property
    def differs(self) -> bool:
        """Whether the history of the device makes a difference to this driver."""
        return (self.fresh.enabled, self.fresh.answer, self.fresh.findings) != (
            self.after.enabled,
            self.after.answer,
            self.after.findings,
        )


@dataclass(frozen=True, slots=True)
class Residue:
    """The answer: fields that differ, and drivers for which that matters."""

    bound: Outcome
    left: tuple[Change, ...]
    tripped: tuple[Tripped, ...]


def residue(case: Case, driver: str, bdf: str, others: tuple[str, ...]) -> Residue:
    """Bind and release ``driver`` on ``bdf`` and compare with a device that was never bound."""
    model = build(replace(case, drivers=(driver, *others), devices=(bdf,)))
    mark = model.world.mark()
    before = dict(_lives(model, driver, bdf, others))
    bound = play(model, Step(f"bind {driver} {bdf}"))
    if bound.enabled and bound.answer == 0:
        play(model, Step(f"unbind {bdf}"))
    left = tuple(change for change in model.world.diff(mark) if change.path.startswith(_OWN))
    after = dict(_lives(model, driver, bdf, others))
    tripped = [Tripped(key[0], key[1], before[key], outcome) for key, outcome in after.items() if key in before]
    return Residue(bound, left, tuple(one for one in tripped if one.differs))


def _lives(model: Model, driver: str, bdf: str, others: tuple[str, ...]) -> list[tuple[tuple[str, str], Outcome]]:
    """Bind each driver and try each of its operations once, in order; take everything back."""
    lives = []
    for name in (driver, *others):
        mark = model.world.mark()
        events = [f"bind {name} {bdf}"]
        events += [f"{operation.name} {bdf}" for operation in model.kernel.drivers[name].operations()]
        for text in [*events, f"interrupt {bdf}", f"unbind {bdf}"]:
            lives.append(((name, text), play(model, Step(text))))
        model.world.undo(mark)
    return lives
