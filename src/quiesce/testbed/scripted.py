"""Driver models that no stock driver plays, played on a real kernel by the module ``qscript``.

Each has a script (``drivers/scripts/NAME.driver``). The module registers a pci_driver of the same name and executes the
same text; that the text does what the Python model does is tested step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from quiesce.drivers.script_text import Script, parse_script
from quiesce.drivers.scripted import shipped
from quiesce.kernel.changes import AGP_CHECKS_CAPABILITY, KernelSet

PLAYED = (
    "correct",
    "leaky-msi",
    "msi-off-first",
    "double-free-irq",
    "no-disable",
    "handler-left",
    "runs-on",
    "irq-before-ready",
    "late-unmap",
    "legacy-intx",
    "managed-intx",
    "managed-toggle",
    "msi-and-line",
    "i915",
    "agp-amd64",
)
"""Python models that have a script for their part."""

FREED_TOUCHED = (
    "a handler that runs when its driver's data is gone reads an address where nothing is: a page fault in the "
    "interrupt, where the model says what a kernel with KASAN says"
)
DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "handler-left": (FREED_TOUCHED,),
    "irq-before-ready": (FREED_TOUCHED,),
    "late-unmap": (
        "bound again while a file of the binding before is open, and unbound again, the script gives the second buffer "
        "back at once; the model leaves it to the file, which forgets the first",
    ),
    "msi-and-line": (
        "nothing runs beside the message's handler, which claims an interrupt only if the device has one",
        "the message's handler is freed by the number it was requested on, not by dev->irq",
    ),
    "i915": ("no message when the scratch page cannot be mapped",),
    "agp-amd64": ("from v6.16 on, where its table asks for an AGP capability, it claims nothing by itself",),
}
"""What a script does otherwise than the model; who holds a reference and how private data are called is not counted."""

FOLDER = "/sys/kernel/debug/qscript"
_EVENTS = ("open", "close")


class GuestFiles(Protocol):
    """What is asked of a guest: reading and writing its files."""

    def read(self, path: str) -> str | None:
        """Return what is in a file, None when it cannot be read."""

    def write(self, path: str, data: str, timeout: float = ...) -> int:
        """Write to a file in one call; returns 0 or a positive errno."""


SCRIPTS: Mapping[str, str] = {name: script.text for name, script in shipped().items()}
"""The text that the module is given for each driver that has one: those that play a Python model, and the others."""


def script_for(driver: str, kernel: KernelSet | None = None) -> Script | None:
    """Return the script that plays a driver model of this name, on this kernel; None when a stock driver is needed.

    Since v6.16 the table of agp-amd64 names nothing that machines of today have.
    """
    script = shipped().get(driver)
    if script is not None and driver == "agp-amd64" and kernel is not None and AGP_CHECKS_CAPABILITY in kernel:
        return parse_script(script.text.replace("ids any\n", ""), driver)
    return script


def operation(script: Script, event: str) -> str | None:
    """Return what ``late-open`` and the like mean to the module: ``open`` or ``close``; None for another's event."""
    return next((word for word in _EVENTS if event == f"{script.operations}-{word}"), None)


@dataclass(frozen=True, slots=True)
class HeldByDriver:
    """What the module says a driver holds of one device: a line of ``state``."""

    bdf: str
    driver: str
    bound: bool
    opened: bool
    mapped: bool
    """It can reach the registers."""
    interrupts: int
    """How many interrupts its handlers have claimed."""
    handlers: tuple[tuple[str, int], ...]
    """Names of the handlers it has not freed, with their numbers."""
    buffers: tuple[tuple[str, int], ...]
    """Names of the buffers it has not given back, with the addresses that the device got."""


class ScriptModule:
    """The module in a running guest. Every command returns 0 or a positive errno, as the guest's write does."""

    def __init__(self, guest: GuestFiles, timeout: float = 30) -> None:
        self.guest = guest
        self.timeout = timeout

    def _command(self, file: str, text: str) -> int:
        return self.guest.write(f"{FOLDER}/{file}", text, timeout=self.timeout)

    def define(self, script: Script) -> int:
        """Register a driver."""
        return self._command("define", script.text)

    def undefine(self, driver: str) -> int:
        """Unregister a driver, which unbinds its devices."""
        return self._command("undefine", driver)

    def open(self, bdf: str) -> int:
        """Open the file of the driver that has the device."""
        return self._command("open", bdf)

    def close(self, bdf: str) -> int:
        """Close the oldest open file of a device at this address, which may be gone."""
        return self._command("close", bdf)

    def interrupt(self, bdf: str) -> int:
        """Let the device raise an interrupt; EAGAIN while it does not run, EOPNOTSUPP if it cannot be told to."""
        return self._command("raise", bdf)

    def write_memory(self, bdf: str) -> int:
        """Let the device (edu only) write to the buffer it was given last."""
        return self._command("write", bdf)

    def hold(self, driver: str) -> int:
        """Make the next ``window`` of a driver wait until ``go``, half a minute at most."""
        return self._command("hold", driver)

    def go(self, driver: str) -> int:
        """Let a driver go on that waits at a window; EAGAIN while none waits."""
        return self._command("go", driver)

    def state(self) -> tuple[HeldByDriver, ...]:
        """Return what the drivers hold, oldest binding first."""
        return read_state(self.guest.read(f"{FOLDER}/state") or "")


def read_state(text: str) -> tuple[HeldByDriver, ...]:
    """Read the module's ``state``."""
    return tuple(_held(line) for line in text.splitlines() if line)


def _held(line: str) -> HeldByDriver:
    bdf, driver, *words = line.split()
    known = dict(word.split("=", 1) for word in words)
    return HeldByDriver(
        bdf,
        driver,
        known["bound"] == "1",
        known["open"] == "1",
        known["mapped"] == "1",
        int(known["interrupts"]),
        _numbers(known["handlers"], 10),
        _numbers(known["buffers"], 16),
    )


def _numbers(text: str, base: int) -> tuple[tuple[str, int], ...]:
    pairs = (item.rsplit(":", 1) for item in text.split(",") if item)
    return tuple((name, int(number, base)) for name, number in pairs)
