"""virtio: vectors, the register layout that moves with MSI-X, shutdown by version, and surprise removal."""

from __future__ import annotations

from errno import EBUSY

import pytest
from drivertest import PC, bind, booted, can, device, interrupt, operate, rules, unbind

from quiesce.drivers.virtio_pci import device_config_offset
from quiesce.kernel import irq, reboot
from quiesce.kernel.kernel import Crash
from quiesce.kernel.objects import IrqAction

OLD, MODERN = "00:05.0", "00:06.0"


def test_vectors_fall_back_step_by_step() -> None:
    for kind, names in (
        ("msix=4", ["virtio0-config", "virtio0-input.0", "virtio0-output.0"]),
        ("msix=2", ["virtio0-config", "virtio0-virtqueues"]),
        ("no-msix", ["virtio0"]),
    ):
        machine = PC.replace("virtio-net-transitional", f"virtio-net-transitional {kind}")
        k = booted("v6.12", machine, ["virtio-pci"])
        bind(k, "virtio-pci", OLD)
        lines = device(k, OLD).drvdata["vectors"]
        assert [action.name for line in lines for action in irq.desc(k, line).actions] == names
        interrupt(k, OLD)
        assert not device(k, OLD).hw.irq_status
        assert rules(k) == []
        unbind(k, OLD)


def test_probe_succeeds_although_the_network_device_cannot_start() -> None:
    k = booted("v6.12", PC.replace("virtio-net-transitional", "virtio-net-transitional no-msix no-pin"), ["virtio-pci"])
    assert bind(k, "virtio-pci", OLD) == 0
    assert device(k, OLD).hw.engine == "off"
    unbind(k, OLD)
    assert rules(k) == []


@pytest.mark.parametrize(
    ("version", "changed", "found"),
    [
        ("v4.1", (), ["device/register-layout"]),
        ("v4.11", (), ["device/register-layout"]),
        ("v4.12", (), []),
        ("v4.1", ("fda78d7a0ead",), []),
        ("v4.1", ("virtio-shutdown-callback",), ["device/register-layout"]),
        ("v4.12", ("virtio-shutdown-callback",), ["device/used-after-reset"]),
        ("v6.14", (), []),
    ],
)
def test_a_thread_reads_the_configuration_after_shutdown(
    version: str, changed: tuple[str, ...], found: list[str]
) -> None:
    """The core switched MSI-X off behind the driver's back, and its registers moved."""
    k = booted(version, PC, ["virtio-pci"], changed=changed)
    bind(k, "virtio-pci", OLD)
    operate(k, "config-access", OLD)
    assert rules(k) == []
    assert device_config_offset(device(k, OLD)) == 24
    reboot.shutdown(k, "reboot")
    operate(k, "config-access", OLD)
    assert rules(k) == found


def test_a_modern_device_does_not_mind() -> None:
    k = booted("v4.1", PC, ["virtio-pci"])
    bind(k, "virtio-pci", MODERN)
    reboot.shutdown(k, "reboot")
    operate(k, "config-access", MODERN)
    assert rules(k) == []


def test_since_v6_15_the_bus_breaks_and_resets_it() -> None:
    for version, off in (("v6.14", False), ("v6.15", True), ("v7.3", True)):
        k = booted(version, PC, ["virtio-pci"])
        bind(k, "virtio-pci", OLD)
        reboot.shutdown(k, "reboot")
        assert (device(k, OLD).hw.engine == "off") is off
        assert can(k, "config-access", OLD) is not off


@pytest.mark.parametrize(("version", "raised"), [("v4.11", True), ("v4.12", False), ("v6.12", False)])
def test_who_shares_the_line_suffers(version: str, raised: bool) -> None:
    """With MSI-X off the running device asserts INTx, which only an innocent handler listens to."""
    machine = PC + "route 00:05 A -> 20\nroute 00:07 A -> 20\n"
    k = booted(version, machine, ["virtio-pci", "legacy-intx"])
    bind(k, "virtio-pci", OLD)
    bind(k, "legacy-intx", "00:07.0")
    reboot.shutdown(k, "reboot")
    interrupt(k, OLD)
    assert ("irq/nobody-cared" in rules(k)) is raised


@pytest.mark.parametrize(("version", "hangs"), [("v5.13", True), ("v5.14", False), ("v6.12", False)])
def test_removing_a_device_that_is_gone(version: str, hangs: bool) -> None:
    k = booted(version, PC.replace("01:00.0 e1000e", "01:00.0 virtio-net"), ["virtio-pci"])
    bind(k, "virtio-pci", "01:00.0")
    k.machine.unplug(k.machine.function("01:00.0"))
    operate(k, "config-access", "01:00.0")
    assert rules(k) == []
    if hangs:
        with pytest.raises(Crash, match="wait/gone-device"):
            unbind(k, "01:00.0")
    else:
        unbind(k, "01:00.0")
        assert rules(k) == []


def test_a_line_that_cannot_be_had_is_given_up() -> None:
    k = booted(
        "v6.12", PC.replace("virtio-net-transitional", "virtio-net-transitional no-msix"), ["virtio-pci", "correct"]
    )
    bind(k, "correct", OLD)
    unbind(k, OLD)
    line = device(k, OLD).irq
    bind(k, "virtio-pci", OLD)
    assert irq.request_irq(k, line, IrqAction("other", "correct.interrupt", device(k, OLD))) in (-EBUSY, -22)
