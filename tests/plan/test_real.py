"""Plans on real machines and on recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plan.machines import actions, codes, conditions, plan_of
from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.plan.make import make_plan
from quiesce.plan.model import CONDITIONAL, POSSIBLE, REFUSED
from quiesce.plan.trouble import searched
from quiesce.report import plan as report
from quiesce.snapshot.read import read_machine

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MACHINES = Path(__file__).resolve().parents[2] / "src" / "quiesce" / "cases" / "machines"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no recordings of real machines in ../shared/data")


def test_a_recording_of_a_flat_root_bus() -> None:
    description = read_machine(MACHINES / "flat-root-bus--612--intel.json")
    found = plan_of(description, "00:1f.2", "v6.11-rc7")
    assert actions(found) == {"00:1f.0": "release", "00:1f.2": "bind", "00:1f.3": "bind"}
    assert found.interrupts is not None
    assert "0000:00:1f.3" in found.interrupts.shared_wire


@needs_data
def test_a_usb_controller_with_reserved_memory_is_let_go() -> None:
    description = read_machine(DATA / "machines" / "dell-e6430")
    found = plan_of(description, "00:1a.0")
    assert found.verdict != REFUSED
    assert "reserved-memory" in conditions(found)
    assert [item.driver for item in found.alternatives[0].members] == ["ehci-pci"]
    assert found.resets is not None
    assert found.resets.first == "af_flr"


@needs_data
def test_graphics_of_ivy_bridge_has_a_reset_of_its_own() -> None:
    found = plan_of(read_machine(DATA / "machines" / "dell-e6430"), "00:02.0")
    assert found.resets is not None
    assert found.resets.first == "device_specific"


@needs_data
def test_a_controller_alone_below_its_port_is_possible_and_searched() -> None:
    description = read_machine(DATA / "machines" / "asus-pn51")
    found = searched(plan_of(description, "01:00.0"), description, 30)
    assert plan_of(description, "01:00.0").verdict == POSSIBLE
    assert found.verdict == CONDITIONAL
    assert found.search.ran
    assert {trouble.rule for trouble in found.search.troubles} == {"device/unlocked-bus-reset"}
    before = searched(plan_of(description, "01:00.0", "v6.10"), description, 30)
    assert before.search.ran
    assert before.search.troubles == ()


@needs_data
def test_a_single_function_without_its_machine_is_refused() -> None:
    description = read_machine(DATA / "hexdumps" / "nvidia-p1000.txt")
    found = plan_of(description, str(description.functions[0].bdf))
    assert found.verdict == REFUSED
    assert codes(found)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("release", ["v5.10", "v6.12"])
def test_functions_of_every_machine_have_a_plan_or_a_reason(release: str) -> None:
    k = kernel(release)
    for path in sorted([*(DATA / "qemu-groups").glob("*--*.json"), *(DATA / "machines").glob("*/lspci*.txt")]):
        description = read_machine(path)
        found = predict(description, k)
        for item in description.functions[::11]:
            plan = make_plan(description, k, found, str(item.bdf))
            assert (plan.verdict == REFUSED) is bool(codes(plan)) or len(plan.alternatives) > 1
            assert json.loads(report.plan(plan, "json"))["verdict"] == plan.verdict
            assert report.plan(plan, "text").splitlines()[-1].startswith("plan ")
