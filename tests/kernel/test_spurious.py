"""Interrupts that nobody handles (kernel/irq/spurious.c)."""

from __future__ import annotations

import pytest
from line_machine import GSI, always, assert_intx, good, line, make
from toykernel import device, rules, texts

from quiesce.kernel import irq, spurious
from quiesce.kernel.kernel import IRQ_NONE, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import interrupts


@pytest.fixture
def k() -> Kernel:
    return make("v6.1")


class TestNobodyCared:
    def stuck(self, k: Kernel) -> PciDev:
        """The driver of 00:0a.0 listens, 00:02.0 asserts and has no handler."""
        assert irq.request_irq(k, GSI, good(k, "00:0a.0")) == 0
        return assert_intx(k, "00:02.0")

    @pytest.mark.parametrize(("version", "most"), [("v5.12", "199,900"), ("v5.13", "100,000")])
    def test_the_line_is_switched_off_and_the_innocent_named(self, version: str, most: str) -> None:
        k = make(version)
        self.stuck(k)
        irq.settle(k)
        nobody = f'irq {GSI}: nobody cared (try booting with the "irqpoll" option)'
        assert texts(k) == [nobody, f"Disabling IRQ #{GSI}"]
        assert rules(k) == ["irq/nobody-cared"]
        why = k.outputs[-1].why
        assert "0000:00:02.0 keeps input 18 asserted" in why
        assert "toy 00:0a.0 on the same line" in why
        assert most in why
        assert line(k).spurious_disabled
        assert line(k).depth == 1
        assert interrupts.pin_of(k.machine, GSI).masked

    def test_only_once(self, k: Kernel) -> None:
        self.stuck(k)
        irq.settle(k)
        k.start_event()
        irq.settle(k)
        assert not k.outputs

    def test_never_when_the_line_is_serviced(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        self.stuck(k)
        irq.settle(k)
        assert not rules(k)

    def test_never_when_it_was_one_odd_interrupt(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:0a.0"))
        assert irq.handle_irq(k, GSI) == IRQ_NONE
        irq.settle(k)
        assert not rules(k)

    def test_the_sharer_is_served_by_the_poll_timer_only(self, k: Kernel) -> None:
        self.stuck(k)
        irq.settle(k)
        k.start_event()
        victim = assert_intx(k, "00:0a.0")
        irq.settle(k)
        assert rules(k) == ["irq/line-dead-for-sharer"]
        assert not victim.hw.irq_status

    def test_nobody_polls_in_system_sleep(self, k: Kernel) -> None:
        self.stuck(k)
        irq.settle(k)
        k.start_event()
        k.system.phase = "suspended"
        victim = assert_intx(k, "00:0a.0")
        irq.settle(k)
        assert victim.hw.irq_status

    def test_an_exclusive_line_is_not_polled(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, IrqAction("alone", "never", device(k, "00:0a.0")))
        assert_intx(k, "00:02.0")
        irq.settle(k)
        assert "irq/nobody-cared" in rules(k)
        k.irq_handlers["never"] = always
        k.start_event()
        irq.settle(k)
        assert not rules(k)

    def test_another_request_revives_the_line(self, k: Kernel) -> None:
        self.stuck(k)
        irq.settle(k)
        k.start_event()
        assert irq.request_irq(k, GSI, good(k, "00:02.0")) == 0
        assert not line(k).spurious_disabled
        assert line(k).depth == 0
        irq.settle(k)
        assert not rules(k)
        assert not device(k, "00:02.0").hw.irq_status

    def test_so_does_freeing_and_requesting_again(self, k: Kernel) -> None:
        self.stuck(k)
        irq.settle(k)
        irq.free_irq(k, GSI, device(k, "00:0a.0"))
        assert line(k).spurious_disabled
        device(k, "00:02.0").hw.irq_status = False
        irq.request_irq(k, GSI, good(k, "00:0a.0"))
        assert not line(k).spurious_disabled
        assert line(k).depth == 0


class TestCounters:
    @pytest.mark.parametrize(
        ("version", "before", "expected"),
        [
            ("v5.12", 0, 100_000),
            ("v5.12", 99, 99_901),
            ("v5.12", 100, 199_900),
            ("v5.12", 99_999, 100_001),
            ("v5.13", 0, 100_000),
            ("v5.13", 100, 100_000),
        ],
    )
    def test_a_storm_after_good_interrupts(self, version: str, before: int, expected: int) -> None:
        k = make(version)
        assert spurious.interrupts_until_killed(k, before) == expected
        count = spurious.SpuriousCount()
        for _ in range(before):
            count, _ = spurious.note_interrupt(k, count, handled=True)
        arrived, killed = 0, False
        while not killed:
            count, killed = spurious.note_interrupt(k, count, handled=False)
            arrived += 1
        assert arrived == expected

    @pytest.mark.parametrize("version", ["v5.12", "v5.13"])
    @pytest.mark.parametrize(("good_ones", "killed"), [(100, False), (99, True)])
    def test_a_hundred_good_ones_in_a_window_save_the_line(self, version: str, good_ones: int, killed: bool) -> None:
        k = make(version)
        count, dead = spurious.SpuriousCount(), False
        for number in range(spurious.WINDOW):
            count, dead = spurious.note_interrupt(k, count, handled=0 < number <= good_ones)
        assert dead is killed
