"""Kernels with real driver models on small machines, for the tests of drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quiesce.drivers import models
from quiesce.kernel import boot, changes, irq, pci_sysfs
from quiesce.kernel.kernel import Finding, Kernel, Message
from quiesce.kernel.objects import PciDev
from quiesce.machine.build import build_machine
from quiesce.machine.interrupts import raise_interrupt
from quiesce.snapshot.text import read_text
from quiesce.world import Change, World

PC = """
machine pc
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug
00:02.0 gpu
00:05.0 virtio-net-transitional
00:06.0 virtio-net
00:07.0 conventional
00:14.0 xhci
00:1b.0 audio no-msi
00:1c.0 root-port bus=02
00:1d.0 endpoint class=0c0320
00:1e.0 endpoint class=0c0300
00:1f.2 ahci
00:1f.3 smbus
01:00.0 e1000e
02:00.0 nvme
"""
INTEL = PC + "iommu intel\n"


def make(version: str, machine: str, names: Iterable[str], changed: Iterable[str] = ()) -> Kernel:
    """A kernel on a machine, not booted; ``changed`` adds changes, ``-ID`` takes one out."""
    chosen = list(changed)
    kernel_set = changes.kernel(version).edited(
        [item for item in chosen if not item.startswith("-")], [item[1:] for item in chosen if item.startswith("-")]
    )
    world = World()
    drivers = models(names)
    k = Kernel(world, build_machine(world, read_text(machine, "test")), kernel_set, drivers)
    for driver in drivers.values():
        k.irq_handlers.update(driver.handlers())
    return k


def booted(
    version: str, machine: str, names: Iterable[str], load: Iterable[str] = (), changed: Iterable[str] = ()
) -> Kernel:
    """A booted kernel; drivers in ``load`` are registered at boot, the others only known, so that they can be bound."""
    names = list(names)
    k = make(version, machine, names, changed)
    k.start_event()
    boot.boot(k, list(load))
    irq.settle(k)
    for name in names:
        k.system.loaded.add(name)
    k.start_event()
    return k


def device(k: Kernel, bdf: str, instance: int = 1) -> PciDev:
    """The structure of a device by its short address."""
    return PciDev.get(k.world, f"pci/0000:{bdf}" + (f"~{instance}" if instance > 1 else ""))


def bind(k: Kernel, name: str, bdf: str) -> int:
    """Bind by hand, as an event of its own."""
    k.start_event()
    answer = pci_sysfs.bind_by_hand(k, name, device(k, bdf))
    irq.settle(k)
    return answer


def unbind(k: Kernel, bdf: str) -> None:
    """Unbind, as an event of its own."""
    k.start_event()
    dev = device(k, bdf)
    assert dev.driver is not None
    assert pci_sysfs.unbind_store(k, dev.driver, dev) == 0
    irq.settle(k)


def operate(k: Kernel, name: str, bdf: str, instance: int = 1) -> int | None:
    """Do an operation of any driver with a device, as an event of its own; asserts that it can be done now."""
    k.start_event()
    dev = device(k, bdf, instance)
    for driver in k.drivers.values():
        for operation in driver.operations():
            if operation.name == name and operation.ready(k, dev):
                answer: int | None = operation.run(k, dev)  # type: ignore[func-returns-value]
                irq.settle(k)
                return answer
    raise AssertionError(f"{name} cannot be done with {bdf}")


def can(k: Kernel, name: str, bdf: str, instance: int = 1) -> bool:
    """Whether an operation can be done now."""
    dev = device(k, bdf, instance)
    known = [item for driver in k.drivers.values() for item in driver.operations() if item.name == name]
    assert known, name
    return any(item.ready(k, dev) for item in known)


def interrupt(k: Kernel, bdf: str) -> None:
    """Let the device raise an interrupt condition, as an event of its own."""
    k.start_event()
    raise_interrupt(k.machine, k.machine.function(bdf))
    irq.settle(k)


def rules(k: Kernel) -> list[str]:
    """The rules broken since the event began."""
    return [item.rule for item in k.outputs if isinstance(item, Finding)]


def texts(k: Kernel) -> list[str]:
    """The lines printed since the event began."""
    return [item.text for item in k.outputs if isinstance(item, Message)]


def other_task(k: Kernel, action: Callable[[], object]) -> None:
    """Run something as another task while the present one stands still with its locks."""
    saved = k.mutexes, k.others
    k.mutexes, k.others = [], [*k.others, *k.mutexes]
    try:
        action()
        irq.settle(k)
    finally:
        k.mutexes, k.others = saved


def at_window(k: Kernel, where: str, action: Callable[[], object]) -> list[str]:
    """Run ``action`` as another task at the first window whose name contains ``where``; returns the windows seen."""
    seen: list[str] = []
    done: list[str] = []

    def nested(name: str) -> None:
        seen.append(name)
        if where in name and not done and not k.irqs_off:
            done.append(name)
            other_task(k, action)

    k.nested = nested
    return seen


RESIDUE = {"driver_override", "dynids", "saved_config", "state_saved", "current_state", "MSI_DATA", "MSI_ADDRESS_LO"}
"""Fields that no driver puts back: what an operator wrote, the kernel's last copy of config space, stale messages."""


def left_behind(k: Kernel, mark: int) -> list[Change]:
    """What differs from ``mark``, except for what is never put back and the values that the first enable leaves."""
    return [
        change
        for change in k.world.diff(mark)
        if change.field not in RESIDUE
        and not change.path.startswith(("iotlb", "pt/", "domain"))
        and not (change.field == "irq" and change.path.startswith("pci/"))
    ]
