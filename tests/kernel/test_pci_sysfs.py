from __future__ import annotations

from errno import EAGAIN, EBUSY, EIO, ENODEV, ENOENT, ERANGE

import pytest
from toykernel import AHCI, E1000E, SMALL, Toy, another_task, device, only, texts

from quiesce.kernel import base_dd, iov, pci, pci_remove, pci_sysfs
from quiesce.kernel.base_core import EPROBE_DEFER
from quiesce.kernel.kernel import Blocked

BDF = "0000:00:02.0"
SRIOV = """
00:00.0 host-bridge
00:01.0 root-port bus=01
01:00.0 igb sriov=2
"""


@pytest.fixture
def idle(boot):
    def make(version, *drivers, machine=SMALL, **options):
        k = boot(version, machine, *drivers, load=(), **options)
        for driver in drivers:
            k.system.loaded.add(driver.name)
        return k

    return make


# -- bind and unbind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "old", "new"),
    [(0, 0, 0), (-EIO, -ENODEV, -EIO), (-EPROBE_DEFER, -ENODEV, -EAGAIN), (-ENODEV, -ENODEV, -ENODEV)],
)
@pytest.mark.parametrize("version", ["v3.6", "v5.13", "v5.14", "v6.12"])
def test_what_bind_returns(idle, version, error, old, new):
    k = idle(version, Toy(answer=error))
    answer = old if version in ("v3.6", "v5.13") else new
    assert pci_sysfs.bind_store(k, "toy", device(k, "00:02.0")) == answer


@pytest.mark.parametrize(("version", "answer"), [("v5.10", -ENODEV), ("v5.14", -EBUSY), ("v7.3", -EBUSY)])
def test_binding_a_device_that_has_a_driver(idle, version, answer):
    k = idle(version, Toy(), Toy("other"))
    dev = device(k, "00:02.0")
    pci_sysfs.bind_store(k, "toy", dev)
    assert pci_sysfs.bind_store(k, "other", dev) == answer
    assert dev.driver == "toy"


def test_binding_needs_a_registered_driver_that_fits(idle):
    k = idle("v6.12", Toy("net", ids=E1000E), Toy("disk", ids=AHCI))
    dev = device(k, "00:02.0")
    assert pci_sysfs.bind_store(k, "net", dev) == -ENODEV
    k.system.loaded.discard("disk")
    assert pci_sysfs.bind_store(k, "disk", dev) == -ENODEV
    k.system.loaded.add("disk")
    assert pci_sysfs.bind_store(k, "disk", dev) == 0


def test_unbinding_needs_the_driver_that_has_the_device(idle):
    k = idle("v6.12", Toy(), Toy("other"))
    dev = device(k, "00:02.0")
    pci_sysfs.bind_store(k, "toy", dev)
    assert pci_sysfs.unbind_store(k, "other", dev) == -ENODEV
    assert pci_sysfs.unbind_store(k, "toy", dev) == 0
    assert pci_sysfs.unbind_store(k, "toy", dev) == -ENODEV
    assert dev.driver is None


# -- ids and overrides -------------------------------------------------------------------------------------------


def test_a_new_id_is_offered_to_all_devices_at_once(idle):
    k = idle("v3.6", Toy(ids=()))
    assert pci_sysfs.new_id_store(k, "toy", 0x8086, 0x10D3) == 0
    assert [dev.bdf[5:] for dev in k.system.devices if dev.driver] == ["01:00.0", "01:00.1"]


def test_an_id_can_be_taken_back_while_devices_stay_bound(idle):
    k = idle("v6.12", Toy(ids=()))
    pci_sysfs.new_id_store(k, "toy", 0x8086, 0x2922)
    assert pci_sysfs.remove_id_store(k, "toy", 0x8086, 0x2922) == 0
    assert pci_sysfs.remove_id_store(k, "toy", 0x8086, 0x2922) == -ENODEV
    dev = device(k, "00:02.0")
    assert dev.driver == "toy"
    pci_sysfs.unbind_store(k, "toy", dev)
    assert pci_sysfs.bind_store(k, "toy", dev) == -ENODEV


def test_ids_go_with_the_driver(idle):
    k = idle("v6.12", Toy(ids=()), Toy("other", ids=()))
    for name in ("toy", "other"):
        pci_sysfs.new_id_store(k, name, 0x8086, 0x2922)
    base_dd.driver_unregister(k, "toy")
    assert tuple(k.system.dynids) == (("other", 0x8086, 0x2922),)


def test_there_is_no_override_file_before_v3_16(idle):
    for version, answer in (("v3.15", -ENOENT), ("v3.16", 0), ("v7.3", 0)):
        k = idle(version, Toy())
        assert pci_sysfs.driver_override_store(k, device(k, "00:02.0"), "toy") == answer


def test_an_override_leaves_the_bound_driver_alone_and_waits_for_the_lock(idle):
    k = idle("v6.12", Toy(), Toy("other"))
    dev = device(k, "00:02.0")
    pci_sysfs.bind_store(k, "toy", dev)
    with another_task(k, f"device_lock {BDF}"), pytest.raises(Blocked):
        pci_sysfs.driver_override_store(k, dev, "other")
    assert pci_sysfs.driver_override_store(k, dev, "other") == 0
    assert dev.driver == "toy"
    pci_sysfs.unbind_store(k, "toy", dev)
    assert pci_sysfs.bind_store(k, "toy", dev) == -ENODEV
    assert pci_sysfs.bind_store(k, "other", dev) == 0


def test_an_override_has_a_lock_of_its_own_since_v7_1(idle):
    k = idle("v7.1", Toy())
    with another_task(k, f"device_lock {BDF}"):
        assert pci_sysfs.driver_override_store(k, device(k, "00:02.0"), "toy") == 0


@pytest.mark.parametrize("version", ["v3.6", "v3.15", "v3.16", "v6.12"])
def test_an_operator_can_bind_any_driver_to_any_device(idle, version):
    k = idle(version, Toy("net", ids=E1000E), Toy("disk", ids=AHCI))
    dev = device(k, "00:02.0")
    assert pci_sysfs.bind_by_hand(k, "net", dev) == 0
    assert dev.driver == "net"
    pci_sysfs.unbind_store(k, "net", dev)
    assert pci_sysfs.bind_by_hand(k, "disk", dev) == 0
    assert dev.driver == "disk"


def test_an_operator_cannot_bind_a_driver_that_is_not_loaded(idle):
    k = idle("v6.12", Toy())
    k.system.loaded.discard("toy")
    assert pci_sysfs.bind_by_hand(k, "toy", device(k, "00:02.0")) == -ENODEV


def test_an_operator_does_not_override_where_the_table_fits(idle):
    k = idle("v6.12", Toy(ids=AHCI))
    pci_sysfs.bind_by_hand(k, "toy", device(k, "00:02.0"))
    assert device(k, "00:02.0").driver_override is None


# -- enable, reset, remove, rescan -------------------------------------------------------------------------------


def test_enabling_and_disabling_by_hand(idle):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    assert pci_sysfs.enable_store(k, dev, False) == -EIO
    assert pci_sysfs.enable_store(k, dev, True) == 0
    assert dev.enable_cnt == 1
    assert pci_sysfs.enable_store(k, dev, False) == 0
    assert dev.enable_cnt == 0


@pytest.mark.parametrize(("version", "answer", "count"), [("v4.17", 0, 0), ("v4.18", -EBUSY, 1), ("v6.12", -EBUSY, 1)])
def test_disabling_a_device_under_its_driver(idle, version, answer, count):
    k = idle(version, Toy(on_probe=lambda k, dev: pci.pci_enable_device(k, dev)))
    dev = device(k, "00:02.0")
    pci_sysfs.bind_store(k, "toy", dev)
    assert pci_sysfs.enable_store(k, dev, False) == answer
    assert dev.enable_cnt == count


def test_reset_waits_for_the_device_lock(idle):
    k = idle("v6.12", Toy(), machine="00:00.0 host-bridge\n00:02.0 gpu\n")
    dev = device(k, "00:02.0")
    with another_task(k, f"device_lock {BDF}"), pytest.raises(Blocked):
        pci_sysfs.reset_store(k, dev)
    assert pci_sysfs.reset_store(k, dev) == 0


def test_remove_and_rescan(idle):
    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    assert pci_sysfs.remove_store(k, dev) == 0
    assert not dev.exists
    assert BDF not in [dev.bdf for dev in k.system.devices]
    assert pci_sysfs.rescan_store(k) == 0
    assert device(k, "00:02.0").driver == "toy"


def test_a_device_is_removed_once(idle):
    from quiesce.kernel import base_core

    k = idle("v6.12", Toy())
    dev = device(k, "00:02.0")
    base_core.get_device(k, dev, "file")
    assert pci_sysfs.remove_store(k, dev) == 0
    assert pci_sysfs.remove_store(k, dev) == -ENODEV


def test_rescan_and_remove_exclude_each_other(idle):
    k = idle("v6.12", Toy())
    with another_task(k, pci_remove.RESCAN_REMOVE_LOCK):
        with pytest.raises(Blocked):
            pci_sysfs.rescan_store(k)
        with pytest.raises(Blocked):
            pci_sysfs.remove_store(k, device(k, "00:02.0"))
    assert pci_sysfs.rescan_store(k) == 0


# -- SR-IOV ------------------------------------------------------------------------------------------------------


class Pf(Toy):
    """A physical function's driver."""

    def __init__(self, **options):
        super().__init__("pf", ids=only(0x8086, 0x10C9), **options)
        self.locks = []

    def sriov_configure(self, k, dev, num_vfs):
        self.locks.append(tuple(k.mutexes))
        if num_vfs == 0:
            iov.pci_disable_sriov(k, dev)
            return 0
        return iov.pci_enable_sriov(k, dev, num_vfs) or num_vfs


def vfs(k):
    return [dev for dev in k.system.devices if dev.is_virtfn]


def test_virtual_functions_come_and_go(boot):
    k = boot("v6.12", SRIOV, Pf(), Toy("vf", ids=only(0x8086, 0x10CA)))
    pf = device(k, "01:00.0")
    assert pci_sysfs.numvfs_store(k, pf, 2) == 0
    assert [dev.driver for dev in vfs(k)] == ["vf", "vf"]
    assert pci_sysfs.numvfs_store(k, pf, 2) == 0
    assert len(k.drivers["pf"].locks) == 1
    assert pci_sysfs.numvfs_store(k, pf, 0) == 0
    assert vfs(k) == []


def test_from_one_number_to_another_goes_through_zero(boot):
    k = boot("v6.12", SRIOV, Pf())
    pf = device(k, "01:00.0")
    pci_sysfs.numvfs_store(k, pf, 1)
    assert pci_sysfs.numvfs_store(k, pf, 2) == -EBUSY
    assert texts(k, "warn") == ["pf 0000:01:00.0: 1 VFs already enabled. Disable before enabling 2 VFs"]
    assert len(vfs(k)) == 1


def test_there_are_only_so_many(boot):
    k = boot("v6.12", SRIOV, Pf())
    assert pci_sysfs.numvfs_store(k, device(k, "01:00.0"), 3) == -ERANGE
    assert pci_sysfs.numvfs_store(k, device(k, "01:00.0"), 2) == 0


def test_it_takes_a_driver_and_its_help(boot):
    k = boot("v6.12", SRIOV, Toy("plain"), load=())
    pf = device(k, "01:00.0")
    assert pci_sysfs.numvfs_store(k, pf, 1) == -ENOENT
    k.system.loaded.add("plain")
    pci_sysfs.bind_store(k, "plain", pf)
    assert pci_sysfs.numvfs_store(k, pf, 1) == -ENOENT
    assert texts(k, "info") == [
        "pci 0000:01:00.0: no driver bound to device; cannot configure SR-IOV",
        "plain 0000:01:00.0: driver does not support SR-IOV configuration via sysfs",
    ]


def test_a_driver_may_enable_fewer_than_asked_for(boot):
    class Modest(Pf):
        def sriov_configure(self, k, dev, num_vfs):
            return super().sriov_configure(k, dev, min(num_vfs, 1))

    k = boot("v6.12", SRIOV, Modest())
    assert pci_sysfs.numvfs_store(k, device(k, "01:00.0"), 2) == 0
    assert texts(k, "warn") == ["pf 0000:01:00.0: 2 VFs requested; only 1 enabled"]


@pytest.mark.parametrize(
    ("version", "locks"),
    [
        ("v4.12", ()),
        ("v4.13", ("device_lock 0000:01:00.0",)),
        ("v6.12", ("device_lock 0000:01:00.0",)),
        ("v6.19", ("device_lock 0000:01:00.0", pci_remove.RESCAN_REMOVE_LOCK)),
        ("v7.3", ("device_lock 0000:01:00.0", pci_remove.RESCAN_REMOVE_LOCK)),
    ],
)
def test_the_locks_around_the_drivers_callback(boot, version, locks):
    k = boot(version, SRIOV, Pf())
    pci_sysfs.numvfs_store(k, device(k, "01:00.0"), 1)
    assert k.drivers["pf"].locks == [locks]


def test_autoprobe_can_be_switched_off_since_v4_12(boot):
    for version, answer, driver in (("v4.11", -ENOENT, "vf"), ("v4.12", 0, None)):
        k = boot(version, SRIOV, Pf(), Toy("vf", ids=only(0x8086, 0x10CA)))
        pf = device(k, "01:00.0")
        assert pci_sysfs.drivers_autoprobe_store(k, pf, False) == answer
        pci_sysfs.numvfs_store(k, pf, 1)
        assert vfs(k)[0].driver == driver
