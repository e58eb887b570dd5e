"""The Intel IOMMU driver by generation: what is known of a slot, when it is forgotten, and the proposals for the late
unmap (kernel/intel_iommu.py, kernel/intel_domain.py).
"""

from __future__ import annotations

import pytest
from dmatest import ALONE, NIC, SHARED, allocated, broken, hold, let_go, mapped, replug, start, unbind, unplug, write
from toykernel import Toy, device, make_kernel, texts

from quiesce.drivers import models
from quiesce.kernel import boot as kernel_boot
from quiesce.kernel import dma, intel_domain, intel_iommu, iommu, iommu_checks, pci_sysfs
from quiesce.kernel.intel_domain import DeviceDomainInfo
from quiesce.kernel.iommu_group import UNMANAGED, IommuDomain
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import interrupts
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf
from quiesce.world import Recording

GPU = """
machine gpu
00:00.0 host-bridge
00:02.0 gpu
iommu intel
"""

BEHIND_A_BRIDGE = """
machine bridged
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
01:00.0 pcie-to-pci bus=02
02:01.0 conventional
02:02.0 conventional
iommu intel
"""

STALE = ("v5.3-rc1", "v5.3-rc3")
GENERATIONS = ("v3.5", "v3.6", "v3.17", "v3.18", "v4.1", "v5.2", *STALE, "v5.3", "v5.7", "v5.8-rc1", "v5.10", "v5.11")
NEWER = ("v5.18", "v5.19", "v6.1", "v6.9", "v6.11", "v6.12", "v6.15", "v7.3")


def live(k: Kernel, bdf: str = NIC) -> int | None:
    """The domain that requests with this id are translated by, None when they are blocked."""
    return hardware.live_domain(k.machine, Bdf.parse(bdf))


def listed(k: Kernel) -> list[str]:
    """The slots on the driver's list."""
    return [info.bdf for info in intel_domain.device_domain_list(k)]


class TestGenerations:
    @pytest.mark.parametrize(
        ("version", "after_unbind", "after_removal"),
        [
            ("v3.6", False, False),
            ("v3.13", False, False),
            ("v3.17", False, False),
            ("v3.18", True, False),
            ("v4.1", True, False),
            ("v5.2", True, False),
            ("v5.3-rc1", True, True),
            ("v5.3-rc3", True, True),
            ("v5.3-rc4", True, False),
            ("v5.8", True, False),
            ("v6.1", True, False),
            ("v6.9", True, False),
            ("v7.3", True, False),
        ],
    )
    def test_when_the_device_is_blocked(self, version: str, after_unbind: bool, after_removal: bool) -> None:
        k = start(version, "intel")
        mapped(k)
        unbind(k)
        assert (live(k) is not None) == after_unbind
        unplug(k)
        assert (live(k) is not None) == after_removal
        assert (f"0000:{NIC}" in listed(k)) == after_removal
        assert bool(iommu_checks.live_entries_of_absent(k)) == after_removal

    @pytest.mark.parametrize("version", [*GENERATIONS, *NEWER])
    @pytest.mark.parametrize("machine", [ALONE, SHARED])
    @pytest.mark.parametrize("held", [False, True])
    def test_replug(self, version: str, machine: str, held: bool) -> None:
        """Never a device without DMA, except where the list remembers the slot: there always."""
        k = start(version, "intel", machine)
        mapped(k)
        dev = hold(k) if held else None
        unplug(k)
        new = replug(k)
        if version in STALE:
            assert new.iommu_priv is None
            assert dma.dma_map_single(k, new, "scratch page") is None
        else:
            assert write(k, mapped(k, dev=new).iova) == "ok"
        if dev is not None:
            let_go(k, dev)
        assert broken(k) == (["iommu/device-without-data"] if version in STALE else [])

    @pytest.mark.parametrize("version", [*GENERATIONS, *NEWER])
    def test_the_list_names_nobody_who_is_gone(self, version: str) -> None:
        k = start(version, "intel")
        mapped(k)
        assert intel_iommu.dangling_devices(k) == []
        unplug(k)
        assert bool(intel_iommu.dangling_devices(k)) == (version in STALE)
        replug(k)
        assert intel_iommu.dangling_devices(k) == [], "the entry is given to the new device"

    @pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.2"])
    def test_a_domain_of_the_drivers_own_is_made_with_the_first_mapping(self, version: str) -> None:
        k = start(version, "intel")
        assert live(k) is None
        buffer = mapped(k)
        assert live(k) is not None
        assert buffer.domain is not None
        number = buffer.domain.number
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        unplug(k)
        assert not IommuDomain.get(k.world, f"domain/{number}").exists

    @pytest.mark.parametrize(("version", "ready"), [("v5.2", False), ("v5.3", True), ("v5.8", True), ("v6.12", True)])
    def test_the_core_gives_a_default_domain_from_v53_on(self, version: str, ready: bool) -> None:
        assert (live(start(version, "intel")) is not None) == ready

    @pytest.mark.parametrize(("version", "listed_without_domain"), [("v5.18", False), ("v5.19", True)])
    def test_the_data_is_made_at_attach_or_at_probe(self, version: str, listed_without_domain: bool) -> None:
        k = start(version, "intel")
        own = device(k, NIC).iommu_group
        iommu.iommu_detach_group(k, own.domain, own)
        intel_iommu.detach_dev(k, own.default_domain, device(k, NIC))
        assert (f"0000:{NIC}" in listed(k)) == listed_without_domain

    def test_v69_blocks_the_device_before_it_is_released(self) -> None:
        for version, used in (("v6.8", False), ("v6.9", True)):
            k = start(version, "intel")
            assert (iommu.iommu_core(k).release_domain is not None) == used
            unplug(k)
            assert live(k) is None

    def test_interrupts_are_remapped(self) -> None:
        k = start("v6.12", "intel")
        assert interrupts.remaps(k.machine, k.machine.function(NIC))


class TestSeed004:
    """An i915 with a file open is removed through sysfs, found again, and the file closed."""

    def gpu(self, version: str, changed: tuple[str, ...] = ()) -> Kernel:
        drivers = models(["i915"]).values()
        k = make_kernel(version, GPU, *drivers, changed=changed)
        kernel_boot.boot(k, ["i915"])
        k.start_event()
        return k

    def operate(self, k: Kernel, name: str, dev: PciDev) -> None:
        k.start_event()
        operation = next(item for item in k.drivers["i915"].operations() if item.name == name)
        assert operation.ready(k, dev)
        operation.run(k, dev)

    def test_rc1_loses_the_device_at_replug(self) -> None:
        k = self.gpu("v5.3-rc1")
        dev = device(k, "00:02.0")
        assert dev.driver == "i915"
        pci_sysfs.remove_store(k, dev)
        k.start_event()
        pci_sysfs.rescan_store(k)
        assert device(k, "00:02.0").driver is None
        assert "i915 0000:00:02.0: Failed to setup scratch page" in texts(k)

    @pytest.mark.parametrize("version", ["v5.2", "v5.3-rc4", "v5.3", "v5.8", "v6.12"])
    def test_others_do_not(self, version: str) -> None:
        k = self.gpu(version)
        pci_sysfs.remove_store(k, device(k, "00:02.0"))
        pci_sysfs.rescan_store(k)
        assert device(k, "00:02.0").driver == "i915"

    def test_the_fix_of_rc4_is_fatal_to_who_closes_late(self) -> None:
        k = self.gpu("v5.3-rc4")
        dev = device(k, "00:02.0")
        self.operate(k, "gpu-open", dev)
        pci_sysfs.remove_store(k, dev)
        with pytest.raises(Crash) as crash:
            self.operate(k, "gpu-close", dev)
        assert crash.value.finding.rule == "iommu/unmap-without-domain"
        assert crash.value.finding.function == "intel_unmap"

    @pytest.mark.parametrize("changed", [(), ("vtd-repopulate-at-replug",)])
    def test_before_it_closing_late_works(self, changed: tuple[str, ...]) -> None:
        k = self.gpu("v5.3-rc1", changed)
        dev = device(k, "00:02.0")
        self.operate(k, "gpu-open", dev)
        pci_sysfs.remove_store(k, dev)
        self.operate(k, "gpu-close", dev)
        assert broken(k) == []
        assert dma.mappings(k) == ()

    def test_the_first_proposal_cures_both(self) -> None:
        """As its author found. What the maintainers feared shows in between: the list names memory that is gone."""
        k = self.gpu("v5.3-rc1", ("vtd-repopulate-at-replug",))
        dev = device(k, "00:02.0")
        self.operate(k, "gpu-open", dev)
        pci_sysfs.remove_store(k, dev)
        pci_sysfs.rescan_store(k)
        new = next(item for item in k.system.devices if item.bdf == "0000:00:02.0")
        assert new is not dev
        assert new.driver == "i915"
        self.operate(k, "gpu-close", dev)
        assert broken(k) == []
        pci_sysfs.remove_store(k, new)
        assert intel_iommu.dangling_devices(k) != []


class TestProposals:
    def late(self, version: str, *changed: str, machine: str = ALONE) -> tuple[Kernel, PciDev]:
        """A removed device with a buffer and a ring still mapped."""
        k = start(version, "intel", machine, changed)
        dev = hold(k)
        self.buffer, self.ring = mapped(k), allocated(k)
        unplug(k)
        k.start_event()
        return k, dev

    def unmap(self, k: Kernel, dev: PciDev) -> None:
        dma.dma_unmap_single(k, dev, self.buffer)
        dma.dma_free_coherent(k, dev, self.ring)

    @pytest.mark.parametrize("version", ["v4.1", "v5.2", "v5.3", "v5.7"])
    def test_a_warning_instead_of_a_bug_leaks(self, version: str) -> None:
        k, dev = self.late(version, "vtd-late-unmap-warns")
        self.unmap(k, dev)
        assert broken(k) == ["leak/dma-mapping"]
        assert texts(k, "WARN")[0].endswith("intel_unmap")

    @pytest.mark.parametrize("version", ["v4.1", "v5.2", "v5.3", "v5.7"])
    @pytest.mark.parametrize("machine", [ALONE, SHARED])
    def test_unmapping_at_removal_leaves_nothing_to_do(self, version: str, machine: str) -> None:
        k, dev = self.late(version, "vtd-unmap-at-removal", machine=machine)
        assert live(k) is None
        self.unmap(k, dev)
        assert broken(k) == []
        assert write(k, 0x1000).startswith("fault:")

    @pytest.mark.parametrize("version", ["v4.1", "v5.2", "v5.3", "v5.7", "v5.8", "v5.10"])
    @pytest.mark.parametrize("machine", [ALONE, SHARED])
    def test_deferred_teardown_waits_for_the_last_unmap(self, version: str, machine: str) -> None:
        k, dev = self.late(version, "vtd-defer-teardown", machine=machine)
        assert live(k) is not None
        dma.dma_unmap_single(k, dev, self.buffer)
        assert live(k) is not None
        dma.dma_free_coherent(k, dev, self.ring)
        assert live(k) is None
        assert broken(k) == []
        assert iommu_checks.leaked_group_references(k) == []
        let_go(k, dev)
        assert intel_iommu.dangling_devices(k) == []

    def test_deferred_teardown_with_nothing_mapped_is_the_ordinary_one(self) -> None:
        k = start("v5.3", "intel", changed=["vtd-defer-teardown"])
        unplug(k)
        assert live(k) is None

    def test_deferred_teardown_brings_the_old_trouble_back(self) -> None:
        """Whoever plugs the device in again before the file is closed finds the slot taken, as in v5.3-rc1."""
        k, _ = self.late("v5.3", "vtd-defer-teardown")
        new = replug(k)
        assert dma.dma_map_single(k, new, "scratch page") is None
        assert broken(k) == ["iommu/device-without-data"]

    @pytest.mark.parametrize("proposal", ["vtd-late-unmap-warns", "vtd-unmap-at-removal", "vtd-defer-teardown"])
    def test_in_time_none_of_them_changes_anything(self, proposal: str) -> None:
        k = start("v5.3", "intel", changed=[proposal])
        buffer, ring = mapped(k), allocated(k)
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        dma.dma_free_coherent(k, device(k, NIC), ring)
        unplug(k)
        assert live(k) is None
        assert write(k, mapped(k, dev=replug(k)).iova) == "ok"
        assert broken(k) == []


class TestAliases:
    @pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.3", "v6.12"])
    def test_devices_behind_a_bridge_share_domain_and_entry(self, version: str) -> None:
        k = make_kernel(version, BEHIND_A_BRIDGE, Toy("toy"))
        kernel_boot.boot(k, ["toy"])
        one, other = (mapped(k, dev=device(k, bdf)) for bdf in ("02:01.0", "02:02.0"))
        assert one.domain is other.domain
        assert one.iova != other.iova
        assert write(k, one.iova, "02:01.0") == write(k, other.iova, "02:02.0") == "ok"

    def test_unbinding_one_cuts_off_the_other(self) -> None:
        """Nothing counts the users of the bridge's entry; the driver says so itself. Up to v3.17 an unbind will do."""
        k = make_kernel("v3.6", BEHIND_A_BRIDGE, Toy("toy"))
        kernel_boot.boot(k, ["toy"])
        one, other = (mapped(k, dev=device(k, bdf)) for bdf in ("02:01.0", "02:02.0"))
        dma.dma_unmap_single(k, device(k, "02:01.0"), one)
        pci_sysfs.unbind_store(k, "toy", device(k, "02:01.0"))
        assert write(k, other.iova, "02:02.0").startswith("fault:")

    def test_an_entry_that_is_present_is_left_alone(self) -> None:
        k = start("v6.12", "intel")
        dev = device(k, NIC)
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        context = hardware.vtd_context(k.world, dev.hw.bdf)
        intel_iommu.detach_dev(k, dev.iommu_group.domain, dev)
        context.present, context.domain = True, 77
        assert intel_iommu.attach_dev(k, domain, dev) == 0
        assert context.domain == 77


class TestUserSpace:
    @pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.2", "v5.3", "v5.10", "v6.1", "v6.12"])
    def test_user_space_gets_the_device_and_gives_it_back(self, version: str) -> None:
        k = start(version, "intel")
        mapped(k)
        unbind(k)
        own = device(k, NIC).iommu_group
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, own) == 0
        domain.page_table.mappings.add(0x5000)
        assert write(k, 0x5000) == "ok"
        iommu.iommu_detach_group(k, domain, own)
        iommu.iommu_domain_free(k, domain)
        assert write(k, 0x5000).startswith("fault:")
        assert pci_sysfs.bind_store(k, "toy", device(k, NIC)) == 0
        assert write(k, mapped(k).iova) == "ok"

    @pytest.mark.parametrize("version", ["v5.19", "v6.12", "v7.3"])
    def test_an_owned_group_is_blocked(self, version: str) -> None:
        k = start(version, "intel")
        buffer = mapped(k)
        unbind(k)
        own = device(k, NIC).iommu_group
        assert iommu.iommu_group_claim_dma_owner(k, own, "user") == 0
        assert write(k, buffer.iova).startswith("fault:")
        iommu.iommu_group_release_dma_owner(k, own)
        assert write(k, buffer.iova) == "ok"

    @pytest.mark.parametrize(("version", "answer"), [("v3.13", 0), ("v3.17", -1), ("v6.12", -1)])
    @pytest.mark.parametrize("relaxable", [False, True])
    def test_reserved_memory_ties_a_device_down(self, version: str, answer: int, relaxable: bool) -> None:
        kind = "gpu" if relaxable else "e1000e"
        text = f"machine m\n00:02.0 {kind}\niommu intel\nreserved 00:02.0 0x7f000000-0x7f0fffff\n"
        k = make_kernel(version, text)
        kernel_boot.boot(k)
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        assert write(k, 0x7F000000, "00:02.0") == "ok"
        k.start_event()
        expected = 0 if relaxable else answer
        assert iommu.iommu_attach_group(k, domain, device(k, "00:02.0").iommu_group) == expected
        assert bool(texts(k, "warn")) == (expected != 0)


class TestCorners:
    def test_without_memory_there_is_no_data(self) -> None:
        k = make_kernel("v6.12", ALONE + "iommu intel\n")
        kernel_boot.enumerate_all(k)
        intel_iommu.init(k)
        k.system.faults_left = 1
        k.world.recording = Recording(forced=(1,))
        assert intel_iommu.probe_device(k, device(k, NIC)) == -12
        k.world.recording = None
        assert listed(k) == []

    def test_without_memory_there_is_no_domain(self) -> None:
        k = start("v4.1", "intel")
        k.system.faults_left = 1
        k.world.recording = Recording(forced=(0, 1))
        assert dma.dma_map_single(k, device(k, NIC), "buffer") is None
        k.world.recording = None
        assert live(k) is None
        assert broken(k) == [], "a failed allocation is no lost pointer"

    def test_a_device_that_no_unit_covers(self) -> None:
        k = make_kernel("v6.12", ALONE + "iommu intel\n")
        machine_dmar = k.machine.dmar
        assert machine_dmar is not None
        k.machine.dmar = type(machine_dmar)(())
        kernel_boot.boot(k)
        assert device(k, NIC).iommu_group is None
        assert mapped(k).how == "direct"

    def test_an_entry_is_never_taken_apart_through_a_dead_device(self) -> None:
        """Sometimes in v5.3-rc1, if the domain goes at last."""
        k = start("v5.3-rc1", "intel")
        domain = device(k, NIC).iommu_group.default_domain
        unplug(k)
        intel_iommu.domain_free(k, domain)
        assert broken(k) == ["memory/dangling-device"]
        k = start("v5.3", "intel")
        domain = device(k, NIC).iommu_group.default_domain
        unplug(k)
        assert broken(k) == []
        assert not domain.exists

    def test_the_next_kernel_starts_afresh(self) -> None:
        k = start("v5.3", "intel")
        intel_iommu.init(k)
        assert listed(k) == []
        assert not DeviceDomainInfo.get(k.world, f"vtd/info/0000:{NIC}").exists
