"""Kernels as sets of changes: what a change is, and which of them a mainline tag contains.

The changes themselves are in ``changes.py``, those that are known and not modelled in ``unmodelled.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One difference between kernels. There is one object for each, so that to ask for it costs little."""

    id: str
    since: str | None
    """First mainline tag with it; None for a proposal that was never merged and for a switch."""
    subsystem: str
    subject: str
    undoes: str = ""
    """Id of a change that has no effect any more once this one is in."""

    def __reduce__(self) -> tuple[Callable[[str], Change], tuple[str]]:
        """Be the same object in a worker process."""
        return _known, (self.id,)


_ALL: dict[str, Change] = {}


def _known(name: str) -> Change:
    from quiesce.kernel import changes as changes  # enters them all
    from quiesce.kernel.unmodelled import unmodelled

    return _ALL.get(name) or next(change for change in unmodelled() if change.id == name)


def merged(id: str, since: str, subsystem: str, subject: str, undoes: str = "") -> Change:  # noqa: A002
    """Enter a change that is in mainline since the tag ``since``."""
    return _ALL.setdefault(id, Change(id, since, subsystem, subject, undoes))


def proposed(id: str, subsystem: str, subject: str) -> Change:  # noqa: A002
    """Enter a fix that was proposed and never merged in this form."""
    return _ALL.setdefault(id, Change(id, None, subsystem, subject))


def switch(id: str, subsystem: str, subject: str) -> Change:  # noqa: A002
    """Enter a fault that the instrumented kernel brings back by its effect alone: no mainline code, in no tag."""
    return _ALL.setdefault(
        id, Change(id, None, subsystem, f"switch of the instrumented kernel, effect only: {subject}")
    )


class UnknownKernel(ValueError):
    """A version, commit or change that quiesce does not know."""


@dataclass(frozen=True)
class KernelSet:
    """A kernel as a set of changes; ``name`` is how the user named it."""

    name: str
    changes: frozenset[Change]

    def __contains__(self, change: object) -> bool:
        return change in self.in_effect

    @cached_property
    def in_effect(self) -> frozenset[Change]:
        """The changes that no other change in the set undoes."""
        return frozenset(effective(self.changes))

    def __iter__(self) -> Iterator[Change]:
        return iter(sorted(self.in_effect, key=lambda change: change.id))

    def edited(self, with_: Iterable[str] = (), without: Iterable[str] = ()) -> KernelSet:
        """Return the set with some changes added and others taken out; raises UnknownKernel."""
        added = [find(text) for text in with_]
        removed = [find(text) for text in without]
        names = [self.name, *(f"+ {change.id}" for change in added), *(f"- {change.id}" for change in removed)]
        undone = {change.undoes for change in added}
        kept = {change for change in self.changes if change.id not in undone}
        kept = {change for change in kept if change.undoes not in {change.id for change in added}}
        return KernelSet(" ".join(names), frozenset(kept | set(added)) - frozenset(removed))


def effective(changes: Iterable[Change]) -> Iterator[Change]:
    """Yield the changes that no other change in the set undoes."""
    present = list(changes)
    undone = {change.undoes for change in present if change.undoes}
    return (change for change in present if change.id not in undone)


def every() -> tuple[Change, ...]:
    """Return all known changes in the order they are written down."""
    return tuple(_ALL.values())


def find(text: str) -> Change:
    """Return the change that a commit id, an unambiguous prefix of one (7 digits or more) or a slug names.

    Raises UnknownKernel.
    """
    if text in _ALL:
        return _ALL[text]
    matches = [change for known, change in _ALL.items() if known.startswith(text) or text.startswith(known)]
    if len(text) >= 7 and len(matches) == 1:
        return matches[0]
    from quiesce.kernel.unmodelled import unmodelled

    if len(text) >= 7 and any(change.id.startswith(text) or text.startswith(change.id) for change in unmodelled()):
        raise UnknownKernel(f"change {text!r} is known but not modelled; 'quiesce changes' lists those that are")
    raise UnknownKernel(f"unknown change {text!r}; 'quiesce changes' lists those that are known")


_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:-rc(\d+))?")
_FINAL = 99
NEWEST = "v7.3"


@lru_cache(maxsize=1024)
def version_key(version: str) -> tuple[int, ...]:
    """Return a key that orders mainline tags; raises UnknownKernel for anything else."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise UnknownKernel(f"unknown kernel {version!r}; expected a mainline tag such as v6.11 or v5.3-rc1")
    major, minor, patch, rc = match.groups()
    if int(major) == 2:
        return 2, int(minor), int(patch or 0), int(rc or _FINAL)
    return int(major), int(minor), 0, int(rc or _FINAL)


def kernel(name: str) -> KernelSet:
    """Return the set of a mainline tag, ``v3.5`` to the newest known; raises UnknownKernel."""
    return _kernel(name, len(_ALL))


@lru_cache(maxsize=64)
def _kernel(name: str, known: int) -> KernelSet:
    """``known``: how many changes are entered; a set that was made before the last of them is not the same."""
    key = version_key(name)
    if not version_key("v3.5") <= key <= version_key(NEWEST):
        raise UnknownKernel(f"kernel {name!r} lies outside v3.5 to {NEWEST}, for which quiesce knows the changes")
    present = (change for change in _ALL.values() if change.since and version_key(change.since) <= key)
    return KernelSet(name if name.startswith("v") else f"v{name}", frozenset(present))


def releases() -> list[tuple[str, list[Change]]]:
    """Return the tags at which the model changes, oldest first, with what came with each."""
    tags: dict[str, list[Change]] = {}
    for change in _ALL.values():
        if change.since:
            tags.setdefault(change.since, []).append(change)
    return sorted(tags.items(), key=lambda item: version_key(item[0]))
