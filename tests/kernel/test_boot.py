from __future__ import annotations

import pytest
from toykernel import AHCI, E1000E, SMALL, Toy, device, make_kernel, rules

from quiesce.kernel import boot, changes, hotplug, iommu, pci_remove, pci_sysfs
from quiesce.kernel.base_core import EPROBE_DEFER
from quiesce.kernel.objects import PCI_D0

STRIPES = ("v3.5", "v3.6", "v3.9", "v3.13", "v4.1", "v4.3", "v5.3", "v5.10", "v6.1", "v6.11", "v6.12", "v6.19", "v7.3")


@pytest.mark.parametrize("version", STRIPES)
def test_a_machine_boots_with_every_kernel(version):
    k = make_kernel(version, SMALL, Toy("disk", ids=AHCI), Toy("net", ids=E1000E))
    boot.boot(k, ["net", "disk"])
    assert k.system.phase == "running"
    assert [dev.driver for dev in k.system.devices] == [None, None, "disk", None, "net", "net"]
    assert all(dev.is_added and dev.registered for dev in k.system.devices)
    assert rules(k) == []


def test_devices_then_iommu_then_drivers(monkeypatch, notified):
    monkeypatch.setattr(iommu, "iommu_init", lambda k: notified.append("IOMMU"))
    k = make_kernel("v6.12", "00:00.0 host-bridge\n00:02.0 ahci\n", Toy("disk", ids=AHCI))
    boot.boot(k, ["disk"])
    assert [line.split()[0] for line in notified] == [
        "ADD_DEVICE",
        "ADD_DEVICE",
        "IOMMU",
        "BIND_DRIVER",
        "BOUND_DRIVER",
    ]


def test_drivers_that_are_marked_as_loaded_come_first():
    k = make_kernel("v6.12", SMALL, Toy("late"), Toy("early"))
    k.system.loaded.add("early")
    boot.boot(k, ["late"])
    assert device(k, "00:02.0").driver == "early"
    assert k.drivers["late"].log == []
    assert sorted(k.system.loaded) == ["early", "late"]


def test_drivers_are_registered_in_the_order_given():
    for order in (["first", "second"], ["second", "first"]):
        k = make_kernel("v6.12", SMALL, Toy("first"), Toy("second"))
        boot.boot(k, order)
        assert device(k, "00:02.0").driver == order[0]


def test_what_was_deferred_is_tried_at_the_end():
    tries = []
    k = make_kernel("v6.12", SMALL, Toy("disk", ids=AHCI, on_probe=lambda k, dev: tries.append(k.system.phase)))
    k.drivers["disk"].answer = -EPROBE_DEFER
    boot.boot(k, ["disk"])
    assert tries == ["off", "running"]


def test_enumeration_holds_the_rescan_lock(monkeypatch):
    held = []
    k = make_kernel("v6.12", SMALL)
    monkeypatch.setattr("quiesce.kernel.pci_probe.pci_scan", lambda k: held.append(tuple(k.mutexes)))
    boot.enumerate_all(k)
    assert held == [(pci_remove.RESCAN_REMOVE_LOCK,)]


def test_bridges_are_enabled_at_boot_up_to_v3_12():
    for version, count in (("v3.12", 1), ("v3.13", 0)):
        k = make_kernel(version, SMALL)
        boot.boot(k)
        port = device(k, "00:01.0")
        assert port.enable_cnt == count
        assert port.is_busmaster is (count == 1)
        assert (port.current_state == PCI_D0) is (count == 1)


def test_two_boots_are_the_same_state():
    prints = set()
    for _ in range(2):
        k = make_kernel("v6.12", SMALL, Toy())
        boot.boot(k, ["toy"])
        prints.add(k.world.fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize("iommu_name", ["intel", "amd"])
@pytest.mark.parametrize("version", STRIPES)
def test_a_whole_life_with_an_iommu_breaks_no_rule(version, iommu_name):
    k = make_kernel(version, f"{SMALL}iommu {iommu_name}\n", Toy("disk", ids=AHCI), Toy("net", ids=E1000E))
    boot.boot(k, ["net", "disk"])
    card = [k.machine.function(bdf) for bdf in ("01:00.0", "01:00.1")]
    grouped = {dev.bdf for dev in k.system.devices if dev.iommu_group is not None}
    for _ in range(2):
        pci_sysfs.unbind_store(k, "disk", device(k, "00:02.0"))
        pci_sysfs.remove_store(k, device(k, "00:02.0"))
        pci_sysfs.rescan_store(k)
        for fn in card:
            k.machine.unplug(fn)
        hotplug.surprise_removed(k, device(k, "01:00.0"))
        for fn in card:
            k.machine.plug(fn)
        hotplug.plugged(k, card[0])
    assert [device(k, bdf).driver for bdf in ("00:02.0", "01:00.0", "01:00.1")] == ["disk", "net", "net"]
    assert {dev.bdf for dev in k.system.devices if dev.iommu_group is not None} == grouped
    assert ("0000:00:02.0" in grouped) is k.has(changes.IOMMU_GROUP_OBJECTS)
    assert rules(k) == []
