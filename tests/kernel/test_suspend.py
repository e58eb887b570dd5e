"""System sleep: phases, unwinding, and what comes back (drivers/base/power/main.c)."""

from __future__ import annotations

from errno import EBUSY, EIO, ENODEV

import pytest
from pci_machine import AHCI, HOST, NIC, PORT, SMBUS, believe, device, fail, found, make_kernel, printed

from quiesce.kernel import base_dd, iov, irq, msi, pci, suspend
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IRQ_HANDLED, Crash, Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PCI_UNKNOWN, IrqAction, PciDev
from quiesce.machine import interrupts
from quiesce.machine import pci_regs as r

MEM, MASTER, NO_INTX = r.PCI_COMMAND_MEMORY, r.PCI_COMMAND_MASTER, r.PCI_COMMAND_INTX_DISABLE


class Sleeper(PciDriver):
    """Says when it is called; its suspend fails on the device named in ``fails_on``."""

    name = "sleeper"
    ids = (DeviceId(base_class=0x01), DeviceId(base_class=0x02), DeviceId(base_class=0x0C))

    def __init__(self, fails_on: str = "") -> None:
        self.fails_on = fails_on

    def probe(self, k: Kernel, dev: PciDev) -> int:
        return pci.pci_enable_device(k, dev)

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        k.printk("info", f"suspend {dev.bdf}")
        return -EIO if dev.bdf == self.fails_on else 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        k.printk("info", f"resume {dev.bdf}")
        return 0


class Wildcard(PciDriver):
    """Fits everything and wants nothing, like agp/amd64 or Xen's pciback."""

    name = "wildcard"
    ids = (DeviceId(),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        return -ENODEV


def bound(version: str, driver: PciDriver, *addresses: str) -> Kernel:
    k = make_kernel(version, driver)
    believe(k)
    for bdf in addresses:
        assert base_dd.device_driver_attach(k, driver.name, device(k, bdf)) == 0
    k.start_event()
    return k


class TestPhases:
    def test_newest_first_down_and_oldest_first_up(self) -> None:
        k = bound("v6.1", Sleeper(), AHCI, SMBUS, NIC)
        assert suspend.suspend(k) == 0
        assert printed(k) == [f"suspend {NIC}", f"suspend {SMBUS}", f"suspend {AHCI}"]
        assert k.system.phase == "suspended"
        assert all(dev.is_prepared for dev in k.system.devices)
        k.start_event()
        suspend.resume(k)
        assert printed(k) == [f"resume {AHCI}", f"resume {SMBUS}", f"resume {NIC}"]
        assert k.system.phase == "running"
        assert not any(dev.is_prepared for dev in k.system.devices)

    def test_a_callback_that_fails_brings_back_those_before_it(self) -> None:
        k = bound("v6.1", Sleeper(fails_on=SMBUS), AHCI, SMBUS, NIC)
        assert suspend.suspend(k) == -EIO
        assert printed(k) == [
            f"suspend {NIC}",
            f"suspend {SMBUS}",
            f"sleeper {SMBUS}: PM: failed to suspend: error -5",
            f"resume {NIC}",
        ]
        assert k.system.phase == "running"
        assert not k.system.defer_all_probes
        assert not any(dev.is_prepared for dev in k.system.devices)

    def test_the_search_may_let_one_fail(self) -> None:
        k = bound("v6.1", Sleeper(), AHCI)
        fail(k, 0)
        assert suspend.suspend(k) == -EBUSY
        assert device(k, AHCI).hw.command & MEM

    def test_failing_with_interrupts_off_brings_them_back(self) -> None:
        k = bound("v6.1", Sleeper(), AHCI, NIC)
        number = device(k, AHCI).irq
        k.irq_handlers["h"] = lambda k, irq, dev: IRQ_HANDLED
        irq.request_irq(k, number, IrqAction("h", "h", device(k, AHCI)))
        fail(k, 2)
        assert suspend.suspend(k) == -EBUSY
        desc = irq.desc(k, number)
        assert (desc.suspended, desc.depth) == (False, 0)
        assert device(k, NIC).current_state == PCI_D0

    def test_what_is_resumed_and_what_sleeps(self) -> None:
        k = bound("v6.1", Sleeper(), AHCI)
        suspend.suspend(k)
        assert device(k, AHCI).current_state == 3
        assert device(k, HOST).current_state == PCI_UNKNOWN
        suspend.resume(k)
        assert device(k, AHCI).current_state == PCI_D0


class TestInterrupts:
    def test_are_off_while_registers_are_restored(self) -> None:
        k = bound("v6.1", Sleeper(), AHCI)
        number = device(k, AHCI).irq
        k.irq_handlers["h"] = lambda k, irq, dev: IRQ_HANDLED
        irq.request_irq(k, number, IrqAction("h", "h", device(k, AHCI)))
        suspend.suspend(k)
        assert irq.desc(k, number).suspended
        suspend.resume(k)
        assert not irq.desc(k, number).suspended
        assert not interrupts.pin_of(k.machine, number).masked

    @pytest.mark.parametrize("version", ["v4.2", "v6.1"])
    def test_the_pin_is_kept_over_sleep(self, version: str) -> None:
        k = bound(version, Sleeper(), AHCI)
        ahci = device(k, AHCI)
        ahci.pci_driver = ahci.driver = None
        number = ahci.irq
        suspend.suspend(k)
        assert irq.desc(k, number).allocated
        suspend.resume(k)
        assert ahci.irq == number


class TestRegisters:
    def test_configuration_and_msi_come_back_and_the_device_itself_does_not(self) -> None:
        k = bound("v6.1", Sleeper(), NIC)
        nic = device(k, NIC)
        pci.pci_set_master(k, nic)
        msi.pci_enable_msi(k, nic)
        nic.hw.engine, nic.hw.irq_enabled = "running", True
        before = nic.hw.command, nic.hw.msi_data
        assert suspend.suspend(k) == 0
        assert (nic.hw.command, nic.hw.msi_enabled, nic.hw.engine) == (MEM, False, "off")
        suspend.resume(k)
        assert (nic.hw.command, nic.hw.msi_data) == before
        assert nic.hw.msi_enabled
        assert nic.hw.engine == "off"
        assert found(k) == []

    def test_a_device_without_driver_that_was_enabled_is_enabled_again(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        pci.pci_set_master(k, ahci)
        suspend.suspend(k)
        suspend.resume(k)
        assert ahci.hw.command & (MEM | MASTER) == MEM | MASTER

    def test_virtual_functions_come_back_with_their_physical_function(self) -> None:
        k = bound("v6.1", Sleeper(), NIC)
        nic = device(k, NIC)
        assert iov.pci_enable_sriov(k, nic, 2) == 0
        suspend.suspend(k)
        assert not any(fn.present for fn in nic.hw.virtfns)
        suspend.resume(k)
        assert all(fn.present for fn in nic.hw.virtfns)


class Deep(Sleeper):
    """Puts its device to D3hot when it is frozen, which resets it."""

    name = "deep"

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        return pci.pci_save_state(k, dev) or pci.pci_set_power_state(k, dev, PCI_D3HOT)

    def resume(self, k: Kernel, dev: PciDev) -> int:
        return pci.pci_set_power_state(k, dev, PCI_D0)


class TestHibernation:
    @pytest.mark.parametrize(("version", "restored"), [("v4.12", False), ("v4.13", True)])
    def test_thawing_restores_what_freezing_lost(self, version: str, restored: bool) -> None:
        k = bound(version, Deep(), NIC)
        nic = device(k, NIC)
        msi.pci_enable_msi(k, nic)
        assert suspend.hibernation_snapshot(k) == 0
        assert nic.msi_enabled
        assert nic.hw.msi_enabled is restored
        assert (k.system.phase, nic.is_prepared, nic.state_saved) == ("running", False, False)

    def test_a_failure_thaws(self) -> None:
        k = bound("v6.1", Sleeper(fails_on=AHCI), AHCI, NIC)
        assert suspend.hibernation_snapshot(k) == -EIO
        assert printed(k)[-1] == f"resume {NIC}"


class TestReport000:
    """MSI without a driver, a probe that fails, sleep: who reads the number that the probe overwrote."""

    def dream(self, version: str, *with_: str) -> Kernel:
        k = make_kernel(version, Wildcard(), with_=with_)
        believe(k)
        ahci = device(k, AHCI)
        assert msi.pci_enable_msi(k, ahci) == 0
        assert base_dd.device_driver_attach(k, "wildcard", ahci) < 0
        assert suspend.suspend(k) == 0
        suspend.resume(k)
        return k

    def test_v4_3_dies_in_resume(self) -> None:
        with pytest.raises(Crash) as caught:
            self.dream("v4.3")
        assert caught.value.finding.rule == "irq/no-descriptor"
        assert caught.value.finding.function == "__pci_restore_msi_state"

    @pytest.mark.parametrize("version", ["v4.2", "v4.4", "v4.5", "v6.1"])
    def test_the_others_wake_up(self, version: str) -> None:
        k = self.dream(version)
        assert found(k) == ([] if version != "v6.1" else ["devres/leftover-at-probe"])
        assert device(k, AHCI).hw.msi_enabled
        assert device(k, PORT).hw.present

    def test_the_revert_cures(self) -> None:
        assert device(self.dream("v4.3", "6c777e8799a9"), AHCI).hw.msi_enabled


class TestProbing:
    def test_is_put_off_until_the_system_is_awake(self) -> None:
        k = make_kernel("v6.1", Sleeper())
        believe(k)
        waiting: list[str | None] = []

        def plug(where: str) -> None:
            if where == "suspend: devices suspended, interrupts on" and not waiting:
                base_dd.driver_register(k, "sleeper")
                waiting.append(device(k, AHCI).driver)

        k.nested = plug
        suspend.suspend(k)
        suspend.resume(k)
        assert waiting == [None]
        assert device(k, AHCI).driver == "sleeper"
