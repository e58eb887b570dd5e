"""What an operator does through sysfs: each event of the vocabulary as operations on a guest.

A step is a function of the guest's side and the words of the event after its verb; it returns what the operator is
told, ``0``, ``-EBUSY`` and the like, or ``blocked``. What QEMU or the guest cannot do raises CannotDo.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from quiesce.testbed.errors import Skipped

if TYPE_CHECKING:
    from quiesce.testbed.guest_side import GuestSide

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
PATIENCE = 1.5
"""Seconds after which an operation that has not come back counts as blocked."""
SLOW = 20.0
"""Seconds that an operation known to be slow (a reset, a probe of real hardware) may take."""
VFS = 2
_MODULE_GONE = 0.2


class CannotDo(Skipped):
    """An event that a guest in QEMU cannot have."""


StepFunction = Callable[["GuestSide", list[str]], str]


def errno_text(answer: int) -> str:
    """Return ``0`` or ``-EBUSY``."""
    return "0" if answer == 0 else f"-{errno.errorcode.get(abs(answer), str(abs(answer)))}"


def write(side: GuestSide, path: str, data: str, patience: float = PATIENCE) -> str:
    """Write to a file of the guest in a task of its own; one that does not come back is ``blocked``."""
    handle = side.guest.write_behind(path, data)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        answer = side.guest.poll(handle)
        if answer is not None:
            return errno_text(answer)
        time.sleep(0.01)
    return "blocked"


# -- binding ---------------------------------------------------------------------------------------------------


def bind(side: GuestSide, words: list[str]) -> str:
    """With driver_override where the driver's table does not fit, as the model's ``bind_by_hand``; a driver that is not
    loaded has no such file, where the model says -ENODEV.
    """
    name, bdf = words
    side.check_bindable(name, bdf)
    real = side.driver_name(name)
    override = f"{DEVICES}/{bdf}/driver_override"
    now = side.guest.read(override)
    if not side.guest.names(f"{DRIVERS}/{real}"):
        return "-ENODEV"
    if now not in (None, "", "(null)", real):
        side.guest.write(override, "\n")
    if not side.table_fits(name, bdf):
        side.guest.write(override, real)
    answer = write(side, f"{DRIVERS}/{real}/bind", bdf, SLOW)
    if answer == "0":
        side.after_bind(name, bdf)
    return answer


def unbind(side: GuestSide, words: list[str]) -> str:
    """By the driver that has the device."""
    (bdf,) = words
    return write(side, f"{DEVICES}/{bdf}/driver/unbind", bdf)


def load(side: GuestSide, words: list[str]) -> str:
    """``insmod``, or definition of a scripted driver."""
    side.load_driver(words[0])
    return "0"


def unload(side: GuestSide, words: list[str]) -> str:
    """``rmmod``."""
    side.unload_driver(words[0])
    time.sleep(_MODULE_GONE)
    return "0"


# -- a device's files ------------------------------------------------------------------------------------------


def remove(side: GuestSide, words: list[str]) -> str:
    """The device's ``remove``."""
    (bdf,) = words
    return write(side, f"{DEVICES}/{bdf}/remove", "1")


def rescan(side: GuestSide, words: list[str]) -> str:
    """The bus's ``rescan``."""
    answer = write(side, "/sys/bus/pci/rescan", "1", SLOW)
    side.after_rescan()
    return answer


def reset(side: GuestSide, words: list[str]) -> str:
    """The device's ``reset``; a device that cannot be reset has no such file, where the model says -ENOTTY."""
    (bdf,) = words
    if bdf in side.gone:
        raise CannotDo("the kernel waits a minute for a device that is gone")
    answer = write(side, f"{DEVICES}/{bdf}/reset", "1", SLOW)
    return "-ENOTTY" if answer == "-ENOENT" else answer


def enable(side: GuestSide, words: list[str]) -> str:
    """The device's ``enable``."""
    return write(side, f"{DEVICES}/{words[0]}/enable", "1")


def disable(side: GuestSide, words: list[str]) -> str:
    """The device's ``enable``."""
    return write(side, f"{DEVICES}/{words[0]}/enable", "0")


def numvfs_on(side: GuestSide, words: list[str]) -> str:
    """``sriov_numvfs``, as many as the model asks for."""
    (bdf,) = words
    total = int(side.guest.read(f"{DEVICES}/{bdf}/sriov_totalvfs") or 0)
    return write(side, f"{DEVICES}/{bdf}/sriov_numvfs", str(min(VFS, total)), SLOW)


def numvfs_off(side: GuestSide, words: list[str]) -> str:
    """``sriov_numvfs``."""
    return write(side, f"{DEVICES}/{words[0]}/sriov_numvfs", "0", SLOW)


def group_type(side: GuestSide, words: list[str]) -> str:
    """The ``type`` of the device's group."""
    kind, bdf = words
    return write(side, f"{DEVICES}/{bdf}/iommu_group/type", kind)


# -- the hardware ----------------------------------------------------------------------------------------------


def unplug(side: GuestSide, words: list[str]) -> str:
    """A surprise: config space reads all ones, and nobody is told."""
    side.unplug(words[0])
    return "0"


def plug(side: GuestSide, words: list[str]) -> str:
    """A new device in the empty slot; ACPI hot-plug tells the kernel."""
    side.plug(words[0])
    return "0"


def interrupt(side: GuestSide, words: list[str]) -> str:
    """The device raises its interrupt, where a register of it does that."""
    side.raise_interrupt(words[0])
    return "0"


def aer(side: GuestSide, words: list[str], uncorrectable: int) -> str:
    """An error as ``aer_inject`` makes it."""
    side.inject_error(words[0], uncorrectable)
    return "0"


_COMPLETER_ABORT = 0x8000
_MALFORMED_TLP = 0x40000


# -- drivers' own ----------------------------------------------------------------------------------------------


def net(side: GuestSide, words: list[str], state: str) -> str:
    """The network interface of a device, up or down."""
    rc, _ = side.guest.shell(f"ip link set $(ls {DEVICES}/{words[0]}/net) {state}")
    return errno_text(errno.EIO if rc else 0)


def uio_start(side: GuestSide, words: list[str]) -> str:
    """Nothing to do: the device is ready, and interrupts when it is told to."""
    return "0"


def uio_ack(side: GuestSide, words: list[str]) -> str:
    """The program services the device and clears DisINTx through the config file."""
    (bdf,) = words
    side.acknowledge(bdf)
    side.change_command(bdf, clear=0x400)
    return "0"


def script_operation(side: GuestSide, words: list[str], what: str) -> str:
    """``open`` and ``close`` of a scripted driver's file."""
    return side.script_operation(what, words[0])


SYSFS_STEPS: dict[str, StepFunction] = {
    "bind": bind,
    "unbind": unbind,
    "load": load,
    "unload": unload,
    "remove": remove,
    "rescan": rescan,
    "reset": reset,
    "enable": enable,
    "disable": disable,
    "numvfs-on": numvfs_on,
    "numvfs-off": numvfs_off,
    "group-type": group_type,
    "unplug": unplug,
    "plug": plug,
    "interrupt": interrupt,
    "aer-nonfatal": lambda side, words: aer(side, words, _COMPLETER_ABORT),
    "aer-fatal": lambda side, words: aer(side, words, _MALFORMED_TLP),
    "net-up": lambda side, words: net(side, words, "up"),
    "net-down": lambda side, words: net(side, words, "down"),
    "uio-start": uio_start,
    "uio-ack": uio_ack,
    "gpu-open": lambda side, words: script_operation(side, words, "open"),
    "gpu-close": lambda side, words: script_operation(side, words, "close"),
    "late-open": lambda side, words: script_operation(side, words, "open"),
    "late-close": lambda side, words: script_operation(side, words, "close"),
}

CANNOT: dict[str, str] = {
    "hotplug-remove": "QEMU signals no presence change for a device that is gone",
    "power-off": "QEMU takes the device out of a slot whose power is switched off",
    "power-on": "QEMU takes the device out of a slot whose power is switched off",
    "dpc": "QEMU's ports have no DPC",
    "hibernate": "the guest has no disk to hibernate to",
    "crash-kexec": "no crash kernel is loaded in the guest",
    "config-access": "no program makes the virtio driver read its device's configuration",
    "vfio-mmio": "the access has no result that the program is told of",
}
"""Events that are not tried, and why."""
