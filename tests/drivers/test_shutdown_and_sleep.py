"""What each driver does on the way down, and that it works again after sleep."""

from __future__ import annotations

import pytest
from drivertest import PC, bind, booted, device, interrupt, rules, unbind

from quiesce.kernel import irq, reboot, suspend
from quiesce.kernel.objects import System

SLEEPERS = {
    "ahci": "00:1f.2",
    "e1000e": "01:00.0",
    "nvme": "02:00.0",
    "virtio-pci": "00:05.0",
    "i915": "00:02.0",
    "snd_hda_intel": "00:1b.0",
    "xhci_hcd": "00:14.0",
    "i2c_i801": "00:1f.3",
    "legacy-intx": "00:07.0",
    "managed-intx": "00:07.0",
    "correct": "01:00.0",
}


@pytest.mark.parametrize("version", ["v4.1", "v5.3", "v6.12", "v7.3"])
@pytest.mark.parametrize(("name", "bdf"), SLEEPERS.items())
def test_a_device_works_after_sleep(version: str, name: str, bdf: str) -> None:
    k = booted(version, PC, [name])
    bind(k, name, bdf)
    targets = device(k, bdf).hw.dma_target
    k.start_event()
    assert suspend.suspend(k) == 0
    assert device(k, bdf).hw.engine == "off"
    suspend.resume(k)
    irq.settle(k)
    hw = device(k, bdf).hw
    assert hw.engine == "running"
    assert len(hw.dma_target) == len(targets)
    interrupt(k, bdf)
    assert not hw.irq_status
    assert rules(k) == []
    unbind(k, bdf)
    assert rules(k) == []


SHUTDOWN = {
    "e1000e": ("01:00.0", "off", False),
    "nvme": ("02:00.0", "off", False),
    "xhci_hcd": ("00:14.0", "off", False),
    "snd_hda_intel": ("00:1b.0", "off", True),
    "i915": ("00:02.0", "off", True),
    "legacy-intx": ("00:07.0", "off", True),
    "uio_pci_generic": ("00:07.0", "running", True),
}


@pytest.mark.parametrize(("name", "expected"), SHUTDOWN.items())
def test_shutdown(name: str, expected: tuple[str, str, bool]) -> None:
    """Engine off, and whether the driver leaves its handlers registered."""
    bdf, engine, handlers = expected
    k = booted("v6.12", PC, [name])
    bind(k, name, bdf)
    dev = device(k, bdf)
    dev.hw.engine = "running"
    k.start_event()
    reboot.shutdown(k, "reboot")
    assert System.get(k.world, "system").phase == "shutdown"
    assert dev.hw.engine == engine
    on = [line for line in range(16, 40) if any(action.dev_id is dev for action in irq.desc(k, line).actions)]
    assert bool(on) is handlers
    assert rules(k) == []


@pytest.mark.parametrize(
    ("version", "services", "port"),
    [
        ("v4.14", True, True),
        ("v4.15", False, False),
        ("v6.2", False, False),
        ("v6.3", False, True),
        ("v7.3", False, True),
    ],
)
def test_shutdown_of_a_port(version: str, services: bool, port: bool) -> None:
    """Services stop since v4.15; until v6.2 the port itself was disabled, and all below it with it."""
    k = booted(version, PC, ["pcieport"])
    bind(k, "pcieport", "00:01.0")
    dev = device(k, "00:01.0")
    k.start_event()
    reboot.shutdown(k, "reboot")
    assert bool(dev.drvdata["services"]) is services
    assert dev.msi_enabled is (services and version != "v4.11")
    assert (dev.enable_cnt > 0) is port
    assert dev.hw.bus_master is port
