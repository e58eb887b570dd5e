"""Requester ids, device tables, page tables and the IOTLB (machine/iommu.py, machine/requester.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quiesce.machine import iommu
from quiesce.machine import pci_regs as r
from quiesce.machine.build import build_machine
from quiesce.machine.function import Function
from quiesce.machine.machine import Machine
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS
from quiesce.machine.requester import all_requester_ids, requester_ids, volume_manager
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.text import read_text
from quiesce.world import World

BRIDGES = """
machine bridges
00:00.0 host-bridge
00:01.0 root-port bus=01
00:02.0 root-port bus=04
00:1e.0 pci-bridge bus=05
01:00.0 pcie-to-pci bus=02
02:01.0 conventional
02:02.0 pci-bridge bus=03
03:01.0 conventional
04:00.0 endpoint
04:00.1 endpoint
05:01.0 conventional
"""
AMD = BRIDGES + "iommu amd 00:00.2\n"
INTEL = BRIDGES + "iommu intel\nunit 04:00.1\n"


def machine(text: str, kind: str | None = None) -> Machine:
    return build_machine(World(), read_text(text, "test"), kind)


def ids(m: Machine, bdf: str) -> list[str]:
    return [item.short for item in requester_ids(m, m.function(bdf))]


def start(m: Machine, *bdfs: str) -> None:
    """Let functions, and the bridges above, send: the IOMMU is on."""
    for unit in iommu.units(m):
        unit.enabled = True
    for bdf in bdfs:
        fn: Function | None = m.function(bdf)
        while fn is not None:
            fn.config.set("COMMAND", fn.command | r.PCI_COMMAND_MASTER)
            fn = fn.upstream


class TestRequesterIds:
    @pytest.mark.parametrize(
        ("bdf", "expected", "why"),
        [
            ("04:00.0", "04:00.0", "ports leave ids alone"),
            ("01:00.0", "01:00.0", "the bridge itself has its own id"),
            ("02:01.0", "02:00.0", "a PCIe-to-PCI bridge sends as function 00.0 of the bus below"),
            ("03:01.0", "02:00.0", "the outermost bridge has the last word"),
            ("05:01.0", "00:1e.0", "a conventional bridge sends as itself"),
        ],
    )
    def test_bridges(self, bdf: str, expected: str, why: str) -> None:
        assert ids(machine(AMD), bdf) == [expected], why

    def test_ivrs_alias_wins_over_topology(self) -> None:
        m = machine(AMD + "alias 02:01.0-02:02.7 -> 01:1f.7\n")
        assert ids(m, "02:01.0") == ["01:1f.7"]
        assert ids(m, "03:01.0") == ["02:00.0"]

    def test_ivrs_alias_counts_only_where_the_amd_iommu_is(self) -> None:
        m = machine(AMD + "alias 04:00.0 -> 04:00.1\n", "intel")
        assert ids(m, "04:00.0") == ["04:00.0"]

    def test_marvell_sends_as_a_function_that_need_not_exist(self) -> None:
        m = machine("00:01.0 root-port bus=01\n01:00.0 ahci id=1b4b:9123\niommu intel\n")
        assert ids(m, "01:00.0") == ["01:00.1", "01:00.0"]
        assert Bdf.parse("01:00.1") in all_requester_ids(m)

    def test_aspeed_bridge_keeps_the_ids_of_what_is_below(self) -> None:
        m = machine("00:01.0 root-port bus=01\n01:00.0 pcie-to-pci id=1a03:1150 bus=02\n02:00.0 conventional\n")
        assert ids(m, "02:00.0") == ["02:00.0"]

    def test_a_bridge_that_hides_its_express_capability(self) -> None:
        text = "00:01.0 root-port bus=01\n01:00.0 pci-bridge id=1b21:1080 bus=02\n02:01.0 conventional\n"
        assert ids(machine(text), "02:01.0") == ["02:00.0"]

    def test_the_same_bridge_on_a_conventional_bus_is_an_ordinary_one(self) -> None:
        text = "00:1e.0 pci-bridge bus=01\n01:00.0 pci-bridge id=1b21:1080 bus=02\n02:01.0 conventional\n"
        assert ids(machine(text), "02:01.0") == ["00:1e.0"]

    def test_behind_a_volume_manager(self) -> None:
        m = machine("00:0e.0 endpoint id=8086:467f\n10000:e0:06.0 nvme\n10001:e0:06.0 nvme\n")
        assert ids(m, "10000:e0:06.0") == ["00:0e.0"]
        assert volume_manager(m, m.function("10001:e0:06.0")) is None
        assert volume_manager(m, m.function("00:0e.0")) is None

    def test_every_entry_of_the_table_is_about_somebody(self) -> None:
        for quirk in DMA_ALIAS_QUIRKS:
            assert quirk.devices
            assert all(first <= last for first, last in quirk.devices)
            assert quirk.covers(quirk.vendor, quirk.devices[0][0])
            assert not quirk.covers(quirk.vendor ^ 1, quirk.devices[0][0])


class TestUnits:
    def test_no_iommu(self) -> None:
        m = machine(BRIDGES)
        assert iommu.units(m) == ()
        assert iommu.unit_of(m, m.function("04:00.0")) is None
        assert not iommu.interrupt_remapping_capable(m)

    def test_amd_covers_all_but_itself(self) -> None:
        m = machine(AMD)
        assert iommu.unit_of(m, m.function("04:00.0")) is iommu.units(m)[0]
        assert iommu.unit_of(m, m.function("00:00.2")) is None

    def test_amd_leaves_out_what_the_table_does_not_list(self) -> None:
        m = machine(AMD + "covers 04:00.0\n")
        assert iommu.unit_of(m, m.function("04:00.0")) is not None
        assert iommu.unit_of(m, m.function("04:00.1")) is None

    def test_vtd_scopes(self) -> None:
        m = machine(INTEL)
        own, rest = iommu.unit_of(m, m.function("04:00.1")), iommu.unit_of(m, m.function("04:00.0"))
        assert own is not None
        assert rest is not None
        assert own is not rest
        assert set(iommu.units(m)) == {own, rest}

    @pytest.mark.parametrize(("kind", "covered"), [("intel", True), ("amd", True), (None, False)])
    def test_without_a_table(self, kind: str | None, covered: bool) -> None:
        m = build_machine(World(), replace(read_text(BRIDGES, "test"), ivrs=None, dmar=None), kind)
        assert (iommu.unit_of(m, m.function("04:00.0")) is not None) == covered

    def test_without_a_table_amd_covers_what_follows_its_function(self) -> None:
        m = build_machine(World(), replace(read_text(AMD, "test"), ivrs=None), "amd")
        assert iommu.unit_of(m, m.function("00:00.0")) is None
        assert iommu.unit_of(m, m.function("00:01.0")) is not None

    def test_interrupt_remapping(self) -> None:
        assert iommu.interrupt_remapping_capable(machine(AMD))
        assert iommu.interrupt_remapping_capable(build_machine(World(), read_text(BRIDGES, "test"), "intel"))


class TestSending:
    def test_off_or_absent_iommu_lets_all_pass(self) -> None:
        m = machine(AMD)
        start(m, "04:00.0")
        iommu.units(m)[0].enabled = False
        assert iommu.dma_access(m, m.function("04:00.0"), 0x1000) == "ok"

    @pytest.mark.parametrize(
        ("break_it", "why"),
        [
            (lambda fn: fn.config.set("COMMAND", 0), "Bus Master is off at 0000:04:00.0"),
            (lambda fn: fn.upstream.config.set("COMMAND", 0), "Bus Master is off at 0000:00:02.0"),
            (lambda fn: fn.vanish(), "0000:04:00.0 is not there"),
            (lambda fn: fn.upstream.power_off(), "0000:04:00.0 is not there"),
            (lambda fn: fn.upstream.config.set("PM_CTRL", r.D3HOT), "0000:00:02.0 sleeps"),
        ],
    )
    def test_what_never_arrives(self, break_it: object, why: str) -> None:
        m = machine(AMD)
        start(m, "04:00.0")
        assert callable(break_it)
        break_it(m.function("04:00.0"))
        assert iommu.dma_access(m, m.function("04:00.0"), 0x1000) == f"fault:{why}"


class TestAmdTables:
    def test_no_entry_blocks(self) -> None:
        m = machine(AMD)
        start(m, "04:00.0")
        assert iommu.dma_access(m, m.function("04:00.0"), 1) == "fault:IO_PAGE_FAULT"
        assert iommu.live_domain(m, Bdf.parse("04:00.0")) is None

    def test_untranslated_entry_passes_all(self) -> None:
        m = machine(AMD)
        start(m, "04:00.0")
        iommu.amd_dte(m.world, Bdf.parse("04:00.0")).valid = True
        assert iommu.dma_access(m, m.function("04:00.0"), 1) == "ok"
        assert iommu.live_domain(m, Bdf.parse("04:00.0")) == -1

    def test_life_of_a_translation(self) -> None:
        m = machine(AMD)
        start(m, "04:00.0")
        fn, table = m.function("04:00.0"), iommu.page_table(m.world, 3)
        dte = iommu.amd_dte(m.world, fn.bdf)
        dte.valid, dte.domain, dte.translated = True, 3, True
        assert iommu.dma_access(m, fn, 7) == "fault:IO_PAGE_FAULT"
        table.mappings.add(7)
        assert iommu.dma_access(m, fn, 7) == "ok"
        table.mappings.discard(7)
        assert iommu.stale_translations(m) == ((3, 7),)
        assert iommu.dma_access(m, fn, 7) == "stale"
        iommu.invalidate(m.world, 3, 8)
        assert iommu.dma_access(m, fn, 7) == "stale"
        iommu.invalidate(m.world, 3)
        assert iommu.dma_access(m, fn, 7) == "fault:IO_PAGE_FAULT"
        assert iommu.live_domain(m, fn.bdf) == 3

    def test_an_unmapped_translation_that_was_never_used_is_not_kept(self) -> None:
        m = machine(AMD)
        iommu.page_table(m.world, 0).mappings.add(1)
        iommu.page_table(m.world, 0).mappings.discard(1)
        assert iommu.stale_translations(m) == ()

    def test_two_functions_behind_one_id_share_an_entry(self) -> None:
        m = machine(AMD + "alias 04:00.0-04:00.1 -> 04:05.0\n")
        start(m, "04:00.0", "04:00.1")
        dte = iommu.amd_dte(m.world, Bdf.parse("04:05.0"))
        dte.valid, dte.domain, dte.translated = True, 0, True
        iommu.page_table(m.world, 0).mappings.add(9)
        assert [iommu.dma_access(m, m.function(bdf), 9) for bdf in ("04:00.0", "04:00.1")] == ["ok", "ok"]

    def test_sending_under_another_id(self) -> None:
        m = machine(AMD)
        start(m, "04:00.0")
        iommu.amd_dte(m.world, Bdf.parse("04:00.1")).valid = True
        assert iommu.dma_access(m, m.function("04:00.0"), 1, Bdf.parse("04:00.1")) == "ok"


class TestVtdTables:
    def test_no_context_entry_blocks(self) -> None:
        m = machine(INTEL)
        start(m, "04:00.0")
        assert iommu.dma_access(m, m.function("04:00.0"), 1) == "fault:Present bit in context entry is clear"

    def test_pass_through(self) -> None:
        m = machine(INTEL)
        start(m, "04:00.0")
        context = iommu.vtd_context(m.world, Bdf.parse("04:00.0"))
        context.present = context.passthrough = True
        assert iommu.dma_access(m, m.function("04:00.0"), 1) == "ok"
        assert iommu.live_domain(m, Bdf.parse("04:00.0")) == -1

    def test_translated(self) -> None:
        m = machine(INTEL)
        start(m, "02:01.0")
        context = iommu.vtd_context(m.world, Bdf.parse("02:00.0"))
        context.present, context.domain = True, 2
        assert iommu.dma_access(m, m.function("02:01.0"), 5) == "fault:PTE Write access is not set"
        iommu.page_table(m.world, 2).mappings.add(5)
        assert iommu.dma_access(m, m.function("02:01.0"), 5) == "ok"
        assert iommu.live_domain(m, Bdf.parse("02:00.0")) == 2


def test_tables_leave_no_trace_once_empty() -> None:
    m = machine(AMD)
    before = m.world.fingerprint
    iommu.page_table(m.world, 0).mappings.add(1)
    iommu.iotlb(m.world).entries.add((0, 1))
    iommu.page_table(m.world, 0).mappings.discard(1)
    iommu.invalidate(m.world, 0)
    assert m.world.fingerprint == before
