"""Replays of a life, step by step, with everything that each step changed and which function changed it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import FrameType

from quiesce.explore.model import Model, Outcome, Script, Step
from quiesce.kernel import changes
from quiesce.kernel.kernel import Finding, Message
from quiesce.world import Change

_NAMES = {name: value for name, value in vars(changes).items() if isinstance(value, changes.Change)}
_CALLERS = 3
"""How many callers of a writing function are asked for the change that sent the kernel this way."""


@dataclass(frozen=True, slots=True)
class Played:
    """One step of a replay."""

    step: Step
    outcome: Outcome
    changes: tuple[Change, ...]
    """What differs after the step, with the place that wrote it last."""
    log: tuple[Change | Message | Finding, ...]
    """Writes, messages and findings in the order in which they came."""
    reads: frozenset[tuple[str, str]] = frozenset()
    """Object and field of everything the step looked at."""
    unasked: tuple[tuple[str, str], ...] = ()
    """Choices that the step names and that nothing asked for: the trace is of another model or kernel."""


class _Outputs(list[Message | Finding]):
    """Outputs that remember where in the journal they came."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.places: list[int] = []

    def append(self, item: Message | Finding) -> None:
        self.places.append(self.model.world.mark())
        super().append(item)


def play(model: Model, step: Step, script: Script | None = None) -> Outcome:
    """Make one step happen in the present state; raises KeyError for an unknown event."""
    event = model.event(step.event)
    model.world.recording = script or Script(step)
    try:
        return model.execute(event)
    finally:
        model.world.recording = None


def replay(model: Model, steps: Iterable[Step]) -> list[Played]:
    """Make the steps happen and tell what each changed; ends at the first that crashes or cannot take place."""
    played: list[Played] = []
    world = model.world
    world.namer = partial(site_of, model)
    try:
        for step in steps:
            mark = world.mark()
            outputs = _Outputs(model)
            model.kernel.collect = outputs
            script = Script(step)
            outcome = play(model, step, script)
            reads = frozenset(world.name_of(cell) for cell in script.reads)
            log = _log(model, mark, outputs, outcome)
            played.append(Played(step, outcome, tuple(world.diff(mark)), log, reads, tuple(script.left)))
            if outcome.crashed or not outcome.enabled:
                break
    finally:
        world.namer = None
        model.kernel.collect = None
    return played


def _log(model: Model, mark: int, outputs: _Outputs, outcome: Outcome) -> tuple[Change | Message | Finding, ...]:
    entries: list[tuple[int, Change | Message | Finding]] = [
        (mark + at, change) for at, change in enumerate(model.world.writes(mark))
    ]
    entries += [(place - 1, item) for place, item in zip(outputs.places, outputs, strict=True)]
    entries += [(model.world.mark(), item) for item in outcome.outputs[len(outputs) :]]
    return tuple(item for _, item in sorted(entries, key=lambda entry: entry[0]))


def site_of(model: Model, frame: FrameType | None) -> str:
    """Return ``function`` or ``function COMMIT`` of the model code that is writing."""
    function, asked = "", 0
    while frame is not None and asked < _CALLERS:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("quiesce.world"):
            name = frame.f_code.co_name
            if not module.startswith(("quiesce.kernel", "quiesce.machine", "quiesce.drivers")):
                break
            function = function or name
            asked += 1
            commit = _consulted(model, frame)
            if commit:
                return f"{name} {commit}" if asked == 1 else f"{function} < {name} {commit}"
        frame = frame.f_back
    return function


def _consulted(model: Model, frame: FrameType) -> str:
    known = (_NAMES[name] for name in frame.f_code.co_names if name in _NAMES)
    return " ".join(change.id for change in known if change in model.kernel.changes)
