"""Lives on both sides, with another model in place of the guest: on one kernel the two agree, on two they part."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import replace

import pytest

from quiesce.cases.case import Case
from quiesce.cases.library import find_case
from quiesce.cases.scenario import find_machine
from quiesce.explore.model import Step
from quiesce.snapshot.errors import BadInput
from quiesce.testbed import recording
from quiesce.testbed.both import play_both
from quiesce.testbed.case_lives import lives_of, moved
from quiesce.testbed.compare import Life
from quiesce.testbed.errors import GuestDied
from quiesce.testbed.model_side import ModelSide, Told
from quiesce.testbed.observation import Observation
from quiesce.testbed.steps import CannotDo

BDF = "0000:00:05.0"
MACHINE = "machine small\n00:00.0 host-bridge\n00:05.0 ahci\niommu intel"


def case(kernel: str = "v6.12", *drivers: str) -> Case:
    return Case("small", machine=MACHINE, kernel=kernel, drivers=drivers or ("ahci", "vfio-pci"), devices=("00:05.0",))


class AnotherModel:
    """Plays the guest's part."""

    def __init__(self, side: ModelSide, cannot: str = "", dies_at: str = "") -> None:
        self.side = side
        self.cannot = cannot
        self.dies_at = dies_at

    def start(self) -> Observation:
        return self.side.start()

    def play(self, event: str) -> Told:
        if event.split()[0] == self.cannot:
            raise CannotDo("not here")
        if event.split()[0] == self.dies_at:
            raise GuestDied("panic", "[ 1.0] BUG: kernel NULL pointer dereference, address: 0000000000000010")
        told = self.side.play(Step(event))
        assert told is not None
        return Told(told.answer or "0", told.seen, told.ended)


def live(events: Sequence[str], kernel: str = "v6.12", other: str = "", **more: str) -> Life:
    there = AnotherModel(ModelSide.of(case(other or kernel)), **more)
    return play_both(ModelSide.of(case(kernel)), there, events)


LIFE = (f"bind ahci {BDF}", f"unbind {BDF}", f"bind vfio-pci {BDF}", f"vfio-open {BDF}", f"vfio-close {BDF}")


def test_a_model_agrees_with_itself_in_everything() -> None:
    life = live(LIFE)
    assert life.ended == ""
    assert [moment.event for moment in life.moments] == ["start", *LIFE]
    assert life.differences() == []


def test_another_kernel_parts_where_the_change_shows() -> None:
    found = live(LIFE, "v6.11-rc7", "v6.11").differences()
    assert found[0].event == f"unbind {BDF}"
    assert {difference.field for difference in found} == {"is_managed"}


def test_a_life_ends_where_the_guest_cannot_follow() -> None:
    life = live(LIFE, cannot="vfio-open")
    assert life.ended == "not here"
    assert len(life.moments) == 4


def test_a_life_ends_where_the_model_cannot_follow() -> None:
    life = live((f"unbind {BDF}",))
    assert life.ended == f"unbind {BDF} cannot take place in the model"


def test_a_guest_that_dies_is_a_result_and_its_last_words_count() -> None:
    life = live(LIFE, dies_at="unbind")
    assert life.ended == f"unbind {BDF}: model goes on, kernel crashed"
    assert [(one.field, one.model, one.kernel) for one in life.differences()] == [("alarms", "none", "oops")]


def test_an_operation_that_waits_ends_the_life_and_only_the_answer_counts() -> None:
    life = live((f"bind vfio-pci {BDF}", f"vfio-open {BDF}", f"unbind {BDF}", f"vfio-close {BDF}"))
    assert life.ended == f"unbind {BDF}: blocked"
    assert life.moments[-1].model_answer == "blocked"
    assert life.differences() == []


def test_what_was_recorded_compares_again_without_the_guest(tmp_path) -> None:
    described = find_machine(MACHINE)
    keeper = recording.Keeper()
    play_both(ModelSide.of(case()), AnotherModel(ModelSide.of(case("v6.11-rc7"))), LIFE, keeper)
    machine = {
        "name": "small",
        "had": {},
        "devices": {str(item.bdf): {"config": item.config.hex()} for item in described.functions},
        "acpi": {"DMAR": base64.b64encode(described.dmar or b"").decode()},
    }
    stored = recording.Recording(
        "small",
        "debian:6.12",
        "6.12.0",
        "",
        "v6.12",
        "intel",
        "7.2",
        ("ahci", "vfio-pci"),
        (BDF,),
        machine,
        lives=[keeper.shown()],
    )
    recording.write(stored, tmp_path / "a.json.gz")
    again = recording.read(tmp_path / "a.json.gz")
    assert again == stored
    (life,) = recording.replay(again)
    assert {difference.field for difference in life.differences()} == {"is_managed"}


BAD = {"empty": b"", "no gzip": b"{}", "cut": b"\x1f\x8b\x08", "format": gzip.compress(b'{"format": 99}', mtime=0)}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_recording_is_one_line(tmp_path, content) -> None:
    path = tmp_path / "bad.json.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"bad\.json\.gz"):
        recording.read(path)


def test_the_lives_of_a_case_begin_with_the_one_that_breaks_its_rule() -> None:
    written = find_case("intx-devres-on-detach")
    lives = lives_of(written, {}, written.on("v6.12"))
    assert lives[0] == ("bind ahci 0000:00:1f.2", "unbind 0000:00:1f.2")
    assert len(lives) == len(set(lives)) > 1


def test_a_case_moves_to_where_the_guest_has_its_devices() -> None:
    one = replace(case(), events=("bind * 00:05.0",), steps=(Step("unbind 00:05.0"),))
    there = moved(one, {BDF: "0000:01:00.0"})
    assert there.devices == ("0000:01:00.0",)
    assert there.events == ("bind * 0000:01:00.0",)
    assert there.steps == (Step("unbind 0000:01:00.0"),)
