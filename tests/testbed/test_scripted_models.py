"""The script that a real kernel is given to play a driver model does, step by step, what the model does."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from quiesce.drivers import models
from quiesce.drivers.scripted import driver_class
from quiesce.explore.memo import occurrence
from quiesce.explore.model import Model, Outcome, Step
from quiesce.explore.replay import play
from quiesce.explore.vocabulary import vocabulary
from quiesce.kernel import changes
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import IrqAction
from quiesce.machine.build import build_machine
from quiesce.snapshot.text import read_text
from quiesce.testbed.scripted import PLAYED, script_for
from quiesce.world import State, World

MACHINE = """
machine played
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug
00:02.0 gpu
00:04.0 conventional
00:0c.0 conventional
01:00.0 e1000e no-msix
iommu {iommu}
"""
DEVICE = {"i915": "0000:00:02.0", "handler-left": "0000:00:04.0", "managed-toggle": "0000:00:04.0"}
KERNELS = ("v5.10", "v6.1", "v6.12", "v7.2")
LIVES, MORE_LIVES, LENGTH = 3, 15, 9
_OWN_PATHS = ("drm/", "qscript/")
_OWN_FIELDS = ("drvdata", "private")
_RENAMED = {"scratch page": "scratch", "buffer object": "buffer"}
"""Buffers of models, and how their scripts call them, because a name there is one word."""


def playing(name: str, version: str, iommu: str, *, scripted: bool, faults: int) -> Model:
    """A booted machine with the driver, as the Python model or as its script."""
    world = World()
    drivers = models([name, "vfio-pci"])
    if scripted:
        script = script_for(name, changes.kernel(version))
        assert script is not None
        drivers[name] = driver_class(script)()
    machine = build_machine(world, read_text(MACHINE.format(iommu=iommu), "test"))
    k = Kernel(world, machine, changes.kernel(version), drivers)
    for driver in drivers.values():
        k.irq_handlers.update(driver.handlers())
    model = Model(k, vocabulary(k, list(drivers), [DEVICE.get(name, "0000:01:00.0")]))
    assert play(model, Step("boot")).enabled
    k.system.loaded.add(name)
    k.system.loaded.add("vfio-pci")
    k.system.faults_left = faults
    return model


class Dice:
    """Chooses an injected failure now and then, and remembers which, as a step names them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.asked: dict[str, int] = {}
        self.taken: list[tuple[str, str]] = []

    def note(self, *_: object) -> None: ...
    def note_write(self, *_: object) -> None: ...
    def note_undo(self, *_: object) -> None: ...
    def note_abandoned(self) -> None: ...

    def choose(self, what: str, options: Sequence[object]) -> int:
        self.asked[what] = self.asked.get(what, 0) + 1
        pick = int(self.rng.random() < 0.15)
        if pick:
            self.taken.append((occurrence(what, self.asked[what]), str(options[pick])))
        return pick


def step_at_random(model: Model, rng: random.Random) -> tuple[Step, Outcome] | None:
    """Let a random event happen; binding and what the driver offers come up more often than the rest."""
    events = [event for event in model.events if not event.text.startswith(("boot", "crash-kexec", "hibernate"))]
    often = [event for event in events if event.text.split()[0].endswith(("bind", "-open", "-close", "interrupt"))]
    event, dice = rng.choice(often if rng.random() < 0.6 else events), Dice(rng)
    model.world.recording = dice  # type: ignore[assignment]
    try:
        outcome = model.execute(event)
    finally:
        model.world.recording = None
    return (Step(event.text, tuple(dice.taken)), outcome) if outcome.enabled else None


def plain(value: object) -> object:
    """A value in which nothing names the driver's own objects."""
    if isinstance(value, IrqAction):
        return (value.name, plain(value.dev_id), value.shared)
    if isinstance(value, State):
        return value.path
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return _RENAMED.get(value, value) if isinstance(value, str) else value


def renamed(step: Step) -> Step:
    """The step with the names of buffers that the script has."""
    choices = list(step.choices)
    for old, new in _RENAMED.items():
        choices = [(what.replace(f"of {old}", f"of {new}"), option) for what, option in choices]
    return Step(step.event, tuple(choices))


def state_of(model: Model) -> dict[tuple[str, str], object]:
    """Everything that has been written to, apart from the drivers' own data."""
    world = model.world
    found: dict[tuple[str, str], object] = {}
    for cell, value in enumerate(world.cells):
        path, name = world.name_of(cell)
        if value != world.default_of(cell) and not path.startswith(_OWN_PATHS) and name not in _OWN_FIELDS:
            found[path, name] = bool(value) if name == "refs" else plain(value)
    return found


def told(outcome: Outcome) -> tuple[object, ...]:
    rules = tuple(finding.rule for finding in outcome.findings)
    return (outcome.enabled, outcome.answer or 0, outcome.crashed, rules)


def differs_on_purpose(name: str, life: list[Step]) -> bool:
    """Lives of which DIFFERENCES says that they part."""
    words = [step.event.split()[0] for step in life]
    if name == "late-unmap" and "late-open" in words:
        after = [word for word in words[words.index("late-open") :] if word in ("late-close", "bind")]
        return "bind" in after
    return False


@pytest.mark.parametrize("iommu", ["intel", "amd 00:00.2"])
@pytest.mark.parametrize("version", KERNELS)
@pytest.mark.parametrize("name", PLAYED)
def test_the_script_plays_the_model(name: str, version: str, iommu: str) -> None:
    live_alike(name, version, iommu, range(LIVES))


@pytest.mark.slow
@pytest.mark.parametrize("iommu", ["intel", "amd 00:00.2"])
@pytest.mark.parametrize("version", KERNELS)
@pytest.mark.parametrize("name", PLAYED)
def test_the_script_plays_the_model_for_long(name: str, version: str, iommu: str) -> None:
    live_alike(name, version, iommu, range(LIVES, MORE_LIVES))


def live_alike(name: str, version: str, iommu: str, lives: range) -> None:
    """Lead the same lives with the model and with the script; in some of them the driver is bound."""
    bound = sum(live_once(name, version, iommu, number) for number in lives)
    assert bound or name == "agp-amd64"


def live_once(name: str, version: str, iommu: str, number: int) -> int:
    """Lead one life; returns how often a driver was bound in it."""
    rng = random.Random(f"{name} {version} {iommu} {number}")
    written = playing(name, version, iommu, scripted=False, faults=number % 3)
    scripted = playing(name, version, iommu, scripted=True, faults=number % 3)
    life: list[Step] = []
    bound = 0
    for _ in range(LENGTH * 3):
        happened = step_at_random(written, rng)
        if happened is None:
            continue
        step, outcome = happened
        life.append(step)
        if differs_on_purpose(name, life):
            break
        played = play(scripted, renamed(step))
        assert told(played) == told(outcome), life
        assert state_of(scripted) == state_of(written), life
        bound += outcome.answer == 0 and step.event.startswith("bind")
        if outcome.crashed or len(life) == LENGTH:
            break
    return bound
