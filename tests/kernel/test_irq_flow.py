"""How interrupts are handled, and lost (kernel/irq/chip.c, handle.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from line_machine import GSI, assert_intx, good, line, make
from toykernel import device, rules, texts

from quiesce.kernel import irq, irq_flow
from quiesce.kernel.kernel import IRQ_HANDLED, Crash, Kernel
from quiesce.kernel.objects import IrqAction
from quiesce.machine import interrupts
from quiesce.machine import pci_regs as r


@pytest.fixture
def k() -> Kernel:
    return make("v6.1")


class TestLevel:
    def test_is_handled_until_the_line_is_quiet(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.request_irq(k, GSI, good(k, "00:0a.0"))
        devs = [assert_intx(k, "00:02.0"), assert_intx(k, "00:0a.0")]
        irq.settle(k)
        assert not any(dev.hw.irq_status for dev in devs)
        assert not k.outputs

    def test_nothing_happens_with_interrupts_off(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        dev = assert_intx(k, "00:02.0")
        with k.interrupts_off():
            irq.settle(k)
            assert dev.hw.irq_status
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_without_handler_it_is_masked_in_silence(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        dev = device(k, "00:02.0")
        irq.free_irq(k, GSI, dev)
        interrupts.pin_of(k.machine, GSI).masked = False
        line(k).masked = False
        assert_intx(k, "00:02.0")
        irq.settle(k)
        assert interrupts.pin_of(k.machine, GSI).masked
        assert not k.outputs
        assert not line(k).spurious_disabled

    def test_handlers_run_in_interrupt_context(self) -> None:
        seen: list[tuple[int, bool]] = []

        def handler(k: Kernel, number: int, dev: Any) -> str:
            seen.append((k.hardirq, k.irqs_off > 0))
            dev.hw.irq_status = False
            return IRQ_HANDLED

        k = make("v6.1", look=handler)
        irq.request_irq(k, GSI, IrqAction("x", "look", device(k, "00:02.0"), shared=True))
        assert_intx(k, "00:02.0")
        irq.settle(k)
        assert seen == [(1, True)]
        assert k.hardirq == k.irqs_off == 0


class TestStorm:
    def test_a_handler_that_always_claims(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, IrqAction("greedy", "always", device(k, "00:0a.0"), shared=True))
        assert_intx(k, "00:02.0")
        with pytest.raises(Crash) as crash:
            irq.settle(k)
        assert crash.value.finding.rule == "irq/storm"
        assert "greedy claims every interrupt" in crash.value.finding.why
        assert texts(k, "BUG") == ["watchdog: BUG: soft lockup - CPU#0 stuck"]

    def test_it_hides_that_nobody_cares(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, IrqAction("greedy", "always", device(k, "00:0a.0"), shared=True))
        irq.request_irq(k, GSI, IrqAction("other", "never", device(k, "00:02.0"), shared=True))
        assert_intx(k, "00:02.0")
        with pytest.raises(Crash):
            irq.settle(k)
        assert "irq/nobody-cared" not in rules(k)

    def test_never_when_the_device_needs_a_few_rounds(self) -> None:
        left = [irq_flow.ROUNDS - 1]

        def handler(k: Kernel, number: int, dev: Any) -> str:
            left[0] -= 1
            dev.hw.irq_status = left[0] > 0
            return IRQ_HANDLED

        k = make("v6.1", slow=handler)
        irq.request_irq(k, GSI, IrqAction("slow", "slow", device(k, "00:02.0"), shared=True))
        assert_intx(k, "00:02.0")
        irq.settle(k)
        assert not rules(k)

    def test_messages_that_raise_messages_end_too(self) -> None:
        def handler(k: Kernel, number: int, dev: Any) -> str:
            interrupts.post(k.machine, number)
            return IRQ_HANDLED

        k = make("v6.1", echo=handler)
        number = irq.irq_alloc_desc(k, "msi", start=24)
        irq.request_irq(k, number, IrqAction("echo", "echo", device(k, "00:02.0")))
        interrupts.post(k.machine, number)
        with pytest.raises(Crash) as crash:
            irq.settle(k)
        assert crash.value.finding.rule == "irq/storm"


class TestEdge:
    @pytest.fixture
    def number(self, k: Kernel) -> int:
        return irq.irq_alloc_desc(k, "msi", start=24)

    def test_is_remembered_without_handler_and_replayed_to_the_first(self, k: Kernel, number: int) -> None:
        dev = device(k, "00:02.0")
        dev.hw.irq_status = True
        interrupts.post(k.machine, number)
        irq.settle(k)
        assert irq.desc(k, number).pending
        irq.request_irq(k, number, good(k, "00:02.0"))
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_is_remembered_while_disabled(self, k: Kernel, number: int) -> None:
        dev = device(k, "00:02.0")
        irq.request_irq(k, number, good(k, "00:02.0"))
        irq.disable_irq(k, number)
        dev.hw.irq_status = True
        interrupts.post(k.machine, number)
        irq.settle(k)
        assert dev.hw.irq_status
        irq.enable_irq(k, number)
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_an_unhandled_one_is_no_storm(self, k: Kernel, number: int) -> None:
        irq.request_irq(k, number, IrqAction("x", "never", device(k, "00:02.0")))
        interrupts.post(k.machine, number)
        irq.settle(k)
        assert not k.outputs

    def test_of_a_number_that_was_given_back(self, k: Kernel, number: int) -> None:
        irq.irq_free_desc(k, number)
        interrupts.post(k.machine, number)
        irq.settle(k)
        assert texts(k, "emerg") == ["do_IRQ: No irq handler for vector"]
        assert rules(k) == ["irq/no-handler-for-vector"]


class TestFreedData:
    def caught(self, k: Kernel) -> str:
        with pytest.raises(Crash) as crash:
            irq.settle(k)
        assert crash.value.finding.rule == "irq/handler-on-freed-data"
        return crash.value.finding.why

    def test_the_driver_has_gone(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        device(k, "00:02.0").driver = None
        assert_intx(k, "00:02.0")
        assert "toy is not bound" in self.caught(k)

    def test_a_sharers_interrupt_is_enough(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        irq.request_irq(k, GSI, good(k, "00:0a.0"))
        device(k, "00:02.0").driver = None
        assert_intx(k, "00:0a.0")
        assert "toy 00:02.0 is still on irq" in self.caught(k)

    def test_the_device_structure_has_gone(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, good(k, "00:02.0"))
        dev = assert_intx(k, "00:02.0")
        dev.delete()
        assert "is freed" in self.caught(k)

    def test_never_for_a_handler_that_belongs_to_no_driver(self, k: Kernel) -> None:
        irq.request_irq(k, GSI, IrqAction("AMD-Vi", "never", device(k, "00:02.0"), shared=True))
        irq.request_irq(k, GSI, good(k, "00:0a.0"))
        assert_intx(k, "00:0a.0")
        irq.settle(k)
        assert not rules(k)


class TestLostMessages:
    @pytest.fixture
    def sender(self, k: Kernel) -> Callable[[], str]:
        hw = device(k, "00:02.0").hw
        hw.write_register("COMMAND", r.PCI_COMMAND_MASTER)
        hw.write_register("MSI_DATA", 24)
        hw.write_register("MSI_FLAGS", r.PCI_MSI_FLAGS_ENABLE)
        irq.irq_alloc_desc(k, "msi", start=24)
        return lambda: interrupts.raise_interrupt(k.machine, hw)

    def test_without_bus_mastering_there_is_a_note_and_no_finding(self, k: Kernel, sender: Callable[[], str]) -> None:
        device(k, "00:02.0").hw.write_register("COMMAND", 0)
        assert sender() == interrupts.LOST
        irq.settle(k)
        assert texts(k, "note") == ["0000:00:02.0: message interrupt lost: Bus Master of 0000:00:02.0 is off"]
        assert not rules(k)
        assert not interrupts.lapic(k.machine).lost

    def test_without_remapping_entry(self, k: Kernel, sender: Callable[[], str]) -> None:
        interrupts.remapping(k.machine).enabled = True
        k.machine.iommu = "intel"
        assert sender() == interrupts.LOST
        irq.settle(k)
        assert rules(k) == ["irq/remap-fault"]
        assert "Request device [00:02.0] fault index 0x18" in texts(k, "err")[-1]
        assert "Present field in the IRTE entry is clear" in texts(k, "err")[-1]

    def test_sometimes_it_arrives(self, k: Kernel, sender: Callable[[], str]) -> None:
        assert sender() == interrupts.SENT
        irq.settle(k)
        assert not k.outputs
