import pytest

from quiesce.cases.scenario import find_machine
from quiesce.testbed.model_side import ModelSide
from quiesce.testbed.random_lives import LONGEST, MACHINES, draw, events_of, machine_text
from quiesce.testbed.real_drivers import modules_of, real_driver
from quiesce.testbed.steps import CANNOT, CannotDo
from quiesce.testbed.topology import qemu_machine

KERNEL = "v6.12"


def _life(seed: int, number: int, iommu: str = "intel") -> tuple[str, ...]:
    drawn = draw(seed, number, KERNEL, iommu)
    return events_of(drawn, ModelSide.of(drawn.case))


def test_the_same_seed_and_number_give_the_same_life() -> None:
    assert [_life(7, number) for number in range(3)] == [_life(7, number) for number in range(3)]


def test_other_seeds_and_numbers_give_other_lives() -> None:
    lives = {_life(seed, number) for seed in (1, 2) for number in range(4)}
    assert len(lives) == 8


def test_lives_are_of_events_that_a_guest_can_have_and_of_drivers_that_it_has() -> None:
    for number in range(12):
        drawn = draw(3, number, KERNEL, "amd")
        modules_of(drawn.case.drivers)
        life = events_of(drawn, ModelSide.of(drawn.case))
        assert 0 < len(life) <= LONGEST
        assert not {event.split()[0] for event in life} & set(CANNOT)


@pytest.mark.parametrize("iommu", ["intel", "amd", "none"])
@pytest.mark.parametrize("name", MACHINES)
def test_their_machines_can_be_built_in_qemu(name, iommu) -> None:
    machine = qemu_machine(find_machine(machine_text(name, iommu)))
    assert machine.iommu == (None if iommu == "none" else iommu)
    assert all(there == here for here, there in machine.at.items())


def test_the_desk_survives_a_snapshot_and_the_bench_only_without_its_ssd() -> None:
    desk, bench = (qemu_machine(find_machine(machine_text(name, "intel"))) for name in MACHINES)
    assert desk.snapshots
    assert not bench.snapshots
    spared = qemu_machine(find_machine(machine_text("bench", "intel")), wanted={"0000:00:03.0"})
    assert spared.snapshots


def test_a_model_that_nobody_can_play_is_refused_with_its_name() -> None:
    assert real_driver("i2c_i801").name == "i801_smbus"
    with pytest.raises(CannotDo, match="pciback"):
        real_driver("pciback")
