from __future__ import annotations

import pytest
from test_pci_probe import NESTED
from toykernel import SMALL, Toy, another_task, device, only

from quiesce.kernel import base_core, base_dd, changes, devres, pci_remove
from quiesce.kernel.kernel import Blocked

SRIOV = """
00:00.0 host-bridge
00:01.0 root-port bus=01
01:00.0 igb sriov=2 vf-offset=16
01:00.1 igb
"""


def short(notified, *actions):
    lines = (line.split() for line in notified)
    return [f"{action} {bdf[5:]}" for action, bdf, _ in lines if not actions or action in actions]


@pytest.mark.parametrize("version", ["v3.6", "v3.13", "v3.14", "v4.1", "v5.3", "v6.12", "v7.3"])
def test_what_listeners_hear_of_a_removal(boot, notified, version):
    k = boot(version, SMALL, Toy())
    notified.clear()
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "00:02.0"))
    unbind = ["UNBIND_DRIVER 00:02.0", "UNBOUND_DRIVER 00:02.0"]
    expected = [*unbind, "DEL_DEVICE 00:02.0"]
    if not k.has(changes.DEVICE_DEL_AFTER_STOP):
        expected = ["DEL_DEVICE 00:02.0", *unbind]
    if k.has(changes.NOTIFY_REMOVED_DEVICE):
        expected.append("REMOVED_DEVICE 00:02.0")
    assert short(notified) == expected


def test_the_whole_subtree_is_stopped_before_any_of_it_is_removed(boot, notified):
    k = boot("v6.12", NESTED, Toy())
    notified.clear()
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "01:00.0"))
    stops = short(notified, "UNBOUND_DRIVER")
    assert stops == [f"UNBOUND_DRIVER {bdf}" for bdf in ("04:00.0", "02:01.0", "03:00.0", "02:00.0", "01:00.0")]
    removals = short(notified, "DEL_DEVICE")
    assert removals == [f"DEL_DEVICE {bdf}" for bdf in ("03:00.0", "02:00.0", "04:00.0", "02:01.0", "01:00.0")]
    assert short(notified).index(stops[-1]) < short(notified).index(removals[0])
    assert [dev.bdf[5:] for dev in k.system.devices] == ["00:00.0", "00:01.0", "00:02.0"]


def test_a_window_opens_between_the_phases_with_the_lock_held(boot):
    k = boot("v6.12", SMALL, Toy())
    dev = device(k, "00:02.0")
    seen = []
    k.nested = lambda where: seen.append((where, tuple(k.mutexes), dev.registered, dev.driver))
    pci_remove.pci_stop_and_remove_bus_device_locked(k, dev)
    where = "pci_stop_and_remove_bus_device 0000:00:02.0: stopped, not removed"
    assert seen[-1] == (where, (pci_remove.RESCAN_REMOVE_LOCK,), True, None)


def test_a_driver_that_binds_between_the_phases_is_unbound_again(boot):
    k = boot("v6.12", SMALL, Toy())
    dev = device(k, "00:02.0")

    def bind(where):
        if "stopped" in where:
            k.nested = None
            assert base_dd.device_driver_attach(k, "toy", dev) == 0

    k.nested = bind
    pci_remove.pci_stop_and_remove_bus_device(k, dev)
    assert k.drivers["toy"].log.count("remove 0000:00:02.0") == 2
    assert not dev.exists


@pytest.mark.parametrize(("version", "locks"), [("v3.13", False), ("v3.14", True), ("v6.12", True)])
def test_removals_exclude_each_other_since_v3_14(boot, version, locks):
    k = boot(version)
    dev = device(k, "00:02.0")
    with another_task(k, pci_remove.RESCAN_REMOVE_LOCK):
        if locks:
            with pytest.raises(Blocked, match="rescan"):
                pci_remove.pci_stop_and_remove_bus_device_locked(k, dev)
            assert dev.registered
        else:
            pci_remove.pci_stop_and_remove_bus_device_locked(k, dev)
            assert not dev.exists


def test_the_structure_stays_while_it_is_referenced(boot):
    k = boot("v6.12", SMALL, Toy())
    dev = device(k, "00:02.0")
    base_core.get_device(k, dev, "file")
    pci_remove.pci_stop_and_remove_bus_device(k, dev)
    assert (dev.exists, dev.registered, dev.is_added, dev.driver) == (True, False, False, None)
    assert dev not in k.system.devices
    base_core.put_device(k, dev, "file")
    assert not dev.exists


def test_removing_twice_does_nothing_the_second_time(boot, notified):
    k = boot("v6.12", SMALL, Toy())
    dev = device(k, "00:02.0")
    base_core.get_device(k, dev, "file")
    pci_remove.pci_stop_and_remove_bus_device(k, dev)
    notified.clear()
    pci_remove.pci_stop_and_remove_bus_device(k, dev)
    assert notified == []


def test_virtual_functions_are_stopped_before_their_physical_function(boot, notified):
    from quiesce.kernel import iov

    k = boot("v6.12", SRIOV, Toy("pf", ids=only(0x8086, 0x10C9)), Toy("vf", ids=only(0x8086, 0x10CA)))
    assert iov.pci_enable_sriov(k, device(k, "01:00.0"), 2) == 0
    notified.clear()
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "00:01.0"))
    stopped = [line.split()[1] for line in notified if "UNBOUND" in line]
    assert stopped == ["0000:01:02.2", "0000:01:02.0", "0000:01:00.1", "0000:01:00.0"]


def test_functions_that_go_with_their_physical_function_are_not_stopped_again(boot):
    from quiesce.kernel import iov

    def remove(k, dev):
        iov.pci_disable_sriov(k, dev)

    k = boot("v6.12", SRIOV, Toy("pf", ids=only(0x8086, 0x10C9), on_remove=remove), Toy("vf", ids=only(0x8086, 0x10CA)))
    pf = device(k, "01:00.0")
    iov.pci_enable_sriov(k, pf, 2)
    pci_remove.pci_stop_and_remove_bus_device(k, pf)
    assert [dev.bdf for dev in k.system.devices] == ["0000:00:00.0", "0000:00:01.0", "0000:01:00.1"]
    assert not pf.exists


def test_managed_resources_go_before_the_device_is_deleted(boot, monkeypatch, notified):
    monkeypatch.setitem(devres.RELEASE, "memo", lambda k, dev, node: notified.append(f"devres {dev.bdf} {dev.driver}"))
    k = boot("v6.12", SMALL, Toy(on_probe=lambda k, dev: devres.devm_add_action(k, dev, "memo")))
    notified.clear()
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "00:02.0"))
    assert [line.split()[0] for line in notified] == [
        "UNBIND_DRIVER",
        "devres",
        "UNBOUND_DRIVER",
        "DEL_DEVICE",
        "REMOVED_DEVICE",
    ]


def test_children_are_those_of_the_bus_below(boot):
    k = boot("v6.12", NESTED)
    children = {dev.bdf[5:]: [c.bdf[5:] for c in pci_remove.pci_children(k, dev)] for dev in k.system.devices}
    assert children["00:01.0"] == ["01:00.0"]
    assert children["01:00.0"] == ["02:00.0", "02:01.0"]
    assert children["00:02.0"] == []
