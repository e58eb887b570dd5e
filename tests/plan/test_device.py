"""Interrupts, resets and power of the device."""

from __future__ import annotations

import pytest

from plan.machines import AMD, INTEL, conditions, machine, plan, plan_of
from quiesce.plan.model import Plan
from quiesce.snapshot import pci_regs as r


def methods(found: Plan) -> dict[str, str]:
    assert found.resets is not None
    return {method.name: method.there for method in found.resets.methods}


# -- interrupts ----------------------------------------------------------------------------------------------


def test_pins_that_meet_on_the_root_bus_share_a_wire() -> None:
    irq = plan("03:01.0").interrupts
    assert irq is not None
    assert irq.root == "00:1d INTB"
    assert "0000:03:02.0" not in irq.shared_wire
    same = plan("03:01.0", INTEL.replace("03:02.0 e1000", "03:05.0 e1000")).interrupts
    assert same is not None
    assert same.shared_wire == ("0000:03:05.0",)


def test_a_known_route_gives_the_input() -> None:
    irq = plan("03:01.0", INTEL + "route 00:1d B -> 21\n").interrupts
    assert irq is not None
    assert irq.input == 21


@pytest.mark.parametrize(
    ("ids", "release", "answer"),
    [
        ("10ec:8169", "v6.12", "no"),
        ("1102:000b", "v5.10", "yes"),
        ("1102:000b", "v6.12", "no"),
        ("15b3:1013", "v6.12", "unknown"),
        ("1b36:0010", "v6.12", "yes"),
    ],
)
def test_masking_at_the_device_by_quirk(ids: str, release: str, answer: str) -> None:
    irq = plan("01:00.0", INTEL.replace("01:00.0 nvme", f"01:00.0 nvme id={ids}"), release).interrupts
    assert irq is not None
    assert irq.disable == answer


def test_a_device_that_cannot_mask_wants_its_line_alone() -> None:
    broken = INTEL.replace("03:02.0 e1000", "03:05.0 e1000").replace("03:01.0 e1000", "03:01.0 e1000 id=10ec:8169")
    assert "intx-not-alone" in conditions(plan("03:01.0", broken))
    assert "intx-not-alone" not in conditions(plan("03:01.0", broken.replace("id=10ec:8169", "")))


def test_intx_that_vfio_hides() -> None:
    irq = plan("01:00.0", INTEL.replace("01:00.0 nvme", "01:00.0 igb id=8086:1572")).interrupts
    assert irq is not None
    assert "vfio-nointx-intel" in irq.hidden


def test_message_vectors() -> None:
    irq = plan("01:00.0").interrupts
    assert irq is not None
    assert (irq.msi, irq.msix) == (0, 65)
    legacy = plan("00:1f.2", INTEL.replace("00:1f.2 ahci", "00:1f.2 ahci msi=4")).interrupts
    assert legacy is not None
    assert (legacy.msi, legacy.msix) == (4, 0)


def test_without_interrupt_remapping_guests_can_forge_interrupts() -> None:
    from dataclasses import replace

    from quiesce.snapshot.dmar import read_dmar, write_dmar

    description = machine()
    assert description.dmar is not None
    flags = [write_dmar(replace(read_dmar(description.dmar), flags=flag)) for flag in (0, 1)]
    found = [plan_of(replace(description, dmar=table), "01:00.0") for table in flags]
    assert ["unsafe-interrupts" in conditions(one) for one in found] == [True, False]
    off = replace(description, dmar=flags[1], cmdline="root=/dev/sda1 intremap=off")
    assert "unsafe-interrupts" in conditions(plan_of(off, "01:00.0"))
    assert "unsafe-interrupts" not in conditions(plan("01:00.0", AMD))


# -- resets --------------------------------------------------------------------------------------------------


def test_the_order_is_the_kernels() -> None:
    assert list(methods(plan("01:00.0", release="v5.10"))) == ["device_specific", "flr", "af_flr", "pm", "bus"]
    assert list(methods(plan("01:00.0", release="v6.1")))[1] == "acpi"
    assert list(methods(plan("01:00.0")))[-1] == "cxl_bus"


@pytest.mark.parametrize(
    ("line", "release", "name", "there"),
    [
        ("nvme", "v6.12", "flr", "yes"),
        ("nvme no-flr", "v6.12", "flr", "no"),
        ("nvme id=1022:149c", "v6.12", "flr", "no"),
        ("nvme id=1022:17f0", "v6.12", "flr", "yes"),
        ("nvme id=1022:17f0", "v7.2", "flr", "no"),
        ("nvme", "v6.12", "pm", "yes"),
        ("nvme no-soft-reset", "v6.12", "pm", "no"),
        ("display id=1002:67df", "v6.12", "pm", "no"),
        ("nvme id=1002:67df", "v6.12", "pm", "yes"),
        ("nvme", "v6.12", "bus", "yes"),
        ("nvme id=168c:003c", "v6.12", "bus", "no"),
        ("nvme id=144d:a804", "v6.12", "device_specific", "yes"),
        ("nvme id=1425:4001", "v6.12", "device_specific", "yes"),
        ("nvme id=1425:5001", "v6.12", "device_specific", "no"),
    ],
)
def test_methods_by_capability_and_quirk(line: str, release: str, name: str, there: str) -> None:
    found = plan("01:00.0", INTEL.replace("01:00.0 nvme", f"01:00.0 {line}"), release)
    assert methods(found)[name] == there


def test_a_bus_with_others_is_not_reset_for_one_function() -> None:
    found = plan("02:00.0")
    assert methods(found)["bus"] == "no"
    assert found.resets is not None
    assert found.resets.bus_mates == ("0000:02:00.1",)
    assert found.resets.hot_reset == "yes"


def test_nothing_that_resets_is_a_condition() -> None:
    text = INTEL.replace("01:00.0 nvme", "01:00.0 nvme no-flr no-pm id=168c:003c")
    assert "no-reset" in conditions(plan("01:00.0", text, "v5.10"))
    assert "no-reset" not in conditions(plan("01:00.0", INTEL, "v5.10"))
    assert "no-reset" not in conditions(plan("01:00.0", text)), "firmware may have a _RST method"


# -- power ---------------------------------------------------------------------------------------------------


def test_what_sleeps_and_what_it_loses() -> None:
    loses, keeps = (
        plan("01:00.0", INTEL.replace("01:00.0 nvme", f"01:00.0 {line}")).power
        for line in ("nvme", "nvme no-soft-reset")
    )
    assert loses is not None
    assert keeps is not None
    assert (loses.d3hot, loses.keeps_state, keeps.keeps_state) == ("yes", "no", "yes")
    assert loses.port == "0000:00:01.0"


def test_registers_that_the_source_does_not_show_are_unknown() -> None:
    from dataclasses import replace

    description = machine()
    short = [
        replace(item, known=b"\xff" * r.PCI_STD_HEADER_SIZEOF + bytes(len(item.config) - r.PCI_STD_HEADER_SIZEOF))
        if item.bdf.bus == 1
        else item
        for item in description.functions
    ]
    found = plan_of(replace(description, functions=tuple(short)), "01:00.0")
    assert found.interrupts is not None
    assert found.interrupts.msix is None
    assert methods(found)["flr"] == methods(found)["pm"] == "unknown"


def with_attributes(bdf: str, **attributes: str) -> Plan:
    from dataclasses import replace

    description = machine()
    functions = [
        replace(item, attributes={**item.attributes, **attributes}) if item.bdf.short == bdf else item
        for item in description.functions
    ]
    return plan_of(replace(description, functions=tuple(functions)), bdf)


def test_what_a_running_kernel_says_counts() -> None:
    found = with_attributes("01:00.0", reset_method="flr bus", power_state="D3hot", d3cold_allowed="0", irq="19")
    assert (methods(found)["acpi"], methods(plan("01:00.0"))["acpi"]) == ("no", "unknown")
    assert methods(with_attributes("01:00.0", reset_method="acpi flr"))["acpi"] == "yes"
    assert found.power is not None
    assert (found.power.state, found.power.d3cold) == ("D3hot", "no")
    assert found.interrupts is not None
    assert (found.interrupts.number, found.interrupts.number_is) == (19, "irq")


def test_virtual_functions_that_sysfs_counts() -> None:
    assert with_attributes("01:00.0", sriov_numvfs="2").refusals[0].code == "virtual-functions-on"
    assert with_attributes("01:00.0", sriov_numvfs="0").refusals == ()
