"""Groups, default domains and the lives of devices in the IOMMU core, and what must hold of them (kernel/iommu*.py)."""

from __future__ import annotations

import errno

import pytest
from toyiommu import ToyIommu, toy
from toykernel import Toy, choosing, device, make_kernel, rules, texts

from quiesce.kernel import boot as kernel_boot
from quiesce.kernel import iommu, iommu_checks, iommu_group, notifier, pci_probe, pci_remove
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf
from quiesce.world import UseOfDeadObject

__all__ = ["toy"]

PLAIN = """
machine plain
00:00.0 host-bridge
00:01.0 root-port bus=01 acs hotplug
00:03.0 conventional multifunction
00:03.1 conventional
01:00.0 e1000e
"""
AMD, INTEL = PLAIN + "iommu amd\n", PLAIN + "iommu intel\n"
NIC, TWIN = "01:00.0", "00:03.1"
ALL_STYLES = ["v3.6", "v4.1", "v4.2", "v5.3", "v5.8-rc6", "v5.10", "v6.1", "v6.6", "v6.12", "v7.3"]


def booted(version: str, machine: str = AMD, *drivers: Toy, changed: tuple[str, ...] = ()) -> Kernel:
    k = make_kernel(version, machine, *drivers, changed=changed)
    kernel_boot.boot(k, [driver.name for driver in drivers])
    k.start_event()
    return k


def remove(k: Kernel, bdf: str) -> None:
    pci_remove.pci_stop_and_remove_bus_device_locked(k, device(k, bdf))


def rescan(k: Kernel) -> None:
    for dev in pci_probe.pci_scan(k):
        pci_probe.pci_bus_add_device(k, dev)


def group_of(k: Kernel, bdf: str) -> iommu.IommuGroup:
    group = device(k, bdf).iommu_group
    assert isinstance(group, iommu.IommuGroup)
    return group


class TestBoot:
    def test_without_an_iommu_nothing_happens(self, toy: ToyIommu) -> None:
        k = booted("v6.12", PLAIN)
        assert iommu.groups(k) == []
        assert toy.log == []
        assert iommu.iommu_probe_device(k, device(k, NIC)) == -errno.ENODEV

    @pytest.mark.parametrize("version", ALL_STYLES)
    def test_groups(self, toy: ToyIommu, version: str) -> None:
        k = booted(version)
        assert iommu.groups(k) == [
            ["0000:00:00.0"],
            ["0000:00:01.0"],
            ["0000:00:03.0", "0000:00:03.1"],
            ["0000:01:00.0"],
        ]
        assert device(k, "00:00.2").iommu_group is None, "the IOMMU itself is served by nobody"

    def test_messages(self, toy: ToyIommu) -> None:
        found = {}
        for version in ("v4.1", "v4.3", "v5.3"):
            k = make_kernel(version, AMD)
            kernel_boot.boot(k)
            found[version] = [text for text in texts(k, "info") if "group" in text][:1]
        assert found == {
            "v4.1": [],
            "v4.3": ["iommu: Adding device 0000:00:00.0 to group 0"],
            "v5.3": ["pci 0000:00:00.0: Adding to iommu group 0"],
        }

    @pytest.mark.parametrize(
        ("version", "machine", "has_default"),
        [("v4.1", AMD, False), ("v4.2", AMD, True), ("v5.2", INTEL, False), ("v5.3", INTEL, True)],
    )
    def test_default_domains(self, toy: ToyIommu, version: str, machine: str, has_default: bool) -> None:
        group = group_of(booted(version, machine), NIC)
        assert (group.default_domain is not None) == has_default
        assert group.domain is group.default_domain

    def test_every_device_ends_in_the_default_domain_of_its_group(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        domains = [group_of(k, bdf).default_domain for bdf in ("00:00.0", "00:01.0", "00:03.0", NIC)]
        assert [domain and domain.number for domain in domains] == [0, 1, 2, 3]
        assert domains[2] is not None
        assert [dev.bdf for dev in domains[2].devices] == ["0000:00:03.0", "0000:00:03.1"]
        assert all(device(k, bdf).dma_iommu for bdf in ("00:00.0", TWIN, NIC))

    def test_dma_flag_came_with_v6_12(self, toy: ToyIommu) -> None:
        assert not device(booted("v6.11"), NIC).dma_iommu

    def test_the_release_domain_is_no_domain_of_a_group(self, toy: ToyIommu) -> None:
        for version, machine, expected in (("v6.8", INTEL, False), ("v6.9", INTEL, True), ("v6.9", AMD, False)):
            found = iommu.iommu_core(booted(version, machine)).release_domain
            assert (found is not None) == expected
        assert found is None or found.number == -1


class TestDefaultTypes:
    def test_by_command_line(self, toy: ToyIommu) -> None:
        k = make_kernel("v6.12", AMD)
        iommu.iommu_core(k).default_type = "identity"
        kernel_boot.boot(k)
        domain = group_of(k, NIC).default_domain
        assert domain is not None
        assert domain.type == "identity"
        assert not device(k, NIC).dma_iommu
        assert hardware.live_domain(k.machine, Bdf.parse(NIC)) == -1

    def test_lazy_mode(self, toy: ToyIommu) -> None:
        k = make_kernel("v6.12", AMD)
        iommu.iommu_core(k).strict = False
        kernel_boot.boot(k)
        domain = group_of(k, NIC).default_domain
        assert domain is not None
        assert domain.flush_queue

    @pytest.mark.parametrize("version", ["v5.3", "v6.12"])
    def test_the_driver_decides(self, toy: ToyIommu, version: str) -> None:
        toy.wants = {"0000:01:00.0": "identity"}
        domain = group_of(booted(version), NIC).default_domain
        assert domain is not None
        assert domain.type == "identity"

    def test_devices_of_one_group_that_disagree_get_the_default(self, toy: ToyIommu) -> None:
        toy.wants = {"0000:00:03.0": "identity", "0000:00:03.1": "dma"}
        k = make_kernel("v6.12", AMD)
        kernel_boot.boot(k)
        domain = group_of(k, TWIN).default_domain
        assert domain is not None
        assert domain.type == "dma"
        assert any("requires type identity - using default" in text for text in texts(k, "warn"))

    def test_an_identity_domain_that_can_not_be_had(self, toy: ToyIommu) -> None:
        k = make_kernel("v6.12", "00:03.0 endpoint\niommu amd\n")
        iommu.iommu_core(k).default_type = "identity"
        boot_until_iommu(k)
        with choosing(k, 0, 1):
            iommu.iommu_init(k)
        domain = group_of(k, "00:03.0").default_domain
        assert domain is not None
        assert domain.type == "dma"


def boot_until_iommu(k: Kernel) -> None:
    kernel_boot.enumerate_all(k)
    k.start_event()


class TestLife:
    @pytest.mark.parametrize("machine", [AMD, INTEL])
    @pytest.mark.parametrize("version", ALL_STYLES)
    def test_a_device_that_comes_back_finds_everything_as_it_was(
        self, toy: ToyIommu, version: str, machine: str
    ) -> None:
        k = booted(version, machine)
        before = k.world.fingerprint, iommu.groups(k)
        remove(k, NIC)
        assert len(iommu.groups(k)) == 3
        assert iommu_checks.live_entries_of_absent(k) == []
        rescan(k)
        assert (k.world.fingerprint, iommu.groups(k)) == before
        assert rules(k) == []

    @pytest.mark.parametrize(("version", "last"), [("v4.1", "DEL_DEVICE"), ("v4.2", "REMOVED_DEVICE")])
    def test_when_it_is_released(self, toy: ToyIommu, version: str, last: str) -> None:
        k = booted(version)
        dev = device(k, NIC)
        for action in notifier.ACTIONS:
            if action != "ADD_DEVICE":
                iommu.iommu_bus_notifier(k, action, dev)
            assert (dev.iommu_group is None) == (action == last or (last == "DEL_DEVICE" and action != "ADD_DEVICE"))
            if action == last:
                break

    def test_nobody_listens_before_the_driver_is_registered(self, toy: ToyIommu) -> None:
        k = make_kernel("v6.12", AMD)
        boot_until_iommu(k)
        assert toy.log == []
        assert device(k, NIC).iommu_group is None

    def test_the_number_of_a_group_is_used_again(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        remove(k, "00:00.0")
        assert [group[0] for group in iommu.groups(k)] == ["0000:00:01.0", "0000:00:03.0", "0000:01:00.0"]
        rescan(k)
        assert iommu.groups(k)[0] == ["0000:00:00.0"]

    def test_a_group_stays_as_long_as_one_device_is_in_it(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        group = group_of(k, TWIN)
        remove(k, "00:03.0")
        assert group.exists
        assert [dev.bdf for dev in group.devices] == ["0000:00:03.1"]
        remove(k, TWIN)
        assert not group.exists

    def test_a_second_device_joins_the_domain_the_group_is_in(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        remove(k, "00:03.0")
        toy.log.clear()
        rescan(k)
        assert device(k, "00:03.0").iommu_group is group_of(k, TWIN)
        assert toy.log[0] == "attach 0000:00:03.0 dma"

    def test_v6_15_clears_the_dma_flag(self, toy: ToyIommu) -> None:
        for version, expected in (("v6.14", True), ("v6.15", False)):
            k = booted(version)
            dev = device(k, NIC)
            iommu.iommu_release_device(k, dev)
            assert dev.dma_iommu == expected

    def test_v6_9_blocks_a_vtd_device_before_it_is_released(self, toy: ToyIommu) -> None:
        for version, expected in (("v6.8", False), ("v6.9", True)):
            k = booted(version, INTEL)
            toy.log.clear()
            remove(k, NIC)
            assert ("attach 0000:01:00.0 blocked" in toy.log) == expected
            assert hardware.live_domain(k.machine, Bdf.parse(NIC)) is None

    def test_release_messages(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        remove(k, NIC)
        assert "pci 0000:01:00.0: Removing from iommu group 3" in texts(k, "info")

    def test_a_device_that_was_never_served_is_left_alone(self, toy: ToyIommu) -> None:
        for version in ("v4.1", "v6.12"):
            k = booted(version)
            toy.log.clear()
            iommu.iommu_release_device(k, device(k, "00:00.2"))
            iommu_group.iommu_group_remove_device(k, device(k, "00:00.2"))
            assert toy.log == []

    def test_v5_8_rc1_let_the_driver_work_on_a_domain_that_was_gone(self, toy: ToyIommu) -> None:
        toy.touches_domain_at_release = True
        remove(booted("v5.8-rc6"), NIC)
        k = booted("v5.8-rc5")
        with pytest.raises(UseOfDeadObject, match="domain/3"):
            remove(k, NIC)


class TestFailures:
    def test_a_refused_device_has_no_group(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        remove(k, NIC)
        toy.refuses = {"0000:01:00.0"}
        rescan(k)
        dev = device(k, NIC)
        assert dev.iommu_group is None
        assert not dev.iommu_attached
        assert len(iommu.groups(k)) == 3

    @pytest.mark.parametrize("version", ["v4.1", "v5.3", "v6.12"])
    def test_no_memory_for_the_membership_leaves_no_group_behind(self, toy: ToyIommu, version: str) -> None:
        k = make_kernel(version, "00:03.0 endpoint\niommu amd\n")
        boot_until_iommu(k)
        picks = (1,) if version != "v5.3" else (0, 1)
        with choosing(k, *picks):
            iommu.iommu_init(k)
        assert iommu.groups(k) == []
        assert device(k, "00:03.0").iommu_group is None
        assert not iommu.IommuGroup.get(k.world, "group/0").exists
        assert not iommu.IommuDomain.get(k.world, "domain/0").exists

    def test_no_memory_for_a_default_domain(self, toy: ToyIommu) -> None:
        k = make_kernel("v6.12", "00:03.0 endpoint\niommu amd\n")
        boot_until_iommu(k)
        with choosing(k, 0, 1):
            iommu.iommu_init(k)
        assert group_of(k, "00:03.0").default_domain is None
        assert not device(k, "00:03.0").dma_iommu

    def test_joining_a_group_whose_domain_refuses(self, toy: ToyIommu) -> None:
        k = booted("v5.3")
        remove(k, TWIN)
        toy.refuses = {"0000:00:03.1"}
        rescan(k)
        assert device(k, TWIN).iommu_group is None
        assert [dev.bdf for dev in group_of(k, "00:03.0").devices] == ["0000:00:03.0"]


class TestReferences:
    def test_a_holder_keeps_the_group(self, toy: ToyIommu) -> None:
        for version in ("v6.5", "v6.6"):
            k = booted(version)
            group = iommu.iommu_group_get(k, device(k, NIC), "user")
            assert group is not None
            remove(k, NIC)
            assert group.exists
            assert (group.default_domain is None) == (version == "v6.6")
            iommu.iommu_group_put(k, group, "user")
            assert not group.exists

    def test_no_group_no_reference(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        assert iommu.iommu_group_get(k, device(k, "00:00.2"), "user") is None

    def test_a_holder_that_is_gone_leaks(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        group, dev = group_of(k, NIC), device(k, NIC)
        iommu.iommu_group_ref_get(group, dev)
        assert iommu_checks.leaked_group_references(k) == []
        remove(k, NIC)
        expected = "group 3 has no device and is held by pci/0000:01:00.0, which is gone"
        assert iommu_checks.leaked_group_references(k) == [expected]

    def test_a_group_kept_on_purpose_is_no_leak(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        iommu.iommu_group_ref_get(group_of(k, NIC), "static:0000:01:00.0")
        remove(k, NIC)
        assert iommu_checks.leaked_group_references(k) == []
        iommu.iommu_group_ref_get(iommu.IommuGroup.get(k.world, "group/3"), "probe")
        assert len(iommu_checks.leaked_group_references(k)) == 1

    def test_the_last_device_leaves_a_group_that_is_owned(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        group = iommu.iommu_group_ref_get(group_of(k, NIC), "vfio")
        assert iommu.iommu_group_claim_dma_owner(k, group, "vfio") == 0
        iommu.iommu_release_device(k, device(k, NIC))
        assert rules(k) == ["iommu/emptied-while-owned"]


class TestChecks:
    def test_an_entry_that_outlives_its_device(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        remove(k, NIC)
        dte = hardware.amd_dte(k.world, Bdf.parse(NIC))
        dte.valid = dte.translated = True
        dte.domain = 3
        text = "the entry of 0000:01:00.0"
        assert iommu_checks.live_entries_of_absent(k) == [f"{text} still leads to domain 3, no device uses it"]
        assert iommu_checks.dangling_domains(k) == [f"{text} leads to domain 3, which has been freed"]
        dte.translated = False
        assert iommu_checks.live_entries_of_absent(k) == [f"{text} still passes all, no device uses it"]
        assert iommu_checks.dangling_domains(k) == []

    @pytest.mark.parametrize("machine", [PLAIN, AMD, INTEL])
    def test_a_running_system_breaks_nothing(self, toy: ToyIommu, machine: str) -> None:
        k = booted("v6.12", machine)
        assert iommu_checks.live_entries_of_absent(k) == []
        assert iommu_checks.dangling_domains(k) == []
        assert iommu_checks.isolation_breaches(k) == []
        assert iommu_checks.stale_translations(k) == []
        assert iommu_checks.leaked_group_references(k) == []

    def test_stale_translations_count_without_a_flush_queue_only(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        hardware.iotlb(k.world).entries.add((3, 0x1000))
        assert iommu_checks.stale_translations(k) == ["domain 3 still translates 0x1000, which is not mapped any more"]
        domain = group_of(k, NIC).default_domain
        assert domain is not None
        domain.flush_queue = True
        assert iommu_checks.stale_translations(k) == []

    def test_a_freed_domain_takes_its_translations_along(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        domain = group_of(k, NIC).default_domain
        assert domain is not None
        domain.page_table.mappings.add(7)
        hardware.iotlb(k.world).entries.add((domain.number, 7))
        remove(k, NIC)
        assert hardware.stale_translations(k.machine) == ()
        assert not hardware.page_table(k.world, 3).mappings

    def test_domain_of_a_device(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        assert iommu.iommu_get_domain_for_dev(device(k, NIC)) is group_of(k, NIC).default_domain
        assert iommu.iommu_get_domain_for_dev(device(k, "00:00.2")) is None
        assert iommu.iommu_get_dma_domain(device(k, "00:00.2")) is None


class TestType:
    def store(self, k: Kernel, bdf: str, text: str) -> int:
        return iommu.group_type_store(k, group_of(k, bdf), text)

    def test_not_before_v5_11(self, toy: ToyIommu) -> None:
        assert self.store(booted("v5.10"), NIC, "identity") == -errno.EACCES

    @pytest.mark.parametrize("version", ["v5.11", "v6.12"])
    def test_change_and_back(self, toy: ToyIommu, version: str) -> None:
        k = booted(version)
        old = group_of(k, NIC).default_domain
        assert self.store(k, NIC, "identity") == 0
        new = group_of(k, NIC).default_domain
        assert new is not None
        assert new.type == "identity"
        assert group_of(k, NIC).domain is new
        assert old is not None
        assert not old.exists
        assert self.store(k, NIC, "auto") == 0
        assert group_of(k, NIC).default_domain is old, "the lowest free number again"

    def test_nonsense(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        assert self.store(k, NIC, "fast") == -errno.EINVAL

    def test_a_group_of_two(self, toy: ToyIommu) -> None:
        assert self.store(booted("v6.3"), TWIN, "identity") == -errno.EINVAL
        k = booted("v6.4")
        assert self.store(k, TWIN, "identity") == 0
        assert toy.log.count("attach 0000:00:03.0 identity") == 1

    @pytest.mark.parametrize(("version", "error"), [("v6.3", errno.EBUSY), ("v6.4", errno.EPERM)])
    def test_a_bound_driver_is_in_the_way(self, toy: ToyIommu, version: str, error: int) -> None:
        k = booted(version, AMD, Toy("toy"))
        assert self.store(k, NIC, "identity") == -error

    def test_a_flush_queue_can_be_added_under_a_driver(self, toy: ToyIommu) -> None:
        k = booted("v6.12", AMD, Toy("toy"))
        domain = group_of(k, NIC).default_domain
        assert domain is not None
        assert self.store(k, NIC, "DMA-FQ") == 0
        assert domain.flush_queue
        assert group_of(k, NIC).default_domain is domain

    def test_the_driver_of_the_iommu_may_insist(self, toy: ToyIommu) -> None:
        toy.wants = {"0000:01:00.0": "identity"}
        k = booted("v6.12")
        assert self.store(k, NIC, "DMA") == -errno.EINVAL
        assert self.store(k, NIC, "identity") == 0

    def test_while_user_space_has_it(self, toy: ToyIommu) -> None:
        k = booted("v6.1")
        domain = iommu.iommu_domain_alloc(k)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, group_of(k, NIC)) == 0
        assert self.store(k, NIC, "identity") == -errno.EBUSY

    def test_a_new_domain_that_refuses(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        old = group_of(k, TWIN).default_domain
        toy.refuses = {"0000:00:03.1"}
        assert self.store(k, TWIN, "identity") == -errno.EBUSY
        assert group_of(k, TWIN).default_domain is old
        assert [domain.type for domain in toy.attached.values()] == ["dma"] * 5

    def test_no_memory(self, toy: ToyIommu) -> None:
        k = booted("v6.12")
        with choosing(k, 1):
            assert self.store(k, NIC, "identity") == -errno.ENOMEM


def test_virtual_functions_come_and_go_with_their_groups(toy: ToyIommu) -> None:
    from quiesce.kernel import iov

    k = booted("v6.12", "00:01.0 root-port bus=01 acs\n01:00.0 igb sriov=2\niommu intel\n")
    mark = k.world.mark()
    dev: PciDev = device(k, NIC)
    assert iov.pci_enable_sriov(k, dev, 2) == 0
    assert len(iommu.groups(k)) == 4
    iov.pci_disable_sriov(k, dev)
    assert len(iommu.groups(k)) == 2
    assert [change.path for change in k.world.diff(mark) if not change.path.startswith("hw/")] == []


PHANTOM = """
machine phantom
00:01.0 root-port bus=01 acs
01:00.0 pcie-to-pci bus=02
02:01.0 conventional
02:02.0 conventional
iommu amd
alias 02:01.0-02:02.7 -> 02:00.0
"""


class TestPhantomAlias:
    """Firmware names an alias that no device has; with the real driver."""

    def test_the_release_candidate_does_not_boot(self) -> None:
        with pytest.raises(Crash, match="iommu/alias-without-device"):
            booted("v3.6-rc7", PHANTOM)

    @pytest.mark.parametrize(
        ("version", "breaches"), [("v3.6", 1), ("v3.8", 0), ("v3.17", 0), ("v4.1", 0), ("v5.10", 0), ("v7.3", 0)]
    )
    def test_who_can_be_told_apart(self, version: str, breaches: int) -> None:
        assert len(iommu_checks.isolation_breaches(booted(version, PHANTOM))) == breaches
