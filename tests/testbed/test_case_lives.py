"""Which lives of a case are tried on a kernel."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from quiesce.cases.case import Case
from quiesce.cases.library import find_case
from quiesce.explore.model import Step
from quiesce.testbed import case_lives
from quiesce.testbed.case_lives import MOST_VIOLATIONS, SAMPLES, left_out, lives_of, moved_steps

BDF, THERE = "0000:00:05.0", "0000:01:00.0"
MACHINE = "machine small\n00:00.0 host-bridge\n00:05.0 ahci\niommu intel"
SMALL = Case("small", machine=MACHINE, kernel="v6.12", drivers=("ahci", "vfio-pci"), devices=(BDF,), depth=5)
UNDONE = (("WHAT", "OPTION"),)


def violations(monkeypatch, *lives: tuple[Step, ...], first: int | None = 0) -> None:
    """Let every search find these lives."""
    found = {
        f"rule-{at}": SimpleNamespace(finding=SimpleNamespace(rule=f"rule-{at}"), steps=steps)
        for at, steps in enumerate(lives)
    }
    best = None if first is None else found[f"rule-{first}"]
    monkeypatch.setattr(
        case_lives, "run", lambda case: SimpleNamespace(first=best, result=SimpleNamespace(violations=found))
    )


def steps(*events: str) -> tuple[Step, ...]:
    return tuple(Step(event) for event in events)


def test_a_case_with_steps_has_these_and_no_other() -> None:
    written = replace(SMALL, steps=steps("bind ahci 00:05.0", "unbind 00:05.0"))
    real = case_lives.moved(written, {BDF: THERE})
    assert lives_of(written, {BDF: THERE}, real) == [(f"bind ahci {THERE}", f"unbind {THERE}")]


def test_the_life_the_case_is_about_comes_first_where_the_guest_has_the_device(monkeypatch) -> None:
    violations(monkeypatch, steps("enable 00:05.0"), steps("remove 00:05.0", "rescan"), first=1)
    lives = lives_of(SMALL, {BDF: THERE}, SMALL)
    assert lives[0] == (f"remove {THERE}", "rescan")
    assert ("enable 00:05.0",) in lives


def test_on_a_kernel_that_breaks_nothing_the_life_of_its_own_is_tried_and_samples() -> None:
    written = find_case("intx-devres-on-detach")
    lives = lives_of(written, {}, written.on("v6.12"))
    fixed = lives_of(written.on("v6.12"), {}, written.on("v6.12"))
    assert lives[0] not in fixed
    assert lives[1:] == fixed
    assert 0 < len(fixed) <= SAMPLES + MOST_VIOLATIONS


def test_of_what_else_breaks_only_the_shortest_are_tried(monkeypatch) -> None:
    many = [steps(*["rescan"] * number) for number in range(9, 0, -1)]
    violations(monkeypatch, *many, first=None)
    monkeypatch.setattr(case_lives, "SAMPLES", 0)
    assert lives_of(SMALL, {}, SMALL) == [("rescan",) * number for number in range(1, MOST_VIOLATIONS + 1)]


def test_lives_that_need_something_at_a_chosen_moment_are_left_out(monkeypatch) -> None:
    violations(monkeypatch, (Step("enable 00:05.0", UNDONE),), steps("disable 00:05.0"))
    lives = lives_of(SMALL, {}, SMALL)
    assert ("enable 00:05.0",) not in lives
    assert ("disable 00:05.0",) in lives


def test_neither_failures_nor_interference_are_searched_for(monkeypatch) -> None:
    asked: list[Case] = []

    def search(case: Case) -> SimpleNamespace:
        asked.append(case)
        return SimpleNamespace(first=None, result=SimpleNamespace(violations={}))

    monkeypatch.setattr(case_lives, "run", search)
    uncertain = replace(SMALL, windows=2, faults=1)
    lives_of(uncertain, {}, uncertain)
    assert [(case.windows, case.faults) for case in asked] == [(0, 0), (0, 0)]


def test_no_life_is_tried_twice_and_none_is_empty(monkeypatch) -> None:
    violations(monkeypatch, steps("rescan"), steps("rescan"), ())
    monkeypatch.setattr(case_lives, "SAMPLES", 0)
    assert lives_of(SMALL, {}, SMALL) == [("rescan",)]


def test_samples_are_the_same_each_time_and_others_for_another_case(monkeypatch) -> None:
    violations(monkeypatch, first=None)
    lives = lives_of(SMALL, {}, SMALL)
    assert len(lives) == SAMPLES
    assert lives == lives_of(SMALL, {}, SMALL)
    assert lives != lives_of(SMALL, {}, replace(SMALL, name="other"))
    assert all(0 < len(life) <= SMALL.depth for life in lives)


def test_samples_keep_to_the_events_of_the_case_and_to_what_a_guest_can(monkeypatch) -> None:
    violations(monkeypatch, first=None)
    some = replace(SMALL, events=("bind ahci *", "unbind *", "hibernate", "crash-kexec", "boot"))
    bound = (f"bind ahci {BDF}", f"unbind {BDF}")
    assert lives_of(some, {}, some) == [(*bound, *bound, bound[0])]
    none = replace(SMALL, events=("hibernate", "crash-kexec"))
    assert lives_of(none, {}, none) == []


@pytest.mark.parametrize(
    ("life", "kept"),
    [
        (("rescan", "kexec", "second-kernel"), ("rescan", "kexec")),
        (("kexec",), ("kexec",)),
        (("rescan", "reboot"), ("rescan", "reboot")),
    ],
)
def test_samples_end_before_the_second_kernel(life, kept) -> None:
    assert case_lives._up_to_kexec(life) == kept


def test_choices_go_with_their_step_when_it_moves() -> None:
    assert moved_steps([Step("unbind 00:05.0", UNDONE)], {BDF: THERE}) == [Step(f"unbind {THERE}", UNDONE)]


def test_a_machine_that_cannot_be_read_any_more_breaks_nothing() -> None:
    broken = find_case("intx-devres-on-detach")
    assert len(case_lives._violations(broken, 1)) == 1
    assert case_lives._violations(replace(broken, machine="nowhere"), 1) == []


def test_choices_are_left_out_and_named() -> None:
    written = replace(SMALL, steps=(Step("bind ahci 00:05.0", UNDONE), Step("unbind 00:05.0")))
    assert left_out(written) == "without what it chooses: WHAT = OPTION"
    assert left_out(replace(SMALL, steps=steps("bind ahci 00:05.0"))) == ""
    assert left_out(SMALL) == ""
