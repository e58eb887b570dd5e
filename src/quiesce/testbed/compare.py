"""Compares what the model predicted with what a real kernel showed, observation by observation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from quiesce.testbed.observation import FIELDS, UNSEEN, Observation

AGREE, DIFFER, UNOBSERVED = "agree", "differ", "not observed"
ANSWER = "answer"
"""The observation of what an operation gave back; its subject is ``step``."""


class Difference(NamedTuple):
    """One observation on which the two part."""

    step: int
    event: str
    subject: str
    field: str
    model: str
    kernel: str

    def __str__(self) -> str:
        where = f"step {self.step} {self.event}"
        return f"{where}: {self.subject} {self.field}: model {self.model or '-'}, kernel {self.kernel or '-'}"


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a life on both sides; step 0 is the start."""

    step: int
    event: str
    model_answer: str
    kernel_answer: str
    model: Observation
    kernel: Observation


@dataclass
class Life:
    """One life as far as both sides went."""

    events: tuple[str, ...]
    moments: list[Moment] = field(default_factory=list)
    ended: str = ""
    """Why it stopped before its last event; empty when it did not."""
    skipped: str = ""
    """Why nothing of it could be tried."""

    def differences(self) -> list[Difference]:
        """Return every observation on which the two part, in the order of the steps."""
        return [difference for moment in self.moments for difference in differences(moment)]


def family_of(name: str) -> str:
    """Return the family of a field."""
    return FIELDS[name].family if name in FIELDS else "device"


def differences(moment: Moment) -> Iterator[Difference]:
    """Yield what differs at one moment."""
    for subject, name, model, kernel in _pairs(moment):
        if judge(model, kernel) == DIFFER:
            yield Difference(moment.step, moment.event, subject, name, model, kernel)


def judge(model: str, kernel: str) -> str:
    """Return how two texts compare."""
    if UNSEEN in (model, kernel):
        return UNOBSERVED
    return AGREE if model == kernel else DIFFER


def tally(lives: Iterable[Life]) -> Counter[tuple[str, str]]:
    """Count observations by family and by whether they agree."""
    counts: Counter[tuple[str, str]] = Counter()
    for life in lives:
        for moment in life.moments:
            for _, name, model, kernel in _pairs(moment):
                counts[family_of(name), judge(model, kernel)] += 1
    return counts


def _pairs(moment: Moment) -> Iterator[tuple[str, str, str, str]]:
    """Yield every observation with both texts; one that a side does not have was not observed."""
    if moment.step:
        yield "step", ANSWER, _answer(moment.model_answer), moment.kernel_answer
    for subject, name in sorted({*moment.model, *moment.kernel}):
        key = subject, name
        yield subject, name, moment.model.get(key, UNSEEN), moment.kernel.get(key, UNSEEN)


def _answer(text: str) -> str:
    """An operation that tells nobody anything has gone well."""
    return text or "0"
