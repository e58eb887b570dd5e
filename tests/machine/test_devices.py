import pytest

from machine.machines import made
from quiesce.machine import pci_regs as r
from quiesce.machine.devices import Virtio, behaviour_of
from quiesce.machine.function import Function

LINES = {
    "host-bridge": "silent",
    "isa-bridge": "silent",
    "smbus": "smbus",
    "root-port bus=01": "bridge",
    "ahci": "ahci",
    "nvme": "nvme",
    "e1000e": "ethernet",
    "virtio-net": "virtio",
    "virtio-net-transitional": "virtio-transitional",
    "virtio-blk": "virtio",
    "xhci": "xhci",
    "gpu": "gpu",
    "display": "gpu",
    "iommu-function": "amd-iommu",
    "audio": "device",
    "endpoint": "device",
}


@pytest.mark.parametrize(("line", "name"), LINES.items())
def test_ids_and_class_choose_the_behaviour(line: str, name: str) -> None:
    assert made(f"00:03.0 {line}\n").function("00:03.0").behaviour.name == name


def test_usb_host_controllers() -> None:
    assert behaviour_of(0x8086, 0x1E26, 0x0C0320, 0).name == "usb"
    assert behaviour_of(0x8086, 0x1E31, 0x0C0330, 0).name == "xhci"


def running(line: str) -> Function:
    fn = made(f"00:03.0 {line}\n").function("00:03.0")
    fn.engine, fn.irq_enabled = "running", True
    fn.write_register("COMMAND", r.PCI_COMMAND_MASTER | r.PCI_COMMAND_MEMORY)
    return fn


def test_a_running_device_interrupts_and_does_dma() -> None:
    fn = running("nvme")
    assert fn.behaviour.can_interrupt(fn)
    assert fn.behaviour.can_dma(fn)


def test_what_keeps_a_device_from_interrupting() -> None:
    fn = running("nvme")
    fn.irq_enabled = False
    assert not fn.behaviour.can_interrupt(fn)
    fn.irq_enabled, fn.engine = True, "off"
    assert not fn.behaviour.can_interrupt(fn)
    fn.engine = "running"
    fn.write_register("PM_CTRL", r.D3HOT)
    assert not fn.behaviour.can_interrupt(fn)
    assert not fn.behaviour.can_dma(fn)


def test_without_bus_master_there_is_no_dma() -> None:
    fn = running("nvme")
    fn.write_register("COMMAND", r.PCI_COMMAND_MEMORY)
    assert not fn.behaviour.can_dma(fn)
    assert fn.behaviour.can_interrupt(fn)


@pytest.mark.parametrize(("line", "interrupts", "dma"), [("smbus", True, False), ("host-bridge", False, False)])
def test_devices_that_do_less(line: str, interrupts: bool, dma: bool) -> None:
    fn = running(line)
    assert (fn.behaviour.can_interrupt(fn), fn.behaviour.can_dma(fn)) == (interrupts, dma)


def test_registers_of_a_transitional_device_move_with_msix_in_the_hardware() -> None:
    fn = running("virtio-net-transitional")
    assert isinstance(fn.behaviour, Virtio)
    assert fn.behaviour.device_config_offset(fn) == 20
    fn.write_register("MSIX_FLAGS", r.PCI_MSIX_FLAGS_ENABLE)
    assert fn.behaviour.device_config_offset(fn) == 24


def test_registers_of_a_modern_device_stay() -> None:
    fn = running("virtio-net")
    fn.write_register("MSIX_FLAGS", r.PCI_MSIX_FLAGS_ENABLE)
    assert isinstance(fn.behaviour, Virtio)
    assert fn.behaviour.device_config_offset(fn) == 0
