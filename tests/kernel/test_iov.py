"""Virtual functions (drivers/pci/iov.c)."""

from __future__ import annotations

from errno import EINVAL, ENOMEM, ENOSYS

import pytest
from pci_machine import AHCI, NIC, believe, device, fail, found, make_kernel, printed

from quiesce.kernel import base_dd, boot, iov, pci_remove, pci_sysfs
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import pci_regs as r

VF0, VF1 = "0000:01:01.0", "0000:01:01.1"


class Physical(PciDriver):
    """Binds the physical function and does what sysfs says; ``tidy`` makes it disable in remove()."""

    name = "pf"
    ids = (DeviceId(vendor=0x8086, device=0x10C9),)

    def __init__(self, tidy: bool = True) -> None:
        self.tidy = tidy

    def probe(self, k: Kernel, dev: PciDev) -> int:
        return 0

    def remove(self, k: Kernel, dev: PciDev) -> None:
        if self.tidy:
            iov.pci_disable_sriov(k, dev)

    def sriov_configure(self, k: Kernel, dev: PciDev, num_vfs: int) -> int:
        if num_vfs == 0:
            iov.pci_disable_sriov(k, dev)
            return 0
        return iov.pci_enable_sriov(k, dev, num_vfs) or num_vfs


class Virtual(PciDriver):
    """Binds virtual functions."""

    name = "vf"
    ids = (DeviceId(vendor=0x8086, device=0x1520),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        return 0


def booted(version: str, *drivers: PciDriver) -> tuple[Kernel, PciDev]:
    k = make_kernel(version, *drivers)
    boot.boot(k, [driver.name for driver in drivers])
    k.start_event()
    return k, device(k, NIC)


def addresses(k: Kernel) -> list[str]:
    return [dev.bdf for dev in k.system.devices if dev.is_virtfn]


class TestEnable:
    def test_the_functions_appear_one_by_one_with_their_drivers(self) -> None:
        k, nic = booted("v6.1", Physical(), Virtual())
        seen: list[tuple[int, int, int]] = []

        def look(where: str) -> None:
            if where.startswith("pci_enable_sriov"):
                bound = sum(1 for dev in k.system.devices if dev.driver == "vf")
                seen.append((len(addresses(k)), bound, nic.num_vfs))

        k.nested = look
        assert iov.pci_enable_sriov(k, nic, 2) == 0
        assert seen == [(1, 1, 0), (2, 2, 0)]
        assert (addresses(k), nic.num_vfs) == ([VF0, VF1], 2)

    def test_what_a_virtual_function_is(self) -> None:
        k, nic = booted("v6.1", Physical())
        iov.pci_enable_sriov(k, nic, 1)
        vf = device(k, VF0)
        assert (vf.is_virtfn, vf.physfn, vf.pin, vf.irq) == (True, nic, 0, 0)
        assert vf in nic.refs
        assert k.system.devices[-1] is vf
        assert nic.hw.config.get("SRIOV_NUM_VF") == 1
        assert nic.hw.config.get("SRIOV_CTRL") == r.PCI_SRIOV_CTRL_VFE | r.PCI_SRIOV_CTRL_MSE

    def test_refusals(self) -> None:
        k, nic = booted("v6.1", Physical())
        assert iov.pci_enable_sriov(k, device(k, AHCI), 1) == -ENOSYS
        assert iov.pci_enable_sriov(k, nic, 3) == -EINVAL
        assert iov.pci_enable_sriov(k, nic, 1) == 0
        assert iov.pci_enable_sriov(k, nic, 2) == -EINVAL

    def test_a_failure_removes_what_was_made_and_switches_off(self) -> None:
        k, nic = booted("v6.1", Physical())
        fail(k, 1)
        assert iov.pci_enable_sriov(k, nic, 2) == -ENOMEM
        assert (addresses(k), nic.num_vfs) == ([], 0)
        assert nic.hw.config.get("SRIOV_CTRL") == 0
        assert list(nic.refs) == ["driver"]

    @pytest.mark.parametrize(("version", "driver"), [("v4.11", "vf"), ("v4.12", None)])
    def test_autoprobe_can_be_switched_off(self, version: str, driver: str | None) -> None:
        k, nic = booted(version, Physical(), Virtual())
        nic.drivers_autoprobe = False
        iov.pci_enable_sriov(k, nic, 1)
        assert device(k, VF0).driver == driver


class TestDisable:
    def test_ascending_with_the_hardware_still_on(self) -> None:
        k, nic = booted("v6.1", Physical(), Virtual())
        iov.pci_enable_sriov(k, nic, 2)
        seen: list[tuple[list[str], bool]] = []

        def look(where: str) -> None:
            if where.startswith("pci_disable_sriov"):
                seen.append((addresses(k), bool(nic.hw.config.get("SRIOV_CTRL"))))

        k.nested = look
        iov.pci_disable_sriov(k, nic)
        assert seen == [([VF1], True), ([], True)]
        assert (nic.num_vfs, nic.hw.config.get("SRIOV_CTRL")) == (0, 0)
        assert list(nic.refs) == ["driver"]
        assert not any(fn.present for fn in nic.hw.virtfns)

    def test_a_function_removed_by_hand_leaves_its_reference(self) -> None:
        k, nic = booted("v6.1", Physical())
        iov.pci_enable_sriov(k, nic, 2)
        pci_sysfs.remove_store(k, device(k, VF0))
        iov.pci_disable_sriov(k, nic)
        assert len(nic.refs) == 2

    def test_a_driver_that_does_not_disable(self) -> None:
        k, nic = booted("v6.1", Physical(tidy=False), Virtual())
        iov.pci_enable_sriov(k, nic, 1)
        base_dd.device_release_driver(k, nic)
        assert printed(k)[-1] == f"pf {NIC}: driver left SR-IOV enabled after remove"
        assert device(k, VF0).driver == "vf"

    def test_the_physical_function_goes_after_its_virtual_ones(self) -> None:
        k, nic = booted("v6.1", Physical(), Virtual())
        iov.pci_enable_sriov(k, nic, 2)
        pci_sysfs.remove_store(k, nic)
        assert addresses(k) == []
        assert not nic.exists
        assert found(k) == []


class TestSysfs:
    def test_numbers(self) -> None:
        k, nic = booted("v6.1", Physical())
        assert pci_sysfs.numvfs_store(k, nic, 2) == 0
        assert pci_sysfs.numvfs_store(k, nic, 2) == 0
        assert pci_sysfs.numvfs_store(k, nic, 1) < 0
        assert printed(k)[-1] == f"pf {NIC}: 2 VFs already enabled. Disable before enabling 1 VFs"
        assert pci_sysfs.numvfs_store(k, nic, 0) == 0
        assert addresses(k) == []

    @pytest.mark.parametrize(("version", "deadlocks"), [("v6.17", False), ("v6.18", True), ("v6.19", False)])
    def test_removing_under_the_rescan_lock(self, version: str, deadlocks: bool) -> None:
        k, nic = booted(version, Physical())
        iov.pci_enable_sriov(k, nic, 1)
        if not deadlocks:
            pci_remove.pci_stop_and_remove_bus_device_locked(k, nic)
            assert not nic.exists
            return
        with pytest.raises(Crash) as caught:
            pci_remove.pci_stop_and_remove_bus_device_locked(k, nic)
        assert caught.value.finding.rule == "wait/self-deadlock"


def test_believe_makes_no_virtual_functions() -> None:
    k = make_kernel("v6.1")
    assert all(not dev.is_virtfn for dev in believe(k))
