"""Sleep, shutdown and kexec: the events in which the guest's kernel is away for a while or for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quiesce.cases.case import parse_kernel
from quiesce.kernel import changes
from quiesce.testbed.steps import DEVICES, CannotDo, StepFunction, errno_text

if TYPE_CHECKING:
    from quiesce.testbed.guest_side import GuestSide

_SHUTDOWN_DEADLINE = 30.0
_SAMPLE = 0.005
_STILL = 1.5
_ROOT_BUS = "0000:00:"
ASLEEP, DOWN, GAP, SECOND, RUNNING = "asleep", "down", "gap", "second", "running"


def suspend(side: GuestSide, words: list[str]) -> str:
    """S3; the machine sleeps when this returns, unless the kernel refused."""
    if changes.PCIEHP_REPLACED_IN_SLEEP in parse_kernel(side.image.kernel_set) and _card_without_device(side):
        raise CannotDo("waking up the kernel switches a slot off and on again, and QEMU takes the card out of it")
    answer = side.guest.sleep()
    if answer is None:
        side.phase = ASLEEP
        return "0"
    if answer == 0:
        raise CannotDo("the machine woke up at once, as QEMU's does when it goes to sleep a second time")
    return errno_text(answer)


def _card_without_device(side: GuestSide) -> bool:
    """Whether a card is in a slot of which the kernel knows no device."""
    behind_ports = [bdf for bdf in side.devices if not bdf.startswith(_ROOT_BUS) and bdf not in side.gone]
    known = side.guest.names(DEVICES)
    return any(bdf not in known and side.machine.by_bdf[bdf] not in side.machine.absent for bdf in behind_ports)


def resume(side: GuestSide, words: list[str]) -> str:
    """Wake the machine."""
    answer = side.guest.wake()
    side.phase = RUNNING
    return errno_text(answer)


def reboot(side: GuestSide, words: list[str]) -> str:
    """All of ``device_shutdown``; the machine is held where the firmware would reset it."""
    side.guest.hold_at_reset()
    side.phase = DOWN
    return "0"


def kexec(side: GuestSide, words: list[str]) -> str:
    """Jump to a second kernel. What there is to see is what stays: the shutdown of the first takes a moment, and the
    second needs seconds to come to the devices.
    """
    side.guest.kexec()
    now = time.monotonic()
    since, end = now, now + _SHUTDOWN_DEADLINE
    while now - since < _STILL and now < end and not side.guest.second_kernel_speaks():
        found = {bdf: side.guest.config(bdf, 256) for bdf in side.devices}
        now = time.monotonic()
        if found != side.gap:
            side.gap, since = found, now
        time.sleep(_SAMPLE)
    side.phase = GAP
    return "0"


def second_kernel(side: GuestSide, words: list[str]) -> str:
    """The second kernel has enumerated its devices and answers."""
    side.guest.meet_second_kernel()
    side.phase = SECOND
    return "0"


POWER_STEPS: dict[str, StepFunction] = {
    "suspend": suspend,
    "resume": resume,
    "reboot": reboot,
    "kexec": kexec,
    "second-kernel": second_kernel,
}
