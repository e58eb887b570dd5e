"""What runtime PM does to a device that waits for user space; each as real kernels showed it."""

from dataclasses import replace

import pytest

from quiesce.cases.case import Case
from quiesce.cases.scenario import build, find_machine
from quiesce.explore.model import Model, Step
from quiesce.explore.replay import play
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PciDev
from quiesce.kernel.pci_access import pci_dev_of

AHCI, NIC = "0000:00:1f.2", "0000:01:00.0"
CASE = Case(
    name="sleep",
    machine="root-ports-acs--612--intel",
    kernel="v6.1",
    drivers=("ahci", "e1000e", "vfio-pci"),
    devices=(AHCI, NIC),
    steps=(Step("boot"),),
)


def _after(kernel: str, *events: str) -> Model:
    model = build(replace(CASE, kernel=kernel), find_machine(CASE.machine))
    for event in events:
        assert play(model, Step(event)).enabled, event
    return model


def _dev(model: Model, bdf: str) -> PciDev:
    dev = pci_dev_of(model.kernel, bdf)
    assert dev is not None
    return dev


@pytest.mark.parametrize(("kernel", "saved"), [("v5.18", False), ("v6.1", True), ("v7.2", True)])
def test_a_device_without_power_states_is_saved_too_and_restored(kernel: str, saved: bool) -> None:
    assert _dev(_after(kernel, f"bind vfio-pci {AHCI}"), AHCI).state_saved is (saved or kernel == "v7.2")
    assert not _dev(_after(kernel, f"bind vfio-pci {AHCI}", f"unbind {AHCI}"), AHCI).state_saved


@pytest.mark.parametrize("kernel", ["v6.1", "v6.12", "v7.2"])
def test_a_reset_wakes_the_device_and_lets_it_sleep_again(kernel: str) -> None:
    model = _after(kernel, f"bind vfio-pci {NIC}", f"reset {NIC}")
    dev = _dev(model, NIC)
    assert (dev.current_state, dev.state_saved) == (PCI_D3HOT, True)
    woken = _after(kernel, f"bind vfio-pci {NIC}", f"reset {NIC}", f"unbind {NIC}")
    assert woken.kernel.machine.function(NIC).command & 3 == 3


def test_a_reset_of_an_open_device_leaves_it_awake() -> None:
    model = _after("v6.12", f"bind vfio-pci {NIC}", f"vfio-open {NIC}", f"reset {NIC}")
    assert _dev(model, NIC).current_state == PCI_D0


@pytest.mark.parametrize(("kernel", "master"), [("v6.12", False), ("v6.12 + 1dc302f7fccc", True)])
def test_what_another_driver_saved_comes_back(kernel: str, master: bool) -> None:
    """e1000e saves its config as bus master; seen on 6.12.107, which has that commit."""
    model = _after(kernel, f"bind e1000e {NIC}", f"unbind {NIC}", f"bind vfio-pci {NIC}")
    assert model.kernel.machine.function(NIC).bus_master is master
