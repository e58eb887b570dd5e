"""Which guests can stand in for which, and what is taken down of a machine; with guests that are none."""

from dataclasses import replace
from functools import cache

import pytest

from fake_guest import FakeGuest, image
from quiesce.cases.case import Case
from quiesce.cases.scenario import find_machine
from quiesce.testbed import pool
from quiesce.testbed.confirm import Stage
from quiesce.testbed.errors import Skipped
from quiesce.testbed.pool import Order, Pool, recorded_machine
from quiesce.testbed.random_lives import machine_text
from quiesce.testbed.scripted import FOLDER, SCRIPTS
from quiesce.testbed.topology import QemuMachine, qemu_machine

HAD = """had 0000:00:1f.3 ../../../bus/pci/drivers/i801_smbus
had 0000:00:02.0 ../../../bus/pci/drivers/virtio-pci
sh: write error: No such device
"""


@cache
def machine(text: str = machine_text("desk", "intel"), iommu: str = "same") -> QemuMachine:
    return qemu_machine(find_machine(text), iommu)


@pytest.fixture
def order(tmp_path) -> Order:
    return Order(image(tmp_path / "a"), machine(), ("ahci", "correct"))


@pytest.fixture
def guests(monkeypatch, tmp_path) -> list[FakeGuest]:
    """Every guest that is asked for."""
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    made: list[FakeGuest] = []

    def make(order: Order) -> FakeGuest:
        made.append(FakeGuest())
        made[-1].says = [("drivers_autoprobe", 0, HAD)]
        return made[-1]

    monkeypatch.setattr(Order, "guest", make)
    monkeypatch.setattr(pool, "tables_in", lambda guest: {"DMAR": "AAAA"})
    return made


def verbs(guest: FakeGuest) -> list[str]:
    return [one[0] for one in guest.did if one[0] not in ("write", "shell")]


# -- keys ------------------------------------------------------------------------------------------------------


def test_an_order_that_needs_another_guest_has_another_key(order, tmp_path) -> None:
    without = machine_text("desk", "intel").replace("01:00.0 e1000e\n", "")
    others = [
        replace(order, image=image(tmp_path / "b")),
        replace(order, machine=machine(without)),
        replace(order, machine=machine(iommu="none")),
        replace(order, machine=replace(machine(), append="nokaslr")),
        replace(order, machine=replace(machine(), tables={"IVRS": b"x"})),
        replace(order, drivers=("ahci",)),
        replace(order, bugs=4),
        replace(order, sleeps=True),
    ]
    assert len({one.key() for one in (order, *others)}) == 1 + len(others)


def test_an_order_for_the_same_guest_has_the_same_key(order, tmp_path) -> None:
    assert replace(order, drivers=("correct", "ahci")).key() == order.key()
    assert replace(order, machine=replace(machine(), name="other", differences=("x",))).key() == order.key()
    assert (
        Order(image(tmp_path / "a"), qemu_machine(find_machine(machine_text("desk", "intel"))), order.drivers) == order
    )


@pytest.mark.parametrize(
    "there",
    [
        machine(machine_text("bench", "intel")),
        machine(machine_text("desk", "amd")),
    ],
)
def test_what_qemu_cannot_save_is_booted_as_it_is(order, there) -> None:
    one = replace(order, machine=there)
    assert not one.restores


def test_so_is_one_that_jumps_to_another_kernel_but_not_one_that_sleeps(order) -> None:
    assert not replace(order, kexecs=True).restores
    assert replace(order, sleeps=True).restores


def test_the_guest_gets_the_modules_that_are_not_built_in_and_the_mask(tmp_path) -> None:
    kernel = image(tmp_path, built_in=("virtio_pci",))
    order = Order(kernel, machine(), ("virtio-pci", "ahci", "correct"), bugs=5)
    guest = order.guest()
    assert guest.modules == ("virtio_net", "ahci", "qscript")
    assert guest.append == "quiesce.bugs=5"
    assert guest.second is None
    assert replace(order, bugs=0, kexecs=True).guest().append == ""
    assert replace(order, kexecs=True).guest().second is kernel


# -- lending ---------------------------------------------------------------------------------------------------


def test_a_guest_is_saved_once_and_restored_from_then_on(order, guests, tmp_path) -> None:
    lender = Pool(tmp_path)
    first, second = lender.take(order), lender.take(replace(order, drivers=("correct", "ahci")))
    saved = guests[0]
    assert (guests[1], guests[2]) == (first, second)
    assert verbs(saved) == ["save", "stop"]
    assert verbs(first) == verbs(second) == ["restore"]
    assert (f"{FOLDER}/define", SCRIPTS["correct"]) in saved.writes()
    assert first.writes() == []


def test_one_that_cannot_be_saved_is_booted_each_time(order, guests, tmp_path) -> None:
    lender = Pool(tmp_path)
    for _ in range(2):
        lender.take(replace(order, kexecs=True))
    assert [verbs(guest) for guest in guests] == [["start"], ["start"]]
    assert (f"{FOLDER}/define", SCRIPTS["correct"]) in guests[1].writes()


def test_a_guest_that_cannot_be_made_ready_is_stopped(order, guests, tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise Skipped("no")

    monkeypatch.setattr(pool, "_settled", fail)
    with pytest.raises(Skipped):
        Pool(tmp_path).take(replace(order, kexecs=True))
    assert verbs(guests[0]) == ["start", "stop"]


# -- the machine -----------------------------------------------------------------------------------------------


def test_a_machine_is_recorded_once_with_the_drivers_that_devices_have_had(order, guests, tmp_path) -> None:
    data, path = recorded_machine(Pool(tmp_path), order)
    again, there = recorded_machine(Pool(tmp_path), replace(order, drivers=(), sleeps=True))
    assert (again, there) == (data, path)
    assert len(guests) == 1
    assert path.name.startswith("desk-")
    assert data["had"] == {"0000:00:1f.3": "i801_smbus", "0000:00:02.0": "virtio-pci"}
    assert (data["name"], data["kernel"], data["acpi"]) == ("desk", "6.12.107+deb13-amd64", {"DMAR": "AAAA"})
    assert guests[0].writes()[0] == ("/sys/bus/pci/drivers_autoprobe", "0")
    assert f"{FOLDER}/define" not in dict(guests[0].writes())


def test_on_a_machine_where_none_had_any_there_are_none(order, guests, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(FakeGuest, "shell", lambda self, script, timeout=0: (0, ""))
    assert recorded_machine(Pool(tmp_path), order)[0]["had"] == {}


def test_another_machine_and_another_kernel_are_recorded_on_their_own(order, guests, tmp_path) -> None:
    paths = {
        recorded_machine(Pool(tmp_path), one)[1]
        for one in (order, replace(order, image=image(tmp_path / "b")), replace(order, machine=machine(iommu="none")))
    }
    assert len(paths) == len(guests) == 3


def test_a_stage_knows_those_drivers_by_the_names_of_their_models(order) -> None:
    case = Case("x", drivers=("ahci",))
    stage = Stage(case, case, order.image, order.machine, {"had": {"0000:00:1f.3": "i801_smbus"}})
    assert stage.had == {"0000:00:1f.3": "i2c_i801"}
    assert replace(stage, data={}).had == {}


def test_a_stage_orders_what_the_events_need(order) -> None:
    case = Case("x", drivers=("ahci",))
    stage = Stage(case, case, order.image, order.machine, {}, ("msi-off", "irq-zeroed"))
    assert stage.order(("bind ahci 0000:00:1f.2",)) == Order(order.image, order.machine, ("ahci",), bugs=5)
    assert stage.order(("suspend", "resume")).sleeps
    assert stage.order(("kexec",)).kexecs
