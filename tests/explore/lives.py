"""Short searches and long random lives of any machine, for tests of what must hold on all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from quiesce.cases.case import Case
from quiesce.cases.scenario import build
from quiesce.cases.verdict import watcher
from quiesce.drivers import all_drivers
from quiesce.explore.memo import occurrence
from quiesce.explore.model import Model, Outcome, Step
from quiesce.explore.replay import play
from quiesce.explore.search import Bounds, Result, Search
from quiesce.machine.build import build_machine
from quiesce.rules.registry import invariants
from quiesce.snapshot.description import MachineDescription
from quiesce.world import World

CHANCES = (0.0, 0.02, 0.15, 0.4)
"""How likely a choice leaves the ordinary course; one of them for each event of a random life."""


class Dice:
    """Stands in for a Recording: chooses at random and remembers what, as a step names it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.chance = rng, rng.choice(CHANCES)
        self.asked: dict[str, int] = {}
        self.taken: list[tuple[str, str]] = []

    def note(self, *_: object) -> None: ...
    def note_write(self, *_: object) -> None: ...
    def note_undo(self, *_: object) -> None: ...
    def note_abandoned(self) -> None: ...

    def choose(self, what: str, options: Sequence[object]) -> int:
        self.asked[what] = self.asked.get(what, 0) + 1
        pick = self.rng.randrange(len(options)) if self.rng.random() < self.chance else 0
        if pick:
            self.taken.append((occurrence(what, self.asked[what]), str(options[pick])))
        return pick


def candidates(description: MachineDescription) -> list[tuple[str, str]]:
    """Return drivers with the first function each fits by its table."""
    functions = build_machine(World(), description).functions
    found = []
    for name, driver in all_drivers().items():
        wanted = [entry for entry in driver.ids if entry.vendor or entry.base_class]
        fits = [bdf for bdf, fn in functions.items() if any(entry.matches(fn) for entry in wanted)]
        if fits:
            found.append((name, fits[0]))
    return found


def model(description: MachineDescription, kernel: str, turn: int = 0, *, windows: int = 0) -> Model:
    """Return the machine, booted, with two drivers that fit (``turn`` says which) and vfio-pci."""
    fitting = candidates(description)
    chosen = [fitting[(turn + at) % len(fitting)] for at in range(min(2, len(fitting)))]
    last = str(description.functions[-1].bdf)
    case = Case(
        name="any",
        machine=description.name,
        kernel=kernel,
        drivers=tuple(dict.fromkeys((*(name for name, _ in chosen), "vfio-pci"))),
        devices=tuple(dict.fromkeys(bdf for _, bdf in chosen)) or (last,),
        windows=windows,
        faults=1,
        setup=(Step("boot"),),
        events=("*",),
        never=("*",),
    )
    return build(case, description)


def short_search(m: Model, states: int = 30) -> Result:
    """Search breadth-first a little, which also finds model code that is not deterministic."""
    case = Case(name="any", never=("*",))
    return Search(m, watcher(case), invariants(), Bounds(depth=4, states=states)).run()


def random_life(m: Model, rng: random.Random, length: int) -> list[tuple[Step, Outcome]]:
    """Let events happen at random from here on, until the kernel is dead; the state is put back afterwards."""
    mark, life = m.world.mark(), []
    try:
        for _ in range(length):
            event, dice = rng.choice(m.searched), Dice(rng)
            m.world.recording = dice  # type: ignore[assignment]
            try:
                outcome = m.execute(event)
            finally:
                m.world.recording = None
            _check(m)
            if outcome.enabled:
                life.append((Step(event.text, tuple(dice.taken)), outcome))
            if outcome.crashed:
                break
    finally:
        m.world.undo(mark)
    return life


def _check(m: Model) -> None:
    for rule in invariants():
        tuple(rule.check(m.kernel))


def told_again(m: Model, life: Sequence[tuple[Step, Outcome]]) -> list[Outcome]:
    """Replay a life by its steps alone."""
    mark = m.world.mark()
    try:
        return [play(m, step) for step, _ in life]
    finally:
        m.world.undo(mark)
