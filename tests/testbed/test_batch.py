"""Work is cut into pieces, and what cannot be tried becomes a skipped confirmation."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_guest import image
from quiesce.snapshot.errors import BadInput
from quiesce.testbed import batch
from quiesce.testbed.agreement import Confirmation
from quiesce.testbed.batch import CHUNK, Piece, Work
from quiesce.testbed.confirm import Target, kernel_of
from quiesce.testbed.errors import GuestDied, Skipped
from quiesce.testbed.topology import Iommu

KERNEL = "debian:6.12"
NOT_THERE = "the kernel debian:6.12 is not in the store; fetch it with 'quiesce kernel fetch debian:6.12'"


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pieces(monkeypatch) -> list[Piece]:
    """What the workers were given."""
    found: list[Piece] = []

    def do(piece: Piece) -> list[Confirmation]:
        found.append(piece)
        return [Confirmation(piece.case or f"random {piece.numbers}", piece.target.name, "", "", piece.target.iommu)]

    monkeypatch.setattr(batch, "do", do)
    return found


# -- targets ---------------------------------------------------------------------------------------------------


def test_without_a_name_every_kernel_in_the_store_is_meant(tmp_path, monkeypatch) -> None:
    with pytest.raises(BadInput, match="quiesce kernel fetch"):
        batch.targets([], [], [])
    monkeypatch.setattr(batch, "installed", lambda: [image(tmp_path)])
    assert batch.targets([], [], []) == [Target(KERNEL, "same")]
    assert batch.targets(["6.1"], [], []) == [Target("6.1", "same")]


def test_every_kernel_goes_with_every_iommu_and_all_switches() -> None:
    found = batch.targets(["instrumented", "6.1"], ["intel", "none"], ["msi-off", "no-data"])
    switches = ("msi-off", "no-data")
    assert found == [Target(name, iommu, switches) for name in ("instrumented", "6.1") for iommu in ("intel", "none")]
    assert found[0].name == "instrumented+msi-off+no-data"
    assert Target("6.1", "same").name == "6.1"


@pytest.mark.parametrize(("kernels", "switches", "said"), [(["6.1", "nope"], [], "nope"), (["6.1"], ["zzz"], "zzz")])
def test_names_of_nothing_are_refused_before_anything_is_tried(kernels, switches, said) -> None:
    with pytest.raises(BadInput, match=said):
        batch.targets(kernels, [], switches)
    assert len(batch.targets(["6.1"], [], ["QUIESCE_MSI_OFF"])) == 1


def test_switches_on_a_kernel_without_them_are_skipped_with_a_hint(tmp_path) -> None:
    assert kernel_of(image(tmp_path), ()).startswith("v6.12")
    assert kernel_of(image(tmp_path, switches=True), ["msi-off"]) == kernel_of(image(tmp_path), ()) + " - fda78d7a0ead"
    with pytest.raises(Skipped, match=r"debian:6\.12 has no switches; 'quiesce kernel build'"):
        kernel_of(image(tmp_path), ["msi-off"])


# -- pieces ----------------------------------------------------------------------------------------------------


def test_a_case_is_a_piece_on_each_target(pieces) -> None:
    wanted = [Target("6.1", "same"), Target("6.12", "amd")]
    work = Work(("teach-correct", "teach-leaky-msi"), record=Path("there"), shrink=Path("here"))
    found = [one.case for one in batch.run(work, wanted, 1)]
    assert found == ["teach-correct", "teach-leaky-msi"] * 2
    assert [piece.target for piece in pieces] == [wanted[0], wanted[0], wanted[1], wanted[1]]
    assert {(piece.record, piece.shrink, piece.numbers) for piece in pieces} == {(Path("there"), None, ())}


@pytest.mark.parametrize(("iommu", "tried"), [("same", ["intel", "amd"]), ("none", ["none"])])
def test_random_lives_come_in_chunks_on_both_iommus_unless_one_is_named(pieces, iommu: Iommu, tried) -> None:
    list(batch.run(Work((), CHUNK + 2, 7, shrink=Path("here")), [Target("6.1", iommu)], 1))
    numbers = [tuple(range(CHUNK)), (CHUNK, CHUNK + 1)]
    assert [(piece.target.iommu, piece.numbers) for piece in pieces] == [
        (one, some) for one in tried for some in numbers
    ]
    assert {(piece.seed, piece.case, piece.shrink) for piece in pieces} == {(7, "", Path("here"))}


def test_saved_guests_are_shared_and_gone_afterwards(pieces) -> None:
    running = batch.run(Work(("teach-correct", "teach-leaky-msi")), [Target("6.1", "same")], 1)
    next(running)
    (folder,) = {piece.guests for piece in pieces}
    assert folder.is_dir()
    list(running)
    assert {piece.guests for piece in pieces} == {folder}
    assert not folder.exists()


def test_a_case_that_is_none_is_refused_before_anything_is_tried(pieces, tmp_path) -> None:
    bad = tmp_path / "bad.case"
    bad.write_text("case x\nmachine m\n  00:00.0 host-bridge\nkernel v6.12\ndrivers nope\n")
    for name in ("nothere", str(bad)):
        with pytest.raises(BadInput, match=Path(name).name):
            list(batch.run(Work(("teach-correct", name)), [Target("6.1", "same")], 1))
    assert pieces == []
    good = tmp_path / "good.case"
    good.write_text("case x\nmachine m\n  00:00.0 host-bridge\n  00:05.0 ahci\nkernel v6.12\ndrivers ahci\n")
    assert len(list(batch.run(Work((str(good),)), [Target("6.1", "same")], 1))) == 1


# -- work ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "numbers", "name"), [("teach-correct", (), "teach-correct"), ("", (0, 1), "random")])
def test_a_kernel_that_is_not_there_is_a_skipped_confirmation(tmp_path, case, numbers, name) -> None:
    (found,) = batch.do(Piece(Target(KERNEL, "amd"), tmp_path, case, 1, numbers))
    assert found == Confirmation(name, KERNEL, "", "", "amd", [], NOT_THERE)
    assert found.unexplained == 0


def test_so_is_a_guest_that_does_not_come_up_and_a_machine_that_cannot_be(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch, "find_image", lambda name: image(tmp_path))
    errors = iter([GuestDied("QEMU has ended", "a console\nof lines"), Skipped("QEMU has no such thing")])

    def stage(*_: object) -> None:
        raise next(errors)

    monkeypatch.setattr("quiesce.testbed.confirm.Confirmer.stage", stage)
    piece = Piece(Target(KERNEL, "same"), tmp_path, "teach-correct")
    assert [batch.do(piece)[0].skipped for _ in range(2)] == [
        "the guest did not come up: QEMU has ended",
        "QEMU has no such thing",
    ]


def test_every_random_life_is_a_confirmation_of_its_own(tmp_path, monkeypatch) -> None:
    def stage(*_: object) -> None:
        raise Skipped("not today")

    for module in ("batch", "confirm"):
        monkeypatch.setattr(f"quiesce.testbed.{module}.find_image", lambda name: image(tmp_path))
    monkeypatch.setattr("quiesce.testbed.confirm.Confirmer.stage", stage)
    found = batch.do(Piece(Target(KERNEL, "intel"), tmp_path, seed=7, numbers=(3, 4)))
    assert [(one.case, one.skipped, one.release) for one in found] == [
        ("random-7-3", "not today", "6.12.107+deb13-amd64"),
        ("random-7-4", "not today", "6.12.107+deb13-amd64"),
    ]


def test_groups_of_random_machines_are_skipped_in_the_same_way() -> None:
    found = list(batch.groups(2, 5, [Target(KERNEL, "same")], 1))
    assert found == [
        (f"random-{seed} {KERNEL} {iommu} skipped: {NOT_THERE}", None) for iommu in ("intel", "amd") for seed in (5, 6)
    ]
    assert len(list(batch.groups(2, 5, [Target(KERNEL, "none")], 1))) == 2
