"""What is done to a guest from outside: memory, configuration space, plugging, sleep, reset and a second kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from quiesce.snapshot.bdf import Bdf
from quiesce.testbed.debugger import Debugger, DebuggerLost
from quiesce.testbed.errors import Skipped
from quiesce.testbed.guest_inside import Inside
from quiesce.testbed.qemu import DEBUGGER
from quiesce.testbed.qemu_devices import QemuDevice
from quiesce.testbed.qmp import Refused

_POLL = 0.02
_FALL_ASLEEP_SECONDS = 60.0
_WAKE_SECONDS = 60.0
_SHUTDOWN_SECONDS = 60.0
_SECOND_KERNEL_SECONDS = 180.0
_LOAD_SECONDS = 120.0
_UNPLUG_SECONDS = 20.0
_PLUG_SECONDS = 15.0
_PCI_DEVICES = "/sys/bus/pci/devices"
_MCFG = "/sys/firmware/acpi/tables/MCFG"
_PCIEXBAR = 0x80000060
"""How the host bridge's register that maps configuration space is named through ports."""
_AWAKE = "acpi_leave_sleep_state_prep"
"""The first function of the kernel's ACPI code after the firmware has woken it up, before it resumes any device."""
KEXEC_KERNEL, KEXEC_INITRAMFS = "kexec/kernel", "kexec/initramfs"


class Outside(Inside):
    """Operations through QEMU."""

    _second_options = ""
    """The second kernel's command line; empty when the guest has no second kernel."""
    _sleeps = False
    _awake = 0
    """Where the guest stands still when it has woken up; 0 before it has gone to sleep."""
    _debugger: Debugger

    def __init__(self) -> None:
        super().__init__()
        self._ecam: int | None = None
        self._sleeping: int | None = None
        self._qemu_ids: dict[str, str] = {}

    # -- looking in ------------------------------------------------------------------------------------------

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command; raises ``qmp.Refused`` when QEMU answers with an error."""
        return self.vm.qmp(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def physical(self, address: int, length: int) -> bytes:
        """Return physical memory, also while no kernel runs."""
        return self.vm.memory("pmemsave", address, length)

    def virtual(self, address: int, length: int) -> bytes:
        """Return memory as the guest's processor sees it; nothing where nothing is mapped."""
        return self.vm.memory("memsave", address, length)

    def config(self, bdf: str, length: int = 256) -> bytes:
        """Return a function's configuration space from outside; all ones where there is none."""
        where = Bdf.parse(bdf)
        address = self.ecam() + (where.bus << 20 | where.device << 15 | where.function << 12)
        return self.physical(address, length)

    def ecam(self) -> int:
        """Return where configuration space lies in memory. The first call must find a kernel that answers."""
        if self._ecam is None:
            table = self.read_bytes(_MCFG)
            if table is None or len(table) < 52:
                raise Skipped("the guest has no table that says where configuration space lies")
            self._ecam = int.from_bytes(table[44:52], "little")
        return self._ecam

    # -- plugging --------------------------------------------------------------------------------------------

    def unplug(self, id: str, timeout: float = _UNPLUG_SECONDS) -> bool:  # noqa: A002
        """Ask the guest to let a device go; tells whether it has within the time, 0 for only asking."""
        self._hot("device_del", id=self._qemu_ids.get(id, id))
        return self._until(lambda: not self.plugged(id), timeout)

    def plugged(self, id: str) -> bool:  # noqa: A002
        """Tell whether QEMU still has a device."""
        here = self.qmp("qom-list", path="/machine/peripheral")
        return any(item["name"] == self._qemu_ids.get(id, id) for item in here)

    def plug(self, device: QemuDevice, timeout: float = _PLUG_SECONDS) -> list[str]:
        """Plug a device in; returns the addresses at which the kernel finds new functions, none if it finds none."""
        before = set(self.names(_PCI_DEVICES))
        arguments = device.qmp()
        if self.plugged(device.id):
            arguments["id"] = self._qemu_ids[device.id] = f"{self._qemu_ids.get(device.id, device.id)}-again"
        self._hot("device_add", **arguments)
        self._until(lambda: bool(set(self.names(_PCI_DEVICES)) - before), timeout)
        return sorted(set(self.names(_PCI_DEVICES)) - before)

    def surprise(self, id: str) -> None:  # noqa: A002
        """Take a device away at once. Its configuration space reads all ones, and the kernel is not told."""
        path = f"/machine/peripheral/{self._qemu_ids.get(id, id)}"
        self._hot("qom-set", path=path, property="realized", value=False)

    def _hot(self, command: str, **arguments: Any) -> None:
        try:
            self.vm.qmp(command, arguments)
        except Refused as refused:
            raise Skipped(f"QEMU refuses {command}: {refused}") from None

    # -- sleep -----------------------------------------------------------------------------------------------

    def sleep(self) -> int | None:
        """Suspend to memory; None when the machine sleeps, else the errno with which the kernel refused.

        Nothing may be asked of the agent until ``wake``: what reaches a sleeping serial port is lost.
        """
        if not self._sleeps:
            raise Skipped("this guest was not started to sleep")
        if self._awake:
            raise Skipped("a guest sleeps once: the second time QEMU's machine wakes up at once")
        self.ecam()
        self._stop_when_awake()
        number = self.vm.request("wr", b"%d\n/sys/power/state\nmem" % round(1000 * _FALL_ASLEEP_SECONDS))
        end = time.monotonic() + _FALL_ASLEEP_SECONDS
        while self.vm.status() != "suspended":
            if (reply := self.vm.line.peek(number)) is not None:
                return reply.result
            if time.monotonic() > end:
                raise self.vm.hung("the guest does not fall asleep")
            self.vm.check()
            time.sleep(_POLL)
        self._sleeping = number
        return None

    def wake(self) -> int:
        """Wake a sleeping guest; returns the errno that the kernel gave to whoever suspended it."""
        if self._sleeping is None:
            raise Skipped("the guest does not sleep")
        number, self._sleeping = self._sleeping, None
        self.qmp("system_wakeup")
        self._switch_ecam_on()
        return self.vm.reply(number, _WAKE_SECONDS, "waking up").result

    def _stop_when_awake(self) -> None:
        """Make the guest stand still as soon as its kernel is back from sleep."""
        said = self.shell(f"grep -w {_AWAKE} /proc/kallsyms")[1].split()
        if not said:
            raise Skipped(f"the guest's kernel has no {_AWAKE}()")
        self._awake = int(said[0], 16)
        self._human(f"gdbserver chardev:{DEBUGGER}")
        self._debugger = Debugger(self.vm.debugger)
        try:
            self._debugger.stop_at(self._awake)
        except DebuggerLost as lost:
            raise self.vm.hung(f"QEMU's debugger does not answer: {lost}") from None

    def _switch_ecam_on(self) -> None:
        """Do what this firmware forgets on the way out of sleep: map configuration space into memory again.

        The register was cleared by the reset that waking is. Without it the kernel would reach no extended
        configuration space, and take a card with a serial number for another one.
        """
        try:
            self._debugger.wait_stopped(_WAKE_SECONDS)
            self._human(f"o /4x 0xcf8 {_PCIEXBAR:#x}")
            self._human(f"o /4x 0xcfc {self.ecam() | 1:#x}")
            self._debugger.let_go(self._awake)
        except DebuggerLost as lost:
            self.vm.check()
            raise self.vm.hung(f"the guest does not wake up: {lost}") from None

    def _human(self, line: str) -> str:
        return str(self.qmp("human-monitor-command", command_line=line))

    def suspend(self, during: Callable[[], object] | None = None) -> int:
        """Suspend to memory and wake up; ``during`` is called while the machine sleeps. Returns the errno."""
        refused = self.sleep()
        if refused is not None:
            return refused
        if during is not None:
            during()
        return self.wake()

    # -- shutdown and a second kernel ------------------------------------------------------------------------

    def hold_at_reset(self) -> None:
        """Reboot; returns when the kernel has shut its devices down, the machine stopped just before its reset."""
        self.ecam()
        self.vm.hold()
        self.vm.request("sh", b"%d\nreboot -f" % round(1000 * _SHUTDOWN_SECONDS))
        if not self._until(lambda: self.vm.status() == "shutdown", _SHUTDOWN_SECONDS):
            raise self.vm.hung("the kernel does not come to the end of its shutdown")

    def kexec(self) -> None:
        """Jump to the second kernel; returns at once. See ``second_kernel_speaks`` and ``meet_second_kernel``."""
        if not self._second_options:
            raise Skipped("this guest was started without a second kernel")
        self.ecam()
        load = f"kexec load /{KEXEC_KERNEL} /{KEXEC_INITRAMFS} '{self._second_options}'"
        result, said = self.shell(load, _LOAD_SECONDS)
        if result:
            raise Skipped(f"the second kernel cannot be loaded: {said.strip()}")
        self.vm.request("sh", b"%d\nkexec exec" % round(1000 * _SHUTDOWN_SECONDS))

    def second_kernel_speaks(self) -> bool:
        """Tell whether the second kernel has come up."""
        return self.vm.greeted()

    def meet_second_kernel(self, timeout: float = _SECOND_KERNEL_SECONDS) -> None:
        """Wait until the second kernel answers; from then on all operations mean it."""
        self.vm.reply(0, timeout, "the second kernel")
        self.forget_inside()

    def through_kexec(self, during: Callable[[], object] | None = None) -> None:
        """Jump to the second kernel and wait for it; ``during`` is called again and again while none answers."""
        self.kexec()
        end = time.monotonic() + _SECOND_KERNEL_SECONDS
        while not self.second_kernel_speaks() and time.monotonic() < end:
            if during is not None:
                during()
            time.sleep(_POLL / 4)
        self.meet_second_kernel(timeout=1.0)

    def _until(self, happened: Callable[[], bool], timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL)
        return True
