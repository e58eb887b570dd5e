"""Two devices on one level line, and a kernel that has set the line up, for the tests of the interrupt core."""

from __future__ import annotations

from typing import Any

from pci_machine import believe
from toykernel import Toy, device, make_kernel

from quiesce.kernel import irq, x86_irq
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, IrqHandler, Kernel
from quiesce.kernel.objects import IrqAction, IrqDesc, PciDev
from quiesce.machine import interrupts

MACHINE = """
machine line
00:00.0 host-bridge
00:02.0 ahci
00:0a.0 conventional
00:0b.0 conventional
"""
GSI = 18
"""The input of 00:02.0 and of 00:0a.0, which is eight slots further."""


def never(k: Kernel, line: int, dev_id: Any) -> str:
    return IRQ_NONE


def always(k: Kernel, line: int, dev_id: Any) -> str:
    return IRQ_HANDLED


def make(version: str, **handlers: IrqHandler) -> Kernel:
    k = make_kernel(version, MACHINE, Toy("toy"))
    k.irq_handlers |= {"never": never, "always": always, **handlers}
    believe(k)
    for bdf in ("00:02.0", "00:0a.0"):
        assert x86_irq.pcibios_enable_irq(k, device(k, bdf)) == 0
    k.start_event()
    return k


def good(k: Kernel, bdf: str) -> IrqAction:
    """A shared handler of the toy driver, which is bound."""
    dev = device(k, bdf)
    dev.driver = "toy"
    return IrqAction(f"toy {bdf}", "toy.interrupt", dev, shared=True)


def line(k: Kernel) -> IrqDesc:
    return irq.desc(k, GSI)


def assert_intx(k: Kernel, bdf: str) -> PciDev:
    dev = device(k, bdf)
    assert interrupts.raise_interrupt(k.machine, dev.hw) == interrupts.INTX
    return dev
