"""The guest's side of a confirmation: one life on a real kernel, with an observation after every step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from quiesce.drivers import models
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.testbed import real_drivers
from quiesce.testbed.errors import GuestGone
from quiesce.testbed.guest import Guest
from quiesce.testbed.images import KernelImage
from quiesce.testbed.messages import Listener
from quiesce.testbed.model_side import Told
from quiesce.testbed.observation import Observation
from quiesce.testbed.observe import observe, observe_outside
from quiesce.testbed.scripted import FOLDER, ScriptModule
from quiesce.testbed.steps import CANNOT, DEVICES, SYSFS_STEPS, CannotDo, write
from quiesce.testbed.steps_power import ASLEEP, DOWN, GAP, POWER_STEPS, RUNNING, SECOND
from quiesce.testbed.steps_vfio import VFIO_STEPS, tell
from quiesce.testbed.topology import QemuMachine

STEPS = SYSFS_STEPS | VFIO_STEPS | POWER_STEPS
_COMMAND = 4
_BARS = slice(0x10, 0x28)
_SETTLE = 0.02
_APPEARS = 8.0
_EDU = (0x1234, 0x11E8)
_EDU_RAISE, _EDU_STATUS, _EDU_ACKNOWLEDGE = 0x60, 0x24, 0x64


class GuestSide:
    """One guest during one life."""

    def __init__(
        self,
        guest: Guest,
        image: KernelImage,
        machine: QemuMachine,
        description: MachineDescription,
        drivers: Sequence[str],
        devices: Sequence[str],
    ) -> None:
        self.guest = guest
        self.image = image
        self.machine = machine
        self.description = description
        self.models = models(drivers)
        self.devices = tuple(devices)
        self.module = ScriptModule(guest)
        self.listener = Listener()
        self.phase = RUNNING
        self.gone: set[str] = set()
        """Devices that were taken away by surprise."""
        self.gap: Mapping[str, bytes] = {}
        """Config space of the devices while no kernel ran."""

    # -- playing ---------------------------------------------------------------------------------------------

    def start(self) -> Observation:
        """Return what there is to see before the first step."""
        self.guest.kernel_log()
        return self.observe()

    def play(self, event: str) -> Told:
        """Make an event happen; raises CannotDo where a guest cannot have it, GuestGone when it does not survive."""
        verb, *words = event.split()
        if verb not in STEPS:
            raise CannotDo(f"{verb}: {CANNOT.get(verb, 'not tried in a guest')}")
        answer = STEPS[verb](self, words)
        blocked = answer == "blocked"
        return Told(answer, self.observe(blocked), "blocked" if blocked else "")

    def observe(self, waits: bool = False) -> Observation:
        """Return what there is to see now, from inside while a kernel answers, else from outside."""
        if self.phase == RUNNING:
            self.settle()
            log = self.guest.kernel_log()
            return observe(self.guest, self.image, self.devices, log, listener=self.listener, waits=waits)
        if self.phase == GAP:
            return observe_outside(self.guest, self.devices, self.gap)
        if self.phase in (DOWN, SECOND):
            return observe_outside(self.guest, self.devices)
        if self.phase == ASLEEP:
            return observe_outside(self.guest, self.devices, {})
        raise GuestGone(f"no way to observe a guest that is {self.phase}")

    def settle(self) -> None:
        """Give work that the kernel does later a moment."""
        time.sleep(_SETTLE)

    # -- drivers ---------------------------------------------------------------------------------------------

    def driver_name(self, model: str) -> str:
        """Return the name under which sysfs knows a driver."""
        return real_drivers.real_driver(model).name

    def check_bindable(self, model: str, bdf: str) -> None:
        """Raise CannotDo for a driver that would take nothing for an answer."""
        if real_drivers.real_driver(model).config_only:
            return
        nowhere = not any(self.guest.config(bdf, 64)[_BARS])
        if bdf in self.gone or nowhere:
            raise CannotDo("memory of a device that is gone, or lost its addresses, reads 0 in QEMU")

    def table_fits(self, model: str, bdf: str) -> bool:
        """Whether the real driver's id table has the device; most scripted ones have none."""
        script = real_drivers.real_driver(model).script
        if script is not None and not script.ids:
            return False
        found = self.description.function(Bdf.parse(bdf))
        if found is None:
            return False
        ids = int.from_bytes(found.config[:2], "little"), int.from_bytes(found.config[2:4], "little")
        code = int.from_bytes(found.config[9:12], "little")
        return any(
            not entry.override_only
            and entry.vendor in (None, ids[0])
            and entry.device in (None, ids[1])
            and entry.base_class in (None, code >> 16)
            and entry.sub_class in (None, code >> 8 & 0xFF)
            for entry in self.models[model].ids
        )

    def after_bind(self, model: str, bdf: str) -> None:
        """Wait for what the driver does after its probe, and bring its network interface up."""
        driver = real_drivers.real_driver(model)
        if driver.ready:
            self.guest.shell(f"cd {DEVICES}/{bdf}; for i in $(seq 100); do {driver.ready} && break; sleep 0.05; done")
        if driver.networking:
            self.guest.shell(f"for n in $(ls {DEVICES}/{bdf}/net 2>/dev/null); do ip link set $n up; done")

    def after_rescan(self) -> None:
        """The same for what a rescan has bound."""
        for bdf in self.devices:
            bound = self.guest.shell(f"readlink {DEVICES}/{bdf}/driver")[1].strip().rpartition("/")[2]
            model = real_drivers.model_name(bound)
            if bound and model in self.models:
                self.after_bind(model, bdf)

    def load_driver(self, model: str) -> None:
        """Load a driver's module."""
        driver = real_drivers.real_driver(model)
        if driver.script:
            self.module.define(driver.script)
        else:
            self.guest.shell(f"insmod /mod/{driver.modules[0]}.ko")

    def unload_driver(self, model: str) -> None:
        """Unload it, with what keeps it in use left alone."""
        driver = real_drivers.real_driver(model)
        if driver.modules and self.image.builtin(driver.modules[0]):
            raise CannotDo(f"{driver.name} is built into this kernel")
        if driver.script:
            self.module.undefine(driver.name)
        else:
            self.guest.shell(f"rmmod {driver.modules[0]}")

    def script_operation(self, what: str, bdf: str) -> str:
        """``open`` or ``close`` of a scripted driver."""
        return write(self, f"{FOLDER}/{what}", bdf)

    # -- hardware --------------------------------------------------------------------------------------------

    def unplug(self, bdf: str) -> None:
        """Take a device away without a word."""
        self.guest.surprise(self.machine.by_bdf[bdf].id)
        self.gone.add(bdf)

    def plug(self, bdf: str) -> None:
        """Plug a device into a slot that has been empty, and wait until the kernel has found it."""
        if bdf in self.gone or self.machine.by_bdf[bdf] not in self.machine.absent:
            raise CannotDo("QEMU's port takes a second card in a slot for a press on its attention button")
        self.guest.plug(self.machine.by_bdf[bdf])
        end = time.monotonic() + _APPEARS
        while self.guest.read(f"{DEVICES}/{bdf}/vendor") is None and time.monotonic() < end:
            time.sleep(0.05)

    def is_edu(self, bdf: str) -> bool:
        """Whether a device is QEMU's teaching device, whose interrupt a register raises."""
        found = self.description.function(Bdf.parse(bdf))
        return found is not None and found.config[:4] == _EDU[0].to_bytes(2, "little") + _EDU[1].to_bytes(2, "little")

    def raise_interrupt(self, bdf: str) -> None:
        """Let a device interrupt; raises CannotDo for one that needs work from its driver for that."""
        if not self.is_edu(bdf):
            raise CannotDo(f"nothing but its own work makes {bdf} interrupt")
        if self._register(bdf, _EDU_RAISE, 1):
            self.settle()

    def acknowledge(self, bdf: str) -> None:
        """Satisfy a device that has interrupted."""
        if self.is_edu(bdf):
            self._register(bdf, _EDU_ACKNOWLEDGE, 0xFFFFFFFF)

    def _register(self, bdf: str, offset: int, value: int) -> bool:
        """Write a register of BAR 0 by whoever has the device open."""
        if tell_if_open(self, bdf, f"wbar 0 {offset:#x} {value:#x}"):
            return True
        return self.guest.shell(f"poke {bdf} 0 {offset:#x} {value:#x}")[0] == 0

    def change_command(self, bdf: str, clear: int) -> None:
        """Clear bits of COMMAND through the device's config file."""
        value = int.from_bytes(self.guest.config(bdf, 16)[_COMMAND : _COMMAND + 2], "little") & ~clear
        low, high = value & 0xFF, value >> 8
        self.guest.shell(
            f"printf '\\x{low:02x}\\x{high:02x}' | dd of={DEVICES}/{bdf}/config bs=1 seek={_COMMAND} conv=notrunc"
        )

    def inject_error(self, bdf: str, uncorrectable: int) -> None:
        """Make an AER error as root can with ``aer_inject``."""
        where = Bdf.parse(bdf)
        head = bytes((where.bus, where.device, where.function, 0))
        words = (uncorrectable, 0, 0, 1, 2, 3, where.segment)
        body = head + b"".join(word.to_bytes(4, "little") for word in words)
        text = "".join(f"\\{byte:03o}" for byte in body)
        rc, said = self.guest.shell(f"printf '{text}' > /dev/aer_inject")
        if rc:
            raise CannotDo(f"aer_inject refused: {said.strip()}")
        time.sleep(2.0)


def tell_if_open(side: GuestSide, bdf: str, line: str) -> bool:
    """Give a command to the program that has a device open, if one has."""
    try:
        return tell(side, bdf, line) == "0"
    except CannotDo:
        return False
