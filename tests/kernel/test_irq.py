"""Requesting, freeing, enabling and suspending interrupts (kernel/irq/manage.c, pm.c, irqdesc.c)."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOMEM, ENOSYS
from typing import Any

import pytest
from line_machine import GSI, assert_intx, good, line, make
from pci_machine import fail
from toykernel import device, rules, texts

from quiesce.kernel import irq
from quiesce.kernel.irq_desc import allocated_irqs
from quiesce.kernel.kernel import IRQ_HANDLED, Crash, Kernel
from quiesce.kernel.objects import IrqAction
from quiesce.machine import interrupts


@pytest.fixture
def k() -> Kernel:
    return make("v6.1")


class TestRequest:
    def test_the_first_handler_starts_the_line(self, k: Kernel) -> None:
        pin = interrupts.pin_of(k.machine, GSI)
        assert pin.masked
        assert pin.irq == GSI
        assert irq.request_irq(k, GSI, good(k, "00:02.0")) == 0
        assert irq.irq_has_action(k, GSI)
        assert line(k).depth == 0
        assert not pin.masked

    def test_without_automatic_enable_it_stays_off(self, k: Kernel) -> None:
        action = good(k, "00:02.0")._replace(shared=False, no_autoen=True)
        assert irq.request_irq(k, GSI, action) == 0
        assert line(k).depth == 1
        irq.enable_irq(k, GSI)
        assert line(k).depth == 0
        assert not interrupts.pin_of(k.machine, GSI).masked

    def test_unallocated_numbers_are_invalid(self, k: Kernel) -> None:
        assert irq.request_irq(k, 99, good(k, "00:02.0")) == -EINVAL

    def test_a_number_without_chip(self, k: Kernel) -> None:
        number = irq.irq_alloc_desc(k, "", start=30)
        assert irq.request_irq(k, number, good(k, "00:02.0")) == -ENOSYS
        irq.enable_irq(k, number)
        assert texts(k, "WARN") == ["enable_irq before setup/request_irq: irq 30"]

    def test_shared_needs_a_dev_id(self, k: Kernel) -> None:
        assert irq.request_irq(k, GSI, IrqAction("x", "never", None, shared=True)) == -EINVAL

    def test_memory_may_run_out(self, k: Kernel) -> None:
        fail(k, 0)
        assert irq.request_irq(k, GSI, good(k, "00:02.0")) == -ENOMEM
        assert not irq.irq_has_action(k, GSI)

    def test_an_isa_number_exists_and_nothing_arrives_on_it(self, k: Kernel) -> None:
        dev = device(k, "00:02.0")
        assert irq.request_irq(k, 11, good(k, "00:02.0")) == 0
        assert_intx(k, "00:02.0")
        irq.settle(k)
        assert dev.hw.irq_status
        irq.free_irq(k, 11, dev)
        assert not rules(k)

    def test_number_zero_is_the_timers(self, k: Kernel) -> None:
        assert irq.request_irq(k, 0, IrqAction("toy", "never", device(k, "00:02.0"))) == -EBUSY
        assert texts(k, "err") == ["genirq: Flags mismatch irq 0. 00000000 (toy) vs. 00015a00 (timer)"]

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [
            (True, False, "00000000 (b) vs. 00000080 (a)"),
            (False, True, "00000080 (b) vs. 00000000 (a)"),
            (False, False, "00000000 (b) vs. 00000000 (a)"),
        ],
    )
    def test_all_must_agree_to_share(self, k: Kernel, first: bool, second: bool, message: str) -> None:
        one, two = device(k, "00:02.0"), device(k, "00:0a.0")
        assert irq.request_irq(k, GSI, IrqAction("a", "never", one, first)) == 0
        assert irq.request_irq(k, GSI, IrqAction("b", "never", two, second)) == -EBUSY
        assert texts(k, "err") == [f"genirq: Flags mismatch irq {GSI}. {message}"]

    def test_sharers_are_called_in_order(self, k: Kernel) -> None:
        assert irq.request_irq(k, GSI, good(k, "00:02.0")) == 0
        assert irq.request_irq(k, GSI, good(k, "00:0a.0")) == 0
        assert [action.name for action in line(k).actions] == ["toy 00:02.0", "toy 00:0a.0"]

    def test_flags_as_messages_show_them(self) -> None:
        assert irq.irq_flags(IrqAction("", "", None, shared=True, no_suspend=True, no_autoen=True)) == 0x84080


class TestDescriptors:
    def test_the_lowest_free_number_is_taken(self, k: Kernel) -> None:
        assert [irq.irq_alloc_desc(k, "msi", start=24) for _ in range(3)] == [24, 25, 26]
        irq.irq_free_desc(k, 25)
        assert irq.irq_alloc_desc(k, "msi", start=24) == 25

    def test_freeing_a_number_twice_is_nothing(self, k: Kernel) -> None:
        irq.irq_free_desc(k, GSI)
        before = k.world.fingerprint
        irq.irq_free_desc(k, GSI)
        assert k.world.fingerprint == before

    def test_a_line_has_no_msi_descriptor(self, k: Kernel) -> None:
        assert irq.irq_get_msi_desc(k, GSI) is None
        assert irq.irq_get_msi_desc(k, 0) is None


class TestFree:
    def test_the_last_handler_shuts_the_line_down(self, k: Kernel) -> None:
        action = good(k, "00:02.0")
        irq.request_irq(k, GSI, action)
        irq.disable_irq(k, GSI)
        irq.disable_irq(k, GSI)
        irq.free_irq(k, GSI, action.dev_id)
        assert line(k).depth == 1
        assert interrupts.pin_of(k.machine, GSI).masked
        irq.request_irq(k, GSI, action)
        assert line(k).depth == 0

    def test_the_others_stay(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.request_irq(k, GSI, good(k, "00:0a.0"))
        irq.free_irq(k, GSI, device(k, "00:02.0"))
        assert [action.name for action in line(k).actions] == ["toy 00:0a.0"]
        assert line(k).depth == 0

    def test_twice_is_noticed(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.free_irq(k, GSI, device(k, "00:02.0"))
        assert not rules(k)
        irq.free_irq(k, GSI, device(k, "00:02.0"))
        assert texts(k, "WARN") == [f"Trying to free already-free IRQ {GSI}"]
        assert rules(k) == ["irq/free-without-request"]

    def test_a_number_without_descriptor_is_ignored(self, k: Kernel) -> None:
        irq.free_irq(k, 99, device(k, "00:02.0"))
        assert not k.outputs

    def test_in_an_interrupt_handler_of_another_line(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        with k.in_hardirq():
            irq.free_irq(k, GSI, device(k, "00:02.0"))
        assert texts(k, "WARN") == [f"Trying to free IRQ {GSI} from IRQ context!"]
        assert rules(k) == ["irq/free-in-interrupt"]

    def test_under_a_spinlock(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        with k.spinlock("lock"):
            irq.free_irq(k, GSI, device(k, "00:02.0"))
        assert rules(k) == ["context/sleep-in-atomic"]

    def test_in_its_own_handler_it_waits_for_ever(self) -> None:
        k = make("v6.1", suicidal=lambda k, line, dev: irq.free_irq(k, line, dev) or IRQ_HANDLED)
        irq.request_irq(k, GSI, IrqAction("x", "suicidal", device(k, "00:02.0"), shared=True))
        assert_intx(k, "00:02.0")
        with pytest.raises(Crash) as crash:
            irq.settle(k)
        assert crash.value.finding.rule == "wait/own-interrupt-handler"

    def test_the_descriptor_goes_while_a_handler_is_there(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.irq_free_desc(k, GSI)
        name = "toy 00:02.0"
        text = f"remove_proc_entry: removing non-empty directory 'irq/{GSI}', leaking at least '{name}'"
        assert texts(k, "WARN") == [text]
        assert rules(k) == ["irq/freed-with-action"]
        assert interrupts.pin_of(k.machine, GSI).masked
        assert GSI not in allocated_irqs(k)

    def test_the_descriptor_goes_after_the_handler(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.free_irq(k, GSI, device(k, "00:02.0"))
        irq.irq_free_desc(k, GSI)
        assert not k.outputs


class TestEnable:
    def test_disables_are_counted(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.disable_irq_nosync(k, GSI)
        irq.disable_irq_nosync(k, GSI)
        irq.enable_irq(k, GSI)
        assert line(k).depth == 1
        irq.enable_irq(k, GSI)
        assert line(k).depth == 0
        assert not rules(k)

    def test_once_too_often(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.enable_irq(k, GSI)
        assert texts(k, "WARN") == [f"Unbalanced enable for IRQ {GSI}"]
        assert rules(k) == ["irq/unbalanced-enable"]

    def test_while_suspended(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.suspend_device_irqs(k)
        irq.enable_irq(k, GSI)
        assert rules(k) == ["irq/unbalanced-enable"]

    def test_unknown_numbers_are_ignored(self, k: Kernel) -> None:
        irq.enable_irq(k, 99)
        irq.disable_irq(k, 99)
        assert not k.outputs

    def test_disable_is_lazy(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.disable_irq(k, GSI)
        pin = interrupts.pin_of(k.machine, GSI)
        assert not pin.masked
        dev = assert_intx(k, "00:02.0")
        irq.settle(k)
        assert pin.masked
        assert dev.hw.irq_status
        irq.enable_irq(k, GSI)
        irq.settle(k)
        assert not dev.hw.irq_status
        assert not rules(k)

    def test_unlazy_disable_masks_at_once_until_the_handler_goes(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.irq_set_disable_unlazy(k, GSI)
        irq.disable_irq(k, GSI)
        assert interrupts.pin_of(k.machine, GSI).masked
        irq.free_irq(k, GSI, device(k, "00:02.0"))
        assert not line(k).disable_unlazy

    def test_disable_in_the_own_handler_hangs(self) -> None:
        k = make("v6.1", stuck=lambda k, line, dev: irq.disable_irq(k, line) or IRQ_HANDLED)
        irq.request_irq(k, GSI, IrqAction("x", "stuck", device(k, "00:02.0"), shared=True))
        assert_intx(k, "00:02.0")
        with pytest.raises(Crash, match="waits for itself"):
            irq.settle(k)

    def test_nosync_in_the_own_handler_does_not(self) -> None:
        def handler(k: Kernel, number: int, dev: Any) -> str:
            irq.disable_irq_nosync(k, number)
            return IRQ_HANDLED

        k = make("v6.1", exclusive=handler)
        irq.request_irq(k, GSI, IrqAction("x", "exclusive", device(k, "00:02.0")))
        assert_intx(k, "00:02.0")
        irq.settle(k)
        assert line(k).depth == 1
        assert interrupts.pin_of(k.machine, GSI).masked
        assert not rules(k)


class TestSleep:
    def test_lines_with_handlers_are_off_until_resume(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.suspend_device_irqs(k)
        assert line(k).suspended
        dev = assert_intx(k, "00:02.0")
        irq.settle(k)
        assert dev.hw.irq_status
        irq.resume_device_irqs(k)
        assert not line(k).suspended
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_one_that_may_not_be_suspended_keeps_the_line_on(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.request_irq(k, GSI, good(k, "00:0a.0")._replace(no_suspend=True))
        irq.suspend_device_irqs(k)
        dev = assert_intx(k, "00:02.0")
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_a_line_without_handler_is_left_alone(self, k: Kernel) -> None:
        irq.suspend_device_irqs(k)
        assert not line(k).suspended
        irq.resume_device_irqs(k)
        assert not rules(k)

    def test_a_disable_outlives_it(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.disable_irq(k, GSI)
        irq.suspend_device_irqs(k)
        irq.resume_device_irqs(k)
        assert line(k).depth == 1


def test_equal_lives_leave_equal_states(k: Kernel) -> None:
    dev, action = device(k, "00:02.0"), good(k, "00:02.0")
    before = k.world.fingerprint
    irq.request_irq(k, GSI, action)
    assert_intx(k, "00:02.0")
    irq.settle(k)
    irq.free_irq(k, GSI, dev)
    assert k.world.fingerprint == before
