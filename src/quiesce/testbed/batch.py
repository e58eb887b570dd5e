"""Many confirmations: over kernels and IOMMUs, two guests at a time, each worker process with its own guests."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from quiesce.cases.library import find_case, shipped
from quiesce.cases.scenario import build
from quiesce.snapshot.errors import BadInput
from quiesce.testbed import recording
from quiesce.testbed.agreement import Confirmation
from quiesce.testbed.confirm import Confirmer, Target
from quiesce.testbed.errors import GuestGone, Skipped
from quiesce.testbed.images import find_image, full_name, installed
from quiesce.testbed.kernel_sets import find_switch
from quiesce.testbed.pool import Pool
from quiesce.testbed.topology import Iommu, qemu_machine

_AS_DESCRIBED: tuple[Iommu, ...] = ("same",)
_BOTH: tuple[Iommu, ...] = ("intel", "amd")
CHUNK = 10
"""How many random lives one piece of work has."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be confirmed."""

    cases: tuple[str, ...]
    random: int = 0
    seed: int = 1
    record: Path | None = None
    shrink: Path | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker does at a time."""

    target: Target
    guests: Path
    """Where saved guests are; shared by all workers."""
    case: str = ""
    seed: int = 0
    numbers: tuple[int, ...] = ()
    record: Path | None = None
    shrink: Path | None = None


def shipped_names() -> list[str]:
    """Return the names of the shipped cases."""
    return list(shipped())


def targets(kernels: Sequence[str], iommus: Sequence[Iommu], switches: Sequence[str]) -> list[Target]:
    """Return what to confirm on: every kernel there is unless some are named; raises BadInput when there is none, and
    for a name or a switch that does not exist, which no worker should be the first to find.
    """
    for name in kernels:
        full_name(name)
    for switch in switches:
        find_switch(switch)
    names = list(kernels) or [image.name for image in installed()]
    if not names:
        raise BadInput("confirm", "", "a kernel: 'quiesce kernel fetch debian:6.1' gets one")
    return [Target(name, iommu, tuple(switches)) for name in names for iommu in iommus or _AS_DESCRIBED]


def run(work: Work, wanted: Sequence[Target], jobs: int) -> Iterator[Confirmation]:
    """Yield the confirmations as they come, in order; saved guests are kept until the end. Raises BadInput for a case
    that is none before anything is tried.
    """
    for name in work.cases:
        if name not in shipped():
            build(find_case(name))
    with TemporaryDirectory(prefix="quiesce-guests-") as folder:
        yield from _all(list(_pieces(work, wanted, Path(folder))), jobs)


def _all(pieces: Sequence[Piece], jobs: int) -> Iterator[Confirmation]:
    if jobs <= 1 or len(pieces) <= 1:
        for piece in pieces:
            yield from do(piece)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(jobs, len(pieces)), get_context("spawn"), initializer=_quiet) as pool:
        try:
            for found in pool.map(do, pieces):
                yield from found
        except (KeyboardInterrupt, GeneratorExit):
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _quiet() -> None:
    """An interrupt is the parent's to handle; workers end with their pool."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _pieces(work: Work, wanted: Sequence[Target], guests: Path) -> Iterator[Piece]:
    for target in wanted:
        for case in work.cases:
            yield Piece(target, guests, case, record=work.record)
        for chosen in [target] if target.iommu != "same" else [replace(target, iommu=iommu) for iommu in _BOTH]:
            for first in range(0, work.random, CHUNK):
                numbers = tuple(range(first, min(first + CHUNK, work.random)))
                yield Piece(chosen, guests, seed=work.seed, numbers=numbers, record=work.record, shrink=work.shrink)


def do(piece: Piece) -> list[Confirmation]:
    """Do one piece of work; a kernel that is not there skips it with the reason."""
    try:
        find_image(piece.target.kernel)
    except Skipped as reason:
        return [Confirmation(piece.case or "random", piece.target.name, "", "", piece.target.iommu, [], str(reason))]
    confirmer = Confirmer(Pool(piece.guests), piece.record)
    if piece.case:
        return [confirmer.case(piece.case, piece.target)]
    found = list(confirmer.random(piece.seed, piece.numbers, piece.target))
    if piece.shrink is not None:
        from quiesce.testbed.shrink import shrink_all

        shrink_all(confirmer, found, piece)
    return found


def groups(number: int, seed: int, wanted: Sequence[Target], jobs: int) -> Iterator[tuple[str, bool | None]]:
    """Yield for machines drawn at random how their groups on real kernels compare with the predicted ones: a line, and
    whether they agree, None when it could not be tried.
    """
    pieces = [
        (target.kernel, iommu, seed + at)
        for target in wanted
        for iommu in ([target.iommu] if target.iommu != "same" else _BOTH)
        for at in range(number)
    ]
    if jobs <= 1:
        yield from map(_groups_of, pieces)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_quiet) as pool:
        yield from pool.map(_groups_of, pieces)


def _groups_of(piece: tuple[str, Iommu, int]) -> tuple[str, bool | None]:
    from quiesce.testbed.groups_check import check_groups
    from quiesce.testbed.random_topology import random_description

    kernel, iommu, seed = piece
    try:
        description = random_description(seed, iommu=iommu)
        found = check_groups(description, find_image(kernel), qemu_machine(description))
    except (Skipped, GuestGone) as reason:
        return f"random-{seed} {kernel} {iommu} skipped: {str(reason).splitlines()[0]}", None
    return found.line(), found.agrees


def from_recording(path: Path) -> Confirmation:
    """Compare the model of today with a stored recording."""
    stored = recording.read(path)
    result = Confirmation(stored.case, stored.kernel, stored.release, stored.kernel_set, stored.iommu)
    result.lives = recording.replay(stored)
    return result
