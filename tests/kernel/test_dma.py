"""The DMA API by version and IOMMU, and what a late unmap does (kernel/dma.py, kernel/dma_iova.py,
kernel/dma_checks.py).
"""

from __future__ import annotations

import pytest
from dmatest import ALONE, NIC, SHARED, VENDORS, allocated, broken, hold, mapped, start, unbind, unplug, write
from toykernel import device, texts

from quiesce.kernel import dma, dma_checks, iommu
from quiesce.kernel.dma_iova import DIRECT_BASE, is_mapped
from quiesce.kernel.kernel import Crash, Gfp, Kernel
from quiesce.machine import iommu as hardware
from quiesce.world import Recording

BUG, NULL = "iommu/unmap-without-domain", "iommu/unmap-without-group"
REAL, SILENT, REATTACHED = "real unmap", "direct, silent", "iommu/reattached-without-driver"

LATE = {
    # version:  (VT-d, AMD-Vi), after the device has been removed
    "v3.6": (BUG, REATTACHED),
    "v3.13": (BUG, REATTACHED),
    "v4.1": (BUG, REAL),
    "v4.3": (BUG, SILENT),
    "v4.4": (BUG, SILENT),
    "v5.2": (BUG, SILENT),
    "v5.3-rc1": (REAL, SILENT),
    "v5.3-rc3": (REAL, SILENT),
    "v5.3": (BUG, SILENT),
    "v5.5": (BUG, NULL),
    "v5.7": (BUG, NULL),
    "v5.8": (SILENT, NULL),
    "v5.10": (SILENT, NULL),
    "v5.11": (SILENT, NULL),
    "v6.1": (SILENT, NULL),
    "v6.11": (SILENT, NULL),
    "v6.12": (NULL, NULL),
    "v6.14": (NULL, NULL),
    "v6.15": (SILENT, SILENT),
    "v7.3": (SILENT, SILENT),
}
"""What a driver meets that unmaps after its device has been removed. Facts, not model output."""

FREES_WRONG_PAGES = ("v5.8", "v5.10", "v5.11", "v6.1", "v6.11", "v6.15", "v7.3")


def late_unmap(version: str, vendor: str, machine: str = ALONE, *, after: str = "unplug") -> tuple[str, Kernel]:
    """Map, unbind or remove with the structure held, unmap. Returns the outcome in the words of the table."""
    k = start(version, vendor, machine)
    dev, buffer = hold(k), mapped(k)
    (unplug if after == "unplug" else unbind)(k)
    k.start_event()
    path = dma.dma_path(k, dev)
    try:
        dma.dma_unmap_single(k, dev, buffer)
    except Crash as crash:
        return crash.finding.rule, k
    assert not buffer.exists
    if "iommu/reattached-without-driver" in broken(k):
        return REATTACHED, k
    return (SILENT if path == "direct" else REAL), k


class TestLateUnmap:
    @pytest.mark.parametrize("version", LATE)
    @pytest.mark.parametrize("vendor", VENDORS)
    @pytest.mark.parametrize("machine", [ALONE, SHARED])
    def test_after_removal(self, version: str, vendor: str, machine: str) -> None:
        outcome, _ = late_unmap(version, vendor, machine)
        assert outcome == LATE[version][VENDORS.index(vendor)]

    @pytest.mark.parametrize("version", LATE)
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_after_unbind_it_is_late_only_where_unbind_detaches(self, version: str, vendor: str) -> None:
        outcome, k = late_unmap(version, vendor, after="unbind")
        if version in ("v3.6", "v3.13"):
            assert outcome == LATE[version][VENDORS.index(vendor)]
        else:
            assert outcome == REAL
            assert broken(k) == []

    def test_v318_to_v40_amd_detaches_at_unbind_still(self) -> None:
        assert late_unmap("v4.0", "amd", after="unbind")[0] == REATTACHED
        assert late_unmap("v4.0", "intel", after="unbind")[0] == REAL

    @pytest.mark.parametrize(
        ("version", "text"),
        [
            ("v5.3", "kernel BUG at drivers/iommu/intel-iommu.c! BUG_ON(!domain)"),
            ("v6.12", "BUG: kernel NULL pointer dereference"),
        ],
    )
    def test_what_the_console_says(self, version: str, text: str) -> None:
        _, k = late_unmap(version, "intel")
        assert texts(k, "BUG") == [text]

    @pytest.mark.parametrize("version", ["v4.3", "v5.3", "v5.8", "v6.15"])
    def test_silence_leaks_where_the_domain_outlives_the_device(self, version: str) -> None:
        """Never for a device alone in its group, whose domain goes; sometimes where others are in it."""
        vendor = "intel" if version == "v5.8" else "amd"
        alone, shared = late_unmap(version, vendor, ALONE), late_unmap(version, vendor, SHARED)
        assert alone[0] == shared[0] == SILENT
        assert broken(alone[1]) == []
        assert broken(shared[1]) == ["leak/dma-mapping"]

    @pytest.mark.parametrize("version", LATE)
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_late_free_of_coherent_memory(self, version: str, vendor: str) -> None:
        k = start(version, vendor)
        dev, ring = hold(k), allocated(k)
        unplug(k)
        k.start_event()
        expected = LATE[version][VENDORS.index(vendor)]
        if expected in (BUG, NULL):
            with pytest.raises(Crash) as crash:
                dma.dma_free_coherent(k, dev, ring)
            assert crash.value.finding.rule == expected
            return
        dma.dma_free_coherent(k, dev, ring)
        wrong = expected == SILENT and version in FREES_WRONG_PAGES
        assert ("memory/free-wrong-pages" in broken(k)) == wrong

    def test_amd_before_dma_direct_read_the_handle_frees_the_right_pages(self) -> None:
        k = start("v5.4", "amd")
        dev, ring = hold(k), allocated(k)
        unplug(k)
        dma.dma_free_coherent(k, dev, ring)
        assert broken(k) == []

    @pytest.mark.parametrize("version", ["v5.5", "v6.1", "v6.14"])
    def test_amd_maps_for_a_removed_device_no_better(self, version: str) -> None:
        k = start(version, "amd")
        dev = hold(k)
        unplug(k)
        with pytest.raises(Crash) as crash:
            dma.dma_map_single(k, dev, "late")
        assert crash.value.finding.rule == "iommu/map-without-group"

    @pytest.mark.parametrize("vendor", VENDORS)
    @pytest.mark.parametrize("version", LATE)
    def test_in_time_nothing_is_ever_wrong(self, version: str, vendor: str) -> None:
        k = start(version, vendor)
        dev, buffer, ring = device(k, NIC), mapped(k), allocated(k)
        dma.dma_unmap_single(k, dev, buffer)
        dma.dma_free_coherent(k, dev, ring)
        unbind(k)
        unplug(k)
        assert broken(k) == []
        assert dma.mappings(k) == ()


class TestWays:
    @pytest.mark.parametrize(
        ("version", "vendor", "path"),
        [
            ("v3.6", "intel", "intel"),
            ("v5.7", "intel", "intel"),
            ("v5.8", "intel", "intel"),
            ("v5.11", "intel", "iommu"),
            ("v6.12", "intel", "iommu"),
            ("v3.6", "amd", "amd"),
            ("v5.4", "amd", "amd"),
            ("v5.5", "amd", "iommu"),
            ("v6.12", "amd", "iommu"),
            ("v6.12", "", "direct"),
            ("v3.6", "", "direct"),
        ],
    )
    def test_who_maps(self, version: str, vendor: str, path: str) -> None:
        k = start(version, vendor)
        buffer = mapped(k)
        assert buffer.how == path
        assert (buffer.iova >= DIRECT_BASE) == (path == "direct")
        assert is_mapped(buffer) == (path != "direct")

    def test_the_operations_are_the_devices_from_v58_on(self) -> None:
        assert device(start("v5.7", "intel"), NIC).dma_ops is None
        assert device(start("v5.8", "intel"), NIC).dma_ops == "intel"

    @pytest.mark.parametrize("version", LATE)
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_the_device_reaches_what_is_mapped_and_nothing_else(self, version: str, vendor: str) -> None:
        k = start(version, vendor)
        buffer = mapped(k)
        assert write(k, buffer.iova) == "ok"
        assert write(k, buffer.iova + 0x1000).startswith("fault:")

    @pytest.mark.parametrize("version", ["v3.6", "v4.1", "v4.3", "v5.3", "v5.8", "v6.12"])
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_passthrough_maps_nothing(self, version: str, vendor: str) -> None:
        k = start(version, vendor, passthrough=True)
        buffer = mapped(k)
        assert buffer.how == "direct"
        assert write(k, buffer.iova) == "ok"
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        assert broken(k) == []

    @pytest.mark.parametrize("version", ["v5.2", "v5.8", "v6.12"])
    def test_a_late_unmap_under_passthrough(self, version: str) -> None:
        """Up to v5.2 the device is put into the identity domain once more; v5.8+ has nothing to unmap."""
        k = start(version, "intel", passthrough=True)
        dev, buffer = hold(k), mapped(k)
        unplug(k)
        dma.dma_unmap_single(k, dev, buffer)
        assert broken(k) == []

    def test_v53_has_forgotten_that_nothing_was_mapped(self) -> None:
        k = start("v5.3", "intel", passthrough=True)
        dev, buffer = hold(k), mapped(k)
        unplug(k)
        with pytest.raises(Crash) as crash:
            dma.dma_unmap_single(k, dev, buffer)
        assert crash.value.finding.rule == BUG

    def test_addresses_are_used_again_lowest_first(self) -> None:
        k = start("v6.12", "amd")
        first, second = mapped(k), mapped(k)
        assert (first.iova, second.iova) == (0x1000, 0x2000)
        dma.dma_unmap_single(k, device(k, NIC), first)
        assert mapped(k).iova == 0x1000

    def test_a_mapping_of_another_domain(self) -> None:
        k = start("v6.12", "amd", ALONE)
        buffer = mapped(k)
        group = device(k, NIC).iommu_group
        iommu.group_type_store(k, group, "identity")
        unbind(k)
        assert iommu.group_type_store(k, group, "identity") == 0
        assert iommu.group_type_store(k, group, "DMA") == 0
        k.start_event()
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        assert broken(k) == ["dma/unmap-not-mapped"]


class TestFailures:
    @pytest.mark.parametrize("vendor", ["", *VENDORS])
    def test_mapping_can_fail(self, vendor: str) -> None:
        k = start("v6.12", vendor)
        k.system.faults_left = 1
        k.world.recording = Recording(forced=(1,))
        assert dma.dma_map_single(k, device(k, NIC), "buffer") is None
        k.world.recording = None
        assert dma.mappings(k) == ()
        assert mapped(k).exists

    def test_memory_can_fail(self) -> None:
        k = start("v6.12", "intel")
        k.system.faults_left = 1
        k.world.recording = Recording(forced=(1,))
        assert dma.dma_alloc_coherent(k, device(k, NIC), "ring") is None

    def test_coherent_memory_is_not_for_atomic_context_unless_asked(self) -> None:
        k = start("v6.12", "")
        with k.spinlock("lock"):
            dma.dma_alloc_coherent(k, device(k, NIC), "atomic", Gfp.ATOMIC)
            mapped(k)
            assert broken(k) == []
            allocated(k)
        assert broken(k) == ["context/sleep-in-atomic"]

    def test_coherent_memory_is_not_freed_with_interrupts_off(self) -> None:
        k = start("v6.12", "")
        ring = allocated(k)
        with k.interrupts_off():
            dma.dma_free_coherent(k, device(k, NIC), ring)
        assert broken(k) == ["context/dma-free-irqs-off"]


class TestFlushing:
    @pytest.mark.parametrize("version", ["v3.6", "v4.3", "v5.3", "v5.11", "v6.12"])
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_strict_leaves_nothing_behind(self, version: str, vendor: str) -> None:
        k = start(version, vendor)
        buffer = mapped(k)
        iova = buffer.iova
        assert write(k, iova) == "ok"
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        assert write(k, iova).startswith("fault:")
        assert hardware.stale_translations(k.machine) == ()

    @pytest.mark.parametrize("version", ["v3.6", "v4.3", "v5.3", "v5.11", "v6.12"])
    @pytest.mark.parametrize("vendor", VENDORS)
    def test_lazy_leaves_a_window(self, version: str, vendor: str) -> None:
        k = start(version, vendor, lazy=True)
        buffer = mapped(k)
        iova = buffer.iova
        write(k, iova)
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        assert write(k, iova) == "stale"
        assert len(dma_checks.awaiting_flush(k)) == 1
        assert dma_checks.stale_iotlb(k) == []
        assert mapped(k).iova != iova, "an address waits for the flush before it is used again"
        dma.fq_flush_timeout(k)
        assert write(k, iova).startswith("fault:")
        assert mapped(k).iova == iova

    def test_what_no_queue_knows_is_stale_for_ever(self) -> None:
        k = start("v6.12", "amd", lazy=True)
        buffer = mapped(k)
        write(k, buffer.iova)
        domain = buffer.domain
        assert domain is not None
        domain.page_table.mappings.clear()
        assert len(dma_checks.stale_iotlb(k)) == 1

    @pytest.mark.parametrize("vendor", VENDORS)
    def test_a_domain_takes_its_queue_along(self, vendor: str) -> None:
        k = start("v6.12", vendor, lazy=True)
        dev, buffer = hold(k), mapped(k)
        write(k, buffer.iova)
        dma.dma_unmap_single(k, dev, buffer)
        unplug(k)
        assert not dma.dma_state(k).queue
        assert not hardware.iotlb(k.world).entries


class TestWritesAfterUnmap:
    def running(self, version: str, vendor: str, lazily: bool = False) -> Kernel:
        k = start(version, vendor, lazy=True) if lazily else start(version, vendor)
        self.buffer = mapped(k)
        fn = k.machine.function(NIC)
        fn.engine, fn.dma_target = "running", (self.buffer.iova,)
        assert write(k, self.buffer.iova) == "ok"
        return k

    @pytest.mark.parametrize(("vendor", "harm"), [("", True), ("amd", False), ("intel", False)])
    def test_an_iommu_is_in_the_way(self, vendor: str, harm: bool) -> None:
        k = self.running("v6.12", vendor)
        assert dma_checks.writes_after_unmap(k) == []
        dma.dma_unmap_single(k, device(k, NIC), self.buffer)
        assert [bdf for bdf, _ in dma_checks.writes_after_unmap(k)] == ([f"0000:{NIC}"] if harm else [])

    def test_until_the_flush_it_is_not(self) -> None:
        k = self.running("v6.12", "intel", lazily=True)
        dma.dma_unmap_single(k, device(k, NIC), self.buffer)
        assert len(dma_checks.writes_after_unmap(k)) == 1
        dma.fq_flush_timeout(k)
        assert dma_checks.writes_after_unmap(k) == []

    def test_silence_leaves_the_way_open(self) -> None:
        """The card is blocked, but its mapping stays in the domain that the port is in."""
        _, k = late_unmap("v6.15", "amd", SHARED)
        domain = iommu.iommu_get_domain_for_dev(device(k, "00:01.0"))
        assert domain is not None
        assert 0x1000 in domain.page_table.mappings

    def test_a_stopped_device_harms_nobody(self) -> None:
        k = self.running("v6.12", "")
        k.machine.function(NIC).engine = "off"
        dma.dma_unmap_single(k, device(k, NIC), self.buffer)
        assert dma_checks.writes_after_unmap(k) == []


def test_what_a_driver_forgot() -> None:
    k = start("v6.12", "amd")
    mapped(k)
    unbind(k)
    assert dma_checks.pending_mappings(k, device(k, NIC)) == ["buffer at 0x1000 (iommu)"]
