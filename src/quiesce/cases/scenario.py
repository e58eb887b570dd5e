"""From a case to a model that can be explored: machine, kernel, drivers, events, and what happened before."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from quiesce.cases.case import Case, parse_kernel
from quiesce.drivers import UnknownDriver, models
from quiesce.explore.model import Event, Model, Outcome, Step, errno_name
from quiesce.explore.replay import play
from quiesce.explore.vocabulary import matching, vocabulary
from quiesce.kernel import amd_iommu
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.machine.build import build_machine
from quiesce.rules.registry import RULES
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine, read_text
from quiesce.world import World


def find_machine(name: str, beside: str = "") -> MachineDescription:
    """Return the machine that a case names: an inline description, a file or folder, or a shipped one.

    Raises BadInput.
    """
    if not name:
        raise BadInput("machine", "", "a file, a folder, or one of " + ", ".join(shipped_machines()))
    if "\n" in name:
        return read_text(name, beside or "machine")
    for place in (Path(beside).parent / name if beside else Path(name), Path(name)):
        if place.exists():
            return read_machine(place)
    shipped = resources.files("quiesce.cases") / "machines" / f"{name}.json"
    if shipped.is_file():
        with resources.as_file(shipped) as path:
            return read_machine(path)
    raise BadInput(name, "machine", "a file, a folder, or one of " + ", ".join(shipped_machines()))


def shipped_machines() -> list[str]:
    """Return the names of the machines that come with quiesce."""
    folder = resources.files("quiesce.cases") / "machines"
    return sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json"))


def build_kernel(case: Case, description: MachineDescription | None = None) -> Kernel:
    """Return the kernel of a case on its machine, not booted yet."""
    world = World()
    machine = build_machine(world, description or find_machine(case.machine, case.path))
    drivers = _models(case)
    kernel = Kernel(world, machine, parse_kernel(case.kernel, case.path or case.name), drivers)
    kernel.irq_handlers.update(amd_iommu.HANDLERS)
    for driver in drivers.values():
        kernel.irq_handlers.update(driver.handlers())
    return kernel


def _models(case: Case) -> dict[str, PciDriver]:
    try:
        return models(case.drivers)
    except UnknownDriver as error:
        raise BadInput(case.path or case.name, "drivers", f"names of driver models: {error}") from None


def build(case: Case, description: MachineDescription | None = None) -> Model:
    """Return the model of a case after its setup; raises BadInput when the setup cannot take place."""
    _check_rules(case)
    k = build_kernel(case, description)
    model = Model(k, vocabulary(k, case.drivers, devices_of(case, k)))
    for step in case.setup:
        _require(case, step, _play_setup(case, model, step))
        _load_drivers(case, k)
    _load_drivers(case, k)
    k.system.windows_left = case.windows
    k.system.faults_left = case.faults
    k.world.forget()
    model.restrict(_wanted(case, model.events))
    return model


def _check_rules(case: Case) -> None:
    """A pattern that no rule fits would make every life look good."""
    for pattern in case.never:
        if not any(fnmatchcase(rule.id, pattern) for rule in RULES):
            what = "a rule that 'quiesce rules' lists, or a pattern that fits one"
            raise BadInput(case.path or case.name, f"never, {pattern!r}", what)


def _require(case: Case, step: Step, outcome: Outcome) -> None:
    if outcome.enabled and not outcome.crashed:
        return
    reason = outcome.findings[-1].why if outcome.crashed else outcome.waits or "it is not possible here"
    raise BadInput(case.path or case.name, f"setup, {step.event}", f"a step that can take place: {reason}")


def _load_drivers(case: Case, k: Kernel) -> None:
    """Let the drivers be there, without a look at the devices that are: what is to be bound is for events to say."""
    if k.system.phase == "running" or not case.setup:
        for name in case.drivers:
            k.system.loaded.add(name)


def _play_setup(case: Case, model: Model, step: Step) -> Outcome:
    try:
        return play(model, step)
    except KeyError:
        raise BadInput(case.path or case.name, f"step {step.event!r}", _events_hint(model, step.event)) from None


def check_steps(case: Case, model: Model) -> None:
    """Raise BadInput for a step that names no event of the model."""
    for step in case.steps:
        try:
            model.event(step.event)
        except KeyError:
            place = f"step {step.event!r}"
            raise BadInput(case.path or case.name, place, _events_hint(model, step.event)) from None


def _events_hint(model: Model, text: str) -> str:
    word = text.split()[0] if text.split() else ""
    near = [event.text for event in model.events if event.text.split()[0] == word]
    names = near or sorted({event.text.split()[0] for event in model.events})
    return "one of " + ", ".join(names[:12])


def devices_of(case: Case, k: Kernel) -> list[str]:
    """Return the full names of the devices a case is about; raises BadInput."""
    if not case.devices:
        found = matching(k, case.drivers)
        if not found and not case.steps:
            what = "the devices to look at: by its ids, no driver of the case wants one of this machine"
            raise BadInput(case.path or case.name, "devices", what)
        return found
    return [full_bdf(case, k, text) for text in case.devices]


def full_bdf(case: Case, k: Kernel, text: str) -> str:
    """Return ``0000:00:1f.2`` for ``00:1f.2``; raises BadInput for a function the machine does not have."""
    name = text if text.count(":") == 2 else f"0000:{text}"
    if name not in k.machine.functions:
        raise BadInput(case.path or case.name, f"device {text}", "one of " + ", ".join(k.machine.functions))
    return name


def _wanted(case: Case, events: list[Event]) -> list[Event]:
    patterns = [long_form(pattern) for pattern in case.events]
    for pattern in patterns if not case.steps else ():
        if not any(fnmatchcase(event.text, pattern) for event in events):
            where = f"events, {pattern!r}"
            raise BadInput(case.path or case.name, where, "a pattern that fits an event of these devices and drivers")
    return [event for event in events if any(fnmatchcase(event.text, pattern) for pattern in patterns)]


def long_form(pattern: str) -> str:
    """Write the short form of a device out in an event pattern."""
    words = (f"0000:{w}" if w.count(":") == 1 and w[-2:-1] == "." else w for w in pattern.split())
    return " ".join(words)


def answer_of(outcome: Outcome) -> str:
    """Return what a step gave back, for people."""
    if outcome.waits:
        return f"blocked: {outcome.waits}"
    return errno_name(outcome.answer)
