"""An unfinished search as a file: which event and choices led to each state, nothing that could be executed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from quiesce.explore.memo import Leaf
from quiesce.explore.search import Search, hash_of_crash
from quiesce.snapshot.errors import BadInput

FORMAT = 1


def save(search: Search, path: Path) -> None:
    """Write all that ``load`` needs; replaces the file in one step."""
    record = {
        "format": FORMAT,
        "events": [event.text for event in search.model.searched],
        "root": search.model.world.fingerprint,
        "next": search.next,
        "transitions": search.result.transitions,
        "seconds": search.result.seconds,
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
    for parent, number, picks in record["states"]:
        _add(search, path, parent, number, tuple(picks))
    search.go_to(0)
    search.next = record["next"]
    search.result.transitions = record["transitions"]
    search.result.seconds = record["seconds"]


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
