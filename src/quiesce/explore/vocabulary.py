"""The events that can befall a device: what operators, users, firmware and the hardware itself can do.

Each event is named by one line of text, the same in cases, traces and on the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from quiesce.explore.model import Event, NotNow
from quiesce.kernel import boot, hotplug, pci_sysfs, reboot, suspend
from quiesce.kernel.driver import Operation
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine.interrupts import raise_interrupt

INSTANCES = 3
"""How many structures of one slot are looked at: the present one and earlier ones that something still holds."""


def vocabulary(k: Kernel, drivers: Sequence[str], devices: Sequence[str]) -> list[Event]:
    """Return every event that drivers and devices (``0000:00:1f.2``) give rise to, in a fixed order."""
    events = [Event("boot", _boot)]
    for bdf in devices:
        events += _device_events(k, drivers, bdf)
    events += [
        Event("rescan", _rescan, nestable=True),
        Event("suspend", _suspend),
        Event("resume", _resume),
        Event("reboot", lambda k: _shutdown(k, "reboot")),
        Event("kexec", lambda k: _shutdown(k, "kexec")),
        Event("second-kernel", _second_kernel),
    ]
    return events


def matching(k: Kernel, drivers: Sequence[str]) -> list[str]:
    """Return the devices of the machine that one of the drivers claims by its id table, in bus order."""
    tables = [ids for name in drivers if (ids := [entry for entry in k.drivers[name].ids if not _wild(entry)])]
    return [bdf for bdf, fn in k.machine.functions.items() if any(entry.matches(fn) for ids in tables for entry in ids)]


def _wild(entry: object) -> bool:
    return all(getattr(entry, name) is None for name in ("vendor", "device", "base_class", "sub_class"))


def _device_events(k: Kernel, drivers: Sequence[str], bdf: str) -> Iterator[Event]:
    for name in drivers:
        yield Event(f"bind {name} {bdf}", partial(_bind, name=name, bdf=bdf), nestable=True)
    yield Event(f"unbind {bdf}", lambda k: _unbind(k, bdf), nestable=True)
    for name in drivers:
        for operation in k.drivers[name].operations():
            yield Event(f"{operation.name} {bdf}", partial(_operate, operation=operation, bdf=bdf), nestable=True)
    yield Event(f"interrupt {bdf}", lambda k: _interrupt(k, bdf), nestable=True)
    yield Event(f"remove {bdf}", lambda k: _remove(k, bdf), nestable=True)
    yield Event(f"unplug {bdf}", lambda k: _unplug(k, bdf), nestable=True)
    yield Event(f"hotplug-remove {bdf}", lambda k: _hotplug_remove(k, bdf))
    yield Event(f"plug {bdf}", lambda k: _plug(k, bdf))
    yield Event(f"reset {bdf}", lambda k: _reset(k, bdf), nestable=True)


def _need(condition: bool) -> None:
    if not condition:
        raise NotNow


def _running(k: Kernel) -> None:
    _need(k.system.phase == "running")


def device(k: Kernel, bdf: str) -> PciDev:
    """Return the structure of the device the kernel knows at ``bdf``; raises NotNow when it knows none."""
    for dev in instances(k, bdf):
        if dev.registered:
            return dev
    raise NotNow


def instances(k: Kernel, bdf: str) -> Iterator[PciDev]:
    """Yield every living structure made for ``bdf``, those of removed devices included."""
    for number in range(1, INSTANCES + 1):
        dev = PciDev.get(k.world, f"pci/{bdf}" if number == 1 else f"pci/{bdf}~{number}")
        if dev.exists:
            yield dev


def _boot(k: Kernel) -> None:
    _need(k.system.phase == "off")
    boot.boot(k)


def _bind(k: Kernel, name: str, bdf: str) -> int:
    _running(k)
    dev = device(k, bdf)
    _need(dev.driver is None)
    return pci_sysfs.bind_by_hand(k, name, dev)


def _unbind(k: Kernel, bdf: str) -> int:
    _running(k)
    dev = device(k, bdf)
    name = dev.driver
    if name is None:
        raise NotNow
    return pci_sysfs.unbind_store(k, name, dev)


def _operate(k: Kernel, operation: Operation, bdf: str) -> int | None:
    _need(k.system.phase in ("running", "shutdown"))
    for dev in instances(k, bdf):
        if operation.ready(k, dev):
            return operation.run(k, dev)
    raise NotNow


def _interrupt(k: Kernel, bdf: str) -> None:
    _need(k.system.phase not in ("off", "suspended", "dead"))
    function = k.machine.function(bdf)
    _need(function.behaviour.can_interrupt(function))
    raise_interrupt(k.machine, function)


def _remove(k: Kernel, bdf: str) -> None:
    _running(k)
    pci_sysfs.remove_store(k, device(k, bdf))


def _unplug(k: Kernel, bdf: str) -> None:
    _need(k.system.phase in ("running", "suspended"))
    function = k.machine.function(bdf)
    _need(function.present and function.upstream is not None)
    k.machine.unplug(function)


def _hotplug_remove(k: Kernel, bdf: str) -> None:
    _running(k)
    dev = device(k, bdf)
    _need(not dev.hw.present and hotplug.pciehp_port(k, dev.hw) is not None)
    hotplug.surprise_removed(k, dev)


def _plug(k: Kernel, bdf: str) -> None:
    _running(k)
    function = k.machine.function(bdf)
    _need(not function.present)
    k.machine.plug(function)
    hotplug.plugged(k, function)


def _rescan(k: Kernel) -> None:
    _running(k)
    _need(any(fn.present and not any(True for _ in instances(k, bdf)) for bdf, fn in k.machine.functions.items()))
    pci_sysfs.rescan_store(k)


def _reset(k: Kernel, bdf: str) -> int:
    _running(k)
    return pci_sysfs.reset_store(k, device(k, bdf))


def _suspend(k: Kernel) -> int:
    _running(k)
    return suspend.suspend(k)


def _resume(k: Kernel) -> None:
    _need(k.system.phase == "suspended")
    suspend.resume(k)


def _shutdown(k: Kernel, how: str) -> None:
    _running(k)
    reboot.shutdown(k, how)


def _second_kernel(k: Kernel) -> None:
    _need(k.system.phase == "shutdown" and k.system.kexec_in_progress)
    reboot.start_second_kernel(k)
