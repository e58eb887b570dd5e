"""The events: when each can take place, and what each does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from quiesce.cases.case import Case
from quiesce.cases.scenario import build
from quiesce.explore.model import Model, Outcome, Step
from quiesce.explore.replay import play
from quiesce.explore.vocabulary import device
from quiesce.machine import pci_regs as r
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.read import read_text

PC = """
machine pc
00:00.0 host-bridge
00:01.0 root-port bus=01 acs hotplug
01:00.0 nvme
00:02.0 root-port bus=02 acs
02:00.0 igb sriov=4
00:1f.2 ahci
iommu intel
"""
NVME, IGB, AHCI = "0000:01:00.0", "0000:02:00.0", "0000:00:1f.2"
AER_AND_DPC = (r.PCI_EXT_CAP_ID_ERR, r.PCI_EXT_CAP_ID_DPC)


def with_capabilities(fn: FunctionDescription, *ids: int) -> FunctionDescription:
    """Put extended capabilities without content behind those that the function has."""
    image = bytearray(fn.config.ljust(0x1000, b"\0"))
    last = 0x100
    while int.from_bytes(image[last : last + 4], "little") >> 20:
        last = int.from_bytes(image[last : last + 4], "little") >> 20
    for number, cap in enumerate(ids):
        at = 0xE00 + 0x40 * number
        if any(image[last : last + 4]):
            image[last + 2 : last + 4] = (int.from_bytes(image[last + 2 : last + 4], "little") | at << 4).to_bytes(
                2, "little"
            )
        else:
            at = 0x100
        image[at : at + 4] = (cap | 1 << 16).to_bytes(4, "little")
        last = at
    return replace(fn, config=bytes(image))


def model(*drivers: str, kernel: str = "v6.12", machine: str = PC, errors: Sequence[str] = ()) -> Model:
    """Return the machine booted; the functions ``errors`` can report and contain errors."""
    description = read_text(machine, "pc")
    functions = tuple(
        with_capabilities(fn, *AER_AND_DPC) if str(fn.bdf) in errors else fn for fn in description.functions
    )
    case = Case(
        name="vocabulary",
        machine=machine,
        kernel=kernel,
        drivers=drivers,
        devices=(NVME, IGB, AHCI),
        setup=(Step("boot"),),
        events=("*",),
        never=("*",),
    )
    return build(case, replace(description, functions=functions))


def happen(m: Model, *events: str) -> Outcome:
    outcome = None
    for text in events:
        outcome = play(m, Step(text))
        assert outcome.enabled, f"{text} cannot take place"
        assert not outcome.crashed, f"{text}: {outcome.findings}"
    assert outcome is not None
    return outcome


def can(m: Model, text: str) -> bool:
    mark = m.world.mark()
    try:
        return play(m, Step(text)).enabled
    finally:
        m.world.undo(mark)


def texts(m: Model) -> set[str]:
    return {event.text for event in m.events}


def test_a_driver_is_offered_what_its_table_fits_or_anything_if_it_takes_anything() -> None:
    offered = texts(model("nvme", "vfio-pci", "agp-amd64"))
    assert {f"bind nvme {NVME}", f"bind vfio-pci {AHCI}", f"bind agp-amd64 {AHCI}"} <= offered
    assert f"bind nvme {AHCI}" not in offered


def test_the_crash_kernel_starts_after_a_crash_only() -> None:
    m = model("ahci")
    happen(m, f"bind ahci {AHCI}")
    assert not can(m, "second-kernel")
    happen(m, "crash-kexec")
    assert not can(m, f"interrupt {AHCI}"), "nothing of the old kernel runs"
    assert not can(m, "crash-kexec")
    outcome = happen(m, "second-kernel")
    assert not outcome.findings, "the crash kernel is made for devices that run"
    assert m.kernel.system.phase == "second"


def test_a_reboot_starts_no_second_kernel() -> None:
    m = model("ahci")
    happen(m, "reboot")
    assert not can(m, "second-kernel")
    assert not can(m, "hibernate")


def test_hibernation_brings_everything_back() -> None:
    m = model("nvme")
    happen(m, f"bind nvme {NVME}")
    assert happen(m, "hibernate").answer == 0
    assert m.kernel.system.phase == "running"
    assert device(m.kernel, NVME).msix_enabled


@pytest.mark.parametrize("state", ["nonfatal", "fatal"])
def test_errors_are_reported_by_a_root_port_that_can_and_is_served(state: str) -> None:
    event = f"aer-{state} {NVME}"
    assert event not in texts(model("nvme"))
    port = "0000:00:01.0"
    m = model("nvme", errors=(port, NVME))
    assert event in texts(m)
    assert f"aer-{state} {IGB}" not in texts(m)
    happen(m, f"bind nvme {NVME}", event)
    happen(m, f"unplug {NVME}")
    assert not can(m, event)
    served = model("nvme", "pcieport", errors=(port, NVME))
    assert not can(served, event)


def test_a_port_contains_errors_if_it_can() -> None:
    assert f"dpc {NVME}" not in texts(model("nvme"))
    m = model("nvme", errors=("0000:00:01.0",))
    happen(m, f"bind nvme {NVME}", f"dpc {NVME}")
    assert f"dpc {AHCI}" not in texts(m)


def test_virtual_functions_come_and_go_with_a_driver_that_makes_them() -> None:
    m = model("igb")
    assert f"numvfs-on {NVME}" not in texts(m)
    assert not can(m, f"numvfs-on {IGB}")
    happen(m, f"bind igb {IGB}")
    assert not can(m, f"numvfs-off {IGB}")
    assert happen(m, f"numvfs-on {IGB}").answer == 0
    assert device(m.kernel, IGB).num_vfs == 2
    assert not can(m, f"numvfs-on {IGB}")
    happen(m, f"numvfs-off {IGB}")
    assert device(m.kernel, IGB).num_vfs == 0


def test_the_power_of_a_hot_plug_slot_can_be_switched() -> None:
    m = model("nvme")
    assert not can(m, f"power-off {IGB}"), "its port has no hot-plug"
    assert f"power-off {AHCI}" not in texts(m)
    assert not can(m, f"power-on {NVME}")
    happen(m, f"bind nvme {NVME}", f"power-off {NVME}")
    assert not can(m, f"bind nvme {NVME}")
    assert happen(m, f"power-on {NVME}").answer == 0
    assert device(m.kernel, NVME).driver == "nvme"


def test_modules_are_loaded_and_unloaded() -> None:
    m = model("nvme", "pcieport")
    assert "unload pcieport" not in texts(m), "it is no module"
    assert not can(m, "load nvme")
    happen(m, f"bind nvme {NVME}", "unload nvme")
    assert device(m.kernel, NVME).driver is None
    assert happen(m, "load nvme").answer == 0
    assert device(m.kernel, NVME).driver == "nvme"


def test_only_a_device_without_driver_is_enabled_by_hand() -> None:
    m = model("nvme")
    assert not can(m, f"disable {NVME}")
    happen(m, f"enable {NVME}")
    assert not can(m, f"enable {NVME}")
    happen(m, f"disable {NVME}", f"bind nvme {NVME}")
    assert not can(m, f"enable {NVME}")
    assert not can(m, f"disable {NVME}")


def test_the_type_of_a_group_is_changed_if_it_is_another() -> None:
    m = model("nvme")
    assert not can(m, f"group-type DMA {NVME}")
    assert happen(m, f"group-type identity {NVME}").answer == 0
    assert can(m, f"group-type DMA {NVME}")
    assert not any(
        text.startswith("group-type") for text in texts(model("nvme", machine=PC.replace("iommu intel", "")))
    )


def test_while_the_system_sleeps_only_hardware_acts() -> None:
    m = model("ahci", "vfio-pci")
    m.kernel.system.windows_left = 1
    happen(m, f"bind ahci {AHCI}")
    where = "at suspend: devices suspended, interrupts on"
    unbound = play(m, Step("suspend", ((where, f"unbind {AHCI}"),)))
    assert unbound.enabled
    assert device(m.kernel, AHCI).driver == "ahci"
    happen(m, "resume")
    play(m, Step("suspend", ((where, f"unplug {NVME}"),)))
    assert not device(m.kernel, NVME).hw.present


def test_a_question_asked_twice_is_told_apart() -> None:
    m = model("nvme")
    m.kernel.system.faults_left = 1
    happen(m, f"remove {NVME}", f"remove {IGB}")
    again = Step("rescan", (("struct group_device fails (2)", "True"),))
    play(m, again)
    assert device(m.kernel, NVME).iommu_group is not None
    assert device(m.kernel, IGB).iommu_group is None
