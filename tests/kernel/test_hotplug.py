from __future__ import annotations

from errno import EEXIST, ENODEV

import pytest
from toykernel import E1000E, SMALL, Toy, another_task, device, texts

from quiesce.kernel import base_core, changes, hotplug, pci, pci_remove, suspend
from quiesce.kernel.kernel import Blocked
from quiesce.machine import pci_regs as r

POWERED = """
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug power-control
01:00.0 nvme
"""
FIXED = """
00:00.0 host-bridge
00:01.0 root-port bus=01
01:00.0 e1000e
"""
SWITCH = """
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug
01:00.0 switch-up bus=02
02:00.0 switch-down bus=03
03:00.0 nvme
"""
CARD = ("01:00.0", "01:00.1")


def pull(k, *bdfs):
    for bdf in bdfs or CARD:
        k.machine.unplug(k.machine.function(bdf))


def put_back(k, *bdfs):
    for bdf in bdfs or CARD:
        k.machine.plug(k.machine.function(bdf))


def listed(k):
    return [dev.bdf[5:] for dev in k.system.devices]


# -- surprise ----------------------------------------------------------------------------------------------------


def test_a_card_that_is_pulled_is_removed(boot):
    k = boot("v6.12", SMALL, Toy())
    dev = device(k, "01:00.0")
    pull(k)
    assert dev.driver == "toy"
    hotplug.surprise_removed(k, dev)
    assert listed(k) == ["00:00.0", "00:01.0", "00:02.0", "00:03.0"]
    assert not dev.exists
    assert k.drivers["toy"].log[-2:] == ["remove 0000:01:00.1", "remove 0000:01:00.0"]
    prefix = "pcieport 0000:00:01.0: pciehp: Slot(8)"
    assert texts(k, "info") == [f"{prefix}: Link Down", f"{prefix}: Card not present"]


def test_the_slot_forgets_the_event(boot):
    k = boot("v6.12", SMALL, Toy())
    port = device(k, "00:01.0")
    status = port.hw.find_capability(r.PCI_CAP_ID_EXP) + r.PCI_EXP_SLTSTA
    pull(k)
    assert port.hw.read_config(status, 2) & r.PCI_EXP_SLTSTA_PDC
    hotplug.surprise_removed(k, device(k, "01:00.0"))
    assert not port.hw.read_config(status, 2) & r.PCI_EXP_SLTSTA_PDC


@pytest.mark.parametrize("version", ["v3.6", "v4.11", "v4.12", "v6.2", "v6.3", "v7.3"])
def test_drivers_are_told_by_the_mark_since_v4_12(boot, version):
    seen = []

    def look(k, dev):
        seen.append((dev.disconnected, dev.error_state, hex(pci.pci_read_config(k, dev, r.PCI_VENDOR_ID, 2))))

    k = boot(version, SMALL, Toy(ids=E1000E, on_remove=look))
    pull(k)
    hotplug.surprise_removed(k, device(k, "01:00.0"))
    marked = k.has(changes.DISCONNECTED_STATE)
    assert seen == [(marked, "perm_failure" if marked else "normal", "0xffff")] * 2


def test_everything_below_is_marked_before_anything_is_unbound(boot):
    order = []
    k = boot(
        "v6.12", SWITCH, Toy(on_remove=lambda k, dev: order.append([d.disconnected for d in k.system.devices][2:]))
    )
    dev = device(k, "01:00.0")
    pull(k, "01:00.0")
    k.nested = lambda where: order.append(where) if "disconnected" in where else None
    hotplug.surprise_removed(k, dev)
    assert order == ["pciehp 0000:00:01.0: marked as disconnected, drivers still bound", *[[True] * 3] * 3]


@pytest.mark.parametrize(("version", "waits"), [("v4.20", True), ("v6.2", True), ("v6.3", False)])
def test_marking_waits_for_a_driver_that_is_binding(boot, version, waits):
    k = boot(version, SMALL, Toy())
    dev = device(k, "01:00.0")
    with another_task(k, f"device_lock {dev.bdf}"):
        if waits:
            with pytest.raises(Blocked):
                hotplug.pci_dev_set_disconnected(k, dev)
            assert not dev.disconnected
        else:
            hotplug.pci_dev_set_disconnected(k, dev)
            assert dev.disconnected


def test_an_open_file_keeps_the_structure_and_the_next_card_gets_another(boot):
    k = boot("v6.12", SMALL, Toy())
    old = device(k, "01:00.0")
    base_core.get_device(k, old, "file")
    pull(k)
    hotplug.surprise_removed(k, old)
    put_back(k)
    hotplug.plugged(k, k.machine.function("01:00.0"))
    new = device(k, "01:00.0", 2)
    assert (old.exists, old.disconnected, new.exists, new.disconnected, new.driver) == (True, True, True, False, "toy")
    assert listed(k) == ["00:00.0", "00:01.0", "00:02.0", "00:03.0", "01:00.0", "01:00.1"]
    base_core.put_device(k, old, "file")
    assert not old.exists


def test_unplug_and_replug_come_back_to_the_same_state(boot):
    k = boot("v6.12", SMALL, Toy())
    prints = []
    for _ in range(2):
        pull(k)
        hotplug.surprise_removed(k, device(k, "01:00.0"))
        put_back(k)
        hotplug.plugged(k, k.machine.function("01:00.0"))
        prints.append(k.world.fingerprint)
    assert prints[0] == prints[1]


def test_a_new_card_is_announced_and_bound(boot):
    k = boot("v6.12", "00:00.0 host-bridge\n00:01.0 root-port bus=01 hotplug\n01:00.0 nvme absent\n", Toy())
    put_back(k, "01:00.0")
    hotplug.plugged(k, k.machine.function("01:00.0"))
    assert device(k, "01:00.0").driver == "toy"
    assert [text.rsplit(": ", 1)[1] for text in texts(k, "info")] == ["Card present", "Link Up"]


def test_a_slot_that_lost_one_function_is_turned_off_and_on(boot):
    k = boot("v6.12", SMALL, Toy())
    old = device(k, "01:00.0")
    base_core.get_device(k, old, "file")
    pull(k, "01:00.1")
    hotplug.surprise_removed(k, device(k, "01:00.1"))
    assert listed(k)[-1] == "01:00.0"
    assert not old.registered
    assert device(k, "01:00.0", 2).registered


# -- without a hot-plug slot -------------------------------------------------------------------------------------


def test_without_a_hotplug_slot_nobody_notices(boot):
    k = boot("v6.12", FIXED, Toy())
    dev = device(k, "01:00.0")
    assert hotplug.pciehp_port(k, dev.hw) is None
    pull(k, "01:00.0")
    hotplug.surprise_removed(k, dev)
    assert (dev.registered, dev.driver, dev.disconnected) == (True, "toy", False)
    pci_remove.pci_stop_and_remove_bus_device(k, dev)
    put_back(k, "01:00.0")
    hotplug.plugged(k, k.machine.function("01:00.0"))
    assert listed(k) == ["00:00.0", "00:01.0"]


def test_the_port_driver_must_have_the_port_if_there_is_one(boot):
    k = boot("v6.12", SMALL, Toy("pcieport", ids=()))
    port = device(k, "00:01.0")
    fn = k.machine.function("01:00.0")
    assert hotplug.pciehp_port(k, fn) is None
    port.driver = "pcieport"
    assert hotplug.pciehp_port(k, fn) is port
    assert hotplug.pciehp_port(k, k.machine.function("00:02.0")) is None


# -- orderly -----------------------------------------------------------------------------------------------------


def test_an_orderly_removal_unbinds_while_the_card_answers_and_then_silences_it(boot):
    seen = []

    def look(k, dev):
        seen.append((dev.disconnected, dev.hw.reachable))

    k = boot("v6.12", SMALL, Toy(ids=E1000E, on_probe=lambda k, dev: pci.pci_set_master(k, dev), on_remove=look))
    port = device(k, "00:01.0")
    assert hotplug.pciehp_disable_slot(k, port) == 0
    assert seen == [(False, True)] * 2
    hw = k.machine.function("01:00.0")
    assert (hw.bus_master, hw.intx_disabled) == (False, True)
    assert hotplug.pciehp_disable_slot(k, port) == -ENODEV


def test_the_slots_power_is_switched_where_it_can_be(boot):
    k = boot("v6.12", POWERED, Toy())
    port, hw = device(k, "00:01.0"), k.machine.function("01:00.0")
    hotplug.pciehp_disable_slot(k, port)
    assert (hw.powered, hw.reachable) == (False, False)
    assert hotplug.pciehp_enable_slot(k, port) == 0
    assert (hw.powered, device(k, "01:00.0").driver) == (True, "toy")


def test_an_empty_slot_cannot_be_enabled_and_a_full_one_not_twice(boot):
    k = boot("v6.12", POWERED, Toy())
    port = device(k, "00:01.0")
    assert hotplug.pciehp_configure_device(k, port) == -EEXIST
    hotplug.pciehp_disable_slot(k, port)
    pull(k, "01:00.0")
    assert hotplug.pciehp_enable_slot(k, port) == -ENODEV
    assert hotplug.pciehp_configure_device(k, port) == -ENODEV


def test_slots_wait_for_the_rescan_lock(boot):
    k = boot("v6.12", SMALL, Toy())
    pull(k)
    with another_task(k, pci_remove.RESCAN_REMOVE_LOCK), pytest.raises(Blocked):
        hotplug.surprise_removed(k, device(k, "01:00.0"))


# -- containment -------------------------------------------------------------------------------------------------


class Robust(Toy):
    """A driver with error callbacks."""

    error_handlers = True


@pytest.mark.parametrize(
    ("version", "driver", "stays"),
    [("v5.13", Robust, False), ("v5.14", Robust, True), ("v6.12", Robust, True), ("v6.12", Toy, False)],
)
def test_a_link_that_containment_cut_is_ignored_if_recovery_worked(boot, version, driver, stays):
    k = boot(version, SMALL, driver(ids=E1000E))
    dev, port = device(k, "01:00.0"), device(k, "00:01.0")
    base_core.get_device(k, dev, "test")
    hotplug.dpc_triggered(k, port)
    assert dev.registered is stays
    assert any("ignored (recovered by DPC)" in text for text in texts(k)) is stays
    assert device(k, "01:00.0", 2).exists is not stays


# -- sleep -------------------------------------------------------------------------------------------------------


def asleep(boot, version, machine=SMALL):
    k = boot(version, machine, Toy())
    assert suspend.suspend(k) == 0
    return k


@pytest.mark.parametrize(("version", "noticed"), [("v6.1", False), ("v6.10", False), ("v6.11", True), ("v7.2", True)])
def test_a_card_that_went_away_in_sleep_is_noticed_at_resume(boot, version, noticed):
    """9d573d19547b: before, a slot that reports no change keeps its devices."""
    k = asleep(boot, version)
    pull(k)
    suspend.resume(k)
    assert ("01:00.0" not in listed(k)) is noticed


@pytest.mark.parametrize(("version", "back"), [("v6.10", False), ("v6.11", True)])
def test_what_was_removed_through_sysfs_comes_back_from_sleep(boot, version, back):
    k = boot(version, SMALL, Toy())
    for bdf in CARD:
        pci_remove.pci_stop_and_remove_bus_device_locked(k, device(k, bdf))
    suspend.suspend(k)
    suspend.resume(k)
    assert ("01:00.0" in listed(k)) is back


def test_a_slot_that_is_off_stays_off_in_sleep(boot):
    k = boot("v7.2", POWERED, Toy())
    port = device(k, "00:01.0")
    assert hotplug.pciehp_disable_slot(k, port) == 0
    suspend.suspend(k)
    suspend.resume(k)
    assert listed(k) == ["00:00.0", "00:01.0"]
    assert hotplug.pciehp_enable_slot(k, port) == 0
    assert "01:00.0" in listed(k)


def test_a_card_that_stays_is_left_alone(boot):
    k = asleep(boot, "v7.2")
    before = listed(k)
    suspend.resume(k)
    assert listed(k) == before
    assert not device(k, "01:00.0").disconnected
