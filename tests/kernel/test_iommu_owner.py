"""Who may use a group's DMA, and whole groups in domains (kernel/iommu_owner.py)."""

from __future__ import annotations

import errno

import pytest
from toyiommu import ToyIommu, toy
from toykernel import Toy, choosing, device, make_kernel, rules

from quiesce.kernel import base_dd, iommu
from quiesce.kernel import boot as kernel_boot
from quiesce.kernel.base_core import EPROBE_DEFER
from quiesce.kernel.kernel import Kernel
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf

__all__ = ["toy"]

MACHINE = """
machine owners
00:01.0 root-port bus=01
01:00.0 e1000e
01:00.1 e1000e
iommu amd
"""
PORT, ONE, TWO = "00:01.0", "01:00.0", "01:00.1"


def booted(version: str = "v6.12", *drivers: Toy, changed: tuple[str, ...] = (), machine: str = MACHINE) -> Kernel:
    k = make_kernel(version, machine, *drivers, changed=changed)
    kernel_boot.boot(k, [driver.name for driver in drivers])
    k.start_event()
    return k


def group_of(k: Kernel) -> iommu.IommuGroup:
    group = device(k, ONE).iommu_group
    assert isinstance(group, iommu.IommuGroup)
    return group


def passes(k: Kernel, bdf: str) -> int | None:
    return hardware.live_domain(k.machine, Bdf.parse(bdf))


class TestKernelDrivers:
    def test_count(self, toy: ToyIommu) -> None:
        k = booted()
        for dev in (device(k, ONE), device(k, TWO)):
            assert iommu.iommu_device_use_default_domain(k, dev) == 0
        assert group_of(k).owner_cnt == 2
        for dev in (device(k, ONE), device(k, TWO)):
            iommu.iommu_device_unuse_default_domain(k, dev)
        assert group_of(k).owner_cnt == 0
        assert rules(k) == []

    def test_one_too_many(self, toy: ToyIommu) -> None:
        k = booted()
        iommu.iommu_device_unuse_default_domain(k, device(k, ONE))
        assert rules(k) == ["iommu/owner-underflow"]

    def test_no_group_no_question(self, toy: ToyIommu) -> None:
        k = booted()
        dev = device(k, "00:00.2")
        assert iommu.iommu_device_use_default_domain(k, dev) == 0
        iommu.iommu_device_unuse_default_domain(k, dev)
        assert rules(k) == []

    @pytest.mark.parametrize(("version", "answer"), [("v6.14", 0), ("v6.15", -EPROBE_DEFER)])
    def test_before_the_default_domain_is_there(self, toy: ToyIommu, version: str, answer: int) -> None:
        k = booted(version)
        group = group_of(k)
        group.default_domain = group.domain = None
        assert iommu.iommu_device_use_default_domain(k, device(k, ONE)) == answer

    def test_refused_while_owned(self, toy: ToyIommu) -> None:
        k = booted()
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == 0
        assert iommu.iommu_device_use_default_domain(k, device(k, TWO)) == -errno.EBUSY

    def test_an_identity_domain_stands_for_the_default_one(self, toy: ToyIommu) -> None:
        k = booted()
        group = group_of(k)
        for kind, answer in (("identity", 0), ("unmanaged", -errno.EBUSY)):
            group.owner_cnt = 1
            assert group.default_domain is not None
            group.default_domain.type = "identity"
            group.domain = iommu.iommu_domain_alloc(k, kind)
            assert iommu.iommu_device_use_default_domain(k, device(k, ONE)) == answer

    def test_the_driver_core_asks(self, toy: ToyIommu) -> None:
        """A driver that does not manage DMA itself is refused in a group that user space owns; v5.18 bound it."""
        for version, answer in (("v5.19", -errno.EBUSY), ("v6.12", -errno.EBUSY)):
            k = booted(version, Toy("toy"))
            for bdf in (PORT, ONE, TWO):
                base_dd.device_release_driver(k, device(k, bdf))
            assert group_of(k).owner_cnt == 0
            assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == 0
            assert base_dd.device_driver_attach(k, "toy", device(k, ONE)) == answer
            iommu.iommu_group_release_dma_owner(k, group_of(k))
            assert base_dd.device_driver_attach(k, "toy", device(k, ONE)) == 0


class TestOwners:
    def test_claim_blocks_and_release_restores(self, toy: ToyIommu) -> None:
        k = booted()
        group = group_of(k)
        default = group.default_domain
        assert default is not None
        assert iommu.iommu_group_claim_dma_owner(k, group, "vfio") == 0
        assert group.domain is group.blocking_domain
        assert passes(k, ONE) not in (None, default.number)
        assert iommu.iommu_group_dma_owner_claimed(k, group)
        iommu.iommu_group_release_dma_owner(k, group)
        assert group.domain is default
        assert passes(k, ONE) == default.number
        assert not iommu.iommu_group_dma_owner_claimed(k, group)

    def test_the_first_version_detached(self, toy: ToyIommu) -> None:
        k = booted("v5.19", changed=("-0286300e6045",))
        group = group_of(k)
        assert iommu.iommu_group_claim_dma_owner(k, group, "vfio") == 0
        assert group.domain is None
        assert group.blocking_domain is None
        assert passes(k, ONE) is None
        domain = iommu.iommu_domain_alloc(k)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, group) == 0
        iommu.iommu_detach_group(k, domain, group)
        assert group.domain is None
        iommu.iommu_group_release_dma_owner(k, group)
        assert group.domain is group.default_domain

    def test_refused_while_drivers_use_it(self, toy: ToyIommu) -> None:
        k = booted("v6.12", Toy("toy"))
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == -errno.EPERM

    def test_a_driver_that_manages_dma_is_not_in_the_way(self, toy: ToyIommu) -> None:
        k = booted("v6.12", Toy("toy", driver_managed_dma=True))
        assert group_of(k).owner_cnt == 0
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == 0

    def test_refused_in_a_foreign_domain(self, toy: ToyIommu) -> None:
        k = booted()
        group_of(k).domain = iommu.iommu_domain_alloc(k)
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == -errno.EBUSY

    def test_refused_twice(self, toy: ToyIommu) -> None:
        k = booted()
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == 0
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == -errno.EPERM

    def test_no_memory_for_the_blocking_domain(self, toy: ToyIommu) -> None:
        k = booted()
        with choosing(k, 1):
            assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == -errno.ENOMEM
        assert group_of(k).owner_cnt == 0

    def test_an_attach_that_fails(self, toy: ToyIommu) -> None:
        k = booted()
        toy.refuses = {"0000:01:00.1"}
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == -errno.EBUSY
        assert group_of(k).owner is None

    def test_an_empty_group(self, toy: ToyIommu) -> None:
        k = booted()
        group = iommu.iommu_group_alloc(k)
        assert iommu.iommu_group_claim_dma_owner(k, group, "vfio") == -errno.ENODEV

    def test_release_without_claim(self, toy: ToyIommu) -> None:
        k = booted()
        iommu.iommu_group_release_dma_owner(k, group_of(k))
        assert rules(k) == ["iommu/owner-underflow"]

    def test_a_default_domain_that_refuses_is_reported(self, toy: ToyIommu) -> None:
        k = booted()
        assert iommu.iommu_group_claim_dma_owner(k, group_of(k), "vfio") == 0
        toy.refuses = {"0000:01:00.0"}
        iommu.iommu_group_release_dma_owner(k, group_of(k))
        assert any("__iommu_group_set_core_domain" in str(item) for item in k.outputs)


class TestDeviceOwners:
    def test_one_owner_for_several_devices(self, toy: ToyIommu) -> None:
        k = booted()
        for bdf in (ONE, TWO):
            assert iommu.iommu_device_claim_dma_owner(k, device(k, bdf), "iommufd") == 0
        assert iommu.iommu_device_claim_dma_owner(k, device(k, ONE), "other") == -errno.EPERM
        iommu.iommu_device_release_dma_owner(k, device(k, ONE))
        assert group_of(k).owner == "iommufd"
        iommu.iommu_device_release_dma_owner(k, device(k, TWO))
        assert group_of(k).owner is None
        assert group_of(k).domain is group_of(k).default_domain

    def test_no_group(self, toy: ToyIommu) -> None:
        k = booted()
        assert iommu.iommu_device_claim_dma_owner(k, device(k, "00:00.2"), "iommufd") == -errno.ENODEV
        iommu.iommu_device_release_dma_owner(k, device(k, "00:00.2"))
        assert rules(k) == []


class TestAttachGroup:
    @pytest.mark.parametrize("version", ["v3.6", "v4.1", "v4.2", "v5.18", "v6.12"])
    def test_there_and_back(self, toy: ToyIommu, version: str) -> None:
        k = booted(version)
        group = group_of(k)
        before = k.world.fingerprint
        domain = iommu.iommu_domain_alloc(k)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, group) == 0
        assert {dev.bdf for dev in domain.devices} == {"0000:00:01.0", "0000:01:00.0", "0000:01:00.1"}
        assert passes(k, TWO) == domain.number
        iommu.iommu_detach_group(k, domain, group)
        iommu.iommu_domain_free(k, domain)
        assert k.world.fingerprint == before

    def test_two_domains_at_once(self, toy: ToyIommu) -> None:
        for version, answer in (("v4.1", 0), ("v4.2", -errno.EBUSY), ("v6.12", -errno.EBUSY)):
            k = booted(version)
            domains = [iommu.iommu_domain_alloc(k) for _ in range(2)]
            assert domains[0] is not None
            assert domains[1] is not None
            assert iommu.iommu_attach_group(k, domains[0], group_of(k)) == 0
            assert iommu.iommu_attach_group(k, domains[1], group_of(k)) == answer

    def test_without_a_default_domain_it_was_allowed(self, toy: ToyIommu) -> None:
        k = booted("v5.2", machine=MACHINE.replace("amd", "intel"))
        domains = [iommu.iommu_domain_alloc(k) for _ in range(2)]
        assert domains[0] is not None
        assert domains[1] is not None
        assert iommu.iommu_attach_group(k, domains[0], group_of(k)) == 0
        assert iommu.iommu_attach_group(k, domains[1], group_of(k)) == 0

    @pytest.mark.parametrize(("version", "restored"), [("v5.18", False), ("v5.19", True)])
    def test_a_failure_in_the_middle(self, toy: ToyIommu, version: str, restored: bool) -> None:
        k = booted(version)
        domain = iommu.iommu_domain_alloc(k)
        assert domain is not None
        toy.refuses = {"0000:01:00.1"}
        assert iommu.iommu_attach_group(k, domain, group_of(k)) == -errno.EBUSY
        default = group_of(k).default_domain
        assert toy.attached["pci/0000:01:00.0"] is (default if restored else domain)

    def test_detach_while_owned_blocks(self, toy: ToyIommu) -> None:
        k = booted()
        group = group_of(k)
        assert iommu.iommu_group_claim_dma_owner(k, group, "vfio") == 0
        domain = iommu.iommu_domain_alloc(k)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, group) == 0
        iommu.iommu_detach_group(k, domain, group)
        assert group.domain is group.blocking_domain


class TestReset:
    def test_blocked_during_reset(self, toy: ToyIommu) -> None:
        k = booted("v7.0")
        group = group_of(k)
        assert iommu.pci_dev_reset_iommu_prepare(k, device(k, ONE)) == 0
        assert group.blocking_domain is not None
        assert passes(k, ONE) == group.blocking_domain.number
        assert group.domain is group.default_domain
        iommu.pci_dev_reset_iommu_done(k, device(k, ONE))
        assert group.default_domain is not None
        assert passes(k, ONE) == group.default_domain.number

    def test_without_a_group(self, toy: ToyIommu) -> None:
        k = booted("v7.0")
        toy.log.clear()
        assert iommu.pci_dev_reset_iommu_prepare(k, device(k, "00:00.2")) == 0
        iommu.pci_dev_reset_iommu_done(k, device(k, "00:00.2"))
        assert toy.log == []

    def test_no_memory(self, toy: ToyIommu) -> None:
        k = booted("v7.0")
        with choosing(k, 1):
            assert iommu.pci_dev_reset_iommu_prepare(k, device(k, ONE)) == -errno.ENOMEM
