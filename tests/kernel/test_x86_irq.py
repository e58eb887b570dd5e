"""The legacy interrupt of a function, in each of its forms (arch/x86/pci/common.c, drivers/acpi/pci_irq.c)."""

from __future__ import annotations

from errno import EBUSY, ENOSPC

import pytest
from pci_machine import believe, fail
from toykernel import Toy, device, make_kernel, rules, texts

from quiesce.kernel import irq, msi, x86_irq
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import interrupts

MACHINE = """
machine pins
00:00.0 host-bridge
00:02.0 ahci
00:0a.0 smbus
iommu amd 00:00.2
route 00:00 A -> 17
"""
GSI = 18
IOMMU, AHCI, SMBUS = "00:00.2", "00:02.0", "00:0a.0"

BEFORE_COUNTING = "v3.6"
COUNTED = ["v4.1", "v4.5", "v5.10", "v6.1", "v6.12"]
AT_PROBE = ["v4.3-rc1", "v4.3", "v4.4"]


def make(version: str, *changed: str) -> Kernel:
    k = make_kernel(version, MACHINE, Toy("toy"), changed=changed)
    believe(k)
    k.irq_handlers["AMD-Vi"] = lambda k, line, dev: "IRQ_NONE"
    k.start_event()
    return k


def users(k: Kernel) -> int:
    return irq.desc(k, GSI).gsi_users


class TestInput:
    def test_its_number_is_its_own_and_it_is_shared(self) -> None:
        k = make("v6.1")
        assert x86_irq.acpi_register_gsi(k, GSI) == GSI
        assert x86_irq.acpi_register_gsi(k, GSI) == GSI
        d = irq.desc(k, GSI)
        assert (d.chip, d.gsi, d.level, d.gsi_users) == ("ioapic", GSI, True, 2)
        assert interrupts.pin_of(k.machine, GSI).irq == GSI

    def test_the_last_user_frees_it(self) -> None:
        k = make("v6.1")
        before = k.world.fingerprint
        for _ in range(2):
            x86_irq.acpi_register_gsi(k, GSI)
        x86_irq.acpi_unregister_gsi(k, GSI)
        assert irq.desc(k, GSI).allocated
        x86_irq.acpi_unregister_gsi(k, GSI)
        assert not irq.desc(k, GSI).allocated
        assert k.world.fingerprint == before
        x86_irq.acpi_unregister_gsi(k, GSI)
        assert k.world.fingerprint == before

    def test_before_irq_managed_it_stays_for_ever(self) -> None:
        k = make(BEFORE_COUNTING)
        x86_irq.acpi_register_gsi(k, GSI)
        x86_irq.acpi_unregister_gsi(k, GSI)
        assert irq.desc(k, GSI).allocated

    def test_only_the_first_user_can_fail(self) -> None:
        k = make("v6.1")
        fail(k, 0)
        assert x86_irq.acpi_register_gsi(k, GSI) == -ENOSPC
        k.world.recording = None
        assert x86_irq.acpi_register_gsi(k, GSI) == GSI
        fail(k, 0)
        assert x86_irq.acpi_register_gsi(k, GSI) == GSI

    def test_freed_under_a_handler(self) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        irq.request_irq(k, dev.irq, IrqAction("ahci", "toy.interrupt", dev, shared=True))
        x86_irq.pcibios_disable_irq(k, dev)
        assert rules(k) == ["irq/freed-with-action"]


class TestEnable:
    @pytest.mark.parametrize("version", [BEFORE_COUNTING, *COUNTED, *AT_PROBE])
    def test_gives_the_function_its_number(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        assert x86_irq.pcibios_enable_irq(k, dev) == 0
        assert dev.irq == GSI
        assert dev.irq_managed is (version != BEFORE_COUNTING)

    def test_twice_takes_one_reference(self) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        x86_irq.pcibios_enable_irq(k, dev)
        assert users(k) == 1

    def test_without_a_pin_nothing_happens(self) -> None:
        k = make("v6.1")
        dev = device(k, "00:00.0")
        assert x86_irq.pcibios_enable_irq(k, dev) == 0
        assert not dev.irq_managed

    def test_says_when_the_input_cannot_be_set_up(self) -> None:
        k = make("v6.1")
        fail(k, 0)
        assert x86_irq.pcibios_enable_irq(k, device(k, AHCI)) == -ENOSPC
        assert texts(k, "warn") == ["pci 0000:00:02.0: PCI INT A: failed to register GSI"]

    @pytest.mark.parametrize("version", [BEFORE_COUNTING, "v6.1"])
    def test_says_when_the_firmware_knows_no_input(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        dev.irq = 11
        k.machine.routing[0, 0, 2, 1] = -1
        assert x86_irq.pcibios_enable_irq(k, dev) == 0
        assert texts(k, "warn") == ["pci 0000:00:02.0: PCI INT A: no GSI"]
        assert dev.irq == 11
        x86_irq.pcibios_disable_irq(k, dev)
        assert dev.irq == 11


class TestDisable:
    @pytest.mark.parametrize("version", COUNTED)
    def test_keeps_a_number_that_is_no_longer_its_own(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        x86_irq.pcibios_disable_irq(k, dev)
        assert (dev.irq, dev.irq_managed) == (GSI, False)
        assert not irq.desc(k, GSI).allocated

    @pytest.mark.parametrize("version", AT_PROBE)
    def test_zeroes_it_in_two_versions(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        x86_irq.pcibios_alloc_irq(k, dev)
        x86_irq.pcibios_free_irq(k, dev)
        assert (dev.irq, dev.irq_managed) == (0, False)

    @pytest.mark.parametrize(("version", "kept"), [("v4.1", True), ("v4.3", False), ("v4.4", False), ("v4.5", True)])
    def test_system_sleep_keeps_the_input_where_the_kernel_looks(self, version: str, kept: bool) -> None:
        k = make(version)
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        dev.is_prepared = True
        x86_irq.pcibios_disable_irq(k, dev)
        assert dev.irq_managed is kept

    def test_without_holding_it_nothing_is_given_back(self) -> None:
        k = make("v6.1")
        x86_irq.pcibios_enable_irq(k, device(k, SMBUS))
        x86_irq.pcibios_disable_irq(k, device(k, AHCI))
        assert users(k) == 1

    @pytest.mark.parametrize(("enabled", "given_back"), [(1, True), (0, False)])
    def test_a_device_that_goes_while_enabled(self, enabled: int, given_back: bool) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        dev.enable_cnt = enabled
        x86_irq.pcibios_release_device(k, dev)
        assert dev.irq_managed is not given_back


class TestProbeHooks:
    @pytest.mark.parametrize("version", [BEFORE_COUNTING, *COUNTED])
    def test_do_nothing_in_most_versions(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        before = k.world.fingerprint
        assert x86_irq.pcibios_alloc_irq(k, dev) == 0
        x86_irq.pcibios_free_irq(k, dev)
        assert k.world.fingerprint == before

    @pytest.mark.parametrize("version", AT_PROBE)
    def test_take_and_give_back_the_input_in_two(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        assert x86_irq.pcibios_alloc_irq(k, dev) == 0
        assert (dev.irq, dev.irq_managed, users(k)) == (GSI, True, 1)
        x86_irq.pcibios_free_irq(k, dev)
        assert users(k) == 0


class TestFailedProbeOfADeviceWithMsi:
    """The IOMMU of the first report: MSI on, no driver, and another driver's probe fails."""

    def msi_user(self, k: Kernel) -> PciDev:
        dev = device(k, IOMMU)
        dev.irq = 9
        assert msi.pci_enable_msi(k, dev) == 0
        assert irq.request_irq(k, dev.irq, IrqAction("AMD-Vi", "AMD-Vi", dev)) == 0
        assert dev.irq == 24
        return dev

    def failed_probe(self, k: Kernel, dev: PciDev) -> int:
        error = x86_irq.pcibios_alloc_irq(k, dev)
        if error == 0:
            x86_irq.pcibios_free_irq(k, dev)
        return error

    def resume(self, k: Kernel, dev: PciDev) -> bool:
        msi.pci_restore_msi_state(k, dev)
        return dev.hw.msi_enabled

    def resume_crashes(self, k: Kernel, dev: PciDev) -> bool:
        with pytest.raises(Crash) as crash:
            msi.pci_restore_msi_state(k, dev)
        return crash.value.finding.rule == "irq/no-descriptor"

    @pytest.mark.parametrize("version", ["v4.3-rc1", "v4.3"])
    def test_loses_the_number(self, version: str) -> None:
        k = make(version)
        dev = self.msi_user(k)
        assert x86_irq.pcibios_alloc_irq(k, dev) == 0
        assert (dev.irq, dev.irq_managed) == (17, True)
        x86_irq.pcibios_free_irq(k, dev)
        assert (dev.irq, dev.irq_managed) == (0, False)
        assert dev.hw.msi_enabled
        assert irq.desc(k, 24).msi_desc is dev.msi_descs[0]
        assert self.resume_crashes(k, dev)
        assert texts(k, "BUG") == ["BUG: kernel NULL pointer dereference"]

    def test_is_refused_in_v4_4(self) -> None:
        k = make("v4.4")
        dev = self.msi_user(k)
        assert self.failed_probe(k, dev) == -EBUSY
        assert dev.irq == 24
        assert self.resume(k, dev)

    @pytest.mark.parametrize("version", [BEFORE_COUNTING, *COUNTED])
    def test_changes_nothing_elsewhere(self, version: str) -> None:
        k = make(version)
        dev = self.msi_user(k)
        assert self.failed_probe(k, dev) == 0
        assert dev.irq == 24
        assert self.resume(k, dev)

    @pytest.mark.parametrize("proposal", ["no-alloc-irq-while-msi", "msi-without-driver"])
    def test_two_proposals_cure_it(self, proposal: str) -> None:
        k = make("v4.3-rc1", proposal)
        dev = self.msi_user(k)
        assert self.failed_probe(k, dev) == 0
        assert dev.irq == 24
        assert self.resume(k, dev)
        assert x86_irq.leaked_pins(k) == ()

    def test_a_probe_that_succeeds_still_loses_the_number_with_one_of_them(self) -> None:
        k = make("v4.3-rc1", "msi-without-driver")
        dev = self.msi_user(k)
        x86_irq.pcibios_alloc_irq(k, dev)
        assert dev.irq == 17
        assert self.resume_crashes(k, dev)

    def test_the_draft_that_only_skips_the_free_cures_nothing_and_leaks(self) -> None:
        k = make("v4.3-rc1", "free-irq-unless-msi")
        dev = self.msi_user(k)
        assert self.failed_probe(k, dev) == 0
        assert dev.irq == 17
        assert x86_irq.leaked_pins(k) == (x86_irq.LeakedPin(17, "0000:00:00.2"),)
        assert self.resume_crashes(k, dev)


class TestMsiAndTheInput:
    @pytest.mark.parametrize(("version", "held"), [("v4.1", 1), ("v4.3", 0), ("v4.4", 0), ("v4.5", 1), ("v6.1", 1)])
    def test_two_versions_hold_no_input_while_msi_is_on(self, version: str, held: int) -> None:
        k = make(version)
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        assert msi.pci_enable_msi(k, dev) == 0
        assert users(k) == held
        assert dev.irq == 24
        msi.pci_disable_msi(k, dev)
        assert (users(k), dev.irq, dev.irq_managed) == (1, GSI, True)

    def test_the_draft_holds_it_all_the_time(self) -> None:
        k = make("v4.3-rc1", "free-irq-unless-msi")
        dev = device(k, AHCI)
        x86_irq.pcibios_alloc_irq(k, dev)
        msi.pci_enable_msi(k, dev)
        assert users(k) == 1


class TestLeakedPins:
    def test_held_by_a_function_without_driver(self) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        assert x86_irq.leaked_pins(k) == (x86_irq.LeakedPin(GSI, "0000:00:02.0"),)

    @pytest.mark.parametrize("field", ["driver", "enable_cnt"])
    def test_never_while_it_is_in_use(self, field: str) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        setattr(dev, field, {"driver": "toy", "enable_cnt": 1}[field])
        assert x86_irq.leaked_pins(k) == ()

    def test_held_by_nobody_any_more(self) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        x86_irq.pcibios_enable_irq(k, dev)
        k.system.devices.remove(dev)
        dev.delete()
        assert x86_irq.leaked_pins(k) == (x86_irq.LeakedPin(GSI, ""),)

    def test_unknown_before_inputs_were_counted(self) -> None:
        k = make(BEFORE_COUNTING)
        x86_irq.pcibios_enable_irq(k, device(k, AHCI))
        assert x86_irq.leaked_pins(k) == ()


def test_a_pin_that_no_function_has() -> None:
    """Some hardware and any dead device reads more than four there; the line is named by its letter all the same."""
    k = make("v6.12")
    dev = device(k, AHCI)
    dev.pin = 0xFF
    dev.irq = 0
    assert x86_irq.pcibios_enable_irq(k, dev) == 0
