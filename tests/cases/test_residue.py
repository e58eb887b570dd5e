"""What ahci leaves behind, before and after each repair of the v6.11 regression."""

from __future__ import annotations

import pytest

from quiesce.cases.case import Case
from quiesce.cases.residue import Residue, residue
from quiesce.snapshot.errors import BadInput

MACHINE = "flat-root-bus--612--intel"
SATA = "0000:00:1f.2"


def left_by(driver: str, kernel: str, *others: str, bdf: str = SATA, depth: int = 5) -> Residue:
    case = Case("residue", machine=MACHINE, kernel=kernel, drivers=(driver,), depth=depth)
    return residue(case, driver, bdf, others)


def fields(found: Residue) -> set[str]:
    return {change.field for change in found.left}


@pytest.mark.parametrize("kernel", ["v6.10", "v6.11-rc7"])
def test_ahci_leaves_is_managed_up_to_the_last_release_candidate(kernel: str) -> None:
    found = left_by("ahci", kernel)
    assert found.bound.answer == 0
    assert "is_managed" in fields(found)


def test_ahci_leaves_less_from_the_fix_on() -> None:
    assert "is_managed" not in fields(left_by("ahci", "v6.12"))
    assert fields(left_by("ahci", "v6.12")) < fields(left_by("ahci", "v6.11-rc7"))


def test_what_ahci_leaves_trips_vfio_only_where_pci_intx_allocates() -> None:
    tripped = {kernel: left_by("ahci", kernel, "vfio-pci").tripped for kernel in ("v6.10", "v6.11-rc7", "v6.12")}
    assert {(one.driver, one.violation.finding.rule) for one in tripped["v6.11-rc7"]} == {
        ("vfio-pci", "context/sleep-in-atomic")
    }
    assert tripped["v6.10"] == tripped["v6.12"] == ()


def test_a_driver_that_leaves_msi_on_trips_the_next() -> None:
    found = left_by("leaky-msi", "v6.12", "correct", bdf="0000:00:04.0", depth=3)
    assert "msi_enabled" in fields(found)
    assert "msi/enabled-twice" in {one.violation.finding.rule for one in found.tripped if one.driver == "correct"}


def test_drivers_that_do_not_take_the_device_are_not_tried() -> None:
    assert {one.driver for one in left_by("ahci", "v6.11-rc7", "nvme", "vfio-pci").tripped} == {"vfio-pci"}


def test_a_driver_that_does_not_take_the_device_is_bad_input() -> None:
    with pytest.raises(BadInput, match="expected a driver that takes such a device"):
        left_by("nvme", "v6.12")
