"""Shortens a life on which model and kernel part to the shortest that still shows the same, and writes it as a case."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.cases.case import print_case, print_step
from quiesce.explore.model import Step
from quiesce.testbed.case_lives import Events
from quiesce.testbed.compare import Difference
from quiesce.testbed.errors import GuestGone, Skipped
from quiesce.testbed.known import unexplained

if TYPE_CHECKING:
    from quiesce.testbed.agreement import Confirmation
    from quiesce.testbed.batch import Piece
    from quiesce.testbed.confirm import Confirmer, Stage

MOST_TRIES = 40
"""How many shorter lives are lived on the kernel for one difference."""


def shrink_all(confirmer: Confirmer, found: Iterable[Confirmation], piece: Piece) -> None:
    """Shrink the first unexplained difference of each random life and write it to the piece's folder."""
    from quiesce.testbed import random_lives
    from quiesce.testbed.images import find_image

    image = find_image(piece.target.kernel)
    for one in found:
        differences = [difference for _, difference, why in one.differences() if not why]
        if differences and piece.shrink is not None:
            number = int(one.case.rpartition("-")[2])
            drawn = random_lives.draw(piece.seed, number, image.kernel_set, piece.target.iommu)
            stage = confirmer.stage(drawn.case, piece.target)
            events = shrink(confirmer, stage, one.lives[0].events, differences[0])
            write_case(stage, events, differences[0], piece.shrink)


def shrink(confirmer: Confirmer, stage: Stage, events: Events, difference: Difference) -> Events:
    """Leave out one event after the other, then two at a time, for what is bound must be unbound, as long as the same
    field of the same subject still differs. The last event stays.
    """
    left = events[: difference.step]
    tried = {left}
    while True:
        for shorter in _shorter(left):
            if shorter in tried or not _possible(stage, shorter):
                continue
            if len(tried) > MOST_TRIES:
                return left
            tried.add(shorter)
            if _still_differs(confirmer, stage, shorter, difference):
                left = shorter
                break
        else:
            return left


def _shorter(events: Events) -> Iterator[Events]:
    """Yield the life without one of its events, the later ones first, then without two."""
    for number in (1, 2):
        for out in combinations(range(len(events) - 2, -1, -1), number):
            yield tuple(event for at, event in enumerate(events) if at not in out)


def _possible(stage: Stage, events: Events) -> bool:
    """Whether the model can live it to the end."""
    side = stage.model()
    told = [side.play(Step(event)) for event in events]
    return None not in told and not any(one and one.ended for one in told[:-1])


def _still_differs(confirmer: Confirmer, stage: Stage, events: Events, wanted: Difference) -> bool:
    try:
        life = confirmer.live(stage, events)
    except (Skipped, GuestGone):
        return False
    release, iommu = stage.image.release, stage.machine.iommu or "none"
    return any(
        (found.subject, found.field) == (wanted.subject, wanted.field) for found in unexplained(life, release, iommu)
    )


def write_case(stage: Stage, events: Events, difference: Difference, folder: Path) -> Path:
    """Write a life as a case, with the machine beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stage.case.name}-{stage.image.release}-{stage.machine.iommu or 'none'}"
    (folder / f"{name}.json").write_text(json.dumps(stage.data))
    steps = tuple(Step(event) for event in events)
    case = replace(stage.case, name=name, machine=f"{name}.json", steps=steps)
    lines = [print_case(case), "steps"]
    for number, step in enumerate(steps, start=1):
        lines += print_step(step, f"  {number}  ")
    lines += ["why", f"  {stage.image.release}, {stage.machine.iommu or 'no IOMMU'}: {difference}"]
    path = folder / f"{name}.case"
    path.write_text("\n".join(lines) + "\n")
    return path
