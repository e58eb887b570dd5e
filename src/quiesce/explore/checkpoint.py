"""An unfinished search as a file: which event and choices led to each state, nothing that could be executed."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quiesce.explore.memo import Leaf
from quiesce.explore.model import Step
from quiesce.explore.search import Search, Violation, hash_of_crash
from quiesce.kernel.kernel import Finding
from quiesce.snapshot.errors import BadInput

FORMAT = 2


def save(search: Search, path: Path) -> None:
    """Write all that ``load`` needs; replaces the file in one step."""
    record = {
        "format": FORMAT,
        "events": [event.text for event in search.model.searched],
        "root": search.model.world.fingerprint,
        "next": search.next,
        "transitions": search.result.transitions,
        "seconds": search.result.seconds,
        "bad": sorted(search.bad),
        "violations": [
            (*asdict(one.finding).values(), [asdict(step) for step in one.steps], one.states, one.seconds)
            for one in search.result.violations.values()
        ],
        "states": [
            (parent, number, leaf.picks)
            for parent, number, leaf in zip(search.parents, search.numbers, search.leaves, strict=True)
            if leaf is not None
        ],
    }
    beside = path.with_name(path.name + ".new")
    with gzip.open(beside, "wt", compresslevel=3) as stream:
        json.dump(record, stream)
    beside.replace(path)


def load(search: Search, path: Path) -> None:
    """Bring a fresh search to where the saved one stopped; raises BadInput when it was another search."""
    record = _read(path)
    events = [event.text for event in search.model.searched]
    if record.get("events") != events or record.get("root") != search.model.world.fingerprint:
        raise BadInput(str(path), "head", "a checkpoint of the same machine, kernel, drivers and events")
    search.start_clock()
    try:
        _restore(search, path, record)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadInput(str(path), "states", f"what quiesce explore wrote ({type(error).__name__}: {error})") from None


def _restore(search: Search, path: Path, record: dict[str, Any]) -> None:
    for parent, number, picks in record["states"]:
        if not (0 <= parent < len(search.parents) and 0 <= number < len(search.model.memos)):
            raise ValueError(f"no state {parent} or event {number}")
        _add(search, path, parent, number, tuple(picks))
    search.go_to(0)
    if not 0 <= record["next"] <= len(search.parents):
        raise ValueError(f"next state {record['next']}")
    search.next = record["next"]
    search.bad = set(record["bad"])
    search.result.transitions = int(record["transitions"])
    search.result.seconds = float(record["seconds"])
    for rule, why, function, steps, states, seconds in record["violations"]:
        life = tuple(Step(step["event"], tuple((what, option) for what, option in step["choices"])) for step in steps)
        search.result.violations[rule] = Violation(Finding(rule, why, function), life, states, seconds)


def _read(path: Path) -> dict[str, Any]:
    try:
        with gzip.open(path, "rt") as stream:
            record = json.load(stream)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(str(path), "checkpoint", f"a file that quiesce explore wrote ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BadInput(str(path), "format", f"version {FORMAT}")
    return record


def _add(search: Search, path: Path, parent: int, number: int, picks: tuple[int, ...]) -> None:
    search.go_to(parent)
    leaf = _leaf(search, path, number, picks)
    leaf.hits += 1
    fingerprint = search.model.world.fingerprint ^ search.model.world.mix_of(leaf.delta)
    if leaf.result.crashed:
        fingerprint ^= hash_of_crash(leaf.result)
    search.arrive(fingerprint, parent, number, leaf)
    search.check_outputs(fingerprint, parent, number, leaf)


def _leaf(search: Search, path: Path, number: int, picks: tuple[int, ...]) -> Leaf:
    for leaf in search.model.memos[number].outcomes():
        if leaf.picks == picks:
            return leaf
    raise BadInput(str(path), f"event {number}", "an outcome that this version of quiesce knows")
