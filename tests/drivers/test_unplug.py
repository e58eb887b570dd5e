"""Every driver loses its device while it is bound, and lets go of it without one."""

from __future__ import annotations

import pytest
from drivertest import bind, booted, device, rules

from quiesce.kernel import hotplug, irq

SLOT = """
machine slot
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug acs
01:00.0 {kind}
iommu {iommu}
"""
KINDS = {
    "ahci": "ahci",
    "e1000e": "e1000e",
    "igb": "igb",
    "nvme": "nvme",
    "virtio-pci": "virtio-net",
    "i915": "gpu",
    "snd_hda_intel": "audio",
    "xhci_hcd": "xhci",
    "i2c_i801": "smbus",
    "uio_pci_generic": "endpoint",
    "legacy-intx": "endpoint",
    "managed-intx": "endpoint",
    "pci-stub": "endpoint",
    "vfio-pci": "nvme",
    "correct": "e1000e",
}


@pytest.mark.parametrize("version", ["v5.3", "v6.1", "v6.12", "v7.3"])
@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_surprise_removal(version: str, name: str, kind: str) -> None:
    iommu = "amd" if version == "v6.1" else "intel"
    changed = ("43bb40c5b926",) if version == "v5.3" and name == "virtio-pci" else ()
    k = booted(version, SLOT.format(kind=kind, iommu=iommu), ["pcieport", name], load=["pcieport"], changed=changed)
    assert bind(k, name, "01:00.0") == 0
    dev = device(k, "01:00.0")
    k.start_event()
    k.machine.unplug(dev.hw)
    irq.settle(k)
    hotplug.surprise_removed(k, dev)
    irq.settle(k)
    assert [rule for rule in rules(k) if not rule.startswith("devres/")] == []
    assert not dev.exists
    assert [other.bdf for other in k.system.devices if other.bdf.startswith("0000:01")] == []
    k.start_event()
    k.machine.plug(k.machine.function("01:00.0"))
    hotplug.plugged(k, k.machine.function("01:00.0"))
    assert bind(k, name, "01:00.0") == 0
    assert rules(k) == []


@pytest.mark.parametrize(("version", "made"), [("v6.10", False), ("v6.12", True), ("v6.14", False)])
def test_a_gone_device_seems_to_change_intx(version: str, made: bool) -> None:
    """All ones read as INTx disabled, so enabling it "changes the bit" while MSI is given back, and makes a record."""
    k = booted(version, SLOT.format(kind="ahci", iommu="intel"), ["pcieport", "ahci"], load=["pcieport"])
    bind(k, "ahci", "01:00.0")
    k.start_event()
    k.machine.unplug(device(k, "01:00.0").hw)
    hotplug.surprise_removed(k, device(k, "01:00.0"))
    assert ("devres/created-during-detach" in rules(k)) is made
