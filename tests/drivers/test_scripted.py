"""Scripted drivers: what their language takes and refuses, and what the model makes of it."""

from __future__ import annotations

from errno import EIO, ENODEV

import pytest
from drivertest import PC, at_window, bind, booted, can, device, interrupt, operate, rules, unbind

from quiesce.drivers import all_drivers, models
from quiesce.drivers.script_text import CALLS, MOST_STEPS, MOST_TEXT, parse_script
from quiesce.drivers.scripted import _CALLS, driver_class, shipped
from quiesce.kernel import changes, dma, suspend
from quiesce.kernel.driver import DeviceId
from quiesce.snapshot.errors import BadInput

NIC = "01:00.0"


# -- the language ----------------------------------------------------------------------------------------------


def test_steps_by_line_and_by_semicolon() -> None:
    script = parse_script("driver x\n# a; comment\nprobe  pci_enable_device; try pci_enable_msi undo pci_disable_msi\n")
    first, second = script.sections["probe"]
    assert (first.call.name, first.undo, first.may_fail) == ("pci_enable_device", None, False)
    assert second.undo is not None
    assert (second.call.name, second.undo.name, second.may_fail) == ("pci_enable_msi", "pci_disable_msi", True)
    assert script.operations == "x"
    assert script.ids == (DeviceId(override_only=True),)


def test_ids() -> None:
    script = parse_script("driver x\nids 1234:11e8 class 0106 class 03 any\nprobe\n")
    assert script.ids == (
        DeviceId(vendor=0x1234, device=0x11E8),
        DeviceId(base_class=1, sub_class=6),
        DeviceId(base_class=3),
        DeviceId(),
    )


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", "end", "driver NAME"),
        ("probe\n", "line 1", "driver NAME"),
        ("driver x\n", "end", "probe"),
        ("driver " + 24 * "x" + "\nprobe\n", "line 1", "23 letters"),
        ("driver x\ndriver y\nprobe\n", "line 2", "one driver name"),
        ("driver x\npci_enable_device\n", "line 2", "probe, remove"),
        ("driver x\nprobe\n  pci_enable\n", "line 3", "a call"),
        ("driver x\nprobe\n  pci_intx on\n", "line 3", "0 or 1"),
        ("driver x\nprobe\n  pci_intx 1 undo pci_intx\n", "line 3", "0 or 1"),
        ("driver x\nprobe\n  pci_alloc_irq_vectors 1 1\n", "line 3", "msix, msi, intx"),
        ("driver x\nprobe\n  fail EWHAT\n", "line 3", "ENODEV"),
        ("driver x\nprobe\nprobe\n", "line 3", "one section"),
        ("driver x\nids 12:34\nprobe\n", "line 2", "ids like"),
        ("driver x\nids class\nprobe\n", "line 2", "ids like"),
        ("driver x\nids" + 5 * " any" + "\nprobe\n", "line 2", "one to 4"),
        ("driver x\nprobe\nopen\n", "end", "together"),
        ("driver x\nprobe\n" + (MOST_STEPS + 1) * "  answers\n", f"line {MOST_STEPS + 3}", "at most"),
        ("driver x\nprobe\n#" + MOST_TEXT * "x", "", "at most"),
    ],
)
def test_what_the_language_refuses(text: str, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_script(text, "x.driver")
    assert caught.value.place == place
    assert expected in caught.value.expected


def test_every_call_of_the_language_can_be_made() -> None:
    assert set(_CALLS) == set(CALLS)


# -- drivers ---------------------------------------------------------------------------------------------------


def test_scripts_are_found_by_name_beside_the_models_in_python() -> None:
    assert set(shipped()) < set(all_drivers())
    assert models(["own-sleep"])["own-sleep"].name == "own-sleep"
    assert "script" not in vars(type(models(["correct"])["correct"])), "the model in Python comes first"


@pytest.mark.parametrize("version", ["v5.10", "v6.12", "v7.2"])
@pytest.mark.parametrize("name", ["probe-fails", "managed-fails"])
def test_a_probe_that_fails_leaves_nothing(name: str, version: str) -> None:
    k = booted(version, PC, [name])
    assert bind(k, name, NIC) == (-EIO if k.has(changes.BIND_RETURNS_PROBE_ERROR) else -ENODEV)
    dev = device(k, NIC)
    assert (dev.driver, dev.enable_cnt, len(dev.devres), dev.hw.bus_master) == (None, 0, 0, False)
    assert rules(k) == []


def test_bind_interrupt_sleep_unbind() -> None:
    k = booted("v6.12", PC, ["own-sleep"])
    assert bind(k, "own-sleep", NIC) == 0
    interrupt(k, NIC)
    assert not device(k, NIC).hw.irq_status
    k.start_event()
    assert suspend.suspend(k) == 0
    suspend.resume(k)
    interrupt(k, NIC)
    assert not device(k, NIC).hw.irq_status
    unbind(k, NIC)
    assert rules(k) == []


LATE = """
driver late
operations it
probe
  pci_enable_device undo pci_disable_device
  window enabled
  dma_map_single scratch undo dma_unmap_single scratch
remove
  pci_disable_device
open
  dma_map_single buffer
close
  dma_unmap_single buffer
release
  dma_unmap_single scratch
"""


def test_release_waits_for_the_last_of_binding_and_file() -> None:
    k = booted("v6.12", PC, ["correct"])
    k.drivers["late"] = driver_class(parse_script(LATE))()
    k.system.loaded.add("late")
    dev = device(k, NIC)
    seen = at_window(k, "late: enabled", lambda: None)
    assert bind(k, "late", NIC) == 0
    assert seen
    assert operate(k, "it-open", NIC) == 0
    assert not can(k, "it-open", NIC)
    unbind(k, NIC)
    assert [mapping.tag for mapping in dma.mappings_of(k, dev)] == ["scratch", "buffer"]
    assert operate(k, "it-close", NIC) == 0
    assert not tuple(dma.mappings_of(k, dev))
    assert not can(k, "it-close", NIC)
    assert rules(k) == []
