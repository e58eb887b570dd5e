"""Opening, closing and removing devices that user space has."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EBUSY, ENOENT

import pytest
from drivertest import INTEL, at_window, bind, booted, can, device, operate, rules, texts, unbind

from quiesce.kernel import pci, pci_sysfs, vfio_pci
from quiesce.kernel.kernel import Blocked, Crash, Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT

AHCI, NIC, NVME = "00:1f.2", "01:00.0", "02:00.0"


KEEPS = INTEL.replace("02:00.0 nvme", "02:00.0 nvme no-soft-reset")


def opened(version: str, bdf: str = NVME, machine: str = INTEL) -> Kernel:
    k = booted(version, machine, ["vfio-pci", "nvme"])
    assert bind(k, "vfio-pci", bdf) == 0
    assert operate(k, "vfio-open", bdf) == 0
    return k


@pytest.mark.parametrize(
    ("version", "idle"), [("v3.6", PCI_D0), ("v4.0", PCI_D0), ("v4.1", PCI_D3HOT), ("v6.12", PCI_D3HOT)]
)
def test_idle_devices_sleep(version: str, idle: int) -> None:
    k = booted(version, INTEL, ["vfio-pci"])
    bind(k, "vfio-pci", NVME)
    hw = device(k, NVME).hw
    assert hw.power_state == idle
    operate(k, "vfio-open", NVME)
    assert hw.power_state == PCI_D0
    operate(k, "vfio-close", NVME)
    assert hw.power_state == idle
    unbind(k, NVME)
    assert hw.power_state == PCI_D0


@pytest.mark.parametrize(("version", "kept"), [("v4.1", False), ("v5.0", False), ("v5.1", True), ("v6.12", True)])
def test_config_survives_the_sleep(version: str, kept: bool) -> None:
    """51ef3a004b1e: a device that resets itself on the way to D0 lost all but its BARs."""
    k = booted(version, INTEL, ["vfio-pci"])
    hw = device(k, NVME).hw
    hw.config.set("CACHE_LINE_SIZE", 16)
    bind(k, "vfio-pci", NVME)
    unbind(k, NVME)
    assert (hw.config.get("CACHE_LINE_SIZE") == 16) is kept


@pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.19", "v6.12"])
def test_opening_and_closing_leave_nothing(version: str) -> None:
    k = booted(version, INTEL, ["vfio-pci"])
    bind(k, "vfio-pci", NVME)
    dev = device(k, NVME)
    command = dev.hw.command
    operate(k, "vfio-open", NVME)
    assert dev.enable_cnt == 1
    assert can(k, "vfio-reset", NVME)
    assert operate(k, "vfio-dma-map", NVME) == 0
    assert dev.hw.bus_master
    assert dev.hw.dma_target == (0x1000,)
    operate(k, "vfio-close", NVME)
    assert dev.enable_cnt == 0
    assert not dev.hw.bus_master
    assert dev.hw.engine == "off"
    assert dev.hw.command in (command, 2), "the older D3hot loses what the BARs do not need"
    assert rules(k) == []
    unbind(k, NVME)
    assert not dev.drvdata


def test_only_one_opener() -> None:
    k = opened("v6.12")
    assert vfio_pci.vfio_pci_open(k, device(k, NVME)) == -EBUSY


def test_opening_gives_up_while_the_device_is_locked() -> None:
    k = booted("v6.12", INTEL, ["vfio-pci"])
    bind(k, "vfio-pci", NVME)
    k.start_event()
    k.others = [f"device_lock {device(k, NVME).bdf}"]
    assert vfio_pci.vfio_pci_open(k, device(k, NVME)) == -EAGAIN
    assert device(k, NVME).enable_cnt == 0
    k.others = []
    assert operate(k, "vfio-open", NVME) == 0


@pytest.mark.parametrize(("version", "resets"), [("v6.19", True), ("v7.0", False)])
def test_a_close_does_without_reset_while_the_bridge_is_locked(version: str, resets: bool) -> None:
    k = opened(version, machine=KEEPS)
    dev = device(k, NVME)
    bridge = pci.upstream_bridge(k, dev)
    assert bridge is not None
    vdev = vfio_pci.vdev_of(k, dev)
    assert vdev is not None
    k.start_event()
    k.others = [f"device_lock {bridge.bdf}"]
    vfio_pci.vfio_pci_close(k, dev)
    assert vdev.needs_reset is not resets


@pytest.mark.parametrize("version", ["v4.0", "v6.12", "v7.3"])
def test_a_forced_close_does_not_reset(version: str) -> None:
    """Whoever unbinds holds the device lock, so the close that it waits for cannot reset the device."""
    k = opened(version, machine=KEEPS)
    operate(k, "vfio-req-on", NVME)
    operate(k, "vfio-dma-map", NVME)
    unbind(k, NVME)
    hw = device(k, NVME).hw
    assert "vfio/close-without-reset" in rules(k)
    assert any("Relaying device request to user (#0)" in line for line in texts(k))
    assert hw.engine == "running"
    assert not hw.bus_master


def test_the_sleep_after_a_forced_close_resets_some_devices() -> None:
    for version, found in (("v4.0", ["vfio/close-without-reset"]), ("v4.1", []), ("v6.12", [])):
        k = opened(version)
        operate(k, "vfio-req-on", NVME)
        operate(k, "vfio-dma-map", NVME)
        unbind(k, NVME)
        assert rules(k) == found


def test_a_close_in_the_window_of_an_unbind_is_forced_too() -> None:
    k = opened("v6.12", machine=KEEPS)
    operate(k, "vfio-dma-map", NVME)
    at_window(k, "waits for the user", lambda: vfio_pci.vfio_pci_close(k, device(k, NVME)))
    unbind(k, NVME)
    assert rules(k) == ["vfio/close-without-reset"]
    assert any("No device request channel registered" in line for line in texts(k))


def test_an_ordinary_close_resets() -> None:
    k = opened("v6.12", machine=KEEPS)
    operate(k, "vfio-dma-map", NVME)
    operate(k, "vfio-close", NVME)
    assert rules(k) == []
    assert device(k, NVME).hw.engine == "off"
    unbind(k, NVME)
    assert rules(k) == []


def test_a_quiet_device_may_be_closed_by_force() -> None:
    k = opened("v6.12")
    operate(k, "vfio-req-on", NVME)
    unbind(k, NVME)
    assert rules(k) == []


def test_before_v3_14_a_forced_close_is_a_deadlock() -> None:
    k = opened("v3.6")
    at_window(k, "waits for the user", lambda: vfio_pci.vfio_pci_close(k, device(k, NVME)))
    with pytest.raises(Crash, match="wait/deadlock"):
        unbind(k, NVME)


def test_access_while_decoding_is_off() -> None:
    for version, broken in (("v5.7", True), ("v5.8", False)):
        k = opened(version)
        operate(k, "vfio-mmio", NVME)
        assert rules(k) == []
        operate(k, "vfio-mem-off", NVME)
        operate(k, "vfio-mmio", NVME)
        assert ("vfio/access-while-decode-off" in rules(k)) is broken
        operate(k, "vfio-mem-on", NVME)
        operate(k, "vfio-mmio", NVME)
        assert rules(k) == []


@pytest.mark.parametrize("version", ["v3.6", "v5.3", "v6.12"])
def test_an_unplugged_device_can_still_be_closed(version: str) -> None:
    k = opened(version, NIC)
    operate(k, "vfio-intx-on", NIC)
    operate(k, "vfio-dma-map", NIC)
    k.machine.unplug(device(k, NIC).hw)
    operate(k, "vfio-close", NIC)
    unbind(k, NIC)
    assert rules(k) == []


def test_a_physical_function_with_virtual_ones_is_refused() -> None:
    k = booted("v6.12", INTEL, ["vfio-pci"])
    device(k, NIC).num_vfs = 1
    assert bind(k, "vfio-pci", NIC) == -EBUSY
    assert any("Cannot bind to PF with SR-IOV enabled" in line for line in texts(k))


def test_the_bus_is_reset_when_a_function_cannot_be() -> None:
    """The last close of all devices on a bus resets the bus, if a function could not be reset alone."""
    machine = INTEL.replace("01:00.0 e1000e", "01:00.0 e1000e no-pm\n01:00.1 e1000e no-pm")
    k = booted("v6.12", machine, ["vfio-pci"])
    for bdf in (NIC, "01:00.1"):
        bind(k, "vfio-pci", bdf)
        operate(k, "vfio-open", bdf)
    operate(k, "vfio-dma-map", NIC)
    assert not can(k, "vfio-reset", NIC)
    operate(k, "vfio-close", NIC)
    assert device(k, NIC).hw.engine == "running"
    operate(k, "vfio-close", "01:00.1")
    assert device(k, NIC).hw.engine == "off"
    assert rules(k) == []


SRIOV = """
machine sriov
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
01:00.0 igb sriov=2 vf-offset=16 vf-stride=1
iommu intel
"""
PF, VF = "01:00.0", "01:02.0"


def test_virtual_functions_of_a_host_driver_in_a_guest() -> None:
    """Switching them off waits for the guest, with the lock of the physical function held."""
    k = booted("v6.12", SRIOV, ["igb", "vfio-pci"])
    bind(k, "igb", PF)
    k.start_event()
    assert pci_sysfs.numvfs_store(k, device(k, PF), 2) == 0
    assert bind(k, "vfio-pci", VF) == 0
    assert operate(k, "vfio-open", VF) == 0
    with pytest.raises(Blocked, match=r"0000:01:02.0 closes it, holding .*device_lock 0000:01:00.0"):
        pci_sysfs.numvfs_store(k, device(k, PF), 0)


@pytest.mark.parametrize(("version", "answer"), [("v5.6", -ENOENT), ("v5.7", 0), ("v6.12", 0)])
def test_virtual_functions_of_a_device_in_user_space(version: str, answer: int) -> None:
    k = booted(version, SRIOV, ["vfio-pci"])
    bind(k, "vfio-pci", PF)
    k.start_event()
    assert pci_sysfs.numvfs_store(k, device(k, PF), 1) == answer
    if answer:
        return
    assert bind(k, "vfio-pci", VF) == 0
    assert operate(k, "vfio-open", VF) == -EACCES
    assert any("VF token required" in line for line in texts(k))
    assert operate(k, "vfio-open", PF) == 0
    assert operate(k, "vfio-open", VF) == 0
    operate(k, "vfio-close", VF)
    operate(k, "vfio-close", PF)
    unbind(k, PF)
    assert not device(k, VF).exists
    assert rules(k) == []
