"""Every driver, bound and unbound, gives back what it took; what some leave behind is known and written down here."""

from __future__ import annotations

import pytest
from drivertest import PC, bind, booted, device, interrupt, left_behind, rules, unbind

from quiesce.drivers import UnknownDriver, all_drivers, models
from quiesce.kernel import changes
from quiesce.kernel.kernel import Kernel
from quiesce.world import Recording

VERSIONS = ["v3.6", "v4.1", "v5.3", "v6.1", "v6.11", "v7.3"]

BINDS = {
    "ahci": "00:1f.2",
    "e1000e": "01:00.0",
    "nvme": "02:00.0",
    "virtio-pci": "00:05.0",
    "i915": "00:02.0",
    "snd_hda_intel": "00:1b.0",
    "xhci_hcd": "00:14.0",
    "ehci-pci": "00:1d.0",
    "uhci_hcd": "00:1e.0",
    "i2c_i801": "00:1f.3",
    "pcieport": "00:1c.0",
    "pci-stub": "00:07.0",
    "uio_pci_generic": "00:07.0",
    "legacy-intx": "00:07.0",
    "managed-intx": "00:07.0",
    "correct": "01:00.0",
}

GONE = ("dma/", "devres/", "msi_desc/", "file/", "drm/", "vfio", "eventfd/")
"""Objects of which a driver may leave none behind."""
MANAGED = {"ahci", "i2c_i801", "managed-intx", "uio_pci_generic"}
KNOWN = {
    "i2c_i801": {"enable_cnt", "pinned", "irq_managed"},
    "legacy-intx": {"COMMAND"},
    "pcieport": {"COMMAND"},
}
"""Fields that the real driver leaves changed too: i2c-i801 pins its device, a line driver leaves DisINTx set, a port
loses the Bus Master bit that firmware had given it."""


def once(k: Kernel, name: str, bdf: str) -> None:
    """Bind and unbind once, so that the second time shows only what grows."""
    bind(k, name, bdf)
    unbind(k, bdf)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "bdf"), BINDS.items())
def test_unbinding_gives_everything_back(version: str, name: str, bdf: str) -> None:
    k = booted(version, PC, [name])
    mark = k.world.mark()
    assert bind(k, name, bdf) == 0
    dev = device(k, bdf)
    assert dev.driver == name
    assert rules(k) == []
    unbind(k, bdf)
    assert rules(k) == []
    assert not dev.devres
    assert not dev.drvdata
    fields = {change.field for change in left_behind(k, mark) if change.path in (dev.path, dev.hw.path)}
    cleared = k.has(changes.IS_MANAGED_CLEARED)
    assert fields <= KNOWN.get(name, set()) | ({"is_managed"} if name in MANAGED and not cleared else set())
    assert not [change for change in left_behind(k, mark) if change.path.startswith(GONE)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "bdf"), BINDS.items())
def test_a_second_binding_is_like_the_first(version: str, name: str, bdf: str) -> None:
    k = booted(version, PC, [name])
    once(k, name, bdf)
    mark = k.world.mark()
    assert bind(k, name, bdf) == 0
    unbind(k, bdf)
    again = [(c.path, c.field) for c in left_behind(k, mark) if name != "i2c_i801"]
    assert again == []


@pytest.mark.parametrize("name", [name for name in BINDS if name not in ("pci-stub", "pcieport", "uio_pci_generic")])
def test_a_bound_device_is_serviced(name: str) -> None:
    k = booted("v6.12", PC, [name])
    bind(k, name, BINDS[name])
    hw = device(k, BINDS[name]).hw
    assert hw.engine == "running"
    interrupt(k, BINDS[name])
    assert rules(k) == []
    assert not hw.irq_status
    unbind(k, BINDS[name])
    assert hw.engine == "off"
    assert not hw.irq_enabled


@pytest.mark.parametrize("name", [*BINDS, "vfio-pci"])
def test_every_failure_in_probe_unwinds(name: str) -> None:
    """Let each thing that can fail in probe fail once: probe fails cleanly, or the driver copes and can be unbound."""
    bdf = BINDS.get(name, "00:1f.2")
    failed = 0
    for number in range(1, 40):
        k = booted("v6.12", PC + "iommu intel\n", [name])
        mark = k.world.mark()
        k.system.faults_left = 1
        recording = k.world.recording = Recording(forced=(0,) * (number - 1) + (1,))
        answer = bind(k, name, bdf)
        k.world.recording = None
        if k.system.faults_left:
            assert recording.chosen < number
            break
        failed += answer != 0
        assert rules(k) == [], (number, answer)
        dev = device(k, bdf)
        assert (dev.driver is None) == (answer != 0)
        if answer == 0:
            unbind(k, bdf)
            assert rules(k) == []
        assert not dev.devres
        assert not dev.regions
        assert not dev.msi_enabled
        assert not dev.msix_enabled
        assert dev.enable_cnt == 0 or name == "i2c_i801"
        lines = [c for c in left_behind(k, mark) if c.path.startswith(GONE)]
        assert lines == []
    else:
        pytest.fail("probe can fail in more than 40 places")
    assert failed or name in ("pci-stub", "pcieport")


def test_models_by_name() -> None:
    assert list(models(["vfio-pci", "ahci"])) == ["vfio-pci", "ahci"]
    assert set(BINDS) < set(all_drivers())
    with pytest.raises(UnknownDriver, match="no driver model 'ahcii'"):
        models(["ahcii"])


def test_real_machines_have_drivers_by_class() -> None:
    k = booted("v6.12", PC, BINDS, load=BINDS)
    bound = {dev.bdf: dev.driver for dev in k.system.devices}
    assert bound == {
        "0000:00:00.0": None,
        "0000:00:01.0": "pcieport",
        "0000:00:02.0": "i915",
        "0000:00:05.0": "virtio-pci",
        "0000:00:06.0": "virtio-pci",
        "0000:00:07.0": None,
        "0000:00:14.0": "xhci_hcd",
        "0000:00:1b.0": "snd_hda_intel",
        "0000:00:1c.0": "pcieport",
        "0000:00:1d.0": "ehci-pci",
        "0000:00:1e.0": "uhci_hcd",
        "0000:00:1f.2": "ahci",
        "0000:00:1f.3": "i2c_i801",
        "0000:01:00.0": "e1000e",
        "0000:02:00.0": "nvme",
    }
    assert rules(k) == []
