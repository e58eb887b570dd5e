"""Wildcards, stubs, user space drivers, and the drivers with one mistake."""

from __future__ import annotations

from errno import ENODEV

import pytest
from drivertest import PC, at_window, bind, booted, can, device, interrupt, make, operate, rules, texts, unbind

from quiesce.drivers import teaching
from quiesce.kernel import boot, irq, msi, pci_sysfs
from quiesce.kernel.kernel import Crash

NIC, CONVENTIONAL = "01:00.0", "00:07.0"


# -- wildcards -------------------------------------------------------------------------------------------------


def test_agp_looks_at_everything_and_takes_nothing() -> None:
    k = booted("v6.12", PC, ["agp-amd64"], load=["agp-amd64"])
    assert not [dev.bdf for dev in k.system.devices if dev.driver]
    assert bind(k, "agp-amd64", NIC) == -ENODEV


AMD = "machine amd\n00:00.0 host-bridge\n00:00.2 iommu-function\n00:1f.2 ahci\niommu amd 00:00.2\n"


@pytest.mark.parametrize(
    ("version", "changed", "offered"), [("v6.15", (), False), ("v6.16", (), False), ("v6.16", ("-d88dfb756d55",), True)]
)
def test_agp_and_the_amd_iommu(version: str, changed: tuple[str, ...], offered: bool) -> None:
    """Since v6.16 the IOMMU's function may be bound; until agp asks for its capability first, the core complains."""
    k = make(version, AMD, ["agp-amd64"], changed)
    k.start_event()
    boot.boot(k, ["agp-amd64"])
    assert any("Resources present before probing" in line for line in texts(k)) is offered


def test_pciback_takes_what_is_hidden_for_it() -> None:
    k = booted("v6.12", PC, ["pciback"], load=["pciback"])
    dev = device(k, "02:00.0")
    assert dev.driver is None
    assert pci_sysfs.driver_override_store(k, dev, "pciback") == 0
    assert pci_sysfs.bind_store(k, "pciback", dev) == 0
    assert dev.enable_cnt == 0
    unbind(k, "02:00.0")
    assert rules(k) == []


def test_amd_iommu_driver_exists_only_as_a_proposal() -> None:
    for changed, exists in (((), False), (("amd-iommu-pci-driver",), True)):
        k = booted("v4.3-rc1", PC, ["amd-iommu"], changed=changed)
        assert k.drivers["amd-iommu"].matches(k, device(k, NIC)) is exists  # type: ignore[attr-defined]


# -- user space drivers ----------------------------------------------------------------------------------------


def test_uio_masks_until_user_space_unmasks() -> None:
    k = booted("v6.12", PC, ["uio_pci_generic"])
    bind(k, "uio_pci_generic", CONVENTIONAL)
    hw = device(k, CONVENTIONAL).hw
    operate(k, "uio-start", CONVENTIONAL)
    assert not can(k, "uio-ack", CONVENTIONAL)
    interrupt(k, CONVENTIONAL)
    assert hw.intx_disabled
    assert hw.irq_status
    operate(k, "uio-ack", CONVENTIONAL)
    assert not hw.intx_disabled
    assert rules(k) == []


def test_uio_needs_an_interrupt_that_can_be_masked() -> None:
    k = booted("v6.12", PC.replace("00:07.0 conventional", "00:07.0 conventional no-intx-disable"), ["uio_pci_generic"])
    assert bind(k, "uio_pci_generic", CONVENTIONAL) == -ENODEV
    assert device(k, CONVENTIONAL).enable_cnt == 0


def test_uio_takes_a_device_without_interrupt_since_it_is_managed() -> None:
    machine = PC.replace("00:07.0 conventional", "00:07.0 conventional no-pin")
    for kernel, answer, managed in (("v5.12", -ENODEV, False), ("v5.13", 0, True)):
        k = booted(kernel, machine, ["uio_pci_generic"])
        assert bind(k, "uio_pci_generic", CONVENTIONAL) == answer
        assert device(k, CONVENTIONAL).is_managed is managed


def test_an_interface_goes_down_and_up() -> None:
    k = booted("v6.12", PC, ["e1000e"])
    bind(k, "e1000e", NIC)
    dev = device(k, NIC)
    assert operate(k, "net-down", NIC) == 0
    assert dev.hw.engine == "off"
    assert not any(irq.irq_has_action(k, msi.pci_irq_vector(k, dev, number)) for number in range(3))
    assert operate(k, "net-up", NIC) == 0
    interrupt(k, NIC)
    assert not dev.hw.irq_status
    assert rules(k) == []


# -- one mistake each ------------------------------------------------------------------------------------------


def one_life(name: str, version: str) -> list[str]:
    """Bind, interrupt, unbind, bind the correct driver, unbind: the rules broken on the way, a crash at the end."""
    k = booted(version, PC, [name, "correct"])
    found: list[str] = []
    try:
        for step in (
            lambda: bind(k, name, NIC),
            lambda: interrupt(k, NIC),
            lambda: unbind(k, NIC),
            lambda: bind(k, "correct", NIC),
            lambda: unbind(k, NIC),
        ):
            step()
            found += rules(k)
    except Crash as crash:
        return [*found, *rules(k), crash.finding.rule]
    except AssertionError:
        return [*found, *rules(k), "not bound"]
    return found


@pytest.mark.parametrize("version", ["v4.1", "v5.10", "v6.12"])
def test_the_correct_driver_breaks_nothing(version: str) -> None:
    assert one_life("correct", version) == []


@pytest.mark.parametrize(
    ("name", "version", "rule"),
    [
        ("leaky-msi", "v4.1", "msi/enabled-twice"),
        ("leaky-msi", "v6.12", "msi/"),
        ("msi-off-first", "v5.16", "msi/disabled-with-action"),
        ("msi-off-first", "v5.17", "irq/freed-with-action"),
        ("double-free-irq", "v4.1", "irq/free-without-request"),
        ("double-free-irq", "v6.12", "irq/free-without-request"),
    ],
)
def test_mistakes_are_found(name: str, version: str, rule: str) -> None:
    found = one_life(name, version)
    assert any(item.startswith(rule) for item in found), found


def test_forgetting_to_disable_grows_the_count() -> None:
    k = booted("v6.12", PC, ["no-disable"])
    for expected in (1, 2, 3):
        bind(k, "no-disable", NIC)
        unbind(k, NIC)
        assert device(k, NIC).enable_cnt == expected
        assert device(k, NIC).hw.bus_master


@pytest.mark.parametrize(("name", "crashes"), [("irq-before-ready", True), ("correct", False)])
def test_an_interrupt_before_the_driver_is_ready(name: str, crashes: bool) -> None:
    machine = PC.replace("01:00.0 e1000e", "01:00.0 e1000e no-msi no-msix")
    k = booted("v6.12", machine, [name])
    seen = at_window(k, "data not there", lambda: setattr(k.machine.function(NIC), "irq_status", True))
    if crashes:
        with pytest.raises(Crash, match="device/unmapped-access"):
            bind(k, name, NIC)
        assert seen
    else:
        assert bind(k, name, NIC) == 0


@pytest.mark.parametrize(
    ("version", "wrong"), [("v6.10", False), ("v6.11", True), ("v6.13", True), ("v6.14", False), ("v7.3", False)]
)
def test_what_devres_takes_for_the_intx_it_found(version: str, wrong: bool) -> None:
    """d555ed45a5a1: the record kept the opposite of the last call instead of the first value."""
    k = booted(version, PC, ["managed-toggle"])
    bind(k, "managed-toggle", CONVENTIONAL)
    assert not device(k, CONVENTIONAL).hw.intx_disabled
    unbind(k, CONVENTIONAL)
    assert device(k, CONVENTIONAL).hw.intx_disabled is wrong
    assert rules(k) == (["devres/wrong-intx-restore"] if wrong else [])


def test_unmapping_late() -> None:
    k = booted("v6.12", PC, ["late-unmap"])
    bind(k, "late-unmap", NIC)
    operate(k, "late-open", NIC)
    unbind(k, NIC)
    assert can(k, "late-close", NIC)
    operate(k, "late-close", NIC)
    assert not can(k, "late-close", NIC)
    bind(k, "late-unmap", NIC)
    unbind(k, NIC)


def test_every_teaching_driver_says_what_is_wrong_with_it() -> None:
    for driver in teaching.TEACHING:
        assert driver.__doc__
        assert driver.name in {"correct"} or driver.__doc__ != teaching.Correct.__doc__
