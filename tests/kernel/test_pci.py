"""Enabling, bus mastering, INTx, regions and saved state (drivers/pci/pci.c)."""

from __future__ import annotations

from errno import EBUSY, EINVAL

import pytest
from pci_machine import AHCI, HOST, NIC, PORT, SMBUS, believe, device, fail, found, make_kernel, printed

from quiesce.kernel import irq, msi, pci, pci_access, pci_power, x86_irq
from quiesce.kernel.objects import PCI_D0, PCI_D3COLD, PCI_D3HOT, PCI_UNKNOWN, PciDev
from quiesce.machine import pci_regs as r

IO, MEM, MASTER, NO_INTX = (
    r.PCI_COMMAND_IO,
    r.PCI_COMMAND_MEMORY,
    r.PCI_COMMAND_MASTER,
    r.PCI_COMMAND_INTX_DISABLE,
)


def command(dev: PciDev) -> int:
    return dev.hw.command


class TestConfigAccess:
    @pytest.mark.parametrize(("version", "value"), [("v4.11", 0x8086), ("v4.12", 0xFFFF)])
    def test_disconnected_devices_read_as_ones_once_the_kernel_keeps_the_mark(self, version: str, value: int) -> None:
        k = make_kernel(version)
        believe(k)
        ahci = device(k, AHCI)
        ahci.disconnected = True
        assert pci.pci_read_config(k, ahci, r.PCI_VENDOR_ID, 2) == value

    def test_writes_to_a_disconnected_device_are_dropped(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        ahci.error_state = "perm_failure"
        pci.pci_write_config(k, ahci, r.PCI_COMMAND, 2, 0)
        assert command(ahci) == MEM

    def test_an_absent_device_reads_as_ones_in_every_version(self) -> None:
        k = make_kernel("v3.6")
        believe(k)
        ahci = device(k, AHCI)
        ahci.hw.present = False
        assert pci.pci_read_config(k, ahci, r.PCI_COMMAND, 2) == 0xFFFF
        assert not pci.pci_device_is_present(k, ahci)

    def test_upstream_bridge(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        assert pci.upstream_bridge(k, device(k, NIC)) is device(k, PORT)
        assert pci.upstream_bridge(k, device(k, AHCI)) is None

    def test_bars(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        assert pci_access.pci_bars(device(k, AHCI)) == ((0, "io"), (1, "mem"))
        assert pci_access.pci_bars(device(k, HOST)) == ()


class TestEnable:
    def test_first_enable_switches_decoding_on_and_clears_intx_disable(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        ahci.hw.config.set("COMMAND", NO_INTX)
        assert pci.pci_enable_device(k, ahci) == 0
        assert command(ahci) == IO | MEM
        assert ahci.enable_cnt == 1
        assert ahci.irq > 0

    def test_intx_disable_stays_without_a_pin(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        host = device(k, HOST)
        host.hw.config.set("COMMAND", NO_INTX)
        assert pci.pci_enable_device(k, host) == 0
        assert command(host) & NO_INTX

    def test_only_the_last_disable_clears_bus_master_and_decoding_stays(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        pci.pci_enable_device(k, ahci)
        pci.pci_set_master(k, ahci)
        pci.pci_disable_device(k, ahci)
        assert command(ahci) & MASTER
        pci.pci_disable_device(k, ahci)
        assert command(ahci) == IO | MEM
        assert (ahci.enable_cnt, ahci.is_busmaster) == (0, False)
        assert found(k) == []

    def test_a_disable_too_many_is_found(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_disable_device(k, ahci)
        assert found(k) == ["device/disabled-twice"]
        assert printed(k) == [f"pci {AHCI}: disabling already-disabled device"]
        assert ahci.enable_cnt == -1

    def test_the_power_state_is_read_again(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        ahci.current_state = PCI_UNKNOWN
        pci.pci_enable_device(k, ahci)
        assert ahci.current_state == PCI_D0

    @pytest.mark.parametrize(("version", "enabled"), [("v3.12", False), ("v3.13", True), ("v6.1", True)])
    def test_bridges_above_are_enabled_and_made_bus_master(self, version: str, enabled: bool) -> None:
        k = make_kernel(version)
        believe(k)
        port = device(k, PORT)
        port.hw.config.set("COMMAND", 0)
        pci.pci_enable_device(k, device(k, NIC))
        assert (port.enable_cnt == 1, bool(command(port) & MASTER)) == (enabled, enabled)

    @pytest.mark.parametrize(("version", "enabled"), [("v3.12", 1), ("v3.13", 0)])
    def test_old_kernels_enable_bridges_at_enumeration(self, version: str, enabled: int) -> None:
        k = make_kernel(version)
        believe(k)
        pci.pci_enable_bridges(k)
        assert [dev.enable_cnt for dev in k.system.devices] == [0, enabled, 0, 0, 0]

    def test_a_failure_takes_the_count_back(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        fail(k, 0)
        assert pci.pci_enable_device(k, device(k, AHCI)) == -EINVAL
        assert device(k, AHCI).enable_cnt == 0

    def test_the_legacy_interrupt_is_left_alone_while_msi_is_on(self) -> None:
        k = make_kernel("v4.2")
        believe(k)
        ahci = device(k, AHCI)
        assert msi.pci_enable_msi(k, ahci) == 0
        number = ahci.irq
        pci.pci_enable_device(k, ahci)
        assert (ahci.irq, ahci.irq_managed) == (number, False)

    @pytest.mark.parametrize(("version", "managed"), [("v4.2", True), ("v4.3", False), ("v4.4", False), ("v4.5", True)])
    def test_who_sets_up_the_legacy_interrupt(self, version: str, managed: bool) -> None:
        k = make_kernel(version)
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        assert ahci.irq_managed is managed

    def test_disabling_before_msi_is_off_keeps_the_pin(self) -> None:
        """arch/x86: pcibios_disable_device() looks whether MSI is on now, not whether it was at enable time."""
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        msi.pci_enable_msi(k, ahci)
        pci.pci_disable_device(k, ahci)
        assert ahci.irq_managed
        msi.pci_disable_msi(k, ahci)
        assert ahci.irq_managed


class TestIntx:
    def test_sets_and_clears_the_bit(self) -> None:
        k = make_kernel("v6.14")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_intx(k, ahci, False)
        assert command(ahci) & NO_INTX
        pci.pci_intx(k, ahci, True)
        assert not command(ahci) & NO_INTX

    def test_masks_only_what_is_pending(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        assert not pci.pci_check_and_mask_intx(k, ahci)
        assert not command(ahci) & NO_INTX
        ahci.hw.irq_status = True
        assert pci.pci_check_and_mask_intx(k, ahci)
        assert command(ahci) & NO_INTX
        assert not pci.pci_check_and_unmask_intx(k, ahci)
        ahci.hw.irq_status = False
        assert pci.pci_check_and_unmask_intx(k, ahci)
        assert not command(ahci) & NO_INTX

    def test_an_absent_device_seems_to_interrupt(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        ahci.hw.present = False
        ahci.disconnected = True
        assert pci.pci_check_and_mask_intx(k, ahci)

    def test_mask_supported(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        assert pci.pci_intx_mask_supported(k, device(k, AHCI))
        device(k, AHCI).broken_intx_masking = True
        assert not pci.pci_intx_mask_supported(k, device(k, AHCI))


class TestRegions:
    def test_a_region_is_held_once(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        assert pci.pci_request_region(k, ahci, 1, "ahci") == 0
        assert pci.pci_request_region(k, ahci, 1, "vfio-pci") == -EBUSY
        assert printed(k) == [f"pci {AHCI}: BAR 1: can't reserve [mem 0xfe000000]"]
        assert ahci.regions[1] == "ahci"

    def test_a_bar_that_is_none_is_granted_and_not_noted(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        assert pci.pci_request_region(k, device(k, AHCI), 4, "ahci") == 0
        assert not device(k, AHCI).regions

    def test_all_or_none(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_request_region(k, ahci, 1, "other")
        assert pci.pci_request_regions(k, ahci, "ahci") == -EBUSY
        assert ahci.regions.items() == ((1, "other"),)

    def test_what_nobody_is_bound_for_is_leaked(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_request_regions(k, ahci, "ahci")
        ahci.driver = "ahci"
        assert pci.leaked_regions(ahci) == ()
        ahci.driver = None
        assert pci.leaked_regions(ahci) == ((0, "ahci"), (1, "ahci"))
        pci.pci_release_regions(k, ahci)
        assert pci.leaked_regions(ahci) == ()


class TestSavedState:
    def test_restores_what_was_saved_once(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        pci.pci_set_master(k, ahci)
        pci.pci_save_state(k, ahci)
        ahci.hw.reset()
        assert (command(ahci), ahci.hw.config.get("BASE_ADDRESS_1")) == (0, 0)
        pci.pci_restore_state(k, ahci)
        assert command(ahci) == IO | MEM | MASTER
        assert ahci.hw.config.get("BASE_ADDRESS_1") == 0xFE000000
        assert not ahci.state_saved

    @pytest.mark.parametrize(("version", "restored"), [("v6.18", 0), ("v6.19", IO | MEM)])
    def test_restoring_without_saving(self, version: str, restored: int) -> None:
        k = make_kernel(version)
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        pci.pci_save_state(k, ahci)
        ahci.state_saved = False
        ahci.hw.reset()
        pci.pci_restore_state(k, ahci)
        assert command(ahci) == restored

    def test_the_bars_come_back_before_command(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        pci.pci_save_state(k, ahci)
        ahci.hw.reset()
        mark = k.world.mark()
        pci.pci_restore_state(k, ahci)
        order = [change.field for change in k.world.writes(mark) if change.path == ahci.hw.path]
        assert order == ["BASE_ADDRESS_1", "BASE_ADDRESS_0", "COMMAND"]

    def test_a_device_that_is_gone_is_saved_as_ones(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        ahci.hw.present = False
        pci.pci_save_state(k, ahci)
        assert dict(ahci.saved_config)["COMMAND"] == 0xFFFF

    def test_copies_can_be_kept_elsewhere(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        assert pci.pci_store_saved_state(ahci) is None
        pci.pci_save_state(k, ahci)
        kept = pci.pci_store_saved_state(ahci)
        pci.pci_load_saved_state(ahci, None)
        assert not ahci.state_saved
        pci.pci_load_saved_state(ahci, kept)
        assert (ahci.state_saved, ahci.saved_config) == (True, kept)


class TestPowerStates:
    def test_down_and_up_again_loses_the_registers_and_puts_the_bars_back(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        nic = device(k, NIC)
        pci.pci_enable_device(k, nic)
        assert pci.pci_set_power_state(k, nic, PCI_D3HOT) == 0
        assert (nic.current_state, nic.hw.power_state) == (PCI_D3HOT, r.D3HOT)
        assert pci.pci_set_power_state(k, nic, PCI_D0) == 0
        assert command(nic) == 0
        assert nic.hw.config.get("BASE_ADDRESS_0") == 0xFD000000

    def test_no_soft_reset_keeps_them(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        pci.pci_enable_device(k, ahci)
        pci.pci_set_power_state(k, ahci, PCI_D3HOT)
        pci.pci_set_power_state(k, ahci, PCI_D0)
        assert command(ahci) == IO | MEM

    def test_not_upwards_but_to_d0(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        nic = device(k, NIC)
        pci.pci_set_power_state(k, nic, PCI_D3HOT)
        assert pci.pci_set_power_state(k, nic, 1) == -EINVAL

    def test_without_the_capability_d0_is_believed(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        smbus = device(k, SMBUS)
        smbus.current_state = PCI_UNKNOWN
        assert pci.pci_set_power_state(k, smbus, PCI_D0) == 0
        assert smbus.current_state == PCI_D0

    def test_a_device_that_is_gone_is_in_d3cold(self) -> None:
        k = make_kernel("v6.1")
        believe(k)
        ahci = device(k, AHCI)
        ahci.hw.present = False
        pci_power.pci_update_current_state(k, ahci, PCI_D0)
        assert ahci.current_state == PCI_D3COLD
        assert pci.pci_set_power_state(k, ahci, PCI_D0) < 0
        expected = f"pci {AHCI}: Unable to change power state from D3cold to D0, device inaccessible"
        assert printed(k) == [expected]


def test_the_pin_is_shared_by_reference_count() -> None:
    k = make_kernel("v6.1")
    believe(k)
    ahci, smbus = device(k, AHCI), device(k, SMBUS)
    pci.pci_enable_device(k, ahci)
    pci.pci_enable_device(k, smbus)
    assert ahci.irq == smbus.irq
    pci.pci_disable_device(k, ahci)
    assert irq.desc(k, smbus.irq).allocated
    assert x86_irq.pcibios_enable_irq(k, smbus) == 0
