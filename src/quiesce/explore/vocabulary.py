"""The events that can befall a device: what operators, users, firmware and the hardware itself can do.

Each event is named by one line of text, the same in cases, traces and on the command line. docs/events.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from quiesce.explore.model import Event, NotNow
from quiesce.kernel import aer, base_dd, boot, hotplug, iommu, pci_sysfs, reboot, suspend
from quiesce.kernel.driver import Operation
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.kernel.pci_access import instances
from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function
from quiesce.machine.interrupts import raise_interrupt
from quiesce.machine.topology import chain

VFS = 2
"""How many virtual functions ``numvfs-on`` asks for, as far as the function has them."""
GROUP_TYPES = ("identity", "DMA")


def vocabulary(k: Kernel, drivers: Sequence[str], devices: Sequence[str]) -> list[Event]:
    """Return every event that drivers and devices (``0000:00:1f.2``) give rise to, in a fixed order."""
    events = [Event("boot", _boot)]
    for bdf in devices:
        events += _device_events(k, drivers, bdf)
    for name in drivers:
        if not k.drivers[name].builtin:
            events.append(Event(f"unload {name}", partial(_unload, name=name)))
            events.append(Event(f"load {name}", partial(_load, name=name)))
    events += [
        Event("rescan", _rescan, nestable=True),
        Event("suspend", _suspend),
        Event("resume", _resume),
        Event("hibernate", _hibernate),
        Event("reboot", lambda k: _shutdown(k, "reboot"), nestable=True),
        Event("kexec", lambda k: _shutdown(k, "kexec"), nestable=True),
        Event("crash-kexec", _crash_kexec),
        Event("second-kernel", _second_kernel),
    ]
    return events


def matching(k: Kernel, drivers: Sequence[str]) -> list[str]:
    """Return the devices of the machine that one of the drivers claims by its id table, in bus order."""
    tables = [ids for name in drivers if (ids := [entry for entry in k.drivers[name].ids if not _wild(entry)])]
    return [bdf for bdf, fn in k.machine.functions.items() if any(entry.matches(fn) for ids in tables for entry in ids)]


def _wild(entry: object) -> bool:
    return all(getattr(entry, name) is None for name in ("vendor", "device", "base_class", "sub_class"))


def _fits(k: Kernel, name: str, bdf: str) -> bool:
    """Whether binding makes sense: the id table fits, or is for drivers that take whatever the operator gives them."""
    ids = k.drivers[name].ids
    return not ids or any(entry.override_only or entry.matches(k.machine.function(bdf)) for entry in ids)


def bind_event(name: str, bdf: str) -> Event:
    """Return the event that binds a driver to a device, with driver_override where its table does not fit."""
    return Event(f"bind {name} {bdf}", partial(_bind, name=name, bdf=bdf), nestable=True)


def _device_events(k: Kernel, drivers: Sequence[str], bdf: str) -> Iterator[Event]:
    for name in drivers:
        if _fits(k, name, bdf):
            yield bind_event(name, bdf)
    yield Event(f"unbind {bdf}", lambda k: _unbind(k, bdf), nestable=True)
    for name in drivers:
        for operation in k.drivers[name].operations():
            yield Event(f"{operation.name} {bdf}", partial(_operate, operation=operation, bdf=bdf), nestable=True)
    yield Event(f"interrupt {bdf}", lambda k: _interrupt(k, bdf), nestable=True, hardware=True)
    yield Event(f"remove {bdf}", lambda k: _remove(k, bdf), nestable=True)
    yield Event(f"unplug {bdf}", lambda k: _unplug(k, bdf), nestable=True, hardware=True)
    yield Event(f"hotplug-remove {bdf}", lambda k: _hotplug_remove(k, bdf))
    yield Event(f"plug {bdf}", lambda k: _plug(k, bdf))
    yield Event(f"reset {bdf}", lambda k: _reset(k, bdf), nestable=True)
    yield Event(f"enable {bdf}", lambda k: _enable(k, bdf, True))
    yield Event(f"disable {bdf}", lambda k: _enable(k, bdf, False))
    yield from _error_events(k.machine.function(bdf))
    yield from _slot_events(k.machine.function(bdf))
    if k.machine.function(bdf).virtfns and any(_configures_sriov(k, name) for name in drivers):
        yield Event(f"numvfs-on {bdf}", lambda k: _numvfs(k, bdf, VFS))
        yield Event(f"numvfs-off {bdf}", lambda k: _numvfs(k, bdf, 0))
    if k.machine.iommu is not None:
        for kind in GROUP_TYPES:
            yield Event(f"group-type {kind} {bdf}", partial(_group_type, bdf=bdf, kind=kind))


def _error_events(fn: Function) -> Iterator[Event]:
    """Errors that a port above, or the function itself, can report or contain."""
    bdf = str(fn.bdf)
    if _reporter(fn) is not None:
        yield Event(f"aer-nonfatal {bdf}", lambda k: _aer(k, bdf, aer.NORMAL))
        yield Event(f"aer-fatal {bdf}", lambda k: _aer(k, bdf, aer.FROZEN))
    if fn.upstream is not None and fn.upstream.find_ext_capability(r.PCI_EXT_CAP_ID_DPC):
        yield Event(f"dpc {bdf}", lambda k: _dpc(k, bdf))


def _slot_events(fn: Function) -> Iterator[Event]:
    """The power of the slot that a function is in, if the slot is one."""
    bdf = str(fn.bdf)
    if fn.upstream is not None and fn.upstream.has_slot:
        yield Event(f"power-off {bdf}", lambda k: _power_off(k, bdf))
        yield Event(f"power-on {bdf}", lambda k: _power_on(k, bdf))


def _reporter(fn: Function) -> Function | None:
    """Return the root port, or the function itself on a root bus, that reports the errors of a function by AER."""
    if not fn.find_ext_capability(r.PCI_EXT_CAP_ID_ERR):
        return None
    *_, root = (fn, *chain(fn))
    capable = root.pcie_type == r.PCI_EXP_TYPE_ROOT_PORT and root.find_ext_capability(r.PCI_EXT_CAP_ID_ERR)
    return root if capable else None


def _configures_sriov(k: Kernel, name: str | None) -> bool:
    return isinstance(k.drivers.get(name or ""), pci_sysfs.ConfiguresSriov)


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
    _need(k.system.phase not in ("off", "suspended", "crashed", "dead"))
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
    known = {dev.bdf for dev in k.system.devices}
    _need(any(fn.present and bdf not in known for bdf, fn in k.machine.functions.items()))
    pci_sysfs.rescan_store(k)


def _reset(k: Kernel, bdf: str) -> int:
    _running(k)
    return pci_sysfs.reset_store(k, device(k, bdf))


def _enable(k: Kernel, bdf: str, on: bool) -> int:
    """Of a device without driver, once: that root can take a device away from under its driver is nobody's fault."""
    _running(k)
    dev = device(k, bdf)
    _need(dev.driver is None and (dev.enable_cnt == 0 if on else dev.enable_cnt > 0))
    return pci_sysfs.enable_store(k, dev, on)


def _numvfs(k: Kernel, bdf: str, number: int) -> int:
    _running(k)
    dev = device(k, bdf)
    _need(_configures_sriov(k, dev.driver) and bool(dev.num_vfs) is not bool(number))
    return pci_sysfs.numvfs_store(k, dev, min(number, len(dev.hw.virtfns)))


def _group_type(k: Kernel, bdf: str, kind: str) -> int:
    _running(k)
    group = device(k, bdf).iommu_group
    if group is None or group.default_domain is None:
        raise NotNow
    _need(group.default_domain.type != kind.lower())
    return iommu.group_type_store(k, group, kind)


def _aer(k: Kernel, bdf: str, state: str) -> None:
    _running(k)
    dev = device(k, bdf)
    reporter = _reporter(dev.hw)
    _need(reporter is not None and dev.hw.reachable and _served(k, reporter))
    aer.pcie_do_recovery(k, dev, state)


def _dpc(k: Kernel, bdf: str) -> None:
    _running(k)
    dev = device(k, bdf)
    port = dev.hw.upstream
    _need(port is not None and dev.hw.reachable and _served(k, port))
    hotplug.dpc_triggered(k, device(k, str(dev.hw.bdf if port is None else port.bdf)))


def _served(k: Kernel, port: Function | None) -> bool:
    """Whether the port driver looks after a port; a scenario without that driver takes it for granted."""
    return port is not None and ("pcieport" not in k.drivers or device(k, str(port.bdf)).driver == "pcieport")


def _slot(k: Kernel, bdf: str) -> tuple[PciDev, bool]:
    """Return the port whose slot a function is in, and whether the slot is on."""
    _running(k)
    function = k.machine.function(bdf)
    port = hotplug.pciehp_port(k, function)
    if port is None:
        raise NotNow
    return port, any(dev.hw.upstream is port.hw for dev in k.system.devices)


def _power_off(k: Kernel, bdf: str) -> int:
    port, on = _slot(k, bdf)
    _need(on and k.machine.function(bdf).present)
    return hotplug.pciehp_disable_slot(k, port)


def _power_on(k: Kernel, bdf: str) -> int:
    port, on = _slot(k, bdf)
    _need(not on and k.machine.function(bdf).present)
    return hotplug.pciehp_enable_slot(k, port)


def _load(k: Kernel, name: str) -> int:
    _running(k)
    _need(name not in k.system.loaded)
    return base_dd.driver_register(k, name)


def _unload(k: Kernel, name: str) -> None:
    _running(k)
    _need(name in k.system.loaded)
    base_dd.driver_unregister(k, name)


def _hibernate(k: Kernel) -> int:
    _running(k)
    return suspend.hibernation_snapshot(k)


def _crash_kexec(k: Kernel) -> None:
    _running(k)
    reboot.crash_kexec(k)


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
    system = k.system
    _need(system.phase == reboot.CRASHED or (system.phase == "shutdown" and system.kexec_in_progress))
    reboot.start_second_kernel(k)
