"""What goes wrong on a kernel, found by search on the machine of the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plan.machines import AMD, DRIVERS, INTEL, SMALL, machine
from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.plan.make import make_plan
from quiesce.plan.model import Search
from quiesce.plan.part import part_of
from quiesce.plan.trouble import searched
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.description import MachineDescription

SATA = SMALL.replace("00:1f.0 isa-bridge multifunction\n", "").replace("00:1f.3 smbus\n", "") + "iommu intel\n"


def search(description: MachineDescription, device: str, release: str, iommu: str | None = None) -> Search:
    k = kernel(release)
    plan = make_plan(description, k, predict(description, k, iommu=iommu), device)
    return searched(plan, description, 30).search


def rules(found: Search) -> set[str]:
    return {trouble.rule for trouble in found.troubles}


def test_the_managed_bit_that_outlives_ahci_and_what_cures_it() -> None:
    found = search(machine(SATA), "0000:00:1f.2", "v6.11-rc7")
    trouble = next(item for item in found.troubles if item.rule == "context/sleep-in-atomic")
    assert trouble.life == (
        "unbind 0000:00:1f.2",
        "bind vfio-pci 0000:00:1f.2",
        "vfio-open 0000:00:1f.2",
        "vfio-intx-on 0000:00:1f.2",
        "vfio-intx-mask 0000:00:1f.2",
    )
    assert [text.split()[0] for text in trouble.fixed_by] == ["fc8c818e7569"]
    assert trouble.case == "managed-outlives-driver"


@pytest.mark.parametrize("release", ["v6.10", "v6.11"])
def test_kernels_around_it_do_not_break_that_rule(release: str) -> None:
    found = search(machine(SATA), "0000:00:1f.2", release)
    assert found.ran
    assert found.states > 20
    assert "context/sleep-in-atomic" not in rules(found)


def test_a_driver_without_model_is_named() -> None:
    found = search(machine(INTEL), "0000:02:00.0", "v6.12")
    assert found.ran
    assert any("nouveau" in note for note in found.notes)
    assert "snd-hda-intel" in {name.replace("_", "-") for name in found.drivers}


def test_a_driver_that_is_not_known_is_said() -> None:
    found = search(machine(AMD, {}), "0000:01:00.0", "v6.12")
    assert any("not known" in note for note in found.notes)


def test_a_listing_without_tables_runs_on_one_that_stands_for_them() -> None:
    found = search(machine(SMALL), "0000:01:00.0", "v6.12", "intel")
    assert found.ran
    assert any("no DMAR table" in note for note in found.notes)
    assert not any("no DMAR table" in note for note in search(machine(), "0000:01:00.0", "v6.12").notes)


def test_a_source_that_leaves_bits_out_is_not_searched() -> None:
    description = machine(drivers=DRIVERS)
    size = r.PCI_STD_HEADER_SIZEOF
    vague = [
        replace(item, known=b"\xff" * size + bytes(len(item.config) - size)) if item.bdf.bus == 1 else item
        for item in description.functions
    ]
    found = search(replace(description, functions=tuple(vague)), "0000:01:00.0", "v6.12")
    assert not found.ran
    assert "01:00.0" in found.reason


def test_other_iommus_are_not_modelled() -> None:
    part = part_of(machine(SMALL), "virtio", ["0000:01:00.0"])
    assert "virtio" in part.why_not
    assert not part_of(machine(SMALL), "intel", ["0000:01:00.0"]).why_not


def test_a_refused_plan_is_not_searched() -> None:
    assert search(machine(SMALL), "0000:01:00.0", "v6.12").reason == "the plan is refused"
