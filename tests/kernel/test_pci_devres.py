"""Managed PCI resources, and what the v6.11 cycle did to them (drivers/pci/devres.c).

The stripes: v6.10 has one node, v6.11-rc1 makes a record at every ``pci_intx``, v6.11-rc2 only when the bit changes,
v6.11 forgets ``is_managed`` at detach, v6.14 leaves ``pci_intx`` unmanaged and restores what was found.
"""

from __future__ import annotations

from errno import EBUSY, ENOMEM

import pytest
from pci_machine import AHCI, believe, device, fail, found, kinds, make_kernel, printed

from quiesce.drivers import models
from quiesce.kernel import base_dd, boot, devres, msi, pci, pci_devres, pci_sysfs
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import pci_regs as r

STRIPES = ("v5.16", "v6.10", "v6.11-rc1", "v6.11-rc2", "v6.11", "v6.13", "v6.14", "v6.16")
IO, MEM, NO_INTX = r.PCI_COMMAND_IO, r.PCI_COMMAND_MEMORY, r.PCI_COMMAND_INTX_DISABLE


class Managed(PciDriver):
    """A driver that enables its device managed; tests let it do more through ``also``."""

    name = "managed"
    ids = (DeviceId(base_class=0x01),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        return pci_devres.pcim_enable_device(k, dev)


class WithMsi(Managed):
    """What ahci does: managed, one MSI, everything left to devres."""

    name = "with-msi"

    def probe(self, k: Kernel, dev: PciDev) -> int:
        error = super().probe(k, dev)
        return error or min(0, msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("msi",)))


class FreesItsVectors(WithMsi):
    """Managed, and tidy in remove()."""

    name = "frees-its-vectors"

    def remove(self, k: Kernel, dev: PciDev) -> None:
        msi.pci_free_irq_vectors(k, dev)


class MasksFirst(Managed):
    """Masks INTx at the device before it turns to MSI, so that its INTx record is older than the MSI action."""

    name = "masks-first"

    def probe(self, k: Kernel, dev: PciDev) -> int:
        error = super().probe(k, dev)
        pci.pci_intx(k, dev, False)
        return error or min(0, msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("msi",)))


class OnTheLine(Managed):
    """Managed, INTx through pci_alloc_irq_vectors()."""

    name = "on-the-line"

    def probe(self, k: Kernel, dev: PciDev) -> int:
        error = super().probe(k, dev)
        return error or min(0, msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("intx",)))


class Unmanaged(PciDriver):
    """What vfio-pci does with INTx: masks it under a spinlock that the interrupt handler takes too."""

    name = "unmanaged"
    ids = (DeviceId(base_class=0x01),)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        error = pci.pci_enable_device(k, dev)
        if not error:
            with k.spinlock("irqlock"):
                pci.pci_intx(k, dev, False)
        return error

    def remove(self, k: Kernel, dev: PciDev) -> None:
        pci.pci_disable_device(k, dev)


def prepared(version: str, *drivers: PciDriver, with_: tuple[str, ...] = ()) -> tuple[Kernel, PciDev]:
    k = make_kernel(version, *drivers, with_=with_)
    believe(k)
    return k, device(k, AHCI)


def bind(k: Kernel, driver: PciDriver, dev: PciDev) -> int:
    k.drivers[driver.name] = driver
    return base_dd.device_driver_attach(k, driver.name, dev)


def bind_and_unbind(version: str, driver: PciDriver, with_: tuple[str, ...] = ()) -> tuple[Kernel, PciDev]:
    k, dev = prepared(version, driver, with_=with_)
    assert bind(k, driver, dev) == 0
    base_dd.device_release_driver(k, dev)
    return k, dev


class TestShapes:
    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            ("v5.16", ["pcim_release"]),
            ("v5.17", ["pcim_release", "msi_device_data_release", "pcim_msi_release"]),
            ("v6.10", ["pcim_release", "msi_device_data_release", "pcim_msi_release"]),
            (
                "v6.11",
                ["pcim_disable_device", "msi_device_data_release", "pcim_msi_release", "pcim_intx_restore"],
            ),
            ("v6.14", ["pcim_disable_device", "msi_device_data_release", "pcim_msi_release"]),
        ],
    )
    def test_what_a_managed_driver_with_msi_leaves_on_the_list(self, version: str, expected: list[str]) -> None:
        k, dev = prepared(version, WithMsi())
        assert bind(k, WithMsi(), dev) == 0
        assert kinds(dev) == expected
        assert dev.hw.command & NO_INTX
        assert (dev.msi_enabled, dev.is_managed) == (True, True)

    @pytest.mark.parametrize("version", STRIPES)
    def test_detach_takes_everything_back(self, version: str) -> None:
        _, dev = bind_and_unbind(version, FreesItsVectors())
        assert (dev.enable_cnt, dev.msi_enabled, dev.hw.msi_enabled) == (0, False, False)
        assert dev.hw.command & (IO | MEM | r.PCI_COMMAND_MASTER) == IO | MEM

    @pytest.mark.parametrize(("version", "managed"), [("v6.10", True), ("v6.11-rc2", True), ("v6.11", False)])
    def test_is_managed_outlives_the_driver_until_the_final_v6_11(self, version: str, managed: bool) -> None:
        _, dev = bind_and_unbind(version, Managed())
        assert dev.is_managed is managed

    @pytest.mark.parametrize(("version", "count"), [("v6.10", 1), ("v6.11", 2)])
    def test_enabling_twice(self, version: str, count: int) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci_devres.pcim_enable_device(k, dev)
        assert dev.enable_cnt == count
        devres.devres_release_all(k, dev)
        assert dev.enable_cnt == 0

    @pytest.mark.parametrize(("version", "rules"), [("v6.10", []), ("v6.11", ["device/disabled-twice"])])
    def test_a_managed_driver_that_disables_by_hand(self, version: str, rules: list[str]) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_disable_device(k, dev)
        devres.devres_release_all(k, dev)
        assert found(k) == rules

    @pytest.mark.parametrize(("version", "again"), [("v6.10", 0), ("v6.11", 1)])
    def test_a_pinned_device_stays_enabled_and_since_v6_11_for_the_next_driver_too(
        self, version: str, again: int
    ) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci_devres.pcim_pin_device(k, dev)
        devres.devres_release_all(k, dev)
        assert dev.enable_cnt == 1
        pci.pci_disable_device(k, dev)
        pci_devres.pcim_enable_device(k, dev)
        devres.devres_release_all(k, dev)
        assert dev.enable_cnt == again

    @pytest.mark.parametrize("version", ["v6.10", "v6.11"])
    def test_no_memory_no_managed_device(self, version: str) -> None:
        k, dev = prepared(version)
        fail(k, 0)
        assert pci_devres.pcim_enable_device(k, dev) == -ENOMEM
        assert (dev.enable_cnt, kinds(dev), dev.is_managed) == (0, [], False)

    @pytest.mark.parametrize(("version", "left"), [("v6.10", ["pcim_release"]), ("v6.11", [])])
    def test_a_failed_enable(self, version: str, left: list[str]) -> None:
        k, dev = prepared(version)
        fail(k, 1)
        assert pci_devres.pcim_enable_device(k, dev) < 0
        assert (dev.enable_cnt, kinds(dev), dev.is_managed) == (0, left, False)

    @pytest.mark.parametrize(("version", "expected"), [("v6.10", ["pcim_release"]), ("v6.11", ["__pcim_clear_mwi"])])
    def test_where_mwi_is_noted(self, version: str, expected: list[str]) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        assert pci_devres.pcim_set_mwi(k, dev) == 0
        assert kinds(dev)[-1:] == expected
        devres.devres_release_all(k, dev)
        assert not dev.hw.command & r.PCI_COMMAND_INVALIDATE


class TestRegions:
    @pytest.mark.parametrize(
        ("version", "left"),
        [("v5.16", ()), ("v6.10", ()), ("v6.11", ()), ("v6.15", ()), ("v6.16", ((1, "x"),))],
    )
    def test_hybrid_requests_are_released_at_detach(self, version: str, left: tuple[tuple[int, str], ...]) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        assert pci.pci_request_region(k, dev, 1, "x") == 0
        devres.devres_release_all(k, dev)
        assert pci.leaked_regions(dev) == left

    @pytest.mark.parametrize(
        ("version", "expected"),
        [("v6.10", ["pcim_release"]), ("v6.11", ["pcim_disable_device", "pcim_addr_resource_release"])],
    )
    def test_where_a_region_is_noted(self, version: str, expected: list[str]) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_request_region(k, dev, 1, "x")
        assert kinds(dev) == expected

    @pytest.mark.parametrize(("version", "left"), [("v6.10", 0), ("v6.11", 1), ("v6.15", 1), ("v6.16", 0)])
    def test_a_region_requested_before_the_device_is_managed(self, version: str, left: int) -> None:
        """v6.11 to v6.15: the managed release looks for a node that was never made."""
        k, dev = prepared(version)
        pci.pci_request_region(k, dev, 1, "x")
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_release_region(k, dev, 1)
        assert len(dev.regions) == left

    @pytest.mark.parametrize("version", STRIPES)
    def test_mapping_requests_and_detach_releases(self, version: str) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        assert pci_devres.pcim_iomap_regions(k, dev, (0, 1), "x") == 0
        assert dev.regions.items() == ((0, "x"), (1, "x"))
        devres.devres_release_all(k, dev)
        assert not dev.regions

    @pytest.mark.parametrize("version", ["v6.10", "v6.11"])
    def test_mapping_what_somebody_holds_takes_nothing(self, version: str) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_take_region(k, dev, 1, "other")
        assert pci_devres.pcim_iomap_regions(k, dev, (0, 1), "x") == -EBUSY
        assert dev.regions.items() == ((1, "other"),)


class TestRecordAtDetach:
    """R1: the MSI action calls pci_intx() when the list has been taken away."""

    @pytest.mark.parametrize(
        ("version", "left"),
        [("v6.10", []), ("v6.11-rc1", ["pcim_intx_restore"]), ("v6.11-rc2", []), ("v6.11", []), ("v6.14", [])],
    )
    def test_what_detaching_leaves_behind(self, version: str, left: list[str]) -> None:
        k, dev = bind_and_unbind(version, WithMsi())
        assert kinds(dev) == left
        assert found(k) == (["devres/created-during-detach"] if left else [])
        assert not dev.hw.command & NO_INTX

    def test_v6_11_rc1_cannot_bind_again(self) -> None:
        k, dev = bind_and_unbind("v6.11-rc1", WithMsi())
        k.start_event()
        assert bind(k, WithMsi(), dev) == -EBUSY
        assert printed(k) == [f"pci {AHCI}: Resources present before probing"]

    @pytest.mark.parametrize("version", ["v6.10", "v6.11-rc2", "v6.11", "v6.14"])
    def test_the_others_can(self, version: str) -> None:
        k, dev = bind_and_unbind(version, WithMsi())
        assert bind(k, WithMsi(), dev) == 0

    def test_the_fix_cures_rc1(self) -> None:
        _, dev = bind_and_unbind("v6.11-rc1", WithMsi(), with_=("00f89ae4e759",))
        assert kinds(dev) == []

    @pytest.mark.parametrize(
        ("version", "left"),
        [("v6.10", []), ("v6.11-rc2", ["pcim_intx_restore"]), ("v6.13", ["pcim_intx_restore"]), ("v6.14", [])],
    )
    def test_a_record_older_than_the_msi_action_defeats_the_fix(self, version: str, left: list[str]) -> None:
        """The fix relies on the INTx record being released first and having put the bit back."""
        _, dev = bind_and_unbind(version, MasksFirst())
        assert kinds(dev) == left


class TestAllocationInAtomicContext:
    """R2: is_managed outlives the driver, and the next one calls pci_intx() under a spinlock."""

    @pytest.mark.parametrize(
        ("version", "rules"),
        [
            ("v6.10", []),
            ("v6.11-rc2", ["context/sleep-in-atomic"]),
            ("v6.11", []),
            ("v6.13", []),
            ("v6.14", []),
        ],
    )
    def test_the_next_driver_masks_under_a_spinlock(self, version: str, rules: list[str]) -> None:
        k, dev = bind_and_unbind(version, Managed())
        k.start_event()
        assert bind(k, Unmanaged(), dev) == 0
        assert found(k) == rules
        assert dev.hw.command & NO_INTX

    def test_the_line_that_a_real_kernel_prints(self) -> None:
        k, dev = bind_and_unbind("v6.11-rc2", Managed())
        bind(k, Unmanaged(), dev)
        assert "BUG: sleeping function called from invalid context" in printed(k)

    def test_the_record_is_made_for_a_driver_that_never_asked(self) -> None:
        k, dev = bind_and_unbind("v6.11-rc2", Managed())
        bind(k, Unmanaged(), dev)
        assert kinds(dev) == ["pcim_intx_restore"]

    def test_the_merged_fix_cures(self) -> None:
        k, dev = bind_and_unbind("v6.11-rc2", Managed(), with_=("fc8c818e7569",))
        assert bind(k, Unmanaged(), dev) == 0
        assert found(k) == []

    def test_the_proposed_gfp_atomic_hides_it_and_may_fail(self) -> None:
        k, dev = bind_and_unbind("v6.11-rc2", Managed(), with_=("intx-gfp-atomic",))
        pci.pci_enable_device(k, dev)
        with k.spinlock("irqlock"):
            pci.pci_intx(k, dev, False)
        assert found(k) == []
        pci.pci_intx(k, dev, True)
        devres.devres_release_all(k, dev)
        dev.is_managed = True
        fail(k, 0)
        with k.spinlock("irqlock"):
            pci.pci_intx(k, dev, True)
        assert dev.hw.command & NO_INTX
        assert printed(k) == ["WARNING: drivers/pci/pci.c: pci_intx"]


class TestWrongRestore:
    """R3: what is put back is the negation of the last call, not what the driver found."""

    @pytest.mark.parametrize(
        ("version", "wrong"),
        [("v6.10", False), ("v6.11-rc1", True), ("v6.11", True), ("v6.13", True), ("v6.14", False)],
    )
    def test_masking_and_unmasking(self, version: str, wrong: bool) -> None:
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_intx(k, dev, False)
        pci.pci_intx(k, dev, True)
        devres.devres_release_all(k, dev)
        assert bool(dev.hw.command & NO_INTX) is wrong
        assert found(k) == (["devres/wrong-intx-restore"] if wrong else [])

    @pytest.mark.parametrize(
        ("version", "wrong"),
        [("v6.10", False), ("v6.11-rc1", True), ("v6.11-rc2", True), ("v6.13", True), ("v6.14", False)],
    )
    def test_a_managed_driver_that_frees_its_vectors(self, version: str, wrong: bool) -> None:
        k, dev = bind_and_unbind(version, FreesItsVectors())
        assert bool(dev.hw.command & NO_INTX) is wrong
        assert found(k) == (["devres/wrong-intx-restore"] if wrong else [])

    @pytest.mark.parametrize(
        ("version", "wrong"), [("v6.10", False), ("v6.11-rc1", True), ("v6.11-rc2", False), ("v6.14", False)]
    )
    def test_a_call_that_changes_nothing(self, version: str, wrong: bool) -> None:
        """pci_alloc_irq_vectors() enables INTx for the line; only v6.11-rc1 takes that for a change."""
        k, dev = bind_and_unbind(version, OnTheLine())
        assert bool(dev.hw.command & NO_INTX) is wrong
        assert found(k) == (["devres/wrong-intx-restore"] if wrong else [])

    def test_a_device_that_is_gone_has_no_state_to_be_wrong(self) -> None:
        k, dev = prepared("v6.11")
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_intx(k, dev, False)
        pci.pci_intx(k, dev, True)
        dev.hw.present = False
        devres.devres_release_all(k, dev)
        assert found(k) == []

    def test_the_next_enable_cures_it(self) -> None:
        k, dev = bind_and_unbind("v6.11", FreesItsVectors())
        pci.pci_enable_device(k, dev)
        assert not dev.hw.command & NO_INTX

    @pytest.mark.parametrize(("version", "found_"), [("v6.13", False), ("v6.14", True)])
    def test_pcim_intx_itself(self, version: str, found_: bool) -> None:
        """A driver that finds INTx disabled and disables it once more: v6.13 puts back "enabled"."""
        k, dev = prepared(version)
        pci_devres.pcim_enable_device(k, dev)
        pci.pci_intx_unmanaged(k, dev, False)
        assert pci_devres.pcim_intx(k, dev, False) == 0
        devres.devres_release_all(k, dev)
        assert bool(dev.hw.command & NO_INTX) is found_


RECORDED = (
    # step, bus master, DisINTx, MSI, enable_cnt: one SATA controller under QEMU, with intel_iommu=on
    ("ahci", True, True, True, 1),
    ("unbind", False, False, False, 0),
    ("vfio-pci", False, False, False, 0),
    ("vfio-open", False, False, False, 1),
    ("vfio-intx-on", False, False, False, 1),
    ("vfio-intx-mask", False, True, False, 1),
    ("vfio-intx-unmask", False, False, False, 1),
    ("vfio-intx-off", False, False, False, 1),
    ("vfio-close", False, False, False, 0),
    ("unbind", False, False, False, 0),
    ("ahci", True, True, True, 1),
)


class TestWhatRealKernelsDid:
    """The life of report 003, recorded on v5.10, v6.1, 6.12 and 7.2: the registers were the same on all of them, and
    only a 6.12 without fc8c818e7569 complained, at the mask.
    """

    @pytest.mark.parametrize(
        ("version", "without", "managed_after", "complains"),
        [
            ("v5.10", (), True, []),
            ("v6.1", (), True, []),
            ("v6.12", (), False, []),
            ("v6.12", ("fc8c818e7569",), True, ["vfio-intx-mask"]),
            ("v7.2", (), False, []),
        ],
    )
    def test_step_by_step(
        self, version: str, without: tuple[str, ...], managed_after: bool, complains: list[str]
    ) -> None:
        drivers = models(["ahci", "vfio-pci"])
        k = make_kernel(version, *drivers.values(), iommu="intel", without=without)
        boot.boot(k, ["ahci"])
        k.system.loaded.add("vfio-pci")
        dev = device(k, AHCI)
        seen, complained = [], []
        for step, *_ in RECORDED:
            k.start_event()
            self.do(k, dev, step)
            hw = dev.hw
            seen.append((step, hw.bus_master, hw.intx_disabled, hw.msi_enabled, dev.enable_cnt))
            complained += [step for text in printed(k) if text.startswith("BUG: sleeping function")]
            assert dev.is_managed is (managed_after or dev.driver == "ahci"), step
        assert tuple(seen) == RECORDED
        assert complained == complains

    def do(self, k: Kernel, dev: PciDev, step: str) -> None:
        if step == "unbind":
            assert dev.driver is not None
            assert pci_sysfs.unbind_store(k, dev.driver, dev) == 0
        elif step in k.drivers:
            assert pci_sysfs.bind_by_hand(k, step, dev) == 0
        else:
            operation = next(item for item in k.drivers["vfio-pci"].operations() if item.name == step)
            assert operation.ready(k, dev)
            operation.run(k, dev)


class TestMsiRelease:
    def test_vectors_enabled_before_the_device_was_managed_are_not_released(self) -> None:
        k, dev = prepared("v6.1")
        msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("msi",))
        pci_devres.pcim_enable_device(k, dev)
        assert kinds(dev) == ["msi_device_data_release", "pcim_release"]

    def test_the_mark_goes_with_the_release(self) -> None:
        _, dev = bind_and_unbind("v6.1", WithMsi())
        assert not dev.is_msi_managed
