"""What a virtual machine monitor does with a device it was given: the VFIO events as commands to the guest's helper."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from quiesce.testbed.steps import DEVICES, CannotDo, StepFunction, errno_text

if TYPE_CHECKING:
    from quiesce.testbed.guest_side import GuestSide

_MEMORY, _MASTER, _INTX_DISABLE = 0x2, 0x4, 0x400
_COMMAND = 4
_IOVA, _SIZE = 0x100000, 0x1000
_TIMEOUT = 8.0
_ERROR = re.compile(r"ERR (\S+) (\d+)")


def helper(bdf: str) -> str:
    """Return the name of the program that has a device."""
    return f"vfio-{bdf}"


def tell(side: GuestSide, bdf: str, line: str) -> str:
    """Give the program one command; returns what its system call gave. Raises CannotDo when no program has the device,
    as after an opening that has failed in the guest alone.
    """
    return _ask(side, bdf, line)[0]


def _ask(side: GuestSide, bdf: str, line: str) -> tuple[str, str]:
    """Return what the system call gave, and all that the program said."""
    try:
        rc, reply = side.guest.tell(helper(bdf), line, _TIMEOUT)
    except KeyError:
        raise CannotDo(f"no program has {bdf} open in the guest") from None
    if rc:
        return "blocked", reply
    error = _ERROR.match(reply)
    return errno_text(int(error[2])) if error else "0", reply


def _several(side: GuestSide, bdf: str, *lines: str) -> str:
    for line in lines:
        answer = tell(side, bdf, line)
        if answer != "0":
            return answer
    return "0"


def vfio_open(side: GuestSide, words: list[str]) -> str:
    """Container, group, IOMMU, device: the first that fails is what the program is told."""
    (bdf,) = words
    group = side.guest.shell(f"readlink {DEVICES}/{bdf}/iommu_group")[1].strip().rpartition("/")[2]
    if not group:
        raise CannotDo("a device without IOMMU group cannot be opened through a group")
    side.guest.program(helper(bdf), "/bin/vfio")
    answer = _several(side, bdf, "container", f"group {group}", "attach", f"device {bdf}")
    if answer != "0":
        side.guest.end(helper(bdf))
    return answer


def vfio_close(side: GuestSide, words: list[str]) -> str:
    """The program ends; the kernel closes all it had."""
    side.guest.end(helper(words[0]))
    side.settle()
    return "0"


def _command(line: str) -> StepFunction:
    def run(side: GuestSide, words: list[str]) -> str:
        return tell(side, words[0], line)

    return run


def _change_command(side: GuestSide, words: list[str], on: int = 0, off: int = 0) -> str:
    """Change bits of COMMAND through the emulated config space of the device."""
    (bdf,) = words
    answer, reply = _ask(side, bdf, f"rcfg {_COMMAND} 2")
    if answer != "0":
        return answer
    value = int(reply.split()[1], 16)
    return tell(side, bdf, f"wcfg {_COMMAND} 2 {value & ~off | on:#x}")


def _then_master(line: str) -> StepFunction:
    """A command after which the guest's driver switches bus mastering on."""

    def run(side: GuestSide, words: list[str]) -> str:
        answer = tell(side, words[0], line)
        return answer if answer != "0" else _change_command(side, words, on=_MASTER)

    return run


def _service(side: GuestSide, words: list[str]) -> str:
    """The guest's handler satisfies the device and the eventfd is read."""
    (bdf,) = words
    tell(side, bdf, "events 200")
    side.acknowledge(bdf)
    return "0"


VFIO_STEPS: dict[str, StepFunction] = {
    "vfio-open": vfio_open,
    "vfio-close": vfio_close,
    "vfio-req-on": _command("req"),
    "vfio-reset": _command("reset"),
    "vfio-dma-map": _then_master(f"map {_IOVA:#x} {_SIZE:#x}"),
    "vfio-dma-unmap": _command(f"unmap {_IOVA:#x} {_SIZE:#x}"),
    "vfio-mem-off": partial(_change_command, off=_MEMORY),
    "vfio-mem-on": partial(_change_command, on=_MEMORY),
    "vfio-intx-on": _command("irq intx 1"),
    "vfio-intx-off": _command("irqoff intx"),
    "vfio-intx-mask": _command("mask intx"),
    "vfio-intx-unmask": _command("unmask intx"),
    "vfio-intx-unmask-irqfd": _command("irqfd-unmask"),
    "vfio-intx-detach": _command("detach intx"),
    "vfio-intx-attach": _command("attach intx"),
    "vfio-intx-trigger": _command("trigger intx"),
    "vfio-intx-service": _service,
    "vfio-guest-intx-off": partial(_change_command, on=_INTX_DISABLE),
    "vfio-guest-intx-on": partial(_change_command, off=_INTX_DISABLE),
    "vfio-msi-on": _then_master("irq msi 1"),
    "vfio-msi-off": _command("irqoff msi"),
    "vfio-msix-on": _then_master("irq msix 1"),
    "vfio-msix-off": _command("irqoff msix"),
}
