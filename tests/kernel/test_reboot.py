"""Shutdown, kexec, crash, and what the next kernel finds (kernel/reboot.c, drivers/pci/pci-driver.c)."""

from __future__ import annotations

import pytest
from pci_machine import AHCI, HOST, NIC, PORT, SMBUS, believe, device, found, make_kernel, printed

from quiesce.drivers import models
from quiesce.kernel import base_dd, boot, irq, msi, pci, pci_sysfs, reboot
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import interrupts
from quiesce.machine import pci_regs as r
from quiesce.world import State

MASTER, NO_INTX = r.PCI_COMMAND_MASTER, r.PCI_COMMAND_INTX_DISABLE
SHUTDOWN_STRIPES = ("v3.6", "v3.9", "v3.13", "v4.1", "v4.11", "v4.12", "v6.12")


class Busy(PciDriver):
    """One MSI, a device at work, no shutdown callback: virtio-pci as it was."""

    name = "busy"
    ids = (DeviceId(base_class=0x01), DeviceId(base_class=0x02))

    def probe(self, k: Kernel, dev: PciDev) -> int:
        pci.pci_enable_device(k, dev)
        pci.pci_set_master(k, dev)
        assert msi.pci_enable_msi(k, dev) == 0
        irq.request_irq(k, dev.irq, IrqAction("busy", "busy.interrupt", dev))
        dev.hw.engine, dev.hw.irq_enabled, dev.hw.dma_target = "running", True, (1,)
        return 0

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """Frees the interrupt and forgets the rest."""
        irq.free_irq(k, dev.irq, dev)
        msi.pci_disable_msi(k, dev)

    def handlers(self) -> dict[str, object]:
        return {"busy.interrupt": lambda k, irq, dev: IRQ_HANDLED}


class Neighbour(PciDriver):
    """Shares the line and never has anything to say."""

    name = "neighbour"
    ids = (DeviceId(base_class=0x0C),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        pci.pci_enable_device(k, dev)
        return irq.request_irq(k, dev.irq, IrqAction("i801", "neighbour.interrupt", dev, shared=True))

    def handlers(self) -> dict[str, object]:
        return {"neighbour.interrupt": lambda k, irq, dev: IRQ_NONE}


def at_work(version: str, *with_: str, neighbour: bool = False) -> Kernel:
    k = make_kernel(version, Busy(), Neighbour(), with_=with_)
    believe(k)
    assert base_dd.device_driver_attach(k, "busy", device(k, AHCI)) == 0
    if neighbour:
        assert base_dd.device_driver_attach(k, "neighbour", device(k, SMBUS)) == 0
    k.start_event()
    return k


def speak(k: Kernel, bdf: str) -> str:
    """The device interrupts by itself."""
    k.start_event()
    outcome = interrupts.raise_interrupt(k.machine, device(k, bdf).hw)
    irq.settle(k)
    return outcome


class TestShutdown:
    @pytest.mark.parametrize(
        ("version", "msi_on", "intx_disabled"),
        [("v3.6", False, False), ("v4.1", False, False), ("v4.11", False, False), ("v4.12", True, True)],
    )
    @pytest.mark.parametrize("how", ["reboot", "kexec"])
    def test_msi(self, version: str, msi_on: bool, intx_disabled: bool, how: str) -> None:
        k = at_work(version)
        reboot.shutdown(k, how)
        hw = device(k, AHCI).hw
        assert (hw.msi_enabled, bool(hw.command & NO_INTX)) == (msi_on, intx_disabled)

    @pytest.mark.parametrize(
        ("version", "reboot_", "kexec"),
        [
            ("v3.6", False, False),
            ("v3.9", False, False),
            ("v3.12", False, False),
            ("v3.13", True, False),
            ("v4.1", True, False),
            ("v4.12", True, False),
            ("v6.12", True, False),
        ],
    )
    def test_bus_master(self, version: str, reboot_: bool, kexec: bool) -> None:
        for how, master in (("reboot", reboot_), ("kexec", kexec)):
            k = at_work(version)
            reboot.shutdown(k, how)
            assert bool(device(k, AHCI).hw.command & MASTER) is master, how

    def test_an_enable_count_of_two_keeps_bus_master_in_v3_6(self) -> None:
        k = at_work("v3.6")
        pci.pci_enable_device(k, device(k, AHCI))
        reboot.shutdown(k, "kexec")
        assert device(k, AHCI).hw.command & MASTER

    @pytest.mark.parametrize("version", SHUTDOWN_STRIPES)
    def test_devices_that_nobody_enabled_are_no_trouble(self, version: str) -> None:
        k = at_work(version)
        reboot.shutdown(k, "kexec")
        assert found(k) == []

    def test_drivers_stay_bound_and_probing_is_blocked(self) -> None:
        k = at_work("v6.12")
        reboot.shutdown(k, "kexec")
        assert device(k, AHCI).driver == "busy"
        assert k.system.defer_all_probes
        assert (k.system.phase, k.system.kexec_in_progress) == ("shutdown", True)

    def test_only_two_ways(self) -> None:
        with pytest.raises(ValueError, match="reboot, kexec"):
            reboot.shutdown(make_kernel("v6.12"), "poweroff")


class TestGap:
    """Between shutdown and the next kernel, with the interrupts of this one still on."""

    @pytest.mark.parametrize(
        ("version", "outcome"), [("v4.1", "intx"), ("v4.11", "intx"), ("v4.12", "lost"), ("v6.12", "lost")]
    )
    def test_what_a_running_device_does_on_the_way_to_kexec(self, version: str, outcome: str) -> None:
        k = at_work(version)
        reboot.shutdown(k, "kexec")
        assert speak(k, AHCI) == outcome

    @pytest.mark.parametrize(("version", "outcome"), [("v4.11", "intx"), ("v4.12", "sent")])
    def test_and_on_the_way_to_reboot(self, version: str, outcome: str) -> None:
        k = at_work(version)
        reboot.shutdown(k, "reboot")
        assert speak(k, AHCI) == outcome

    def test_a_line_without_handler_is_masked_and_nothing_is_said(self) -> None:
        k = at_work("v4.11")
        reboot.shutdown(k, "kexec")
        speak(k, AHCI)
        assert printed(k) == []
        assert found(k) == []

    @pytest.mark.parametrize(("version", "cared"), [("v4.1", False), ("v4.11", False), ("v4.12", True)])
    def test_a_shared_line_is_killed_under_the_neighbour(self, version: str, cared: bool) -> None:
        k = at_work(version, neighbour=True)
        reboot.shutdown(k, "kexec")
        number = device(k, SMBUS).irq
        speak(k, AHCI)
        killed = f'irq {number}: nobody cared (try booting with the "irqpoll" option)'
        assert (killed not in printed(k)) is cared
        assert irq.desc(k, number).spurious_disabled is not cared

    @pytest.mark.parametrize(
        ("proposal", "how", "outcome"),
        [
            ("msi-off-only-for-kexec", "reboot", "sent"),
            ("msi-off-only-for-kexec", "kexec", "intx"),
            ("shutdown-disables-intx", "kexec", "held"),
            ("shutdown-disables-intx", "reboot", "held"),
        ],
    )
    def test_what_was_proposed_instead(self, proposal: str, how: str, outcome: str) -> None:
        k = at_work("v4.11", proposal)
        reboot.shutdown(k, how)
        assert speak(k, AHCI) == outcome


class TestNextKernel:
    @pytest.mark.parametrize("version", SHUTDOWN_STRIPES)
    def test_kexec_after_an_orderly_shutdown_is_clean(self, version: str) -> None:
        k = at_work(version)
        reboot.shutdown(k, "kexec")
        k.start_event()
        reboot.start_second_kernel(k)
        assert found(k) == []
        ahci = device(k, AHCI)
        assert (ahci.hw.msi_enabled, ahci.msi_enabled, ahci.driver, ahci.enable_cnt) == (False, False, None, 0)
        assert k.system.phase == "second"

    @pytest.mark.parametrize(("version", "intx_disabled"), [("v4.11", False), ("v4.12", True)])
    def test_the_bit_that_keeps_the_line_quiet_stays(self, version: str, intx_disabled: bool) -> None:
        k = at_work(version)
        reboot.shutdown(k, "kexec")
        reboot.start_second_kernel(k)
        hw = device(k, AHCI).hw
        assert bool(hw.command & NO_INTX) is intx_disabled
        assert interrupts.intx_asserted(k.machine, hw) is not intx_disabled

    @pytest.mark.parametrize(("version", "cared"), [("v4.11", False), ("v4.12", True)])
    def test_the_next_driver_on_the_line_is_the_victim(self, version: str, cared: bool) -> None:
        k = at_work(version)
        reboot.shutdown(k, "kexec")
        reboot.start_second_kernel(k)
        k.start_event()
        base_dd.device_driver_attach(k, "neighbour", device(k, SMBUS))
        irq.settle(k)
        number = device(k, SMBUS).irq
        assert irq.desc(k, number).spurious_disabled is not cared

    def test_a_crash_leaves_messages_for_the_next_kernel(self) -> None:
        k = at_work("v6.12")
        reboot.crash_kexec(k)
        reboot.start_second_kernel(k)
        assert not found(k), "the crash kernel is made for that"
        assert "do_IRQ: No irq handler for vector" in printed(k)
        assert not device(k, AHCI).hw.msi_enabled

    @pytest.mark.parametrize(("version", "rules"), [("v7.0", ["memory/dma-into-next-kernel"]), ("v7.2", [])])
    def test_an_unbound_device_keeps_bus_master_through_kexec(self, version: str, rules: list[str]) -> None:
        """Its power state is unknown, and shutdown spares devices in unknown states (up to v7.1)."""
        k = at_work(version)
        base_dd.device_release_driver(k, device(k, AHCI))
        reboot.shutdown(k, "kexec")
        k.start_event()
        reboot.start_second_kernel(k)
        assert found(k) == rules

    def test_a_bridge_without_bus_master_stops_what_is_below(self) -> None:
        k = make_kernel("v7.0", Busy())
        believe(k)
        nic = device(k, NIC)
        base_dd.device_driver_attach(k, "busy", nic)
        base_dd.device_release_driver(k, nic)
        assert reboot.still_writes(k, nic.hw)
        reboot.shutdown(k, "kexec")
        assert nic.hw.command & MASTER
        assert not device(k, PORT).hw.command & MASTER
        assert not reboot.still_writes(k, nic.hw)

    def test_interrupts_of_the_old_kernel_have_no_handlers_any_more(self) -> None:
        k = at_work("v6.12", neighbour=True)
        old = device(k, AHCI).irq
        reboot.shutdown(k, "kexec")
        reboot.start_second_kernel(k)
        assert not irq.desc(k, old).allocated
        assert all(not irq.desc(k, number).actions for number in range(64))

    def test_nothing_is_left_of_what_the_old_kernel_believed(self) -> None:
        """The next kernel knows the same as the first one knew after it had enumerated the same hardware."""
        k = at_work("v6.12", neighbour=True)
        reboot.shutdown(k, "kexec")
        reboot.start_second_kernel(k)
        fresh = make_kernel("v6.12", Busy(), Neighbour())
        boot.enumerate_all(fresh)
        assert beliefs(k) == beliefs(fresh)

    @pytest.mark.parametrize("version", ["v4.1", "v5.3", "v6.12", "v7.3"])
    @pytest.mark.parametrize("iommu_", ["intel", "amd"])
    def test_nothing_is_left_with_an_iommu_and_an_open_device_either(self, version: str, iommu_: str) -> None:
        drivers = models(["vfio-pci", "ahci"])
        k = make_kernel(version, *drivers.values(), iommu=iommu_)
        boot.boot(k, list(drivers))
        pci_sysfs.bind_by_hand(k, "vfio-pci", device(k, NIC))
        vfio_open = next(item for item in k.drivers["vfio-pci"].operations() if "open" in item.name)
        assert device(k, AHCI).driver == "ahci"
        assert vfio_open.ready(k, device(k, NIC))
        vfio_open.run(k, device(k, NIC))
        reboot.shutdown(k, "kexec")
        reboot.start_second_kernel(k)
        fresh = make_kernel(version, iommu=iommu_)
        boot.boot(fresh)
        assert beliefs(k) == beliefs(fresh)

    def test_reboot_starts_from_nothing(self) -> None:
        k = at_work("v4.1")
        reboot.shutdown(k, "reboot")
        reboot.machine_restart(k)
        assert (k.system.phase, beliefs(k)) == ("off", {})
        assert k.machine.functions[AHCI].engine == "off"
        assert k.machine.functions[HOST].present


def beliefs(k: Kernel) -> dict[str, dict[str, object]]:
    """Everything of the kernel that is not at its default, by path, but for copies of what the hardware is."""
    found_: dict[str, dict[str, object]] = {}
    for path, obj in k.world.objects.items():
        if not isinstance(obj, State) or type(obj).__module__.startswith("quiesce.machine"):
            continue
        defaults = {item.name: item.default for item in obj.fields}
        values = {name: repr(value) for name, value in obj.items() if value != defaults[name]}
        for name in ("saved_config", "phase"):
            values.pop(name, None)
        if values:
            found_[path] = values
    return found_
