from __future__ import annotations

import pytest
from toykernel import AHCI, SMALL, Toy, device, make_kernel

from quiesce.kernel import base_core, changes, msi, pci, pci_probe, pci_remove
from quiesce.kernel.objects import PCI_D0, PCI_UNKNOWN
from quiesce.machine import pci_regs as r

NESTED = """
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug
01:00.0 switch-up bus=02
02:00.0 switch-down bus=03
02:01.0 switch-down bus=04
03:00.0 nvme
04:00.0 e1000e
00:02.0 ahci
"""


def listed(k):
    return [dev.bdf[5:] for dev in k.system.devices]


def scanned(version="v6.12", machine=SMALL, **options):
    k = make_kernel(version, machine, **options)
    pci_probe.pci_scan(k)
    return k


# -- what a scan finds -------------------------------------------------------------------------------------------


def test_everything_that_answers_is_found_in_bus_order():
    assert listed(scanned()) == ["00:00.0", "00:01.0", "00:02.0", "00:03.0", "01:00.0", "01:00.1"]
    below = ["01:00.0", "02:00.0", "02:01.0", "03:00.0", "04:00.0"]
    assert listed(scanned(machine=NESTED)) == ["00:00.0", "00:01.0", "00:02.0", *below]


def test_what_is_absent_is_not_found_until_it_is_plugged_in():
    k = scanned(machine="00:00.0 host-bridge\n00:01.0 root-port bus=01\n01:00.0 nvme absent\n")
    assert listed(k) == ["00:00.0", "00:01.0"]
    k.machine.plug(k.machine.function("01:00.0"))
    assert [dev.bdf for dev in pci_probe.pci_scan(k)] == ["0000:01:00.0"]


def test_a_slot_without_function_0_is_passed_over():
    k = scanned(machine="00:00.0 host-bridge\n00:04.0 conventional absent\n00:04.1 conventional\n")
    assert listed(k) == ["00:00.0"]
    k.machine.plug(k.machine.function("00:04.0"))
    pci_probe.pci_scan(k)
    assert listed(k) == ["00:00.0", "00:04.0", "00:04.1"]


def test_a_description_may_leave_function_0_out():
    assert listed(scanned(machine="00:1f.2 ahci\n")) == ["00:1f.2"]


def test_nothing_is_found_below_a_bridge_the_kernel_does_not_know():
    k = scanned()
    pci_probe.pci_bus_add_devices(k)
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "00:01.0"))
    assert listed(k) == ["00:00.0", "00:02.0", "00:03.0"]
    pci_probe.pci_scan(k)
    assert listed(k) == ["00:00.0", "00:01.0", "00:02.0", "00:03.0", "01:00.0", "01:00.1"]


def test_what_is_below_a_bridge_that_is_not_on_the_list_waits_for_it():
    k = scanned()
    port = device(k, "00:01.0")
    for dev in (port, device(k, "01:00.0"), device(k, "01:00.1")):
        k.system.devices.remove(dev)
    assert [dev.bdf[5:] for dev in pci_probe.pci_scan(k, port)] == []
    assert [dev.bdf[5:] for dev in pci_probe.pci_scan(k)] == ["00:01.0", "01:00.0", "01:00.1"]


def test_a_second_scan_finds_nothing_new():
    k = scanned()
    before = k.world.fingerprint
    assert pci_probe.pci_scan(k) == ()
    assert k.world.fingerprint == before


def test_virtual_functions_are_not_found_by_scanning():
    k = scanned(machine="00:00.0 host-bridge\n00:01.0 root-port bus=01\n01:00.0 igb sriov=2\n")
    k.machine.function("01:00.0").virtfns[0].present = True
    assert pci_probe.pci_scan(k) == ()


def test_a_scan_can_be_limited_to_what_is_below_a_bridge():
    k = make_kernel("v6.12", NESTED)
    pci_probe.pci_scan(k)
    for dev in reversed(k.system.devices.as_tuple()):
        if dev.bdf.startswith(("0000:03", "0000:00:02")):
            k.system.devices.remove(dev)
    assert [dev.bdf for dev in pci_probe.pci_scan(k, device(k, "00:01.0"))] == ["0000:03:00.0"]


# -- what a device is like when it is new ------------------------------------------------------------------------


def test_pin_and_line_are_read_as_firmware_left_them():
    k = scanned()
    assert (device(k, "00:02.0").pin, device(k, "00:02.0").irq) == (1, 11)
    assert (device(k, "00:00.0").pin, device(k, "00:00.0").irq) == (0, 0)


@pytest.mark.parametrize(("version", "state"), [("v3.6", PCI_UNKNOWN), ("v6.15", PCI_UNKNOWN), ("v6.16", PCI_D0)])
def test_the_power_state_of_a_new_device(version, state):
    assert device(scanned(version), "00:02.0").current_state == state


@pytest.mark.parametrize("version", ["v3.6", "v4.1", "v6.12"])
def test_messages_that_an_earlier_kernel_left_on_are_switched_off(version):
    k = make_kernel(version)
    hw = k.machine.function("01:00.0")
    hw.config.set("MSI_FLAGS", hw.msi_control | r.PCI_MSI_FLAGS_ENABLE)
    pci_probe.pci_scan(k)
    assert not hw.msi_enabled


@pytest.mark.parametrize(("version", "saved"), [("v6.18", False), ("v6.19", True)])
def test_configuration_is_saved_when_a_device_is_added(version, saved):
    k = scanned(version)
    assert not device(k, "00:02.0").state_saved
    pci_probe.pci_bus_add_devices(k)
    assert device(k, "00:02.0").state_saved is saved


def test_a_device_may_be_matched_only_once_it_is_added(boot):
    k = make_kernel("v6.12", SMALL, Toy(ids=AHCI))
    k.system.loaded.add("toy")
    pci_probe.pci_scan(k)
    dev = device(k, "00:02.0")
    assert (dev.registered, dev.match_driver, dev.is_added, dev.driver) == (True, False, False, None)
    pci_probe.pci_bus_add_devices(k)
    assert (dev.registered, dev.match_driver, dev.is_added, dev.driver) == (True, True, True, "toy")


@pytest.mark.parametrize("version", ["v3.6", "v3.8", "v3.9", "v6.12"])
def test_up_to_v3_8_devices_are_registered_when_they_are_added(notified, version):
    k = make_kernel(version, SMALL, Toy(ids=AHCI))
    k.system.loaded.add("toy")
    pci_probe.pci_scan(k)
    at_scan = [line for line in notified if "00:02.0" in line]
    pci_probe.pci_bus_add_devices(k)
    if k.has(changes.DEVICE_ADD_AT_SCAN):
        assert at_scan == ["ADD_DEVICE 0000:00:02.0 -"]
    else:
        assert at_scan == []
    assert [line.split()[0] for line in notified if "00:02.0" in line] == ["ADD_DEVICE", "BIND_DRIVER", "BOUND_DRIVER"]


# -- again -------------------------------------------------------------------------------------------------------


def replug(k, bdf):
    fn = k.machine.function(bdf)
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, bdf))
    k.machine.unplug(fn)
    k.machine.plug(fn)
    pci_probe.pci_rescan_bus(k)


def test_a_device_that_comes_again_gets_a_structure_of_its_own(boot):
    k = boot("v6.12", SMALL, Toy())
    old = device(k, "00:03.0")
    base_core.get_device(k, old, "file")
    replug(k, "00:03.0")
    new = device(k, "00:03.0", 2)
    assert (old.exists, old.registered, new.exists, new.registered) == (True, False, True, True)
    assert new in k.system.devices
    assert old not in k.system.devices
    assert (new.driver, old.driver) == ("toy", None)
    assert new.hw is old.hw


def test_the_old_structure_does_not_come_back(boot):
    k = boot("v6.12", SMALL, Toy())
    old = device(k, "00:03.0")
    base_core.get_device(k, old, "file")
    replug(k, "00:03.0")
    base_core.put_device(k, old, "file")
    assert not old.exists
    assert device(k, "00:03.0", 2).exists


def test_an_unreferenced_device_leaves_nothing_behind(boot):
    k = boot("v6.12", SMALL, Toy())
    before = k.world.fingerprint
    replug(k, "00:03.0")
    k.world.recording = None
    again = k.world.fingerprint
    replug(k, "00:03.0")
    assert k.world.fingerprint == again
    assert not device(k, "00:03.0", 2).exists
    assert before != again


def test_beliefs_are_not_inherited(boot):
    k = boot("v6.12", SMALL, Toy())
    dev = device(k, "01:00.0")
    pci.pci_enable_device(k, dev)
    msi.pci_enable_msi(k, dev)
    msi.pci_disable_msi(k, dev)
    dev.driver_override = "toy"
    dev.no_msi = True
    replug(k, "01:00.0")
    new = device(k, "01:00.0")
    assert (new.enable_cnt, new.no_msi, new.driver_override) == (0, False, None)


def test_a_bridge_that_comes_again_gets_its_bus_numbers_and_what_is_below_is_found():
    k = scanned(machine=NESTED)
    pci_probe.pci_bus_add_devices(k)
    switch = k.machine.function("01:00.0")
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "01:00.0"))
    k.machine.unplug(switch)
    k.machine.plug(switch)
    assert (switch.secondary_bus, k.machine.function("03:00.0").reachable) == (0, False)
    pci_probe.pci_rescan_bus(k)
    assert (switch.secondary_bus, switch.subordinate_bus) == (2, 4)
    assert listed(k)[-5:] == ["01:00.0", "02:00.0", "02:01.0", "03:00.0", "04:00.0"]
    assert all(dev.is_added for dev in k.system.devices)


def test_addresses_are_assigned_again():
    k = scanned()
    pci_probe.pci_bus_add_devices(k)
    hw = k.machine.function("01:00.0")
    address = hw.read_config(r.PCI_BASE_ADDRESS_0, 4)
    assert address
    pci_remove.pci_stop_and_remove_bus_device(k, device(k, "01:00.0"))
    k.machine.unplug(hw)
    k.machine.plug(hw)
    assert hw.read_config(r.PCI_BASE_ADDRESS_0, 4) == 0
    pci_probe.pci_rescan_bus(k)
    assert hw.read_config(r.PCI_BASE_ADDRESS_0, 4) == address


def test_a_virtual_function_is_placed_behind_the_others_of_its_bus():
    k = scanned(
        machine="00:00.0 host-bridge\n00:01.0 root-port bus=01\n01:00.0 igb sriov=2 vf-offset=16\n01:00.1 igb\n"
    )
    pci_probe.pci_bus_add_devices(k)
    fn = k.machine.function("01:00.0").virtfns[0]
    vf = pci_probe.pci_alloc_dev(k, str(fn.bdf))
    vf.is_virtfn = True
    pci_probe.pci_setup_device(k, vf)
    pci_probe.pci_device_add(k, vf)
    assert listed(k)[-3:] == ["01:00.0", "01:00.1", str(fn.bdf)[5:]]
    assert (vf.pin, vf.irq) == (0, 0)
