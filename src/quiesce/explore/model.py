"""A scenario made executable: one kernel on one machine, the events that can befall it, and how one event runs."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from quiesce.explore.memo import Memo, occurrence
from quiesce.kernel.irq import settle
from quiesce.kernel.kernel import Blocked, Crash, Finding, Kernel, Message
from quiesce.world import UseOfDeadObject, World

NOTHING = "nothing"
"""The ordinary course at a window: nothing else runs there."""


class NotNow(Exception):
    """The event cannot take place in the present state."""


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """Something that can happen: the text that names it and the code that does it.

    ``run`` raises NotNow where the event cannot take place and returns 0, an errno, or None.
    """

    text: str
    run: Callable[[Kernel], int | None]
    nestable: bool = False
    """Whether it may take place inside a window of another event."""
    hardware: bool = False
    """Whether the hardware does it, without any task, so that it happens while tasks are frozen too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of an event gave, besides its effect on the state."""

    enabled: bool
    answer: int | None = None
    """What the operation returned to whoever asked for it: 0, or a negative errno."""
    crashed: bool = False
    waits: str = ""
    """For what it waits, when it is blocked."""
    outputs: tuple[Message | Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The broken rules among the outputs."""
        return tuple(item for item in self.outputs if isinstance(item, Finding))


DISABLED = Outcome(enabled=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a life with the choices in it that left the ordinary course."""

    event: str
    choices: tuple[tuple[str, str], ...] = ()


@dataclass
class Model:
    """One kernel on one machine with its vocabulary of events."""

    kernel: Kernel
    events: list[Event]
    memos: list[Memo] = field(default_factory=list)
    searched: list[Event] = field(default_factory=list)
    """The events that a search may use, one memo each; all of them until ``restrict``."""
    _inside: bool = False

    def __post_init__(self) -> None:
        self.kernel.nested = self._window
        self.kernel.nested_elsewhere = partial(self._window, other_cpu=True)
        self._by_text = {event.text: event for event in self.events}
        self.restrict(self.events)

    def restrict(self, events: list[Event]) -> None:
        """Let searches use only these events, on their own and inside windows."""
        self.searched = events
        self.memos = [Memo(self.world, partial(self.execute, event)) for event in events]
        nestable = [event for event in events if event.nestable]
        self._nestable = {event.text: event for event in nestable}
        self._names = (NOTHING, *self._nestable)
        self._names_while_frozen = (NOTHING, *(event.text for event in nestable if event.hardware))

    def allow(self, event: Event) -> None:
        """Add an event that lives may have, though no search uses it."""
        if event.text not in self._by_text:
            self.events.append(event)
            self._by_text[event.text] = event

    @property
    def world(self) -> World:
        """The world all of it lives in."""
        return self.kernel.world

    def event(self, text: str) -> Event:
        """Return the event named so; raises KeyError."""
        return self._by_text[text]

    def execute(self, event: Event) -> Outcome:
        """Run an event in the present state: it either takes place, or leaves the state as it was."""
        k = self.kernel
        k.start_event()
        self._inside = False
        mark = self.world.mark()
        try:
            answer = event.run(k)
            settle(k)
        except NotNow:
            self.world.abandon(mark)
            return DISABLED
        except Blocked as blocked:
            self.world.abandon(mark)
            return Outcome(enabled=False, waits=str(blocked), outputs=tuple(k.outputs))
        except Crash as crash:
            return Outcome(True, None, True, "", (*k.outputs, crash.finding))
        except UseOfDeadObject as use:
            return Outcome(True, None, True, "", (*k.outputs, Finding("memory/use-after-free", str(use), use.path)))
        return Outcome(True, answer, False, "", tuple(k.outputs))

    def _window(self, where: str, *, other_cpu: bool = False) -> None:
        """Let another event run inside the running one, if the search chooses so and the budget allows."""
        k = self.kernel
        names = self._names_while_frozen if k.tasks_frozen else self._names
        if self._inside or (k.irqs_off and not other_cpu) or k.locks or len(names) == 1:
            return
        system = k.system
        left = system.windows_left
        if left == 0:
            return
        chosen = self.world.choose(f"at {where}", names)
        if chosen == NOTHING:
            return
        system.windows_left = left - 1
        self._inside = True
        k.printk("window", f"{where}: {chosen}")
        with _another_task(k):
            self._nestable[chosen].run(k)
            settle(k)
        k.printk("window", "")
        self._inside = False


class _another_task:  # noqa: N801 - reads as a statement
    """The context of a task that runs while the interrupted one stands still with its sleeping locks held."""

    def __init__(self, k: Kernel) -> None:
        self.k = k

    def __enter__(self) -> None:
        k = self.k
        self.saved = (k.mutexes, k.others, k.irqs_off, k.hardirq)
        k.others = [*k.others, *k.mutexes]
        k.mutexes = []
        k.irqs_off = k.hardirq = 0

    def __exit__(self, *_: object) -> None:
        self.k.mutexes, self.k.others, self.k.irqs_off, self.k.hardirq = self.saved


class Script:
    """Stands in for a Recording to replay a Step: choices that the step names, the ordinary course elsewhere."""

    def __init__(self, step: Step) -> None:
        self.left = list(step.choices)
        """Choices of the step that have not been asked for yet; what is left at the end does not fit the model."""
        self.asked: Counter[str] = Counter()
        self.reads: set[int] = set()
        """Every cell that was read."""

    def note(self, cell: int, value: Any) -> None:
        """Keep what is read."""
        self.reads.add(cell)

    def note_write(self, cell: int) -> None:
        """Writes are in the journal."""

    def note_undo(self, world: World) -> None:
        """What is taken back is of no interest in a replay."""

    def note_abandoned(self) -> None:
        """Nor is that everything is."""

    def choose(self, what: str, options: Sequence[Any]) -> int:
        """Return the option that the step names next, if it is asked for."""
        self.asked[what] += 1
        if self.left and self.left[0][0] == occurrence(what, self.asked[what]):
            for number, option in enumerate(options):
                if str(option) == self.left[0][1]:
                    self.left.pop(0)
                    return number
        return 0


def errno_name(answer: int | None) -> str:
    """Return ``0``, ``-ENODEV`` and the like; an empty string for None."""
    if answer is None:
        return ""
    if answer >= 0:
        return str(answer)
    return f"-{errno.errorcode.get(-answer, str(-answer))}"
