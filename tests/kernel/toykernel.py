"""Small kernels on small machines, with toy drivers that do as little as the test at hand needs.

Tests import from here; the fixtures ``boot``, ``notified`` and ``windows`` are in ``conftest.py``::

    from toykernel import SMALL, Toy, device

    def test_bind(boot):
        k = boot("v6.12", SMALL, Toy("toy"))
        dev = device(k, "01:00.0")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from errno import ENODEV
from typing import Any

from quiesce.kernel import changes
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, Finding, IrqHandler, Kernel, Message
from quiesce.kernel.objects import PciDev
from quiesce.machine.build import build_machine
from quiesce.snapshot.text import read_text
from quiesce.world import World
from quiesce.world.world import Recording

SMALL = """
machine small
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug
00:02.0 ahci
00:03.0 conventional
01:00.0 e1000e
01:00.1 e1000e
"""
"""Two functions in a hot-plug slot, two on the root bus."""


class Toy(PciDriver):
    """A driver that logs its callbacks in ``log`` and does what the arguments say.

    ``on_probe`` and ``on_remove`` run inside the callbacks; ``answer`` is what probe returns after that.
    """

    has_pm_ops = False

    def __init__(
        self,
        name: str = "toy",
        *,
        ids: tuple[DeviceId, ...] = (DeviceId(),),
        answer: int = 0,
        on_probe: Callable[[Kernel, PciDev], int | None] | None = None,
        on_remove: Callable[[Kernel, PciDev], None] | None = None,
        **attributes: Any,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.ids = ids  # type: ignore[misc]
        self.answer = answer
        self.on_probe = on_probe
        self.on_remove = on_remove
        self.log: list[str] = []
        for key, value in attributes.items():
            setattr(self, key, value)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        self.log.append(f"probe {dev.bdf}")
        result = self.on_probe(k, dev) if self.on_probe is not None else None
        return self.answer if result is None else result

    def remove(self, k: Kernel, dev: PciDev) -> None:
        self.log.append(f"remove {dev.bdf}")
        if self.on_remove is not None:
            self.on_remove(k, dev)

    def handlers(self) -> Mapping[str, IrqHandler]:
        return {f"{self.name}.interrupt": _handler}


def refuse(k: Kernel, dev: PciDev) -> int:
    """Say no, as a probe callback."""
    return -ENODEV


class ShutdownToy(Toy):
    """A toy with a shutdown callback."""

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        self.log.append(f"shutdown {dev.bdf}")


class SleepToy(Toy):
    """A toy that takes part in system sleep."""

    has_pm_ops = True

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        self.log.append(f"suspend {dev.bdf}")
        return 0

    def resume(self, k: Kernel, dev: PciDev) -> int:
        self.log.append(f"resume {dev.bdf}")
        return 0


def _handler(k: Kernel, irq: int, dev_id: Any) -> str:
    """Claim the interrupt of a device that has one, and acknowledge it in the device."""
    if not dev_id.hw.irq_status:
        return IRQ_NONE
    dev_id.hw.irq_status = False
    return IRQ_HANDLED


def only(vendor: int, device: int) -> tuple[DeviceId, ...]:
    """Return an id table for one device."""
    return (DeviceId(vendor, device),)


E1000E = only(0x8086, 0x10D3)
AHCI = only(0x8086, 0x2922)


def make_kernel(version: str, machine: str = SMALL, *drivers: PciDriver, changed: Iterable[str] = ()) -> Kernel:
    """Build a kernel on a machine described in text, not booted; ``changed`` adds changes, ``-ID`` takes one out."""
    world = World()
    with_ = [item for item in changed if not item.startswith("-")]
    without = [item[1:] for item in changed if item.startswith("-")]
    kernel_set = changes.kernel(version).edited(with_, without) if with_ or without else changes.kernel(version)
    k = Kernel(world, build_machine(world, read_text(machine, "test")), kernel_set, {d.name: d for d in drivers})
    for driver in drivers:
        k.irq_handlers.update(driver.handlers())
    return k


def device(k: Kernel, bdf: str, instance: int = 1) -> PciDev:
    """Return the structure of a device by its short address, the first made for the slot unless asked otherwise."""
    path = f"pci/0000:{bdf}" if instance == 1 else f"pci/0000:{bdf}~{instance}"
    return PciDev.get(k.world, path)


def texts(k: Kernel, *levels: str) -> list[str]:
    """Return what was printed, at these levels or at all."""
    lines = (item for item in k.outputs if isinstance(item, Message))
    return [item.text for item in lines if not levels or item.level in levels]


def rules(k: Kernel) -> list[str]:
    """Return the rules that were broken, in order."""
    return [item.rule for item in k.outputs if isinstance(item, Finding)]


@contextmanager
def choosing(k: Kernel, *picks: int) -> Iterator[None]:
    """Take these options, by number, where the model asks; failures become possible, one per pick."""
    k.system.faults_left = len(picks)
    k.world.recording = Recording(forced=picks)
    try:
        yield
    finally:
        k.world.recording = None
        k.system.faults_left = 0


@contextmanager
def another_task(k: Kernel, *held: str) -> Iterator[None]:
    """Run as a task that finds the sleeping locks ``held`` taken by somebody else."""
    k.others = [*k.others, *held]
    try:
        yield
    finally:
        k.others = k.others[: len(k.others) - len(held)]
