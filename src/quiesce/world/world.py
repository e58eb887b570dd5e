"""The journalled world: every value of the model lives in one cell of one flat list.

A cell is one field of one object. Reads and writes go through the World, so that

* a write is journalled: ``mark``, ``undo``, ``redo`` and ``diff`` cost what changed, not what exists;
* the fingerprint is kept up to date by exclusive-or of one stable hash per cell, hence independent of the
  order of writes; a cell at its default contributes nothing, so an object that was never touched, and one
  that was created and deleted again, leave no trace in it;
* a run of model code can be *recorded*: which cells it read before writing them, and which choices it made.
  The recording lets the explorer reuse the effect of an event in every state that looks the same to it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from types import FrameType
from typing import NamedTuple, Protocol, TypeVar

from quiesce.world.hashing import Value, salt_of, stable_hash

T = TypeVar("T")

MOST_MIXES = 1024
"""How many changes of fingerprint one effect keeps."""
LONGEST_HELD = 64
"""Under how many overwritten values one is kept; longer keys are not worth their memory."""


class Read(NamedTuple):
    """A cell was read for the first time in a run: the run depends on ``value``."""

    cell: int
    value: Value


_new_read = tuple.__new__
"""Makes a Read out of its fields; the class itself takes three times as long."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A run asked for one of ``len(options)`` ways to go on and took number ``pick``."""

    what: str
    options: tuple[Value, ...]
    pick: int


@dataclass(frozen=True, slots=True)
class Delta:
    """The net effect of a run: cells with their values before and after, and the change of fingerprint."""

    before: tuple[tuple[int, Value], ...]
    after: tuple[tuple[int, Value], ...]
    mix: int
    blind: tuple[tuple[int, Value], ...] = ()
    """Cells that a recorded run overwrote without having read them, with their new values: they may have held
    anything before, so what they did hold is kept by who applies the effect."""
    held: Callable[[list[Value]], tuple[Value, ...]] = field(default=tuple, compare=False, repr=False)
    """Returns what the blind cells hold."""
    mixes: dict[tuple[Value, ...], int] = field(default_factory=dict, compare=False, repr=False)
    """Change of fingerprint by what the blind cells held, as far as it was worked out."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of one object that differs between two moments."""

    path: str
    field: str
    old: Value
    new: Value
    site: str = ""
    """The model function that wrote it last, with the change that altered it; only while tracing."""


@dataclass(slots=True)
class Recording:
    """What one run read and chose, in order; ``forced`` holds the picks it must take first."""

    forced: Sequence[int] = ()
    start: int = 0
    """Where in the journal the run began."""
    steps: list[Read | Choice] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    blind: dict[int, None] = field(default_factory=dict)
    """Cells that were overwritten before they were read."""
    chosen: int = 0

    def note(self, cell: int, value: Value) -> None:
        """Note a first read of ``cell``."""
        if cell not in self.known:
            self.known.add(cell)
            self.steps.append(_new_read(Read, (cell, value)))

    def note_write(self, cell: int) -> None:
        """Note that a cell is overwritten."""
        if cell not in self.known:
            self.known.add(cell)
            self.blind[cell] = None

    def note_undo(self, world: World) -> None:
        """Note that writes were taken back. Which of the blind ones stay depends on what the cells held, so from here
        on they count as read."""
        found = world.values_at(self.start)
        self.steps += [Read(cell, found.get(cell, world.cells[cell])) for cell in self.blind]
        self.blind.clear()

    def note_abandoned(self) -> None:
        """Note that the whole run was taken back: it overwrote nothing."""
        self.blind.clear()

    def choose(self, what: str, options: tuple[Value, ...]) -> int:
        """Return the forced pick, or 0 once those are used up."""
        pick = self.forced[self.chosen] if self.chosen < len(self.forced) else 0
        if not 0 <= pick < len(options):
            raise ValueError(f"choice {what!r} has {len(options)} options, the trace asks for number {pick}")
        self.chosen += 1
        self.steps.append(Choice(what, options, pick))
        return pick


class Recorder(Protocol):
    """What stands by while model code runs: it is told of reads and asked for choices."""

    def note(self, cell: int, value: Value) -> None:
        """A cell was read."""

    def note_write(self, cell: int) -> None:
        """A cell is about to be overwritten."""

    def note_undo(self, world: World) -> None:
        """Writes were taken back."""

    def note_abandoned(self) -> None:
        """All writes of the run were taken back."""

    def choose(self, what: str, options: tuple[Value, ...]) -> int:
        """Return the number of the option to take."""
        ...


def _getter(cells: list[int]) -> Callable[[list[Value]], tuple[Value, ...]]:
    """Return a function that takes these cells, in this order, out of all."""
    if len(cells) > 1:
        return itemgetter(*cells)
    return lambda values: tuple([values[cell] for cell in cells])


class World:
    """All state of one model, as cells; knows nothing of PCI."""

    def __init__(self) -> None:
        self.cells: list[Value] = []
        self.fingerprint = 0
        self.recording: Recorder | None = None
        self.namer: Callable[[FrameType], str] | None = None
        """While set, each write is labelled with ``namer(frame)``; slow, for traces only."""
        self.objects: dict[str, object] = {}
        self._defaults: list[Value] = []
        self._names: list[tuple[str, str]] = []
        self._salts: list[bytes] = []
        self._hashes: list[dict[Value, int]] = []
        self._allocated: set[tuple[str, str]] = set()
        self._journal: list[tuple[int, Value, Value, str]] = []
        self._undone: list[tuple[int, Value, Value, str]] = []

    def allocate(self, path: str, field: str, default: Value) -> int:
        """Add a cell for ``field`` of the object ``path``; returns its number. The two together must be unique."""
        if (path, field) in self._allocated:
            raise ValueError(f"{path}.{field} has a cell already")
        self._allocated.add((path, field))
        self.cells.append(default)
        self._defaults.append(default)
        self._names.append((path, field))
        self._salts.append(salt_of(path, field))
        self._hashes.append({default: 0})
        return len(self.cells) - 1

    def name_of(self, cell: int) -> tuple[str, str]:
        """Return object path and field name of a cell."""
        return self._names[cell]

    def default_of(self, cell: int) -> Value:
        """Return the value a cell has before anything is written to it."""
        return self._defaults[cell]

    def read(self, cell: int) -> Value:
        """Return the value of a cell."""
        value = self.cells[cell]
        recording = self.recording
        if recording is not None:
            recording.note(cell, value)
        return value

    def write(self, cell: int, value: Value) -> None:
        """Set a cell. Writing the value it has already is no change."""
        old = self.cells[cell]
        if self.recording is not None:
            self.recording.note_write(cell)
        if old == value:
            return
        self._put(cell, old, value)
        self._undone.clear()
        site = self.namer(sys._getframe(1)) if self.namer is not None else ""
        self._journal.append((cell, old, value, site))

    def _put(self, cell: int, old: Value, new: Value) -> None:
        self.fingerprint ^= self._hash(cell, old) ^ self._hash(cell, new)
        self.cells[cell] = new

    def _hash(self, cell: int, value: Value) -> int:
        known = self._hashes[cell]
        try:
            result = known.get(value)
            if result is None:
                result = known[value] = stable_hash(self._salts[cell], value)
        except TypeError as error:
            raise TypeError(f"{'.'.join(self._names[cell])}: {error}") from None
        return result

    def mark(self) -> int:
        """Return a mark to come back to with ``undo``."""
        return len(self._journal)

    def abandon(self, mark: int) -> None:
        """Take back a whole recorded run, which began at ``mark``: it has no effect, whatever the cells held."""
        if self.recording is not None:
            self.recording.note_abandoned()
        self.undo(mark)

    def undo(self, mark: int) -> None:
        """Take back every write since ``mark``; ``redo`` brings them back until the next write."""
        if not 0 <= mark <= len(self._journal):
            raise ValueError(f"mark {mark} does not lie in this world's past (0..{len(self._journal)})")
        while len(self._journal) > mark:
            write = self._journal.pop()
            cell, old, new, _ = write
            if self.cells[cell] != new:
                raise RuntimeError(f"{'.'.join(self._names[cell])}: undo across an apply() that was not reverted")
            self._put(cell, new, old)
            self._undone.append(write)
        if self.recording is not None:
            self.recording.note_undo(self)

    def redo(self) -> None:
        """Bring back every write that ``undo`` took back."""
        while self._undone:
            write = self._undone.pop()
            cell, old, new, _ = write
            self._put(cell, old, new)
            self._journal.append(write)

    def drop_undone(self) -> None:
        """Give up what ``redo`` could bring back."""
        self._undone.clear()

    def forget(self) -> None:
        """Make the present the beginning: drop the journal, keep the values."""
        self._journal.clear()
        self._undone.clear()

    def delta(self, mark: int, blind: Iterable[int] = ()) -> Delta:
        """Return the net effect of all writes since ``mark``, the ``blind`` ones apart from what they overwrote."""
        overwritten = tuple((cell, self.cells[cell]) for cell in blind)
        first = self.values_at(mark)
        for cell, _ in overwritten:
            first.pop(cell, None)
        before = tuple((cell, old) for cell, old in first.items() if self.cells[cell] != old)
        after = tuple((cell, self.cells[cell]) for cell, _ in before)
        mix = 0
        for (cell, old), (_, new) in zip(before, after, strict=True):
            mix ^= self._hash(cell, old) ^ self._hash(cell, new)
        return Delta(before, after, mix, overwritten, _getter([cell for cell, _ in overwritten]))

    def diff(self, mark: int) -> list[Change]:
        """Return what differs from ``mark``, sorted by object and field."""
        sites = {cell: site for cell, _, _, site in self._journal[mark:]}
        changes = [
            Change(*self._names[cell], old, self.cells[cell], sites[cell])
            for cell, old in self.values_at(mark).items()
            if self.cells[cell] != old
        ]
        return sorted(changes, key=lambda change: (change.path, change.field))

    def writes(self, mark: int) -> list[Change]:
        """Return every single write since ``mark`` in order, with its site while tracing."""
        return [Change(*self._names[cell], old, new, site) for cell, old, new, site in self._journal[mark:]]

    def values_at(self, mark: int) -> dict[int, Value]:
        """Return what every cell that was written since ``mark`` held then."""
        first: dict[int, Value] = {}
        for cell, old, _, _ in self._journal[mark:]:
            first.setdefault(cell, old)
        return first

    def mix_of(self, delta: Delta) -> int:
        """Return how ``delta`` changes the fingerprint in the present state."""
        if not delta.blind:
            return delta.mix
        held = delta.held(self.cells)
        known = delta.mixes.get(held)
        if known is not None:
            return known
        mix = delta.mix
        for (cell, value), old in zip(delta.blind, held, strict=True):
            if old != value:
                mix ^= self._hash(cell, old) ^ self._hash(cell, value)
        if len(held) <= LONGEST_HELD:
            if len(delta.mixes) >= MOST_MIXES:
                delta.mixes.clear()
            delta.mixes[held] = mix
        return mix

    def apply(self, delta: Delta) -> tuple[Value, ...]:
        """Put a known effect into force without journalling it; ``revert`` it before any ``undo``.

        Returns what the blind writes overwrote.
        """
        cells = self.cells
        self.fingerprint ^= self.mix_of(delta)
        for cell, value in delta.after:
            cells[cell] = value
        if not delta.blind:
            return ()
        overwritten = delta.held(cells)
        for cell, value in delta.blind:
            cells[cell] = value
        return overwritten

    def revert(self, delta: Delta, overwritten: tuple[Value, ...] = ()) -> None:
        """Take back what ``apply`` did; ``overwritten`` is what it returned."""
        cells = self.cells
        for (cell, _), value in zip(delta.blind, overwritten, strict=True):
            cells[cell] = value
        for cell, value in delta.before:
            cells[cell] = value
        self.fingerprint ^= self.mix_of(delta)

    def choose(self, what: str, options: Sequence[T]) -> T:
        """Return one of ``options``: the one door for all that is not determined.

        Outside a recording the first option is taken, which by convention is the ordinary course.
        """
        fixed = tuple(options)
        if not fixed:
            raise ValueError(f"choice {what!r} has no options")
        if len(fixed) == 1 or self.recording is None:
            return fixed[0]
        return fixed[self.recording.choose(what, fixed)]
