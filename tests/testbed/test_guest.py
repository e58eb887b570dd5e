"""A guest is booted, asked for everything, hung and killed. Needs QEMU, a kernel in the store, gcc, busybox-static."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from quiesce.testbed.errors import GuestDied, GuestHung, Skipped
from quiesce.testbed.guest import Guest
from quiesce.testbed.helpers import busybox, program
from quiesce.testbed.images import KernelImage, installed
from quiesce.testbed.pci_state import BLOCKED
from quiesce.testbed.qemu import find_qemu
from quiesce.testbed.qemu_devices import QemuDevice
from quiesce.testbed.topology import QemuMachine

pytestmark = pytest.mark.slow

PORT = QemuDevice("rp", "pcie-root-port", "", "4", (("chassis", "1"), ("slot", "1")))
EDU = QemuDevice("edu0", "edu", "rp", "0", (), hotpluggable=True)
AHCI = QemuDevice("ahci0", "ich9-ahci", "", "5")
BDF, DISK = "0000:01:00.0", "0000:00:05.0"
DEVICE = f"/sys/bus/pci/devices/{BDF}"
MODULES = ("vfio-pci", "vfio_iommu_type1", "ahci")


def machine(*devices: QemuDevice) -> QemuMachine:
    words = [word for device in devices for word in ("-device", device.argument())]
    return QemuMachine(
        name="test",
        devices=devices,
        iommu="intel",
        arguments=("-device", "intel-iommu,intremap=on", *words),
        append="intel_iommu=on",
        tables={},
        at={},
        by_bdf={},
        snapshots=True,
    )


def image() -> KernelImage:
    try:
        find_qemu()
        busybox()
        program("agent")
    except Skipped as reason:
        pytest.skip(str(reason))
    found = [kernel for kernel in installed() if kernel.relocatable and kernel.has_module("vfio-pci")]
    if not found:
        pytest.skip("no kernel in the store: quiesce kernel fetch debian:6.1")
    return found[0]


@pytest.fixture(scope="module")
def shared() -> Iterator[Guest]:
    with Guest(image(), machine(PORT, EDU, AHCI), MODULES) as guest:
        yield guest


@pytest.fixture
def own() -> Iterator[Guest]:
    with Guest(image(), machine(PORT, AHCI), MODULES) as guest:
        yield guest


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_files_and_shell(shared: Guest) -> None:
    assert shared.shell("echo some; echo words >&2; exit 3") == (3, "some\nwords\n")
    assert shared.read("/no/such/file") is None
    assert (shared.read("/proc/version") or "").startswith("Linux version")
    assert shared.write("/no/such/file", "x") == errno.ENOENT
    assert BDF in shared.names("/sys/bus/pci/devices")
    shared.put("/tmp/large", bytes(range(256)) * 70)
    assert shared.read_bytes("/tmp/large") == bytes(range(256)) * 70


def test_no_driver_is_bound_at_first_but_built_in_ones(shared: Guest) -> None:
    assert "ahci" in shared.names("/sys/bus/pci/drivers")
    assert "driver" not in shared.snapshot(DISK)["dev"][DISK]


def test_configuration_space_is_the_same_from_inside_and_outside(shared: Guest) -> None:
    for bdf in ("0000:00:04.0", DISK, BDF):
        inside = shared.snapshot(bdf)["dev"][bdf]["config"]
        assert shared.config(bdf, len(inside) // 2).hex() == inside
    assert set(shared.config("0000:01:1f.7", 16)) == {0xFF}


def test_memory_is_read_by_both_kinds_of_address(shared: Guest) -> None:
    _, line = shared.shell("grep ' linux_banner$' /proc/kallsyms")
    banner = shared.virtual(int(line.split()[0], 16), 13)
    assert banner == b"Linux version"
    assert shared.virtual(0x10, 8) == b""
    assert len(shared.physical(0x1000, 5000)) == 5000


def test_the_kernel_log_loses_nothing(shared: Guest) -> None:
    shared.kernel_log()
    shared.shell("for i in $(seq 50); do echo line $i > /dev/kmsg; done")
    assert shared.kernel_log() == [f"line {i}" for i in range(1, 51)]
    assert shared.kernel_log() == []


def test_a_device_that_is_held_open_blocks_what_it_should_and_nothing_else(shared: Guest) -> None:
    shared.write(f"{DEVICE}/driver_override", "vfio-pci")
    assert shared.write("/sys/bus/pci/drivers_probe", BDF) == 0
    group = shared.snapshot(BDF)["dev"][BDF]["iommu_group"]
    shared.program("vfio", "/bin/vfio")
    opening = ("container", f"group {group}", "attach", f"device {BDF}")
    for line in (*opening, "irq msi 1", "wcfg 4 2 0x6", "wbar 0 0x60 1"):
        assert shared.tell("vfio", line)[1].startswith("OK"), line
    assert shared.tell("vfio", "events 5000") == (0, "OK 1")
    assert "msi" in shared.snapshot(BDF)["dev"][BDF]["msi_irqs"]
    assert shared.tell("vfio", "nonsense")[1].startswith(f"ERR nonsense {errno.ENOSYS} ")
    unbinding = shared.write_behind(f"{DEVICE}/driver/unbind", BDF)
    shared.shell("sleep 1")
    assert shared.poll(unbinding) is None
    state = shared.snapshot(attribute=0.5)["dev"]
    assert state[BDF]["driver_override"] in (BLOCKED, "vfio-pci")
    assert state[BDF]["vendor"] == "0x1234"
    assert shared.end("vfio") == 0
    shared.shell("sleep 1")
    assert shared.poll(unbinding) == 0
    with pytest.raises(KeyError):
        shared.poll(unbinding)
    with pytest.raises(KeyError):
        shared.tell("vfio", "events 0")


def test_registers(shared: Guest) -> None:
    shared.write(f"{DEVICE}/enable", "1")
    assert shared.poke(BDF, 0, 4, 0x12345678) == 0x12345678
    assert shared.poke(BDF, 0, 4) == 0x12345678 ^ 0xFFFFFFFF
    assert shared.poke("0000:0f:00.0", 0, 0) is None


def test_what_does_not_end_is_reported_and_the_guest_goes_on(shared: Guest) -> None:
    with pytest.raises(GuestHung, match="sleep 1000"):
        shared.shell("sleep 1000", timeout=0.5)
    assert shared.shell("pidof sleep")[0] == 1
    shared.program("cat", "/bin/busybox", "cat")
    assert shared.tell("cat", "echo") == (0, "echo")
    shared.program("mute", "/bin/sh", "-c", "read a; sleep 1; echo late; read a; echo $a")
    assert shared.tell("mute", "x", timeout=0.1)[0] == errno.ETIMEDOUT
    assert shared.tell("mute", "", timeout=20) == (0, "late")
    assert shared.tell("mute", "then") == (0, "then")
    assert shared.tell("mute", "more")[0] == errno.EPIPE


def test_a_write_whose_task_is_killed_says_so(shared: Guest) -> None:
    shared.shell("mkfifo /tmp/pipe")
    writing = shared.write_behind("/tmp/pipe", "x")
    assert shared.poll(writing) is None
    shared.shell(f"kill -9 {writing}")
    shared.shell("sleep 1")
    assert shared.poll(writing) == 128 + signal.SIGKILL
    assert shared.write("/dev/null", "x") == 0


def test_unplugging_and_plugging(own: Guest) -> None:
    assert own.plug(EDU) == [BDF]
    assert own.unplug("edu0")
    assert own.plug(EDU) == [BDF]
    own.surprise("edu0")
    assert set(own.config(BDF, 16)) == {0xFF}
    assert own.read(f"{DEVICE}/vendor") == "0x1234"
    assert own.write(f"{DEVICE}/remove", "1") == 0
    assert own.plug(EDU) == [BDF]


def test_a_panic_is_a_death_with_the_console(own: Guest) -> None:
    process = own.vm.process.pid
    with pytest.raises(GuestDied, match="the kernel panicked") as died:
        own.shell("echo c > /proc/sysrq-trigger")
    assert "sysrq triggered crash" in died.value.console
    own.stop()
    assert not is_there(process)
    with pytest.raises(GuestDied):
        own.shell("true")


def test_a_machine_that_stands_still_is_a_hang(own: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.testbed.guest_inside._GRACE", 0.5)
    own.qmp("stop")
    with pytest.raises(GuestHung):
        own.shell("true", timeout=0.5)


def test_a_qemu_that_is_killed_is_a_death(own: Guest) -> None:
    os.kill(own.vm.process.pid, signal.SIGKILL)
    with pytest.raises(GuestDied):
        own.shell("true")


def test_a_saved_guest_comes_back(own: Guest, tmp_path: Path) -> None:
    own.write("/sys/bus/pci/drivers/ahci/bind", DISK)
    own.shell("echo before > /dev/kmsg")
    own.save(tmp_path / "state")
    assert any("before" in line for line in own.kernel_log())
    own.stop()
    for _ in range(2):
        with Guest.restored(tmp_path / "state", own.image, own.machine, MODULES) as again:
            assert again.snapshot(DISK, 0)["dev"][DISK]["driver"] == "ahci"
            assert not any("before" in line for line in again.kernel_log())
            assert again.write(f"/sys/bus/pci/devices/{DISK}/driver/unbind", DISK) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_sleep() -> None:
    with Guest(image(), machine(PORT, EDU), sleeps=True) as guest:
        asleep = []
        assert guest.suspend(lambda: asleep.append(guest.config(BDF, 2))) == 0
        assert asleep == [b"\x34\x12"]
        assert guest.config(BDF, 2) == b"\x34\x12"
        with pytest.raises(Skipped, match="sleeps once"):
            guest.suspend()
        assert guest.config(BDF, 2) == b"\x34\x12"


def test_a_second_kernel() -> None:
    kernel = image()
    with Guest(kernel, machine(PORT, EDU), second=kernel) as guest:
        seen = []
        guest.through_kexec(lambda: seen.append(guest.config(BDF, 2)))
        assert set(seen) == {b"\x34\x12"}
        assert guest.names("/mod") == ["order"]
        guest.hold_at_reset()
        assert guest.config(BDF, 2) == b"\x34\x12"
        with pytest.raises(GuestDied, match="held at its reset"):
            guest.shell("true")


def test_what_a_guest_was_not_started_for_is_skipped(shared: Guest) -> None:
    with pytest.raises(Skipped, match="not started to sleep"):
        shared.sleep()
    with pytest.raises(Skipped, match="without a second kernel"):
        shared.kexec()
    with pytest.raises(Skipped, match="QEMU refuses device_add"):
        shared.plug(QemuDevice("x", "no-such-device", "rp", "0"))
