"""A life on which two sides part becomes the shortest one that still does; the kernel is one that differs on demand."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_guest import image
from quiesce.cases.case import Case
from quiesce.cases.library import find_case
from quiesce.cases.scenario import find_machine
from quiesce.cases.verdict import run
from quiesce.explore.model import Step
from quiesce.testbed import shrink as shrinking
from quiesce.testbed.agreement import Confirmation
from quiesce.testbed.batch import Piece
from quiesce.testbed.compare import Difference, Life, Moment
from quiesce.testbed.confirm import Stage, Target
from quiesce.testbed.errors import GuestDied, Skipped
from quiesce.testbed.known import Known
from quiesce.testbed.model_side import ModelSide
from quiesce.testbed.shrink import MOST_TRIES, shrink, shrink_all, write_case
from quiesce.testbed.topology import qemu_machine

BDF = "0000:00:05.0"
MACHINE = "machine small\n00:00.0 host-bridge\n00:05.0 ahci\niommu intel"
DESCRIBED = find_machine(MACHINE)
DATA: dict[str, object] = {
    "name": "small",
    "had": {},
    "devices": {str(item.bdf): {"config": item.config.hex()} for item in DESCRIBED.functions},
    "acpi": {"DMAR": base64.b64encode(DESCRIBED.dmar or b"").decode()},
}
BIND, UNBIND, GIVE, OPEN = f"bind ahci {BDF}", f"unbind {BDF}", f"bind vfio-pci {BDF}", f"vfio-open {BDF}"
LIFE = (BIND, UNBIND, BIND, UNBIND, GIVE, OPEN, f"vfio-close {BDF}")


@pytest.fixture(autouse=True)
def nothing_listed(monkeypatch) -> None:
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: ())


@pytest.fixture
def stage(tmp_path) -> Stage:
    case = Case("random-7-3", machine=MACHINE, kernel="v6.12", drivers=("ahci", "vfio-pci"), devices=(BDF,))
    return Stage(case, case, image(tmp_path), qemu_machine(DESCRIBED), DATA)


class FakeConfirmer:
    """Lives on a kernel that differs at the end of some lives."""

    def __init__(
        self, differs: Callable[[tuple[str, ...]], bool], field: str = "irq", stage: Stage | None = None
    ) -> None:
        self.differs = differs
        self.field = field
        self.lived: list[tuple[str, ...]] = []
        self._stage = stage

    def stage(self, case: Case, target: Target) -> Stage:
        assert self._stage is not None
        return self._stage

    def live(self, stage: Stage, events: tuple[str, ...]) -> Life:
        self.lived.append(events)
        texts = ({(BDF, self.field): "line"}, {(BDF, self.field): "none" if self.differs(events) else "line"})
        return Life(events, [Moment(len(events), events[-1], "0", "0", *texts)])


def difference(events: tuple[str, ...]) -> Difference:
    return Difference(len(events), events[-1], BDF, "irq", "line", "none")


def test_what_does_not_matter_is_left_out_pairs_of_events_too(stage) -> None:
    confirmer = FakeConfirmer(lambda events: events[-1] == OPEN)
    assert shrink(confirmer, stage, LIFE, difference(LIFE[:6])) == (GIVE, OPEN)


def test_what_matters_stays(stage) -> None:
    confirmer = FakeConfirmer(lambda events: BIND in events and events[-1] == OPEN)
    assert shrink(confirmer, stage, LIFE, difference(LIFE[:6])) == (BIND, UNBIND, GIVE, OPEN)


def test_a_life_that_cannot_be_shorter_stays_and_is_not_lived_again(stage) -> None:
    confirmer = FakeConfirmer(lambda events: True)
    assert shrink(confirmer, stage, (BIND,), difference((BIND,))) == (BIND,)
    assert shrink(confirmer, stage, LIFE, difference(LIFE[:2])) == (BIND, UNBIND)
    assert confirmer.lived == []


def test_only_lives_that_the_model_can_live_are_tried_each_once(stage) -> None:
    confirmer = FakeConfirmer(lambda events: events.count(BIND) == 2 and events[-1] == OPEN)
    assert shrink(confirmer, stage, LIFE, difference(LIFE[:6])) == LIFE[:6]
    assert len(confirmer.lived) == len(set(confirmer.lived)) > 0
    for events in confirmer.lived:
        side = stage.model()
        assert all(side.play(Step(event)) is not None for event in events)


def test_a_difference_in_another_field_is_another_one(stage) -> None:
    confirmer = FakeConfirmer(lambda events: True, field="msi")
    assert shrink(confirmer, stage, LIFE, difference(LIFE[:6])) == LIFE[:6]
    assert confirmer.lived


def test_nor_does_one_count_that_is_listed(stage, monkeypatch) -> None:
    listed = Known("*", "*", "*", "*", "irq", "because")
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: (listed,))
    assert shrink(FakeConfirmer(lambda events: True), stage, LIFE, difference(LIFE[:6])) == LIFE[:6]


@pytest.mark.parametrize("error", [Skipped("not here"), GuestDied("gone")])
def test_a_shorter_life_that_cannot_be_tried_does_not_differ(stage, error) -> None:
    def refuse(events: tuple[str, ...]) -> bool:
        raise error

    confirmer = FakeConfirmer(refuse)
    assert shrink(confirmer, stage, LIFE, difference(LIFE[:6])) == LIFE[:6]
    assert confirmer.lived


def test_it_gives_up_after_so_many_tries_with_what_it_has(stage, monkeypatch) -> None:
    life = (*(BIND, UNBIND) * 3, GIVE, OPEN)
    never = FakeConfirmer(lambda events: False)
    monkeypatch.setattr(shrinking, "MOST_TRIES", 2)
    long = (f"enable {BDF}", f"disable {BDF}", BIND, UNBIND, GIVE, OPEN)
    assert shrink(never, stage, long, difference(long)) == long
    assert len(never.lived) == 2
    always = FakeConfirmer(lambda events: events[-1] == OPEN)
    assert len(shrink(always, stage, life, difference(life))) == len(life) - 4
    assert len(always.lived) == 2
    monkeypatch.setattr(shrinking, "MOST_TRIES", MOST_TRIES)
    assert shrink(always, stage, life, difference(life)) == (GIVE, OPEN)


# -- the case --------------------------------------------------------------------------------------------------


def test_what_is_written_is_a_case_with_its_machine_beside_it(stage, tmp_path) -> None:
    path = write_case(stage, (GIVE, OPEN), difference((GIVE, OPEN)), tmp_path / "new" / "found")
    assert path.name == "random-7-3-6.12.107+deb13-amd64-intel.case"
    assert sorted(item.suffix for item in path.parent.iterdir()) == [".case", ".json"]
    case = find_case(str(path))
    assert case.name == path.stem
    assert case.steps == (Step(GIVE), Step(OPEN))
    assert (case.kernel, case.drivers, case.devices) == ("v6.12", ("ahci", "vfio-pci"), (BDF,))
    assert case.why == f"6.12.107+deb13-amd64, intel: step 2 {OPEN}: {BDF} irq: model line, kernel none"
    described = find_machine(case.machine, case.path)
    assert [item.config for item in described.functions] == [item.config for item in DESCRIBED.functions]
    assert described.dmar == DESCRIBED.dmar


def test_it_can_be_run_and_lived(stage, tmp_path) -> None:
    case = find_case(str(write_case(stage, (GIVE, OPEN), difference((GIVE, OPEN)), tmp_path)))
    taken = run(case).result.taken
    assert (taken[GIVE], taken[OPEN]) == (1, 1)
    assert ModelSide.of(case).play(Step(GIVE)) is not None
    wrong = find_case(str(write_case(stage, (OPEN,), difference((OPEN,)), tmp_path)))
    assert run(wrong).missing


def test_of_each_random_life_the_first_difference_that_nothing_explains_is_written(
    stage, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("quiesce.testbed.images.find_image", lambda name: stage.image)
    listed = Known("*", "*", "bind_ahci_*", "*", "irq", "because")
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: (listed,))
    sides = ({(BDF, "irq"): "line"}, {(BDF, "irq"): "none"})
    moments = [Moment(at, event, "0", "0", *sides) for at, event in enumerate(LIFE, start=1) if event in (BIND, OPEN)]
    found = [
        Confirmation("random-7-3", "6.12", "6.12.107+deb13-amd64", "v6.12", "intel", [Life(LIFE, moments)]),
        Confirmation("random-7-4", "6.12", "6.12.107+deb13-amd64", "v6.12", "intel", [Life(LIFE, moments[:1])]),
        Confirmation("random-7-5", "6.12", "", "", "intel", skipped="not today"),
    ]
    confirmer = FakeConfirmer(lambda events: events[-1] == OPEN, stage=stage)
    shrink_all(confirmer, found, Piece(Target("6.12", "intel"), Path(), seed=7, shrink=tmp_path / "found"))
    (path,) = (tmp_path / "found").glob("*.case")
    assert find_case(str(path)).steps == (Step(GIVE), Step(OPEN))
