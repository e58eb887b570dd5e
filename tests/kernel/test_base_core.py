from __future__ import annotations

import pytest
from toykernel import SMALL, ShutdownToy, Toy, another_task, device, make_kernel, rules, texts

from quiesce.kernel import base_core, base_dd, changes, devres, notifier
from quiesce.kernel.kernel import Blocked, Crash
from quiesce.kernel.objects import PciDev
from quiesce.world import UseOfDeadObject

BDF = "0000:00:02.0"


def about(notified, bdf=BDF):
    return [line.split()[0] for line in notified if bdf in line]


@pytest.fixture
def k(boot):
    return boot("v6.12", SMALL, Toy())


@pytest.fixture
def unlisted(k):
    """A device that left the bus list but not the memory: somebody still holds it."""
    dev = device(k, "00:02.0")
    base_core.get_device(k, dev, "file")
    base_dd.device_release_driver(k, dev)
    base_core.device_del(k, dev)
    k.system.devices.remove(dev)
    base_core.device_unlinked(k, dev)
    return dev


# -- references --------------------------------------------------------------------------------------------------


def test_the_last_reference_frees_the_structure(k, unlisted):
    assert unlisted.exists
    base_core.get_device(k, unlisted, "other")
    base_core.put_device(k, unlisted, "file")
    assert unlisted.exists
    base_core.put_device(k, unlisted, "other")
    assert not unlisted.exists
    with pytest.raises(UseOfDeadObject):
        _ = unlisted.irq


def test_a_listed_device_needs_no_other_reference(k):
    dev = device(k, "00:02.0")
    base_core.get_device(k, dev, "file")
    base_core.put_device(k, dev, "file")
    assert dev.exists


def test_a_holder_may_hold_several_references(k, unlisted):
    base_core.get_device(k, unlisted, "file")
    base_core.get_device(k, unlisted, "file")
    for _ in range(3):
        assert unlisted.exists
        base_core.put_device(k, unlisted, "file")
    assert not unlisted.exists
    assert rules(k) == []


def test_a_reference_too_many_given_back_is_found(k):
    dev = device(k, "00:02.0")
    base_core.put_device(k, dev, "nobody")
    assert rules(k) == ["memory/refcount"]
    assert texts(k, "WARN") == ["refcount_t: underflow; use-after-free."]
    assert dev.exists


def test_a_bound_driver_holds_a_reference(k):
    dev = device(k, "00:02.0")
    assert tuple(dev.refs) == ("driver",)
    base_dd.device_release_driver(k, dev)
    assert tuple(dev.refs) == ()


def test_objects_can_be_holders(k):
    dev, other = device(k, "00:02.0"), device(k, "00:03.0")
    base_core.get_device(k, dev, other)
    assert other in dev.refs
    base_core.put_device(k, dev, other)
    assert other not in dev.refs


# -- registration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v3.6", "v3.17", "v3.18", "v4.1", "v5.3", "v6.12", "v7.3"])
def test_removal_is_announced_twice_since_v3_18(boot, notified, version):
    k = boot(version)
    notified.clear()
    base_core.device_del(k, device(k, "00:02.0"))
    expected = ["DEL_DEVICE"]
    if k.has(changes.NOTIFY_REMOVED_DEVICE):
        expected.append("REMOVED_DEVICE")
    assert about(notified) == expected


def test_a_device_is_dead_from_the_start_of_its_removal_and_registered_to_the_end(boot, monkeypatch):
    k = boot("v6.12")
    seen = []
    monkeypatch.setattr(
        notifier, "listeners", lambda: (lambda k, action, dev: seen.append((action, dev.dead, dev.registered)),)
    )
    dev = device(k, "00:02.0")
    base_core.device_del(k, dev)
    assert seen == [("DEL_DEVICE", True, True), ("REMOVED_DEVICE", True, True)]
    assert not dev.registered
    assert dev.exists


def test_removal_unbinds_a_driver_that_is_still_there(k, notified):
    dev = device(k, "00:02.0")
    notified.clear()
    base_core.device_del(k, dev)
    assert about(notified) == ["DEL_DEVICE", "UNBIND_DRIVER", "UNBOUND_DRIVER", "REMOVED_DEVICE"]
    assert not dev.deferred


@pytest.mark.parametrize(
    ("version", "at_del", "at_last_put"),
    [("v3.6", True, False), ("v3.8", False, True), ("v6.5", False, True), ("v6.6", True, True), ("v7.3", True, True)],
)
def test_when_devres_of_a_device_without_driver_is_released(boot, monkeypatch, version, at_del, at_last_put):
    released = []
    monkeypatch.setitem(devres.RELEASE, "memo", lambda k, dev, node: released.append(node.data["number"]))
    k = boot(version)
    dev = device(k, "00:02.0")
    base_core.get_device(k, dev, "file")
    devres.devm_add_action(k, dev, "memo", number=1)
    base_core.device_del(k, dev)
    assert released == ([1] if at_del else [])
    devres.devm_add_action(k, dev, "memo", number=2)
    k.system.devices.remove(dev)
    base_core.put_device(k, dev, "file")
    assert not dev.exists
    assert (2 in released) is at_last_put


def test_removal_waits_for_the_device_lock(boot):
    k = boot("v6.12")
    dev = device(k, "00:02.0")
    with another_task(k, f"device_lock {BDF}"), pytest.raises(Blocked):
        base_core.device_del(k, dev)
    base_core.device_del(k, dev)
    assert not dev.registered


def test_the_device_lock_is_not_taken_twice(k):
    dev = device(k, "00:02.0")
    with base_core.device_lock(k, dev), pytest.raises(Crash) as crash, base_core.device_lock(k, dev):
        pass
    assert crash.value.finding.rule == "wait/self-deadlock"
    with base_core.device_lock(k, dev):
        assert k.mutexes == [f"device_lock {BDF}"]


def test_lines_start_with_the_driver_or_the_bus(k):
    dev = device(k, "00:02.0")
    base_core.dev_printk(k, "info", dev, "hello")
    base_dd.device_release_driver(k, dev)
    base_core.dev_printk(k, "info", dev, "hello")
    assert texts(k) == [f"toy {BDF}: hello", f"pci {BDF}: hello"]


def test_listeners_are_asked_in_a_fixed_order(monkeypatch):
    from quiesce.kernel import amd_iommu, intel_iommu, iommu, vfio

    order = []
    for module, name in (
        (vfio, "group_notifier"),
        (amd_iommu, "bus_notifier"),
        (intel_iommu, "bus_notifier"),
        (iommu, "iommu_bus_notifier"),
    ):
        monkeypatch.setattr(module, name, lambda k, action, dev, name=module.__name__: order.append(name))
    k = make_kernel("v6.12")
    dev = PciDev.new(k.world, "pci/x", bdf=BDF)
    base_core.bus_notify(k, "ADD_DEVICE", dev)
    assert [name.rsplit(".", 1)[1] for name in order] == ["iommu", "intel_iommu", "amd_iommu", "vfio"]
    assert "ADD_DEVICE" in notifier.ACTIONS


# -- shutdown ----------------------------------------------------------------------------------------------------


def test_devices_are_shut_down_from_the_newest_to_the_oldest(boot):
    k = boot("v6.12", SMALL, ShutdownToy())
    log = k.drivers["toy"].log
    log.clear()
    base_core.device_shutdown(k)
    assert log == [f"shutdown {dev.bdf}" for dev in reversed(k.system.devices.as_tuple())]
    assert all(dev.driver == "toy" for dev in k.system.devices)


def test_shutdown_holds_the_locks_of_the_device_and_of_its_parent(boot):
    held = []

    class Watcher(ShutdownToy):
        def shutdown(self, k, dev):
            held.append((dev.bdf, tuple(k.mutexes)))

    k = boot("v6.12", SMALL, Watcher())
    base_core.device_shutdown(k)
    assert dict(held)["0000:01:00.0"] == ("device_lock 0000:00:01.0", "device_lock 0000:01:00.0")
    assert dict(held)[BDF] == (f"device_lock {BDF}",)


def test_no_device_binds_once_shutdown_has_begun(boot):
    k = boot("v6.12", SMALL, Toy(), load=())
    base_core.device_shutdown(k)
    base_dd.driver_register(k, "toy")
    assert not any(dev.driver for dev in k.system.devices)
    base_core.device_unblock_probing(k)
    assert all(dev.driver for dev in k.system.devices)


def test_an_interrupt_may_come_between_two_devices(boot, windows):
    k = boot("v6.12", SMALL, Toy())
    seen = windows(k)
    base_core.device_shutdown(k)
    assert [where for where in seen if "device_shutdown" in where][-1] == "device_shutdown 0000:00:00.0: done"
    assert len([where for where in seen if "device_shutdown" in where]) == len(k.system.devices)
