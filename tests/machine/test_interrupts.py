"""Pins, the IO-APIC, messages and interrupt remapping (machine/interrupts.py)."""

from __future__ import annotations

import pytest

from quiesce.machine import interrupts as i
from quiesce.machine import pci_regs as r
from quiesce.machine.build import build_machine
from quiesce.machine.function import Function
from quiesce.machine.machine import Machine
from quiesce.snapshot.text import read_text
from quiesce.world import World

MACHINE = """
machine pins
00:00.0 host-bridge
00:02.0 ahci
00:06.0 smbus pin=B
00:0a.0 conventional
00:1c.0 pci-bridge bus=01
00:1d.0 root-port bus=03
01:02.0 pci-bridge bus=02
01:05.0 conventional pin=C
02:01.0 conventional pin=D
00:1e.0 root-port bus=04
03:00.0 igb
04:00.0 e1000e maskable
iommu amd 00:00.2
route 00:02 A -> 19
"""

ON = r.PCI_MSI_FLAGS_ENABLE
ON_X = r.PCI_MSIX_FLAGS_ENABLE


@pytest.fixture
def m() -> Machine:
    return build_machine(World(), read_text(MACHINE, "test"))


def start_msi(fn: Function, irq: int = 30, master: bool = True) -> None:
    if master:
        fn.write_register("COMMAND", fn.command | r.PCI_COMMAND_MASTER)
    fn.write_register("MSI_DATA", irq)
    fn.write_register("MSI_FLAGS", fn.msi_control | ON)


def start_msix(m: Machine, fn: Function, *irqs: int, masked: bool = False) -> None:
    fn.write_register("COMMAND", fn.command | r.PCI_COMMAND_MASTER)
    for vector, irq in enumerate(irqs):
        i.program_msix(m, fn, vector, irq, masked)
    fn.write_register("MSIX_FLAGS", fn.msix_control | ON_X)


class TestRouting:
    @pytest.mark.parametrize(
        ("pin", "device", "expected"), [(1, 0, 1), (4, 0, 4), (1, 1, 2), (4, 1, 1), (2, 3, 1), (1, 31, 4)]
    )
    def test_swizzle(self, pin: int, device: int, expected: int) -> None:
        assert i.swizzle(pin, device) == expected

    def test_the_firmware_table_wins(self, m: Machine) -> None:
        assert i.gsi_of(m, m.function("00:02.0")) == 19

    @pytest.mark.parametrize(("bdf", "gsi"), [("00:06.0", 16 + 7), ("00:0a.0", 16 + 2)])
    def test_without_a_table_inputs_go_round(self, m: Machine, bdf: str, gsi: int) -> None:
        assert i.gsi_of(m, m.function(bdf)) == gsi

    def test_each_bridge_turns_the_pin(self, m: Machine) -> None:
        # 01:05.0 pin C: C + 5 -> D on 00:1c.0; 16 + (0x1c + 3) % 8.
        assert i.gsi_of(m, m.function("01:05.0")) == 16 + (0x1C + 3) % 8
        # 02:01.0 pin D: D + 1 -> A on 01:02.0, A + 2 -> C on 00:1c.0.
        assert i.gsi_of(m, m.function("02:01.0")) == 16 + (0x1C + 2) % 8

    def test_device_zero_below_a_port_keeps_its_pin(self, m: Machine) -> None:
        assert i.gsi_of(m, m.function("03:00.0")) == 16 + 0x1D % 8

    def test_without_a_pin_there_is_no_input(self, m: Machine) -> None:
        assert i.gsi_of(m, m.function("00:00.0")) == -1

    def test_wiring_lists_every_function_with_a_pin_once(self, m: Machine) -> None:
        wired = [fn for users in i.io_apic(m).inputs.values() for fn in users]
        assert len(wired) == len(set(wired)) == sum(fn.pin != 0 for fn in m.functions.values())

    def test_message_numbers_start_above_the_inputs(self, m: Machine) -> None:
        assert i.gsi_top(m) == 24
        high = build_machine(World(), read_text("00:02.0 ahci\nroute 00:02 A -> 40", "test"))
        assert i.gsi_top(high) == 41


class TestPin:
    @pytest.fixture
    def fn(self, m: Machine) -> Function:
        return m.function("00:02.0")

    def test_a_condition_asserts_the_line_until_it_is_serviced(self, m: Machine, fn: Function) -> None:
        assert not i.line_asserted(m, 19)
        assert i.raise_interrupt(m, fn) == i.INTX
        assert i.line_asserted(m, 19)
        assert i.asserting(m, 19) == (fn,)
        fn.irq_status = False
        assert not i.line_asserted(m, 19)

    def test_intx_disable_keeps_it_inside(self, m: Machine, fn: Function) -> None:
        fn.write_register("COMMAND", r.PCI_COMMAND_INTX_DISABLE)
        assert i.raise_interrupt(m, fn) == i.HELD
        assert not i.line_asserted(m, 19)
        fn.write_register("COMMAND", 0)
        assert i.line_asserted(m, 19)

    def test_bus_mastering_does_not_matter(self, m: Machine, fn: Function) -> None:
        fn.write_register("COMMAND", 0)
        assert i.raise_interrupt(m, fn) == i.INTX

    def test_with_msi_on_the_pin_is_not_used_and_comes_back_after(self, m: Machine, fn: Function) -> None:
        start_msi(fn)
        assert i.raise_interrupt(m, fn) == i.SENT
        assert not i.line_asserted(m, 19)
        fn.write_register("MSI_FLAGS", 0)
        assert i.line_asserted(m, 19)

    def test_only_in_d0(self, m: Machine, fn: Function) -> None:
        fn.irq_status = True
        fn.write_register("PM_CTRL", r.D3HOT)
        assert not i.line_asserted(m, 19)
        assert i.raise_interrupt(m, fn) == i.LOST

    def test_not_when_it_is_gone(self, m: Machine, fn: Function) -> None:
        fn.irq_status = True
        fn.present = False
        assert not i.line_asserted(m, 19)

    def test_not_through_a_bridge_without_power(self, m: Machine) -> None:
        fn = m.function("01:05.0")
        fn.irq_status = True
        assert i.intx_asserted(m, fn)
        m.function("00:1c.0").powered = False
        assert not i.intx_asserted(m, fn)

    def test_a_function_without_a_pin_cannot(self, m: Machine) -> None:
        fn = m.function("00:00.0")
        assert i.raise_interrupt(m, fn) == i.HELD
        assert not i.intx_asserted(m, fn)


class TestMessage:
    @pytest.fixture
    def fn(self, m: Machine) -> Function:
        return m.function("03:00.0")

    def test_arrives_with_the_data_as_number(self, m: Machine, fn: Function) -> None:
        start_msi(fn, 31)
        assert i.raise_interrupt(m, fn) == i.SENT
        assert tuple(i.lapic(m).pending) == (31,)

    def test_a_second_one_before_the_first_was_taken_merges(self, m: Machine, fn: Function) -> None:
        start_msi(fn, 31)
        i.raise_interrupt(m, fn)
        i.raise_interrupt(m, fn)
        assert tuple(i.lapic(m).pending) == (31,)

    @pytest.mark.parametrize("blocked", ["03:00.0", "00:1d.0"])
    def test_bus_mastering_is_needed_all_the_way_up(self, m: Machine, fn: Function, blocked: str) -> None:
        start_msi(fn)
        off = m.function(blocked)
        off.write_register("COMMAND", off.command & ~r.PCI_COMMAND_MASTER)
        assert i.raise_interrupt(m, fn) == i.LOST
        assert not i.lapic(m).pending
        assert i.lapic(m).lost[str(fn.bdf)].startswith(f"Bus Master of {off.bdf}")

    def test_a_bridge_without_power_stops_it(self, m: Machine, fn: Function) -> None:
        start_msi(fn)
        m.function("00:1d.0").powered = False
        assert i.raise_interrupt(m, fn) == i.LOST
        assert i.lapic(m).lost[str(fn.bdf)] == "0000:00:1d.0 above is gone"

    def test_the_iommu_needs_no_bus_mastering(self, m: Machine) -> None:
        fn = m.function("00:00.2")
        start_msi(fn, 24, master=False)
        assert i.raise_interrupt(m, fn) == i.SENT

    def test_is_not_sent_while_messages_are_off_or_the_device_sleeps(self, m: Machine, fn: Function) -> None:
        assert i.send_message(m, fn) == i.LOST
        start_msi(fn)
        fn.write_register("PM_CTRL", r.D3HOT)
        assert i.send_message(m, fn) == i.LOST

    def test_masked_vector_waits_and_goes_out_when_unmasked(self, m: Machine, fn: Function) -> None:
        start_msix(m, fn, 30, 31, masked=True)
        assert i.send_message(m, fn, 1) == i.PENDING
        assert fn.message_pending
        i.mask_msix(m, fn, 0, False)
        assert not i.lapic(m).pending
        i.mask_msix(m, fn, 1, False)
        assert tuple(i.lapic(m).pending) == (31,)
        assert not fn.message_pending

    def test_function_mask_holds_back_every_vector(self, m: Machine, fn: Function) -> None:
        start_msix(m, fn, 30)
        fn.write_register("MSIX_FLAGS", ON_X | r.PCI_MSIX_FLAGS_MASKALL)
        assert i.send_message(m, fn) == i.PENDING
        fn.write_register("MSIX_FLAGS", ON_X)
        i.release_pending(m, fn)
        assert tuple(i.lapic(m).pending) == (30,)

    def test_an_entry_never_written_is_masked(self, m: Machine, fn: Function) -> None:
        start_msix(m, fn, 30)
        assert i.send_message(m, fn, 3) == i.PENDING

    def test_msi_mask_bits(self, m: Machine) -> None:
        fn = m.function("04:00.0")
        start_msi(fn)
        i.mask_msi(m, fn, 1)
        assert i.send_message(m, fn) == i.PENDING
        i.mask_msi(m, fn, 0)
        assert tuple(i.lapic(m).pending) == (30,)

    def test_msi_without_mask_bits_cannot_be_held_back(self, m: Machine, fn: Function) -> None:
        start_msi(fn)
        i.mask_msi(m, fn, 1)
        assert i.send_message(m, fn) == i.SENT

    def test_several_msi_vectors_follow_each_other(self, m: Machine, fn: Function) -> None:
        start_msi(fn, 40)
        fn.write_register("MSI_FLAGS", fn.msi_control | 2 << 4)
        i.send_message(m, fn, 3)
        assert tuple(i.lapic(m).pending) == (43,)

    def test_a_reset_forgets_what_waited(self, m: Machine, fn: Function) -> None:
        start_msix(m, fn, 30, masked=True)
        i.send_message(m, fn)
        fn.reset()
        start_msix(m, fn, 30, masked=True)
        i.mask_msix(m, fn, 0, False)
        assert not i.lapic(m).pending

    def test_table_writes_need_a_device_that_answers(self, m: Machine, fn: Function) -> None:
        fn.write_register("PM_CTRL", r.D3HOT)
        i.program_msix(m, fn, 0, 30, False)
        assert not fn.msix_table

    def test_masking_the_table_touches_entries_that_were_written(self, m: Machine, fn: Function) -> None:
        start_msix(m, fn, 30, 31)
        i.mask_all_msix(m, fn)
        assert fn.msix_table.items() == ((0, (30, True)), (1, (31, True)))

    def test_an_emptied_entry_is_as_after_reset(self, m: Machine, fn: Function) -> None:
        start_msix(m, fn, 30)
        i.program_msix(m, fn, 0, -1, True)
        assert not fn.msix_table


class TestRemapping:
    @pytest.fixture
    def fn(self, m: Machine) -> Function:
        fn = m.function("03:00.0")
        start_msi(fn, 31)
        i.remapping(m).enabled = True
        return fn

    def test_refuses_a_message_without_entry(self, m: Machine, fn: Function) -> None:
        assert i.raise_interrupt(m, fn) == i.LOST
        assert i.lapic(m).lost[str(fn.bdf)] == f"{i.REMAP_FAULT} 31"

    def test_lets_one_with_an_entry_through(self, m: Machine, fn: Function) -> None:
        entry = i.irte(m, 31)
        entry.present, entry.source = True, str(fn.bdf)
        assert i.raise_interrupt(m, fn) == i.SENT

    def test_refuses_another_functions_entry(self, m: Machine, fn: Function) -> None:
        entry = i.irte(m, 31)
        entry.present, entry.source = True, "0000:00:02.0"
        assert i.raise_interrupt(m, fn) == i.LOST

    def test_does_not_see_the_iommus_own_messages(self, m: Machine, fn: Function) -> None:
        iommu = m.function("00:00.2")
        start_msi(iommu, 24)
        assert i.raise_interrupt(m, iommu) == i.SENT

    def test_sometimes_it_is_off(self, m: Machine, fn: Function) -> None:
        i.remapping(m).enabled = False
        assert i.raise_interrupt(m, fn) == i.SENT


def test_nothing_is_left_after_a_full_turn(m: Machine) -> None:
    world, fn = m.world, m.function("03:00.0")
    before = world.fingerprint
    start_msix(m, fn, 30, masked=True)
    i.program_msix(m, fn, 0, -1, True)
    fn.write_register("MSIX_FLAGS", 0)
    fn.write_register("COMMAND", fn.command & ~r.PCI_COMMAND_MASTER)
    assert world.fingerprint == before
