"""How functions are isolated, whatever group they end in."""

from __future__ import annotations

from drawn_machines import LISTING, SERVER, described
from quiesce.groups.isolation import Isolation, isolation_of
from quiesce.groups.machine import LightMachine
from quiesce.kernel.changes import kernel
from quiesce.kernel.parameters import parse_parameters
from quiesce.snapshot.bdf import Bdf


def isolation(text: str, release: str = "v6.12", *parameters: str) -> dict[str, Isolation]:
    machine = LightMachine(described(text), "intel")
    return isolation_of(machine, kernel(release), parse_parameters(list(parameters)))


def test_a_port_is_isolated_with_its_capability_and_not_without() -> None:
    found = isolation(SERVER)
    assert [answer.enabled for answer, _ in found["0000:00:01.0"].answers] == [True]
    assert [answer.enabled for answer, _ in found["0000:00:02.0"].answers] == [False]


def test_a_kernel_that_enables_acs_late_has_enabled_it_too() -> None:
    assert isolation(SERVER, "v7.2")["0000:00:01.0"].answers[0][0].enabled


def test_a_parameter_that_switches_acs_off_shows_a_capability_that_is_off() -> None:
    found = isolation(SERVER, "v6.12", "pci=config_acs=0000000@0000:00:01.0")
    assert [(answer.enabled, capability) for answer, capability in found["0000:00:01.0"].answers] == [(False, True)]


def test_what_a_listing_leaves_open_has_several_answers() -> None:
    port = isolation(LISTING)["0000:00:01.0"]
    assert {answer.enabled for answer, _ in port.answers} == {False, True}


def test_a_bridge_to_conventional_pci_takes_over_the_ids_of_what_is_below() -> None:
    found = isolation(SERVER)
    assert found["0000:00:1e.0"].takes_over == Bdf.parse("00:1e.0")
    assert found["0000:00:01.0"].takes_over is None
