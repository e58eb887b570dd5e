"""Journalled state, choices, fingerprint and diff; knows nothing of PCI."""

from quiesce.world.collections import BoundDict, BoundList, BoundSet, StateDict, StateList, StateSet
from quiesce.world.state import Field, State, UseOfDeadObject
from quiesce.world.world import Change, Choice, Delta, Read, Recorder, Recording, World

__all__ = [
    "BoundDict",
    "BoundList",
    "BoundSet",
    "Change",
    "Choice",
    "Delta",
    "Field",
    "Read",
    "Recorder",
    "Recording",
    "State",
    "StateDict",
    "StateList",
    "StateSet",
    "UseOfDeadObject",
    "World",
]
