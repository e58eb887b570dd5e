"""Resets of functions and buses (drivers/pci/pci.c)."""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOTTY

import pytest
from drivertest import make
from pci_machine import AHCI, NIC, PORT, SMBUS, believe, description, device, endpoint, found, make_kernel, printed

from quiesce.kernel import boot, msi, pci, pci_reset
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PciDev
from quiesce.machine import iommu as iommu_hw
from quiesce.machine import pci_regs as r

MEM, MASTER, NO_INTX = r.PCI_COMMAND_MEMORY, r.PCI_COMMAND_MASTER, r.PCI_COMMAND_INTX_DISABLE


def running(version: str) -> tuple[Kernel, PciDev]:
    """A kernel whose network card is enabled, bus master, uses MSI and is at work."""
    k = make_kernel(version)
    believe(k)
    nic = device(k, NIC)
    pci.pci_enable_device(k, nic)
    pci.pci_set_master(k, nic)
    assert msi.pci_enable_msi(k, nic) == 0
    nic.hw.engine, nic.hw.irq_enabled, nic.hw.dma_target = "running", True, (1,)
    return k, nic


class TestMethods:
    def test_what_each_device_supports(self) -> None:
        k = make_kernel("v6.1")
        boot.boot(k)
        assert pci_reset.pci_reset_methods(k, device(k, NIC)) == ("flr", "pm", "bus")
        assert pci_reset.pci_reset_methods(k, device(k, AHCI)) == ()
        assert pci.pci_reset_function(k, device(k, SMBUS)) == -ENOTTY

    @pytest.mark.parametrize(("version", "first", "second"), [("v4.16", (), ()), ("v4.17", ("bus",), ())])
    def test_the_first_function_found_on_a_bus_lists_a_bus_reset_that_it_cannot_have(
        self, version: str, first: tuple[str, ...], second: tuple[str, ...]
    ) -> None:
        text = "00:00.0 host-bridge\n00:01.0 pci-bridge bus=01\n01:01.0 conventional\n01:02.0 conventional"
        k = make(version, text, [])
        boot.boot(k)
        assert pci_reset.pci_reset_methods(k, device(k, "0000:01:01.0")) == first
        assert pci_reset.pci_reset_methods(k, device(k, "0000:01:02.0")) == second
        assert pci.pci_reset_function(k, device(k, "0000:01:01.0")) == -ENOTTY

    def test_user_space_chooses(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        nic = device(k, NIC)
        assert pci_reset.reset_method_store(k, nic, ("bus", "flr")) == 0
        assert pci_reset.pci_reset_methods(k, nic) == ("bus", "flr")
        assert pci_reset.reset_method_store(k, nic, ("af_flr",)) == -EINVAL
        assert printed(k) == [f"pci {NIC}: Unsupported reset method 'af_flr'"]
        assert pci_reset.reset_method_store(k, nic, ()) == 0
        assert pci.pci_reset_function(k, nic) == -ENOTTY

    def test_not_before_v5_15(self) -> None:
        k = make_kernel("v5.14")
        believe(k)
        assert pci_reset.reset_method_store(k, device(k, NIC), ("flr",)) == -EINVAL

    @pytest.mark.parametrize("method", ["flr", "pm", "bus"])
    def test_every_method_stops_the_device_and_leaves_its_configuration_as_it_was(self, method: str) -> None:
        k, nic = running("v6.1")
        nic.reset_methods = (method,)
        before = nic.hw.command, nic.hw.msi_enabled, nic.hw.msi_data, nic.irq
        assert pci.pci_reset_function(k, nic) == 0
        assert (nic.hw.command, nic.hw.msi_enabled, nic.hw.msi_data, nic.irq) == before
        assert (nic.hw.engine, nic.hw.irq_enabled, nic.hw.dma_target) == ("off", False, ())
        assert nic.current_state == PCI_D0
        assert not nic.state_saved

    def test_pm_only_from_d0(self) -> None:
        k, nic = running("v6.1")
        nic.reset_methods = ("pm",)
        nic.current_state = PCI_D3HOT
        assert pci_reset.pci_reset_function_only(k, nic) == -EINVAL

    def test_a_device_that_is_gone_never_comes_back(self) -> None:
        k, nic = running("v6.1")
        nic.reset_methods = ("flr",)
        nic.hw.present = False
        assert pci.pci_reset_function(k, nic) == -ENOTTY
        assert f"pci {NIC}: not ready 65535ms after FLR; giving up" in printed(k)


class TestSilence:
    def test_in_the_middle_the_device_is_off_and_msi_bookkeeping_on(self) -> None:
        k, nic = running("v6.1")
        seen: list[tuple[int, bool, bool]] = []
        k.nested = lambda where: seen.append((nic.hw.command, nic.hw.msi_enabled, nic.msi_enabled))
        pci.pci_reset_function(k, nic)
        assert seen == [(0, False, True)]


class TestLocks:
    def test_try_gives_up_when_the_caller_or_another_task_has_the_lock(self) -> None:
        k, nic = running("v6.1")
        with k.mutex(f"device_lock {NIC}"):
            assert pci.pci_try_reset_function(k, nic) == -EAGAIN
        k.others.append(f"device_lock {NIC}")
        assert pci.pci_try_reset_function(k, nic) == -EAGAIN
        k.others.clear()
        assert pci.pci_try_reset_function(k, nic) == 0

    def test_waiting_for_a_lock_that_one_has_is_found(self) -> None:
        k, nic = running("v6.1")
        with k.mutex(f"device_lock {NIC}"), pytest.raises(Crash) as caught:
            pci.pci_reset_function(k, nic)
        assert caught.value.finding.rule == "wait/self-deadlock"

    @pytest.mark.parametrize(("version", "locks"), [("v6.9", False), ("v6.10", True)])
    def test_the_bridge_is_locked_first(self, version: str, locks: bool) -> None:
        k, nic = running(version)
        held: list[str] = []
        k.nested = lambda where: held.extend(k.mutexes)
        pci.pci_reset_function(k, nic)
        bridge = [f"device_lock {PORT}", f"cfg_access_lock {PORT}"] if locks else []
        assert held == [*bridge, f"device_lock {NIC}", f"cfg_access_lock {NIC}"]

    @pytest.mark.parametrize(("version", "rules"), [("v6.10", []), ("v6.11", ["device/unlocked-bus-reset"])])
    def test_try_by_bus_reset_does_not_lock_the_bridge(self, version: str, rules: list[str]) -> None:
        k, nic = running(version)
        nic.reset_methods = ("bus",)
        assert pci.pci_try_reset_function(k, nic) == 0
        assert found(k) == rules

    def test_waiting_by_bus_reset_does(self) -> None:
        k, nic = running("v6.11")
        nic.reset_methods = ("bus",)
        assert pci.pci_reset_function(k, nic) == 0
        assert found(k) == []


class Notified(PciDriver):
    """Notes what it is told and under which locks."""

    name = "notified"

    def reset_prepare(self, k: Kernel, dev: PciDev) -> None:
        k.printk("info", f"prepare {' '.join(k.mutexes)}".strip())

    def reset_done(self, k: Kernel, dev: PciDev) -> None:
        k.printk("info", f"done {' '.join(k.mutexes)}".strip())


@pytest.mark.parametrize(("version", "locks"), [("v4.12", ""), ("v4.13", f" device_lock {NIC} cfg_access_lock {NIC}")])
def test_the_driver_is_told_under_the_lock_since_v4_13(version: str, locks: str) -> None:
    k, nic = running(version)
    k.drivers["notified"] = Notified()
    nic.driver = "notified"
    k.start_event()
    pci.pci_reset_function(k, nic)
    assert printed(k) == [f"prepare{locks}", f"done{locks}"]


class TestBus:
    def test_all_below_are_reset_and_restored(self) -> None:
        k, nic = running("v6.1")
        assert pci_reset.pci_reset_bus(k, device(k, PORT)) == 0
        assert (nic.hw.command, nic.hw.msi_enabled) == (MEM | MASTER | NO_INTX, True)
        assert nic.hw.engine == "off"

    @pytest.mark.parametrize(("version", "result"), [("v6.10", 0), ("v6.11", -EAGAIN)])
    def test_whether_the_bridge_counts(self, version: str, result: int) -> None:
        k, _ = running(version)
        k.others.append(f"device_lock {PORT}")
        assert pci_reset.pci_reset_bus(k, device(k, PORT)) == result

    @pytest.mark.parametrize(("version", "result"), [("v6.14", 0), ("v6.15-rc2", -ENOTTY), ("v6.15", 0)])
    def test_a_device_whose_resets_were_switched_off(self, version: str, result: int) -> None:
        k, nic = running(version)
        pci_reset.reset_method_store(k, nic, ())
        assert pci_reset.pci_reset_bus(k, device(k, PORT)) == result

    def test_a_function_with_neighbours_is_not_reset_by_its_bus(self) -> None:
        nic = endpoint(0x8086, 0x10C9, 0x020000, express=True, no_soft_reset=True)
        k = make_kernel("v6.1", machine=description(**{"0000:01:00.1": nic}))
        believe(k)
        assert pci_reset.pci_reset_methods(k, device(k, "0000:01:00.1")) == ()


@pytest.mark.parametrize(("version", "blocked"), [("v6.19", False), ("v7.0", True)])
def test_translation_is_blocked_meanwhile(version: str, blocked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """v7.0+ for a device with ATS; that the IOMMU core does its part is tested there."""
    from quiesce.kernel import iommu

    nic = endpoint(0x8086, 0x10C9, 0x020000, express=True, flr=True, ats=True)
    k = make_kernel(version, machine=description(**{NIC: nic}))
    believe(k)
    calls: list[str] = []
    monkeypatch.setattr(iommu, "pci_dev_reset_iommu_prepare", lambda k, dev: calls.append(f"block {dev.bdf}") or 0)
    monkeypatch.setattr(iommu, "pci_dev_reset_iommu_done", lambda k, dev: calls.append(f"unblock {dev.bdf}"))
    k.nested = calls.append
    assert pci.pci_reset_function(k, device(k, NIC)) == 0
    middle = f"pci_reset_function {NIC}: reset, not restored"
    assert calls == ([f"block {NIC}", middle, f"unblock {NIC}"] if blocked else [middle])
    assert iommu_hw.units(k.machine) == ()
