"""The AHCI driver, and the regression of managed INTx that it met in the v6.11 cycle."""

from __future__ import annotations

from errno import EBUSY

import pytest
from drivertest import PC, bind, booted, device, interrupt, rules, unbind

from quiesce.kernel import irq, reboot

BDF = "00:1f.2"


@pytest.mark.parametrize(
    ("version", "fails"), [("v6.10", False), ("v6.11-rc1", True), ("v6.11-rc2", False), ("v6.12", False)]
)
def test_unloading_and_loading_again(version: str, fails: bool) -> None:
    """v6.11-rc1: releasing MSI calls pci_intx(), which leaves a new record on the emptied list."""
    k = booted(version, PC, ["ahci"])
    assert bind(k, "ahci", BDF) == 0
    assert device(k, BDF).msi_enabled
    unbind(k, BDF)
    assert ("devres/created-during-detach" in rules(k)) is fails
    assert bind(k, "ahci", BDF) == (-EBUSY if fails else 0)


@pytest.mark.parametrize("version", ["v3.6", "v6.11", "v6.12", "v6.14"])
def test_without_msi_it_uses_the_line(version: str) -> None:
    k = booted(version, PC.replace("00:1f.2 ahci", "00:1f.2 ahci no-msi"), ["ahci"])
    assert bind(k, "ahci", BDF) == 0
    dev = device(k, BDF)
    assert not dev.msi_enabled
    assert not dev.hw.intx_disabled
    interrupt(k, BDF)
    assert not dev.hw.irq_status
    assert rules(k) == []
    unbind(k, BDF)
    assert not irq.irq_has_action(k, dev.irq)


@pytest.mark.parametrize(("version", "stops"), [("v5.5", False), ("v5.6", True), ("v6.12", True)])
def test_shutdown(version: str, stops: bool) -> None:
    k = booted(version, PC, ["ahci"])
    bind(k, "ahci", BDF)
    k.start_event()
    reboot.shutdown(k, "reboot")
    assert (device(k, BDF).hw.engine == "off") is stops
    assert device(k, BDF).driver == "ahci"
    assert device(k, BDF).msi_enabled


def test_a_controller_that_is_gone_is_not_bound() -> None:
    k = booted("v6.12", PC, ["ahci"])
    k.machine.function(BDF).present = False
    assert bind(k, "ahci", BDF) < 0
    assert not device(k, BDF).devres
