"""The commands."""

from __future__ import annotations

from plan.machines import INTEL, plan

DEVICE = "/sys/bus/pci/devices/0000:01:00.0"


def commands(steps) -> list[str]:
    return [step.command for step in steps]


def test_there_and_back() -> None:
    one = plan("01:00.0").alternatives[0]
    assert commands(one.steps) == [
        "modprobe vfio-pci",
        f"echo vfio-pci > {DEVICE}/driver_override",
        f"echo 0000:01:00.0 > {DEVICE}/driver/unbind",
        "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
        f'test "$(basename "$(readlink {DEVICE}/driver)")" = vfio-pci',
    ]
    assert commands(one.back) == [
        f"echo 0000:01:00.0 > {DEVICE}/driver/unbind",
        f"echo > {DEVICE}/driver_override",
        "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
        f'test "$(basename "$(readlink {DEVICE}/driver)")" = nvme',
    ]


def test_a_driver_that_is_not_known_may_not_be_there() -> None:
    one = plan("01:00.0", drivers={}).alternatives[0]
    assert f"test ! -e {DEVICE}/driver || echo 0000:01:00.0 > {DEVICE}/driver/unbind" in commands(one.steps)


def test_a_device_that_is_there_already_is_only_looked_at() -> None:
    one = plan("01:00.0", drivers={"0000:01:00.0": "vfio-pci"}).alternatives[0]
    assert len(one.steps) == 2
    assert one.back == ()


def test_a_kernel_without_driver_override_takes_ids() -> None:
    old = commands(plan("01:00.0", release="v3.12").alternatives[0].steps)
    assert "echo 1b36 0010 > /sys/bus/pci/drivers/vfio-pci/new_id" in old
    assert not any("driver_override" in command for command in old)


def test_ids_are_not_used_where_another_device_has_the_same() -> None:
    twin = INTEL.replace("03:01.0 e1000", "03:01.0 endpoint id=1b36:0010")
    assert any("options vfio-pci ids=1b36:0010" in command for command in commands(plan("01:00.0").persist))
    text = " ".join(commands(plan("01:00.0", twin).persist))
    assert "would take 0000:03:01.0 too" in text
    assert "driverctl set-override 0000:01:00.0 vfio-pci" in text


def test_the_guest_gets_every_bound_member() -> None:
    found = commands(plan("02:00.0").guest)
    assert "-device vfio-pci,host=0000:02:00.0" in found
    assert "-device vfio-pci,host=0000:02:00.1" in found
    assert any("bus='0x02' slot='0x00' function='0x1'" in text for text in found)
