"""The commands: there, for good, into the guest, and back.

Each hand-over ends with a look at the ``driver`` link: writing to ``drivers_probe`` succeeds whether or not anything
was bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel import changes
from quiesce.kernel.kernelset import KernelSet
from quiesce.plan.model import BIND, RELEASE, Member, Step
from quiesce.snapshot.bdf import Bdf

_SYS = "/sys/bus/pci"


def there(k: KernelSet, m: LightMachine, to: str, members: Sequence[Member]) -> tuple[Step, ...]:
    """Return the way to the new driver."""
    steps = [Step(f"modprobe {to}", "the driver must be there before it is asked for")]
    for item in members:
        if item.action == RELEASE:
            steps += _release(item)
        elif item.action == BIND:
            steps += _bind(k, m, to, item)
    return tuple(steps)


def _release(item: Member) -> Iterable[Step]:
    yield _unbind(item)
    yield Step(f"test ! -e {_SYS}/devices/{item.bdf}/driver", "it must have no driver now")


def _unbind(item: Member) -> Step:
    link = f"{_SYS}/devices/{item.bdf}/driver"
    if item.driver:
        return Step(f"echo {item.bdf} > {link}/unbind", f"takes {item.driver} away")
    return Step(f"test ! -e {link} || echo {item.bdf} > {link}/unbind", "takes its driver away, if it has one")


def _bind(k: KernelSet, m: LightMachine, to: str, item: Member) -> Iterable[Step]:
    place = f"{_SYS}/devices/{item.bdf}"
    if item.driver == to:
        yield Step(_check(item.bdf, to), "already there")
        return
    if changes.DRIVER_OVERRIDE in k:
        yield Step(f"echo {to} > {place}/driver_override", f"only {to} may take it from now on")
        if item.driver != "":
            yield _unbind(item)
        yield Step(f"echo {item.bdf} > {_SYS}/drivers_probe", "look for a driver")
    else:
        if item.driver != "":
            yield _unbind(item)
        fn = m.functions[item.bdf]
        new_id = f"echo {fn.vendor:04x} {fn.device:04x} > {_SYS}/drivers/{to}/new_id"
        yield Step(new_id, "this kernel has no driver_override: takes every free device with these ids")
    yield Step(_check(item.bdf, to), f"it must be {to} now")


def _check(bdf: str, driver: str) -> str:
    return f'test "$(basename "$(readlink {_SYS}/devices/{bdf}/driver)")" = {driver}'


def back(k: KernelSet, to: str, members: Sequence[Member]) -> tuple[Step, ...]:
    """Return the way back, in the opposite order."""
    steps: list[Step] = []
    for item in reversed(members):
        place = f"{_SYS}/devices/{item.bdf}"
        if item.action == BIND and item.driver != to:
            steps.append(
                Step(f"echo {item.bdf} > {place}/driver/unbind", f"takes {to} away; waits for whoever has it open")
            )
            if changes.DRIVER_OVERRIDE in k:
                steps.append(Step(f"echo > {place}/driver_override", "any driver may take it again"))
        if item.action in (BIND, RELEASE) and item.driver not in ("", to):
            steps.append(Step(f"echo {item.bdf} > {_SYS}/drivers_probe", "look for a driver"))
            if item.driver:
                steps.append(Step(_check(item.bdf, item.driver), f"it must be {item.driver} again"))
    return tuple(steps)


def persist(m: LightMachine, to: str, members: Sequence[Member]) -> tuple[Step, ...]:
    """Return what makes it last over a restart; ids only where they mean no other device."""
    moved = [item for item in members if item.action == BIND]
    steps = [Step(f"driverctl set-override {item.bdf} {to}", "by address, kept over restarts") for item in moved]
    ids = {_ids(m.functions[item.bdf]) for item in moved}
    others = [bdf for bdf, fn in m.functions.items() if _ids(fn) in ids and bdf not in {item.bdf for item in moved}]
    softdeps = sorted({item.driver for item in moved if item.driver and item.driver != to})
    if others:
        text = f"# options {to} ids=... would take {' '.join(others)} too: same ids"
        return (*steps, Step(text, "by address is the only way here"))
    lines = [f"options {to} ids={','.join(sorted(ids))}", *(f"softdep {name} pre: {to}" for name in softdeps)]
    text = "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines) + f" > /etc/modprobe.d/{to}.conf"
    return (*steps, Step(text, "or by ids, for drivers in modules; then rebuild the initramfs"))


def _ids(fn: LightFunction) -> str:
    return f"{fn.vendor:04x}:{fn.device:04x}"


def guest(members: Sequence[Member]) -> tuple[Step, ...]:
    """Return what gives the device to a guest: QEMU's option and libvirt's element."""
    steps = []
    for item in members:
        if item.action == BIND:
            at = Bdf.parse(item.bdf)
            address = (
                f"<address domain='0x{at.segment:04x}' bus='0x{at.bus:02x}' "
                f"slot='0x{at.device:02x}' function='0x{at.function}'/>"
            )
            steps.append(Step(f"-device vfio-pci,host={item.bdf}", "QEMU"))
            element = f"<hostdev mode='subsystem' type='pci' managed='no'><source>{address}</source></hostdev>"
            steps.append(Step(element, "libvirt"))
    return tuple(steps)
