"""The GPU driver: mappings as long as somebody has the device open."""

from __future__ import annotations

from errno import ENOMEM

import pytest
from drivertest import INTEL, PC, bind, booted, can, device, operate, rules, texts, unbind

from quiesce.kernel import dma, files, pci_sysfs
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.world import UseOfDeadObject

BDF = "00:02.0"


def mappings(k: Kernel) -> list[str]:
    found = (dma.DmaMapping.get(k.world, f"dma/0000:{BDF}/{number}") for number in range(8))
    return [mapping.tag for mapping in found if mapping.exists]


def test_a_buffer_per_open_file() -> None:
    k = booted("v6.12", PC, ["i915"])
    bind(k, "i915", BDF)
    assert mappings(k) == ["scratch page"]
    assert operate(k, "gpu-open", BDF) == 0
    assert mappings(k) == ["scratch page", "buffer object"]
    assert len(device(k, BDF).hw.dma_target) == 2
    operate(k, "gpu-close", BDF)
    assert mappings(k) == ["scratch page"]
    assert len(device(k, BDF).hw.dma_target) == 1
    unbind(k, BDF)
    assert mappings(k) == []
    assert rules(k) == []


def test_an_open_file_keeps_structure_and_mappings_after_removal() -> None:
    k = booted("v6.12", PC, ["i915"])
    bind(k, "i915", BDF)
    operate(k, "gpu-open", BDF)
    dev = device(k, BDF)
    k.start_event()
    assert pci_sysfs.remove_store(k, dev) == 0
    assert dev.exists
    assert dev not in k.system.devices
    assert mappings(k) == ["scratch page", "buffer object"]
    assert [file.dev for file in files.open_files(k)] == [dev]
    assert not can(k, "gpu-open", BDF)
    operate(k, "gpu-close", BDF)
    assert not dev.exists
    assert mappings(k) == []
    assert rules(k) == []


def test_the_old_file_does_not_belong_to_the_replugged_device() -> None:
    k = booted("v6.12", PC, ["i915"], load=["i915"])
    operate(k, "gpu-open", BDF)
    pci_sysfs.remove_store(k, device(k, BDF))
    pci_sysfs.rescan_store(k)
    new = device(k, BDF, 2)
    assert new.driver == "i915"
    assert can(k, "gpu-open", BDF, 2)
    assert not can(k, "gpu-close", BDF, 2)
    operate(k, "gpu-close", BDF)
    assert new.exists
    assert rules(k) == []


def test_without_scratch_page_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    k = booted("v6.12", PC, ["i915"])
    monkeypatch.setattr(dma, "dma_map_single", lambda *_: None)
    assert bind(k, "i915", BDF) == -ENOMEM
    assert any("Failed to setup scratch page" in line for line in texts(k))
    assert device(k, BDF).enable_cnt == 0
    assert not device(k, BDF).refs


@pytest.mark.parametrize(
    ("version", "ends"),
    [("v4.15", True), ("v5.3", True), ("v5.10", False), ("v6.1", False), ("v6.12", True), ("v6.15", False)],
)
def test_closing_after_removal_behind_vt_d(version: str, ends: bool) -> None:
    """The last close unmaps what the IOMMU driver has forgotten; by version a BUG, an oops, or silence."""
    k = booted(version, INTEL, ["i915"], load=["i915"])
    operate(k, "gpu-open", BDF)
    pci_sysfs.remove_store(k, device(k, BDF))
    if ends:
        with pytest.raises((Crash, UseOfDeadObject)):
            operate(k, "gpu-close", BDF)
    else:
        operate(k, "gpu-close", BDF)
