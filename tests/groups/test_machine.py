"""Machines whose snapshots say odd things about virtual functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from drawn_machines import SERVER, described
from quiesce.groups.machine import LightMachine
from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.machine import topology
from quiesce.snapshot.description import MachineDescription


def claiming(claims: Mapping[str, str], silent: tuple[str, ...] = ()) -> MachineDescription:
    """Return a machine on which functions are said to be virtual ones of others; silent ones show no ids."""
    found = described(SERVER)
    functions = (
        replace(
            item,
            attributes={"virtual": f"0000:{claims[item.bdf.short]}"} if item.bdf.short in claims else {},
            config=b"\xff\xff\xff\xff" + item.config[4:] if item.bdf.short in silent else item.config,
        )
        for item in found.functions
    )
    return replace(found, functions=tuple(functions))


def test_a_virtual_function_hangs_where_its_physical_one_does() -> None:
    machine = LightMachine(claiming({"01:00.1": "01:00.0"}), "intel")
    assert machine.functions["0000:01:00.1"].physfn is machine.functions["0000:01:00.0"]


@pytest.mark.parametrize(
    "claims",
    [
        {"00:01.0": "01:00.0"},
        {"02:00.0": "04:00.0", "03:00.0": "04:00.0"},
        {"01:00.0": "01:00.1", "01:00.1": "01:00.0"},
    ],
)
def test_the_way_up_ends_whatever_is_said(claims: dict[str, str]) -> None:
    description = claiming(claims)
    machine = LightMachine(description, "intel")
    for fn in machine.functions.values():
        for steps, _ in enumerate(topology.chain(fn)):
            assert steps < len(machine.functions)
    assert predict(description, kernel("v6.12")).functions == set(machine.functions)


@pytest.mark.parametrize("claims", [{"01:00.1": "01:00.0"}, {"01:00.0": "01:00.1", "01:00.1": "01:00.0"}])
def test_a_virtual_function_without_ids_of_one_without_sriov(claims: dict[str, str]) -> None:
    description = claiming(claims, silent=("01:00.0", "01:00.1"))
    assert "0000:01:00.1" in predict(description, kernel("v6.12")).functions
