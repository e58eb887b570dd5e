"""Stored confirmations: what a real kernel showed, so that the comparison can be made again without it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quiesce.cases.case import Case
from quiesce.explore.model import Step
from quiesce.snapshot.errors import BadInput, read_limited
from quiesce.snapshot.qemu_recording import read_recording
from quiesce.testbed.both import boot_life, play_both
from quiesce.testbed.compare import Life
from quiesce.testbed.model_side import ModelSide, Told
from quiesce.testbed.observation import Observation

FORMAT = 1
BOOT = "boot"


@dataclass(frozen=True, slots=True)
class Shown:
    """One life as a real kernel lived it: the events, and what was told and seen after each, the start first."""

    events: tuple[str, ...]
    told: tuple[Told, ...]


@dataclass
class Recording:
    """The lives of one case on one kernel and machine."""

    case: str
    kernel: str
    """The image, with the switches that were on."""
    release: str
    package: str
    kernel_set: str
    iommu: str
    qemu: str
    drivers: tuple[str, ...]
    devices: tuple[str, ...]
    machine: Mapping[str, Any]
    """The guest as a recording of a machine."""
    instrumented: bool = False
    """The kernel has the debugging that some complaints need."""
    lives: list[Shown] = field(default_factory=list)


class Keeper:
    """Collects what a guest shows during one life."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.told: list[Told] = []

    def __call__(self, event: str, told: Told) -> None:
        """Keep one step; the start has no event."""
        if event:
            self.events.append(event)
        self.told.append(told)

    def shown(self) -> Shown:
        """Return the life."""
        return Shown(tuple(self.events), tuple(self.told))


class Replayed:
    """Stands in for a guest: shows what one showed before."""

    def __init__(self, shown: Shown) -> None:
        self._shown = iter(shown.told)

    def start(self) -> Observation:
        """Return what there was to see before the first step."""
        return next(self._shown).seen

    def play(self, event: str) -> Told:
        """Return what was shown after the next step."""
        return next(self._shown)


def replay(recording: Recording) -> list[Life]:
    """Compare the model of today with what was recorded."""
    description = read_recording(json.dumps(recording.machine), recording.case)
    case = Case(
        recording.case,
        machine="recorded",
        kernel=recording.kernel_set,
        drivers=recording.drivers,
        devices=recording.devices,
    )
    had = recording.machine.get("had")
    lives = []
    for shown in recording.lives:
        booted = shown.events[:1] != (BOOT,)
        start = case if booted else replace(case, setup=())
        model = ModelSide.of(start, had, description, instrumented=recording.instrumented)
        lives.append(play_both(model, Replayed(shown), shown.events) if booted else _boot_again(model, shown))
    return lives


def _boot_again(model: ModelSide, shown: Shown) -> Life:
    """A kernel that did not come up showed its last words only."""
    told = model.play(Step(BOOT))
    assert told is not None
    return boot_life(shown.events, told, shown.told[1])


# -- files ---------------------------------------------------------------------------------------------------


def write(recording: Recording, path: Path) -> None:
    """Store a recording; observations as what changed since the step before."""
    data = {"format": FORMAT, **{name: getattr(recording, name) for name in _PLAIN}, "lives": []}
    data["lives"] = [{"events": life.events, "told": _packed(life.told)} for life in recording.lives]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(data, sort_keys=True).encode(), mtime=0))


_PLAIN = (
    "case",
    "kernel",
    "release",
    "package",
    "kernel_set",
    "iommu",
    "qemu",
    "drivers",
    "devices",
    "machine",
    "instrumented",
)


def _packed(told: Sequence[Told]) -> list[list[Any]]:
    packed, before = [], dict[tuple[str, str], str]()
    for one in told:
        changed = {" ".join(key): text for key, text in one.seen.items() if before.get(key) != text}
        gone = [" ".join(key) for key in before if key not in one.seen]
        packed.append([one.answer, one.ended, changed, gone])
        before = dict(one.seen)
    return packed


def read(path: Path) -> Recording:
    """Read a stored recording; raises BadInput."""
    try:
        data = json.loads(gzip.decompress(read_limited(path)))
        if data["format"] != FORMAT:
            raise ValueError("another format")
        lives = [Shown(tuple(life["events"]), tuple(_unpacked(life["told"]))) for life in data["lives"]]
        if any(len(life.told) != len(life.events) + 1 for life in lives):
            raise ValueError("not every step was told")
        plain = {name: data[name] for name in _PLAIN}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(str(path), "", f"a recording of a confirmation ({error})") from None
    plain["drivers"], plain["devices"] = tuple(plain["drivers"]), tuple(plain["devices"])
    return Recording(**plain, lives=lives)


def _unpacked(packed: Sequence[Sequence[Any]]) -> list[Told]:
    told, seen = [], dict[tuple[str, str], str]()
    for answer, ended, changed, gone in packed:
        for key in gone:
            subject, _, name = key.partition(" ")
            del seen[subject, name]
        for key, text in changed.items():
            subject, _, name = key.partition(" ")
            seen[subject, name] = text
        told.append(Told(answer, dict(seen), ended))
    return told
