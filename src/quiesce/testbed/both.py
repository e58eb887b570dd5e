"""Plays one life on the model and on a guest, side by side, as far as both go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from quiesce.explore.model import Step
from quiesce.testbed.compare import Life, Moment
from quiesce.testbed.errors import GuestGone, Skipped
from quiesce.testbed.messages import BUG, OOPS, PANIC, alarms_in
from quiesce.testbed.model_side import UNDEFINED, ModelSide, Told
from quiesce.testbed.observation import NONE, SYSTEM, UNSEEN, Observation

ALARMS = (SYSTEM, "alarms")
FATAL = frozenset({OOPS, BUG})


class OtherSide(Protocol):
    """A guest, or the recording of one."""

    def start(self) -> Observation:
        """Return what there is to see before the first step."""
        ...

    def play(self, event: str) -> Told:
        """Make an event happen; raises Skipped for what cannot be, and GuestGone."""
        ...


def play_both(
    model: ModelSide, other: OtherSide, events: Sequence[str], keep: Callable[[str, Told], None] | None = None
) -> Life:
    """Play a life on both sides; ``keep`` is told everything that the other side shows."""
    life = Life(tuple(events))
    seen = other.start()
    if keep:
        keep("", Told("", seen))
    life.moments.append(Moment(0, "start", "", "", model.start(), seen))
    for number, event in enumerate(events, start=1):
        told = model.play(Step(event))
        if told is None:
            life.ended = f"{event} cannot take place in the model"
            break
        try:
            shown = _shown(other, event, _heard(life))
        except Skipped as reason:
            life.ended = str(reason)
            break
        if keep:
            keep(event, shown)
        life.moments.append(_moment(number, event, told, shown))
        if told.ended or shown.ended:
            life.ended = _end(event, told, shown)
            break
    return life


def not_up(events: Sequence[str], told: Told, gone: GuestGone, keep: Callable[[str, Told], None] | None) -> Life:
    """Return the life of a kernel that does not survive its boot: what its console says last is all there is."""
    shown = _last_words(gone, frozenset())
    if keep:
        keep("", Told("", {}))
        keep(events[0], shown)
    return boot_life(events, told, shown)


def boot_life(events: Sequence[str], told: Told, shown: Told) -> Life:
    """Return a life that its first event ends."""
    life = Life(tuple(events), [_moment(1, events[0], told, shown)])
    life.ended = _end(events[0], told, shown)
    return life


def _shown(other: OtherSide, event: str, heard: frozenset[str]) -> Told:
    """A kernel that does not survive a step is a result: what its console says last."""
    try:
        return other.play(event)
    except GuestGone as gone:
        return _last_words(gone, heard)


def _heard(life: Life) -> frozenset[str]:
    return frozenset(kind for moment in life.moments for kind in moment.kernel.get(ALARMS, "").split())


def _last_words(gone: GuestGone, heard: frozenset[str]) -> Told:
    """Of the end of a console, count what was not heard before; a panic that an oops leads to is no complaint more."""
    kinds = [kind for kind in alarms_in(gone.console.splitlines()).split() if kind in FATAL or kind not in heard]
    if PANIC in kinds and FATAL & set(kinds):
        kinds.remove(PANIC)
    return Told("gone", {ALARMS: " ".join(kinds) or NONE}, "crashed")


def _moment(number: int, event: str, told: Told, shown: Told) -> Moment:
    """After a crash or while an operation waits, only what was said counts: the state is half-way."""
    if {"crashed", UNDEFINED} & {told.ended, shown.ended}:
        return Moment(number, event, UNSEEN, UNSEEN, _alarms(told), _alarms(shown))
    if "blocked" in (told.ended, shown.ended):
        return Moment(number, event, told.answer, shown.answer, _alarms(told), _alarms(shown))
    return Moment(number, event, told.answer, shown.answer, told.seen, shown.seen)


def _alarms(told: Told) -> Observation:
    return {ALARMS: told.seen.get(ALARMS, "")}


def _end(event: str, told: Told, shown: Told) -> str:
    if told.ended == shown.ended:
        return f"{event}: {told.ended}"
    return f"{event}: model {told.ended or 'goes on'}, kernel {shown.ended or 'goes on'}"
