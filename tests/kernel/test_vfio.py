"""VFIO groups: viability, ownership, foreign binds, and removal that waits for the user."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EPERM

import pytest
from drivertest import INTEL, PC, at_window, bind, booted, device, operate, rules, unbind

from quiesce.kernel import iommu, pci_sysfs, vfio, vfio_pci
from quiesce.kernel.kernel import Blocked, Crash

TWO = """
machine two
00:00.0 host-bridge
00:01.0 root-port bus=01
01:00.0 e1000e
01:00.1 igb
iommu intel
"""
ONE, OTHER, PORT = "01:00.0", "01:00.1", "00:01.0"


def test_the_two_functions_share_a_group() -> None:
    k = booted("v6.12", TWO, [])
    assert any({"0000:01:00.0", "0000:01:00.1"} <= set(group) for group in iommu.groups(k))


def test_a_device_without_iommu_group_cannot_be_bound() -> None:
    k = booted("v6.12", PC, ["vfio-pci"])
    assert bind(k, "vfio-pci", "00:1f.2") == -EINVAL
    assert device(k, "00:1f.2").driver is None


@pytest.mark.parametrize(
    ("version", "answer"), [("v3.6", -EINVAL), ("v5.18", -EINVAL), ("v5.19", -EPERM), ("v6.12", -EPERM)]
)
def test_opening_beside_a_foreign_driver(version: str, answer: int) -> None:
    k = booted(version, TWO, ["e1000e", "vfio-pci"])
    assert bind(k, "e1000e", OTHER) == 0
    bind(k, "vfio-pci", ONE)
    assert operate(k, "vfio-open", ONE) == answer
    unbind(k, OTHER)
    assert operate(k, "vfio-open", ONE) == 0


@pytest.mark.parametrize("version", ["v3.6", "v4.3", "v5.18", "v5.19", "v6.12"])
def test_stubs_and_free_devices_are_tolerated(version: str) -> None:
    k = booted(version, TWO, ["pci-stub", "vfio-pci"])
    bind(k, "vfio-pci", ONE)
    assert operate(k, "vfio-open", ONE) == 0
    operate(k, "vfio-close", ONE)
    assert bind(k, "pci-stub", OTHER) == 0
    assert operate(k, "vfio-open", ONE) == 0


@pytest.mark.parametrize("version", ["v4.1", "v4.3", "v4.4", "v5.18", "v5.19", "v6.12"])
def test_the_port_above_is_tolerated(version: str) -> None:
    k = booted(version, TWO, ["pcieport", "vfio-pci"], load=["pcieport"])
    assert device(k, PORT).driver == "pcieport"
    bind(k, "vfio-pci", ONE)
    assert operate(k, "vfio-open", ONE) == 0


def test_another_driver_on_the_bridge_above() -> None:
    """5f096b14d421: any bridge is tolerated, whatever drives it; before, only the port driver by its name."""
    for version, answer in (("v4.3", -EINVAL), ("v4.4", 0)):
        k = booted(version, TWO, ["correct", "vfio-pci"])
        same = device(k, PORT).iommu_group is device(k, ONE).iommu_group
        bind(k, "correct", PORT)
        bind(k, "vfio-pci", ONE)
        assert operate(k, "vfio-open", ONE) == (answer if same else 0)
        assert same


@pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.10", "v5.18"])
def test_a_foreign_bind_into_a_live_group_is_a_bug(version: str) -> None:
    k = booted(version, TWO, ["e1000e", "vfio-pci"])
    bind(k, "vfio-pci", ONE)
    operate(k, "vfio-open", ONE)
    with pytest.raises(Crash, match="vfio/foreign-bind"):
        bind(k, "e1000e", OTHER)


@pytest.mark.parametrize("version", ["v5.19", "v6.1", "v6.12", "v7.3"])
def test_a_foreign_bind_into_an_owned_group_is_refused(version: str) -> None:
    k = booted(version, TWO, ["e1000e", "pci-stub", "vfio-pci"])
    bind(k, "vfio-pci", ONE)
    operate(k, "vfio-open", ONE)
    assert bind(k, "e1000e", OTHER) == -EBUSY
    assert device(k, OTHER).driver is None
    assert bind(k, "pci-stub", OTHER) == 0
    unbind(k, OTHER)
    operate(k, "vfio-close", ONE)
    assert bind(k, "e1000e", OTHER) == 0
    assert rules(k) == []


@pytest.mark.parametrize("version", ["v3.6", "v5.18", "v6.12"])
def test_a_foreign_bind_into_an_idle_group_is_fine(version: str) -> None:
    k = booted(version, TWO, ["e1000e", "vfio-pci"])
    bind(k, "vfio-pci", ONE)
    assert bind(k, "e1000e", OTHER) == 0
    assert rules(k) == []


def test_a_second_device_of_a_live_group_may_be_opened_and_unbound() -> None:
    for version in ("v4.1", "v5.18", "v6.12"):
        k = booted(version, TWO, ["vfio-pci"])
        bind(k, "vfio-pci", ONE)
        bind(k, "vfio-pci", OTHER)
        assert operate(k, "vfio-open", ONE) == 0
        assert operate(k, "vfio-open", OTHER) == 0
        operate(k, "vfio-close", OTHER)
        unbind(k, OTHER)
        assert rules(k) == []
        group = vfio.vfio_group_of(k, device(k, ONE))
        assert group is not None
        assert group.users == 1
        operate(k, "vfio-close", ONE)
        assert group.users == 0
        assert group.domain is None


def test_the_unbound_list_bridges_the_gap() -> None:
    """60720a0fc646: while one device is being unbound, the group stays viable for the others."""
    for version, viable in (("v3.19", False), ("v4.0", True)):
        k = booted(version, TWO, ["vfio-pci"])
        bind(k, "vfio-pci", ONE)
        dev = device(k, ONE)
        group = vfio.vfio_group_of(k, dev)
        assert group is not None
        vfio.vfio_del_group_dev(k, dev)
        assert dev.driver == "vfio-pci"
        assert vfio.vfio_dev_viable(k, group, dev) is viable
        vfio.group_notifier(k, "UNBOUND_DRIVER", dev)
        assert not vfio.vfio_dev_viable(k, group, dev)


@pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.18", "v6.12"])
def test_unbinding_waits_for_the_user(version: str) -> None:
    k = booted(version, INTEL, ["vfio-pci", "ahci"])
    bind(k, "vfio-pci", "00:1f.2")
    operate(k, "vfio-open", "00:1f.2")
    mark = k.world.mark()
    with pytest.raises(
        Blocked, match=r"waits until the user of 0000:00:1f.2 closes it, holding device_lock 0000:00:1f.2"
    ):
        unbind(k, "00:1f.2")
    k.world.undo(mark)
    k.start_event()
    with pytest.raises(Blocked):
        pci_sysfs.remove_store(k, device(k, "00:1f.2"))
    k.world.undo(mark)
    operate(k, "vfio-close", "00:1f.2")
    unbind(k, "00:1f.2")
    assert bind(k, "ahci", "00:1f.2") == 0


def test_a_user_that_closes_meanwhile_ends_the_wait() -> None:
    k = booted("v6.12", INTEL, ["vfio-pci"])
    bind(k, "vfio-pci", "00:1f.2")
    operate(k, "vfio-open", "00:1f.2")
    at_window(k, "waits for the user", lambda: vfio_pci.vfio_pci_close(k, device(k, "00:1f.2")))
    unbind(k, "00:1f.2")
    assert device(k, "00:1f.2").driver is None
