"""Binding and unbinding: how a device gets a driver and loses it (drivers/base/dd.c, drivers/base/bus.c)."""

from __future__ import annotations

from errno import EAGAIN, EBUSY, ENODEV, ENXIO

from quiesce.kernel import changes, devres, pci_driver
from quiesce.kernel.base_core import EPROBE_DEFER, dev_printk, device_lock
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.notifier import bus_notify
from quiesce.kernel.objects import PciDev

# -- probing -------------------------------------------------------------------------------------------------


def really_probe(k: Kernel, name: str, dev: PciDev) -> int:
    """drivers/base/dd.c. Kept, in this order: probing blocked, devres left over, ``dev->driver`` set, DMA configured,
    BIND_DRIVER, the bus's probe, BOUND_DRIVER. Returns 0, a negative errno from inside the core, or what the driver
    returned as a **positive** errno.

    Left out: device links, pin control, PM domains, driver attributes, runtime PM.
    """
    if k.system.defer_all_probes:
        return -EPROBE_DEFER
    if dev.devres and _leftovers_forbid(k, dev):
        return -EBUSY
    dev.driver = name
    error = pci_driver.pci_dma_configure(k, name, dev)
    if error:
        device_unbind_cleanup(k, dev)
        return error
    bus_notify(k, "BIND_DRIVER", dev)
    error = _call_driver_probe(k, name, dev)
    if error:
        _probe_failed(k, name, dev)
        return -error
    k.window(f"really_probe {dev.bdf}: probed, not yet bound")
    _driver_bound(k, dev)
    return 0


def _leftovers_forbid(k: Kernel, dev: PciDev) -> bool:
    """Report devres that the previous driver left behind; whether the kernel refuses to probe (v5.6+)."""
    kinds = ", ".join(node.kind for node in dev.devres)
    refuses = k.has(changes.PROBE_REFUSES_LEFTOVER_DEVRES)
    if k.has(changes.SWITCH_IRQ_ZEROED):
        dev.irq = 0
    if refuses:
        dev_printk(k, "crit", dev, "Resources present before probing")
    else:
        k.warn("WARNING: drivers/base/dd.c: really_probe")
    outcome = "no driver can bind to it any more" if refuses else "the new driver inherits it"
    k.find("devres/leftover-at-probe", f"{dev.bdf} still has {kinds} from before; {outcome}", "really_probe")
    return refuses


def _call_driver_probe(k: Kernel, name: str, dev: PciDev) -> int:
    error = pci_driver.pci_device_probe(k, name, dev)
    if error in (0, -EPROBE_DEFER, -ENODEV, -ENXIO):
        return error
    if k.has(changes.PROBE_ERROR_ON_DEVICE):
        dev_printk(k, "err", dev, f"probe with driver {name} failed with error {error}")
    else:
        k.printk("warn", f"{name}: probe of {dev.bdf} failed with error {error}")
    return error


def _probe_failed(k: Kernel, name: str, dev: PciDev) -> None:
    """Undo in the order of the failure exits: DRIVER_NOT_BOUND (v4.5+), DMA (v5.19+), devres, ``dev->driver``."""
    if k.has(changes.NOTIFY_DRIVER_NOT_BOUND):
        bus_notify(k, "DRIVER_NOT_BOUND", dev)
    if k.has(changes.BUS_DMA_CLEANUP):
        pci_driver.pci_dma_cleanup(k, name, dev)
    device_unbind_cleanup(k, dev)


def device_unbind_cleanup(k: Kernel, dev: PciDev) -> None:
    """drivers/base/dd.c. Kept: devres released while ``dev->driver`` is still set, then driver and its data forgotten.

    Left out: on x86 nothing happens to ``dma_ops`` here; PM domains, runtime PM.
    """
    devres.devres_release_all(k, dev)
    dev.driver = None
    dev.drvdata.clear()


def _driver_bound(k: Kernel, dev: PciDev) -> None:
    driver_deferred_probe_del(k, dev)
    driver_deferred_probe_trigger(k)
    bus_notify(k, "BOUND_DRIVER", dev)


def driver_probe_device(k: Kernel, name: str, dev: PciDev) -> int:
    """drivers/base/dd.c. Kept: -ENODEV for a device that is gone, -EBUSY for one that has a driver, and a probe that
    asks for deferral puts the device on the deferred list. Returns what ``really_probe`` returns.

    Left out: deferring anew at once because another bind succeeded during the probe.
    """
    error = _driver_probe_device(k, name, dev)
    if error in (EPROBE_DEFER, -EPROBE_DEFER):
        driver_deferred_probe_add(k, dev)
    return error


def _driver_probe_device(k: Kernel, name: str, dev: PciDev) -> int:
    if dev.dead or not dev.registered:
        return -ENODEV
    if dev.driver is not None:
        return -EBUSY
    return really_probe(k, name, dev)


# -- deferred probing ----------------------------------------------------------------------------------------


def driver_deferred_probe_add(k: Kernel, dev: PciDev) -> None:
    """drivers/base/dd.c. Kept: the device waits at the end of the list, once."""
    if not dev.deferred:
        dev.deferred = True
        k.system.deferred_probes.append(dev)


def driver_deferred_probe_del(k: Kernel, dev: PciDev) -> None:
    """drivers/base/dd.c. Kept: the device waits no more."""
    if dev.deferred:
        dev.deferred = False
        k.system.deferred_probes.remove(dev)


def driver_deferred_probe_trigger(k: Kernel) -> None:
    """drivers/base/dd.c. Kept: the worker is queued if a device waits; not before boot is over.

    It runs at once unless a device lock is held, by this task or another.
    """
    if k.system.deferred_probes and k.system.phase != "off":
        k.system.deferred_work = True
    deferred_probe_work(k)


def deferred_probe_work(k: Kernel) -> None:
    """drivers/base/dd.c, ``deferred_probe_work_func``. Kept: every waiting device is probed again, the one that waits
    longest first; one that defers again waits for the next driver to bind.

    The worker runs as soon as no task holds a device lock. Left out: moving the devices to the end of the PM list.
    """
    while k.system.deferred_work and not _device_locks_held(k):
        k.system.deferred_work = False
        waiting = k.system.deferred_probes.as_tuple()
        for dev in waiting:
            driver_deferred_probe_del(k, dev)
        for dev in waiting:
            if dev.exists and dev.registered:
                _device_attach(k, dev)


def _device_locks_held(k: Kernel) -> bool:
    return any(name.startswith("device_lock") for name in (*k.mutexes, *k.others))


# -- devices and drivers find each other ---------------------------------------------------------------------


def loaded_drivers(k: Kernel) -> list[str]:
    """Return the registered drivers in the order in which they are tried.

    Kept: the first that binds wins. Left out: the kernel tries them in the order of registration; here it is the order
    of the scenario, so that loading in another order leads to the same state.
    """
    return [name for name in k.drivers if name in k.system.loaded]


def device_attach(k: Kernel, dev: PciDev) -> bool:
    """drivers/base/dd.c. Kept: the registered drivers are tried until one binds; whether the device has a driver now.

    Left out: asynchronous probing.
    """
    bound = _device_attach(k, dev)
    deferred_probe_work(k)
    return bound


def _device_attach(k: Kernel, dev: PciDev) -> bool:
    with device_lock(k, dev):
        if dev.dead:
            return False
        return dev.driver is not None or _attach_first(k, dev)


def _attach_first(k: Kernel, dev: PciDev) -> bool:
    """Try the drivers; an error from inside the core, unlike one from a driver's probe, ends the search."""
    for name in loaded_drivers(k):
        if not pci_driver.pci_bus_match(k, name, dev):
            continue
        error = driver_probe_device(k, name, dev)
        if error <= 0:
            return error == 0
    return False


def bus_probe_device(k: Kernel, dev: PciDev) -> None:
    """drivers/base/bus.c. Kept: a new device is offered to the drivers. Left out: ``drivers_autoprobe``."""
    if dev.match_driver:
        device_attach(k, dev)


def driver_attach(k: Kernel, name: str) -> None:
    """drivers/base/dd.c. Kept: the driver is offered every device of the bus that has no driver; errors do not end
    it.
    """
    for dev in k.system.devices.as_tuple():
        if dev.exists and dev.registered and pci_driver.pci_bus_match(k, name, dev):
            with device_lock(k, dev):
                if dev.driver is None:
                    driver_probe_device(k, name, dev)
    deferred_probe_work(k)


def device_driver_attach(k: Kernel, name: str, dev: PciDev) -> int:
    """drivers/base/dd.c. Kept: one driver to one device by hand. v5.14+: the driver's own error, -EAGAIN for deferral;
    before, -ENODEV stands for every failed probe.
    """
    with device_lock(k, dev):
        error = driver_probe_device(k, name, dev)
    deferred_probe_work(k)
    if not k.has(changes.BIND_RETURNS_PROBE_ERROR):
        return -ENODEV if error > 0 else error
    if error > 0:
        error = -error
    return -EAGAIN if error == -EPROBE_DEFER else error


def driver_register(k: Kernel, name: str) -> int:
    """drivers/base/driver.c, bus.c. Kept: -EBUSY for a driver that is registered already; every device is offered."""
    if name in k.system.loaded:
        k.printk("err", f"Error: Driver '{name}' is already registered, aborting...")
        return -EBUSY
    k.system.loaded.add(name)
    driver_attach(k, name)
    return 0


def driver_unregister(k: Kernel, name: str) -> None:
    """drivers/base/bus.c, dd.c, and ``pci_unregister_driver``. Kept: no new device binds; the driver's devices are
    unbound, the newest first; dynamic ids go.

    Left out: the newest is the one bound last in the kernel, the last on the bus here.
    """
    k.system.loaded.discard(name)
    for dev in reversed(k.system.devices.as_tuple()):
        if dev.exists:
            _device_release(k, dev, name)
    for entry in [entry for entry in k.system.dynids if entry[0] == name]:
        k.system.dynids.discard(entry)


# -- unbinding -----------------------------------------------------------------------------------------------


def device_release_driver(k: Kernel, dev: PciDev) -> None:
    """drivers/base/dd.c. Kept: under the device lock; nothing happens without a driver.

    Left out: up to v4.20 ``sysfs`` and ``rmmod`` took the lock of the parent as well.
    """
    with device_lock(k, dev):
        _release_driver(k, dev)
    deferred_probe_work(k)


def device_driver_detach(k: Kernel, name: str, dev: PciDev) -> None:
    """drivers/base/dd.c. Kept: unbound only if this driver has the device."""
    _device_release(k, dev, name)


def _device_release(k: Kernel, dev: PciDev, name: str) -> None:
    if dev.driver != name:
        return
    with device_lock(k, dev):
        if dev.driver == name:
            _release_driver(k, dev)
    deferred_probe_work(k)


def _release_driver(k: Kernel, dev: PciDev) -> None:
    """drivers/base/dd.c, ``__device_release_driver``. Kept, in this order: UNBIND_DRIVER, the bus's remove, DMA given
    back (v5.19+), devres, ``dev->driver`` forgotten, UNBOUND_DRIVER. The driver is known to listeners and to release
    functions up to the last but one step.

    Left out: device links and their order (which changed in v6.7), runtime PM, uevents.
    """
    name = dev.driver
    if name is None:
        return
    bus_notify(k, "UNBIND_DRIVER", dev)
    pci_driver.pci_device_remove(k, dev)
    k.window(f"unbind {dev.bdf}: driver removed, its devres still there")
    if k.has(changes.BUS_DMA_CLEANUP):
        pci_driver.pci_dma_cleanup(k, name, dev)
        k.window(f"unbind {dev.bdf}: DMA given back, devres still there")
    device_unbind_cleanup(k, dev)
    k.window(f"unbind {dev.bdf}: driver forgotten, listeners not yet told")
    bus_notify(k, "UNBOUND_DRIVER", dev)


def bus_remove_device(k: Kernel, dev: PciDev) -> None:
    """drivers/base/bus.c. Kept: a driver that is still there is unbound; the device waits for no probe any more."""
    if dev.driver is not None:
        device_release_driver(k, dev)
    driver_deferred_probe_del(k, dev)
