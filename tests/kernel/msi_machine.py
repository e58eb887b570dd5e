"""Devices with MSI, MSI-X and a pin, enabled and bound to a toy driver, for the tests of message interrupts."""

from __future__ import annotations

import pytest
from pci_machine import believe
from toykernel import Toy, make_kernel

from quiesce.kernel import irq, pci, x86_irq
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import IrqAction, PciDev
from quiesce.machine import pci_regs as r

MACHINE = """
machine messages
00:00.0 host-bridge
00:02.0 ahci
00:03.0 e1000e msi=4 maskable
00:04.0 smbus
route 00:04 A -> 18
"""
AHCI, NIC, SMBUS = "00:02.0", "00:03.0", "00:04.0"
VERSIONS = ["v3.6", "v4.3-rc1", "v4.4", "v4.5", "v5.10", "v6.1", "v6.12"]
MASTER = r.PCI_COMMAND_MASTER


def make(version: str = "v6.1", *changed: str) -> Kernel:
    k = make_kernel(version, MACHINE, Toy("toy"), changed=changed)
    believe(k)
    for dev in k.system.devices:
        if dev.pin:
            assert x86_irq.pcibios_enable_irq(k, dev) == 0
            pci.pci_set_master(k, dev)
            dev.driver = "toy"
    k.start_event()
    return k


def listen(k: Kernel, dev: PciDev, number: int, shared: bool = False) -> None:
    assert irq.request_irq(k, number, IrqAction(f"toy {number}", "toy.interrupt", dev, shared)) == 0


def crash_of(error: pytest.ExceptionInfo[Crash]) -> tuple[str, str]:
    return error.value.finding.rule, error.value.finding.function
