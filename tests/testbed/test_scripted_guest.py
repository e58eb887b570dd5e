"""The module ``qscript`` in real kernels: its drivers take, give back and fail as their scripts say."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from quiesce.drivers.scripted import shipped
from quiesce.snapshot.text import read_text
from quiesce.testbed.errors import GuestGone, Skipped
from quiesce.testbed.guest import Guest
from quiesce.testbed.images import find_image
from quiesce.testbed.module_build import build
from quiesce.testbed.scripted import FOLDER, HeldByDriver, ScriptModule
from quiesce.testbed.topology import qemu_machine

pytestmark = pytest.mark.slow

MACHINE = """
machine two-on-a-line
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug
00:04.0 conventional
00:0c.0 conventional
01:00.0 conventional
iommu intel
"""
FIRST, SECOND, BEHIND = "0000:00:04.0", "0000:00:0c.0", "0000:01:00.0"
PCI = "/sys/bus/pci"


class Machine:
    """A guest with the module in it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.scripts = ScriptModule(guest)
        assert guest.shell("insmod /mod/qscript.ko", 60)[0] == 0

    def bind(self, driver: str, bdf: str) -> int:
        """Bind, defining the driver first if need be; returns what the kernel's ``bind`` gave."""
        assert self.scripts.define(shipped()[driver]) in (0, errno.EEXIST)
        assert self.guest.write(f"{PCI}/devices/{bdf}/driver_override", driver, 30) == 0
        return self.guest.write(f"{PCI}/drivers/{driver}/bind", bdf, 30)

    def unbind(self, bdf: str) -> int:
        return self.guest.write(f"{PCI}/devices/{bdf}/driver/unbind", bdf, 30)

    def held(self, bdf: str) -> HeldByDriver | None:
        """What a driver holds of the device."""
        return next((item for item in self.scripts.state() if item.bdf == bdf), None)

    def command(self, bdf: str) -> int:
        config = self.guest.config(bdf)
        return int.from_bytes(config[4:6], "little")

    def enabled(self, bdf: str) -> str:
        return (self.guest.read(f"{PCI}/devices/{bdf}/enable") or "").strip()


@pytest.fixture(scope="module", params=["debian:5.10", "debian:6.1", "debian:6.12", "debian:newest"])
def running(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """One guest for all tests of a kernel; the last of them ends it."""
    try:
        image = find_image(request.param)
        files = {"mod/qscript.ko": build(image).read_bytes()}
        guest = Guest(image, qemu_machine(read_text(MACHINE, "test")), files=files)
        guest.start()
    except Skipped as reason:
        pytest.skip(str(reason))
    with guest:
        yield Machine(guest)


@pytest.fixture
def machine(running: Machine) -> Machine:
    """The guest with devices that no driver has had yet."""
    for bdf in (FIRST, SECOND, BEHIND):
        assert running.guest.write(f"{PCI}/devices/{bdf}/remove", "1", 30) == 0
    assert running.guest.write(f"{PCI}/rescan", "1", 30) == 0
    running.guest.kernel_log()
    return running


MASTER, INTX_OFF = 0x4, 0x400


def test_lives_without_a_mistake(machine: Machine) -> None:
    before = machine.command(FIRST)
    for driver, message in (("correct", True), ("legacy-intx", False), ("managed-intx", False), ("own-sleep", True)):
        assert machine.bind(driver, FIRST) == 0
        assert machine.scripts.interrupt(FIRST) == 0
        held = machine.held(FIRST)
        assert held is not None
        assert (held.driver, held.bound, held.interrupts) == (driver, True, 1)
        assert bool(machine.command(FIRST) & INTX_OFF) is message
        assert machine.command(FIRST) & MASTER
        assert machine.unbind(FIRST) == 0
        assert machine.held(FIRST) is None
        assert machine.enabled(FIRST) == "0"
        assert not machine.command(FIRST) & MASTER
        assert machine.scripts.interrupt(FIRST) == errno.EAGAIN
    assert not (machine.command(FIRST) ^ before) & ~INTX_OFF & ~0x3
    assert machine.guest.oops() == ""


def test_two_devices_share_a_line(machine: Machine) -> None:
    assert machine.bind("legacy-intx", FIRST) == 0
    assert machine.bind("managed-intx", SECOND) == 0
    for _ in range(3):
        assert machine.scripts.interrupt(SECOND) == 0
    first, second = machine.held(FIRST), machine.held(SECOND)
    assert first is not None
    assert second is not None
    assert (first.interrupts, second.interrupts) == (0, 3)
    assert first.handlers[0][1] == second.handlers[0][1]


def test_a_probe_that_fails_leaves_nothing(machine: Machine) -> None:
    """Before v5.14 bind says ENODEV whatever the driver said."""
    told = errno.ENODEV if machine.guest.image.release.startswith("5.10") else errno.EIO
    for driver in ("probe-fails", "managed-fails"):
        assert machine.bind(driver, FIRST) == told
        assert machine.held(FIRST) is None
        assert machine.enabled(FIRST) == "0"
        assert not machine.command(FIRST) & MASTER
    assert machine.bind("agp-amd64", FIRST) == errno.ENODEV
    assert machine.bind("correct", FIRST) == 0


def test_a_file_keeps_the_buffer_beyond_unbind(machine: Machine) -> None:
    assert machine.bind("late-unmap", BEHIND) == 0
    assert machine.scripts.open(BEHIND) == 0
    assert machine.scripts.open(BEHIND) == errno.EBUSY
    assert machine.unbind(BEHIND) == 0
    held = machine.held(BEHIND)
    assert held is not None
    assert (held.bound, held.opened, [name for name, _ in held.buffers]) == (False, True, ["buffer"])
    assert machine.scripts.close(BEHIND) == 0
    assert machine.held(BEHIND) is None
    assert machine.scripts.close(BEHIND) == errno.ENOENT
    assert machine.scripts.open(BEHIND) == errno.ENODEV


def test_a_file_keeps_the_device_beyond_removal(machine: Machine) -> None:
    """With an Intel IOMMU the unmap then goes by the direct way, in silence."""
    assert machine.bind("i915", BEHIND) == 0
    assert machine.scripts.open(BEHIND) == 0
    assert machine.guest.write(f"{PCI}/devices/{BEHIND}/remove", "1", 30) == 0
    held = machine.held(BEHIND)
    assert held is not None
    assert [name for name, _ in held.buffers] == ["scratch", "buffer"]
    assert machine.scripts.close(BEHIND) == 0
    assert machine.held(BEHIND) is None
    assert machine.guest.write(f"{PCI}/rescan", "1", 30) == 0
    assert machine.bind("correct", BEHIND) == 0


def test_mistakes_that_the_kernel_complains_of(machine: Machine) -> None:
    assert machine.bind("double-free-irq", FIRST) == 0
    assert machine.unbind(FIRST) == 0
    assert any("Trying to free already-free IRQ" in line for line in machine.guest.kernel_log())
    for expected in ("1", "2"):
        assert machine.bind("no-disable", SECOND) == 0
        assert machine.unbind(SECOND) == 0
        assert machine.enabled(SECOND) == expected
        assert machine.command(SECOND) & MASTER


def test_a_probe_waits_at_its_window(machine: Machine) -> None:
    script = shipped()["irq-before-ready"]
    assert machine.scripts.define(script) == 0
    assert machine.scripts.hold(script.name) == 0
    assert machine.guest.write(f"{PCI}/devices/{FIRST}/driver_override", script.name, 30) == 0
    waiting = machine.guest.write_behind(f"{PCI}/drivers/{script.name}/bind", FIRST)
    while machine.scripts.go(script.name) == errno.EAGAIN:
        assert machine.guest.poll(waiting) is None
    while (answer := machine.guest.poll(waiting)) is None:
        pass
    assert answer == 0
    held = machine.held(FIRST)
    assert held is not None
    assert held.mapped


def test_a_driver_comes_and_goes(machine: Machine) -> None:
    script = shipped()["correct"]
    assert machine.scripts.undefine(script.name) in (0, errno.ENOENT)
    assert machine.scripts.undefine(script.name) == errno.ENOENT
    assert machine.bind("correct", FIRST) == 0
    assert machine.scripts.define(script) == errno.EEXIST
    assert machine.scripts.undefine(script.name) == 0
    assert machine.held(FIRST) is None
    assert machine.guest.write(f"{FOLDER}/define", "driver x\nprobe\n  no_such_call", 30) == errno.EINVAL
    assert machine.scripts.define(script) == 0
    held = machine.held(FIRST)
    assert held is not None, "it is offered the device whose driver_override names it"
    assert held.bound


def test_a_handler_that_is_left_runs_on_nothing(machine: Machine) -> None:
    assert machine.bind("handler-left", FIRST) == 0
    assert machine.bind("legacy-intx", SECOND) == 0
    assert machine.unbind(FIRST) == 0
    held = machine.held(FIRST)
    assert held is not None
    assert [name for name, _ in held.handlers] == ["handler-left"]
    with pytest.raises(GuestGone):
        machine.scripts.interrupt(SECOND)
    assert "unable to handle page fault" in machine.guest.console()
