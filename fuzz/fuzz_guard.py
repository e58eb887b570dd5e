"""Runs one input and says whether the reader kept its promise: a result or BadInput, within time and memory."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from quiesce.snapshot.errors import BadInput

SECONDS = 2.0
MEGABYTES = 500
"""What reading any input of up to 10 MB may take."""


class TooLong(BaseException):
    """Raised in the middle of a run that takes too long."""


@dataclass
class Crash:
    """A way of breaking the promise, with the first input that did."""

    what: str
    where: str
    input: bytes
    count: int = 1
    file: str = ""
    detail: str = ""
    """Where it was when it was stopped."""

    def __str__(self) -> str:
        where = f"{self.where}, then {self.detail}" if self.detail else self.where
        return f"{self.what} at {where} ({self.count} times): {self.file or repr(self.input[:60])}"


@dataclass
class Tally:
    """What came out of many runs."""

    runs: int = 0
    refused: int = 0
    """Runs that ended with BadInput."""
    slowest: float = 0.0
    """Seconds of the slowest run, without those that were stopped."""
    crashes: dict[tuple[str, str], Crash] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add what came out of other runs."""
        self.runs += other.runs
        self.refused += other.refused
        self.slowest = max(self.slowest, other.slowest)
        for key, crash in other.crashes.items():
            if key in self.crashes:
                self.crashes[key].count += crash.count
            else:
                self.crashes[key] = crash


class Guard:
    """Runs a target on inputs, counts, and saves the first input of every kind of crash."""

    def __init__(
        self, target: Callable[[bytes], object], name: str, save: Path | None, seconds: float = SECONDS
    ) -> None:
        self.tally = Tally()
        self._target = target
        self._name = name
        self._save = save
        self._seconds = seconds
        self._memory = _peak_megabytes()
        signal.signal(signal.SIGPROF, _too_long)

    def run(self, data: bytes) -> None:
        """Run the target on one input."""
        started = time.process_time()
        try:
            signal.setitimer(signal.ITIMER_PROF, self._seconds)
            try:
                self._target(data)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except BadInput:
            self.tally.refused += 1
        except TooLong as error:
            self._crash(f"more than {self._seconds:g} s", _where(error, deepest=False), data, _where(error))
        except (Exception, SystemExit) as error:
            self._crash(type(error).__name__, _where(error), data)
        else:
            self.tally.slowest = max(self.tally.slowest, time.process_time() - started)
        self.tally.runs += 1
        peak = _peak_megabytes()
        if peak > self._memory + MEGABYTES:
            self._memory = peak
            self._crash(f"more than {MEGABYTES} MB", self._name, data)

    def _crash(self, what: str, where: str, data: bytes, detail: str = "") -> None:
        known = self.tally.crashes.get((what, where))
        if known is not None:
            known.count += 1
            return
        crash = Crash(what, where, data, detail=detail)
        if self._save is not None:
            self._save.mkdir(parents=True, exist_ok=True)
            path = self._save / f"{self._name}-{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            crash.file = str(path)
        self.tally.crashes[what, where] = crash


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


def _peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _where(error: BaseException, deepest: bool = True) -> str:
    """Return the place in the project: the deepest for an error, the function that was asked for a run too long."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "quiesce" in Path(frame.filename).parts]
    if not frames:
        return "unknown"
    frame = frames[-1 if deepest else 0]
    return f"{Path(frame.filename).name}:{frame.lineno if deepest else ''} {frame.name}"
