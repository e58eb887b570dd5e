"""What runtime PM does to a device that waits for user space; each as real kernels showed it."""

from dataclasses import replace
from errno import ENOMEM

import pytest
from drivertest import texts

from quiesce.cases.case import Case
from quiesce.cases.scenario import build, find_machine
from quiesce.explore.model import Model, Step
from quiesce.explore.replay import play
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PciDev
from quiesce.kernel.pci_access import pci_dev_of

AHCI, NIC, XHCI = "0000:00:1f.2", "0000:01:00.0", "0000:02:00.0"
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


@pytest.mark.parametrize(("kernel", "after"), [("v5.18", PCI_D3HOT), ("v6.1", PCI_D3HOT), ("v7.2", PCI_D3HOT)])
def test_recovery_from_an_error_wakes_the_device_and_lets_it_sleep_again(kernel: str, after: int) -> None:
    model = _after(kernel, f"bind vfio-pci {NIC}", f"aer-fatal {NIC}")
    dev = _dev(model, NIC)
    assert dev.current_state == after
    assert (dev.hw.power_state == PCI_D3HOT) is (kernel != "v5.18"), "a reset wakes what sleeps by hand"


def _gone(kernel: str, name: str) -> Model:
    """A device behind a port that went away without a word before user space opened it."""
    machine = f"machine x\n00:00.0 host-bridge\n00:05.0 root-port bus=02\n02:00.0 {name}\niommu intel\n"
    case = replace(CASE, machine=machine, drivers=("vfio-pci",), devices=(XHCI,), kernel=kernel)
    model = build(case, find_machine(machine))
    for event in (f"unplug {XHCI}", f"bind vfio-pci {XHCI}", f"vfio-open {XHCI}"):
        play(model, Step(event))
    return model


@pytest.mark.parametrize("kernel", ["v5.10", "v6.12"])
def test_a_device_that_is_gone_gives_no_msix(kernel: str) -> None:
    """Its table seems to be in a BAR that there is not; seen on 5.10, 6.1, 6.12 and 7.2."""
    assert play(_gone(kernel, "virtio-net-transitional"), Step(f"vfio-msix-on {XHCI}")).answer == -ENOMEM


@pytest.mark.parametrize(("name", "waits"), [("xhci", True), ("conventional", False)])
def test_a_bus_without_power_management_is_not_waited_for(name: str, waits: bool) -> None:
    assert any("giving up" in text for text in texts(_gone("v6.12", name).kernel)) is waits
