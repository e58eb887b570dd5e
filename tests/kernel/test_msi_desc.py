"""Descriptors, numbers and per-device data of message interrupts (kernel/irq/msi.c)."""

from __future__ import annotations

from errno import EINVAL, ENOMEM, ENOSPC

import pytest
from msi_machine import AHCI, NIC, crash_of, listen, make
from pci_machine import fail, kinds
from toykernel import device, rules, texts

from quiesce.kernel import devres, irq, msi, msi_desc
from quiesce.kernel.irq_desc import allocated_irqs
from quiesce.kernel.kernel import Crash
from quiesce.machine import interrupts


class TestFailures:
    @pytest.mark.parametrize(("number", "error"), [(0, -ENOMEM), (1, -ENOMEM), (2, -ENOSPC)])
    def test_of_msi_leave_nothing(self, number: int, error: int) -> None:
        k = make("v6.1")
        dev = device(k, AHCI)
        pin = dev.irq
        fail(k, number)
        assert msi.pci_enable_msi(k, dev) == error
        assert (dev.irq, dev.msi_enabled, len(dev.msi_descs)) == (pin, False, 0)
        assert not dev.hw.msi_enabled
        assert not dev.hw.intx_disabled
        assert all(irq.desc(k, n).msi_desc is None for n in allocated_irqs(k))
        assert dev.msi_data is (number > 0)

    @pytest.mark.parametrize("version", ["v5.10", "v5.14", "v6.1"])
    def test_of_msix_leave_nothing(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        before = dev.hw.msix_control
        fail(k, 2 if version == "v6.1" else 1)
        assert msi.pci_enable_msix(k, dev, 3) == -ENOSPC
        assert (dev.msix_enabled, len(dev.msi_descs)) == (False, 0)
        assert dev.hw.msix_control == before
        assert not dev.hw.msix_table

    def test_of_the_last_vector_gives_fewer(self) -> None:
        k = make("v5.10")
        dev = device(k, NIC)
        fail(k, 2)
        assert msi.pci_enable_msix_range(k, dev, 1, 3) == 2
        assert len(dev.msi_descs) == 2

    def test_of_the_last_vector_when_all_are_needed(self) -> None:
        k = make("v5.10")
        dev = device(k, NIC)
        fail(k, 2)
        assert msi.pci_enable_msix(k, dev, 3) == -ENOSPC
        assert not dev.msi_descs

    def test_of_memory_for_the_descriptors(self) -> None:
        k = make("v5.10")
        dev = device(k, NIC)
        fail(k, 0)
        assert msi.pci_enable_msix(k, dev, 3) == -ENOMEM
        assert not dev.hw.msix_enabled

    @pytest.mark.parametrize("kind", ["msi", "msix"])
    def test_of_memory_for_the_device_data(self, kind: str) -> None:
        k = make("v6.12")
        dev = device(k, NIC)
        fail(k, 0)
        assert msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,)) == -ENOMEM
        assert not dev.msi_data

    def test_of_the_last_of_several_msi_vectors_gives_one(self) -> None:
        k = make("v5.10")
        dev = device(k, NIC)
        interrupts.remapping(k.machine).enabled = True
        fail(k, 1)
        assert msi.pci_enable_msi_range(k, dev, 1, 4) == 1

    def test_a_later_try_succeeds(self) -> None:
        k = make("v6.12")
        dev = device(k, NIC)
        fail(k, 2)
        assert msi.pci_enable_msix(k, dev, 1) < 0
        k.world.recording = None
        assert msi.pci_enable_msix(k, dev, 1) == 0


class TestDisableWithHandler:
    @pytest.mark.parametrize("version", ["v3.6", "v4.5", "v5.16"])
    @pytest.mark.parametrize(("bdf", "kind"), [(AHCI, "msi"), (NIC, "msix")])
    def test_is_a_bug(self, version: str, bdf: str, kind: str) -> None:
        k = make(version)
        dev = device(k, bdf)
        msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,))
        listen(k, dev, 24)
        with pytest.raises(Crash) as crash:
            msi.pci_free_irq_vectors(k, dev)
        assert crash_of(crash) == ("msi/disabled-with-action", "free_msi_irqs")
        assert texts(k, "BUG")[0].startswith("kernel BUG at drivers/pci/msi.c")

    @pytest.mark.parametrize("version", ["v5.17", "v6.12"])
    def test_then_a_warning(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        listen(k, dev, 24)
        msi.pci_disable_msi(k, dev)
        assert rules(k) == ["irq/freed-with-action"]
        irq.free_irq(k, 24, dev)
        assert rules(k) == ["irq/freed-with-action"]

    @pytest.mark.parametrize("version", ["v5.16", "v5.17"])
    def test_never_without(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        listen(k, dev, 24)
        irq.free_irq(k, 24, dev)
        msi.pci_disable_msi(k, dev)
        assert not k.outputs

    def test_may_sleep(self) -> None:
        k = make()
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        with k.spinlock("lock"):
            msi.pci_disable_msi(k, dev)
        assert rules(k) == ["context/sleep-in-atomic"]


class TestDeviceData:
    def test_is_a_devres_node_from_v5_17_on(self) -> None:
        for version, expected in (("v5.16", []), ("v5.17", [msi_desc.DEVICE_DATA])):
            k = make(version)
            dev = device(k, AHCI)
            msi.pci_enable_msi(k, dev)
            msi.pci_disable_msi(k, dev)
            msi.pci_enable_msi(k, dev)
            assert kinds(dev) == expected

    @pytest.mark.parametrize(("version", "managed"), [("v5.16", False), ("v5.17", True)])
    def test_a_managed_device_gives_vectors_back_by_itself(self, version: str, managed: bool) -> None:
        k = make(version)
        dev = device(k, AHCI)
        dev.is_managed = True
        msi.pci_enable_msi(k, dev)
        assert dev.is_msi_managed is managed
        devres.devres_release_all(k, dev)
        assert dev.msi_enabled is not managed
        assert not rules(k)

    def test_never_when_it_became_managed_later(self) -> None:
        k = make()
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        dev.is_managed = True
        assert not dev.is_msi_managed
        devres.devres_release_all(k, dev)
        assert rules(k) == ["msi/data-freed-with-vectors"]

    def test_freed_with_vectors_on(self) -> None:
        k = make()
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        devres.devres_release_all(k, dev)
        assert rules(k) == ["msi/data-freed-with-vectors"]
        assert (dev.msi_enabled, dev.msi_data, len(dev.msi_descs)) == (True, False, 0)
        assert irq.desc(k, 24).allocated
        assert msi.pci_irq_vector(k, dev, 0) == -EINVAL
        assert msi.pci_enable_msi(k, dev) == -EINVAL
        assert msi.leaked_vectors(k) == ((24, "0000:00:02.0"),)
        with pytest.raises(Crash) as crash:
            msi.pci_disable_msi(k, dev)
        assert crash_of(crash) == ("msi/enabled-without-vectors", "msi_lock_descs")
        assert texts(k, "BUG") == ["BUG: kernel NULL pointer dereference"]

    def test_freed_with_vectors_off(self) -> None:
        k = make()
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        msi.pci_disable_msi(k, dev)
        devres.devres_release_all(k, dev)
        assert not k.outputs
        assert not dev.msi_data

    def test_without_them_before_v5_17_it_is_a_bug_too(self) -> None:
        k = make("v5.10")
        dev = device(k, AHCI)
        dev.msi_enabled = True
        with pytest.raises(Crash) as crash:
            msi.pci_disable_msi(k, dev)
        assert crash_of(crash) == ("msi/enabled-without-vectors", "pci_msi_shutdown")


class TestRemapping:
    def test_entries_come_and_go_with_the_numbers(self) -> None:
        k = make()
        dev = device(k, NIC)
        interrupts.remapping(k.machine).enabled = True
        msi.pci_enable_msix(k, dev, 2)
        entry = interrupts.irte(k.machine, 25)
        assert (entry.present, entry.source) == (True, "0000:00:03.0")
        msi.pci_disable_msix(k, dev)
        assert not entry.present

    def test_a_stale_message_is_a_fault(self) -> None:
        k = make()
        dev = device(k, AHCI)
        interrupts.remapping(k.machine).enabled = True
        msi.pci_enable_msi(k, dev)
        dev.disconnected = True
        msi.pci_disable_msi(k, dev)
        interrupts.send_message(k.machine, dev.hw)
        irq.settle(k)
        assert rules(k) == ["irq/remap-fault"]


class TestLeaks:
    def test_vectors_of_a_driver_that_has_gone(self) -> None:
        k = make("v5.10")
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 2)
        assert msi.leaked_vectors(k) == ()
        dev.driver = None
        assert msi.leaked_vectors(k) == ((24, "0000:00:03.0"), (25, "0000:00:03.0"))

    def test_never_for_a_user_without_driver_who_listens(self) -> None:
        k = make("v5.10")
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        listen(k, dev, 24)
        dev.driver = None
        assert msi.leaked_vectors(k) == ()

    def test_vectors_of_a_device_that_has_gone(self) -> None:
        k = make("v5.10")
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        k.system.devices.remove(dev)
        dev.delete()
        assert msi.leaked_vectors(k) == ((24, "0000:00:02.0"),)
