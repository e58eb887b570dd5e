"""The model's side of a confirmation: one life, step by step, with a prediction after every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quiesce.cases.case import Case
from quiesce.cases.scenario import build, build_kernel, devices_of, find_machine
from quiesce.explore.model import Model, Outcome, Step, errno_name
from quiesce.explore.replay import play
from quiesce.explore.vocabulary import bind_event
from quiesce.snapshot.description import MachineDescription
from quiesce.testbed.message_classes import UNDEFINED as UNDEFINED_RULES
from quiesce.testbed.messages import Listener
from quiesce.testbed.observation import Observation
from quiesce.testbed.predicted import alarms_of, predict
from quiesce.testbed.scripted import script_for

UNDEFINED = "undefined"
"""How a step ended after which anything may happen: memory was freed or written that is somebody else's."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one side says of a step: what the operator got back, and what there was to see afterwards."""

    answer: str
    """``0``, ``-ENODEV``...; ``blocked`` when the operation waits; empty when nobody is told."""
    seen: Observation
    ended: str = ""
    """Why nothing can follow: ``crashed``, ``blocked``, ``undefined``; empty when life goes on."""


class ModelSide:
    """A case's model on the machine that the guest turned out to be, without interference and failures. A driver that a
    script plays can be bound to any device: QEMU has no stand-in of every class.
    """

    def __init__(
        self, case: Case, description: MachineDescription, devices: Sequence[str], *, instrumented: bool = False
    ) -> None:
        self.model: Model = build(replace(case, windows=0, faults=0, steps=case.steps or (Step("boot"),)), description)
        for name in case.drivers:
            if script_for(name) is not None:
                for bdf in devices:
                    self.model.allow(bind_event(name, bdf))
        self.devices = tuple(devices)
        self.instrumented = instrumented
        self.listener = Listener()

    @classmethod
    def of(
        cls,
        case: Case,
        had: Mapping[str, str] | None = None,
        description: MachineDescription | None = None,
        *,
        instrumented: bool = False,
    ) -> ModelSide:
        """Return the model of a case on the machine it names, all its devices observed; ``had`` are devices that a
        built-in driver has had for a moment before the life begins.
        """
        booted = any(step.event == "boot" for step in case.setup)
        known = {
            bdf: name for bdf, name in (had or {}).items() if bdf in case.devices and name in case.drivers and booted
        }
        before = (Step(event) for bdf, name in known.items() for event in (f"bind {name} {bdf}", f"unbind {bdf}"))
        case = replace(case, setup=(*case.setup, *before))
        there = description or find_machine(case.machine, case.path)
        model = build_kernel(case, there)
        return cls(case, there, devices_of(case, model), instrumented=instrumented)

    def start(self) -> Observation:
        """Return what there is to see before the first step."""
        return predict(self.model.kernel, self.devices)

    def play(self, step: Step) -> Told | None:
        """Make a step happen; None when it cannot take place in the present state."""
        try:
            outcome = play(self.model, step)
        except KeyError:
            return None
        if not outcome.enabled and not outcome.waits:
            return None
        alarms = alarms_of(outcome, self.listener, instrumented=self.instrumented)
        seen = predict(self.model.kernel, self.devices) | alarms
        return Told(_answer(outcome), seen, _ended(outcome))

    def events(self) -> list[str]:
        """Return every event that the case's drivers and devices give rise to."""
        return [event.text for event in self.model.events]

    def possible(self, events: Sequence[str]) -> list[str]:
        """Return which of the events can take place now, those that would wait left out."""
        world = self.model.world
        found = []
        for text in events:
            mark = world.mark()
            outcome = play(self.model, Step(text))
            world.undo(mark)
            if outcome.enabled:
                found.append(text)
        return found


def _answer(outcome: Outcome) -> str:
    return "blocked" if outcome.waits else errno_name(outcome.answer)


def _ended(outcome: Outcome) -> str:
    if outcome.waits:
        return "blocked"
    if outcome.crashed:
        return "crashed"
    return UNDEFINED if any(finding.rule in UNDEFINED_RULES for finding in outcome.findings) else ""
