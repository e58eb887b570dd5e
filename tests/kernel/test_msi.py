"""Switching MSI and MSI-X on, off and on again (drivers/pci/msi.c)."""

from __future__ import annotations

from errno import EINVAL, ENOSPC, ERANGE

import pytest
from msi_machine import AHCI, MASTER, NIC, SMBUS, VERSIONS, crash_of, listen, make
from pci_machine import fail
from toykernel import device, rules, texts

from quiesce.kernel import devres, irq, msi, pci
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PCI_D3HOT, MsiDesc, PciDev
from quiesce.machine import interrupts
from quiesce.machine import pci_regs as r


class TestEnableMsi:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_moves_the_number_and_back(self, version: str) -> None:
        k = make(version)
        dev = device(k, AHCI)
        pin = dev.irq
        assert msi.pci_enable_msi(k, dev) == 0
        assert (dev.irq, dev.msi_enabled, dev.msix_enabled) == (24, True, False)
        assert (dev.hw.msi_enabled, dev.hw.intx_disabled, dev.hw.msi_data) == (True, True, 24)
        assert irq.irq_get_msi_desc(k, 24) is dev.msi_descs[0]
        assert dev.msi_descs[0].default_irq == pin
        msi.pci_disable_msi(k, dev)
        assert (dev.irq, dev.msi_enabled) == (pin, False)
        assert (dev.hw.msi_enabled, dev.hw.intx_disabled, dev.hw.msi_data) == (False, False, 0)
        assert not dev.msi_descs
        assert not irq.desc(k, 24).allocated
        assert not k.outputs

    def test_the_message_reaches_the_handler(self) -> None:
        k = make()
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        listen(k, dev, msi.pci_irq_vector(k, dev, 0))
        assert interrupts.raise_interrupt(k.machine, dev.hw) == interrupts.SENT
        irq.settle(k)
        assert not dev.hw.irq_status
        assert not k.outputs

    def test_a_vector_is_masked_until_somebody_listens(self) -> None:
        k = make()
        dev = device(k, NIC)
        msi.pci_enable_msi(k, dev)
        assert interrupts.raise_interrupt(k.machine, dev.hw) == interrupts.PENDING
        listen(k, dev, dev.irq)
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_numbers_are_reused(self) -> None:
        k = make()
        first, second = device(k, AHCI), device(k, NIC)
        msi.pci_enable_msi(k, first)
        msi.pci_enable_msi(k, second)
        assert second.irq == 25
        msi.pci_disable_msi(k, first)
        msi.pci_enable_msi(k, first)
        assert first.irq == 24

    def test_not_without_the_capability(self) -> None:
        k = make()
        assert msi.pci_enable_msi(k, device(k, SMBUS)) == -EINVAL

    @pytest.mark.parametrize(("field", "value"), [("current_state", PCI_D3HOT), ("no_msi", True)])
    def test_not_in_a_sleep_state_or_where_it_is_broken(self, field: str, value: int) -> None:
        k = make()
        dev = device(k, NIC)
        setattr(dev, field, value)
        assert msi.pci_enable_msi(k, dev) == -EINVAL
        assert msi.pci_enable_msix(k, dev, 1) == -EINVAL

    def test_twice(self) -> None:
        k = make()
        dev = device(k, AHCI)
        assert msi.pci_enable_msi(k, dev) == 0
        assert not rules(k)
        assert msi.pci_enable_msi(k, dev) == -EINVAL
        assert rules(k) == ["msi/enabled-twice"]
        assert dev.irq == 24

    def test_impossible_range(self) -> None:
        k = make()
        assert msi.pci_enable_msi_range(k, device(k, NIC), 2, 1) == -ERANGE
        assert msi.pci_enable_msix_range(k, device(k, NIC), 2, 1) == -ERANGE

    def test_more_than_the_function_has(self) -> None:
        k = make()
        assert msi.pci_enable_msi_range(k, device(k, AHCI), 2, 2) == -ENOSPC

    def test_several_vectors_need_remapping(self) -> None:
        k = make()
        dev = device(k, NIC)
        assert msi.pci_enable_msi_range(k, dev, 1, 4) == 1
        msi.pci_disable_msi(k, dev)
        assert msi.pci_enable_msi_range(k, dev, 4, 4) == -ENOSPC
        interrupts.remapping(k.machine).enabled = True
        assert msi.pci_enable_msi_range(k, dev, 1, 4) == 4
        assert [msi.pci_irq_vector(k, dev, nr) for nr in range(5)] == [24, 25, 26, 27, -EINVAL]
        listen(k, dev, 26)
        assert interrupts.raise_interrupt(k.machine, dev.hw, 2) == interrupts.SENT
        assert interrupts.send_message(k.machine, dev.hw, 1) == interrupts.PENDING
        irq.free_irq(k, 26, dev)
        msi.pci_disable_msi(k, dev)
        assert not irq.desc(k, 27).allocated


class TestEnableMsix:
    @pytest.mark.parametrize("version", [*VERSIONS, "v5.14", "v5.16"])
    def test_leaves_the_number_alone(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        pin = dev.irq
        assert msi.pci_enable_msix(k, dev, 3) == 0
        assert dev.irq == (0 if version in ("v4.3-rc1", "v4.4") else pin)
        assert [msi.pci_irq_vector(k, dev, nr) for nr in range(4)] == [24, 25, 26, -EINVAL]
        assert (dev.hw.msix_enabled, dev.hw.msix_masked, dev.hw.intx_disabled) == (True, False, True)
        assert dev.hw.msix_table.items() == tuple((n, (24 + n, True)) for n in range(3))
        msi.pci_disable_msix(k, dev)
        assert dev.irq == pin
        assert (dev.hw.msix_enabled, dev.hw.intx_disabled) == (False, False)
        assert not dev.hw.msix_table
        assert not k.outputs

    def test_each_vector_has_its_handler(self) -> None:
        k = make()
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 2)
        listen(k, dev, 25)
        assert interrupts.send_message(k.machine, dev.hw, 0) == interrupts.PENDING
        assert interrupts.raise_interrupt(k.machine, dev.hw, 1) == interrupts.SENT
        irq.settle(k)
        assert not dev.hw.irq_status

    def test_more_than_the_table_has(self) -> None:
        k = make()
        dev = device(k, NIC)
        assert msi.pci_enable_msix_range(k, dev, 1, 99) == 5
        msi.pci_disable_msix(k, dev)
        assert msi.pci_enable_msix(k, dev, 99) == -ENOSPC

    def test_not_while_msi_is_on_and_the_other_way_round(self) -> None:
        k = make()
        dev = device(k, NIC)
        msi.pci_enable_msi(k, dev)
        assert msi.pci_enable_msix(k, dev, 1) == -EINVAL
        msi.pci_disable_msi(k, dev)
        msi.pci_enable_msix(k, dev, 1)
        assert msi.pci_enable_msi(k, dev) == -EINVAL
        assert texts(k, "info") == [
            "toy 0000:00:03.0: can't enable MSI-X (MSI IRQ already assigned)",
            "toy 0000:00:03.0: can't enable MSI (MSI-X already enabled)",
        ]

    def test_twice(self) -> None:
        k = make()
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 1)
        assert msi.pci_enable_msix(k, dev, 1) == -EINVAL
        assert rules(k) == ["msi/enabled-twice"]

    @pytest.mark.parametrize(("version", "masked"), [("v5.13", False), ("v5.14", True), ("v5.16", True)])
    def test_entries_that_an_earlier_kernel_left_unmasked(self, version: str, masked: bool) -> None:
        k = make(version)
        dev = device(k, NIC)
        interrupts.program_msix(k.machine, dev.hw, 4, 77, False)
        msi.pci_enable_msix(k, dev, 2)
        assert dev.hw.msix_table[4] == (77, masked)
        interrupts.send_message(k.machine, dev.hw, 4)
        irq.settle(k)
        assert rules(k) == ([] if masked else ["irq/no-handler-for-vector"])

    @pytest.mark.parametrize(("version", "touched"), [("v5.14", True), ("v5.16", False)])
    def test_a_failure_masks_the_table_in_one_version(self, version: str, touched: bool) -> None:
        k = make(version)
        dev = device(k, NIC)
        interrupts.program_msix(k.machine, dev.hw, 4, 77, False)
        fail(k, 1)
        assert msi.pci_enable_msix(k, dev, 3) == -ENOSPC
        assert dev.hw.msix_table[4] == (77, touched)

    @pytest.mark.parametrize(("version", "order"), [("v5.13", ["table", "on"]), ("v5.14", ["on", "table"])])
    def test_order(self, version: str, order: list[str]) -> None:
        k = make(version)
        dev = device(k, NIC)
        mark = k.world.mark()
        msi.pci_enable_msix(k, dev, 1)
        fields = [change.field for change in k.world.writes(mark) if change.path == dev.hw.path]
        first = {"table": fields.index("msix_table"), "on": fields.index("MSIX_FLAGS")}
        assert sorted(first, key=lambda name: first[name]) == order


class TestAllocVectors:
    def test_falls_back_in_the_kernels_order(self) -> None:
        k = make()
        every = ("intx", "msi", "msix")
        assert msi.pci_alloc_irq_vectors(k, device(k, NIC), 1, 4, every) == 4
        assert device(k, NIC).msix_enabled
        assert msi.pci_alloc_irq_vectors(k, device(k, AHCI), 1, 4, every) == 1
        assert device(k, AHCI).msi_enabled
        smbus = device(k, SMBUS)
        pci.pci_intx(k, smbus, False)
        assert msi.pci_alloc_irq_vectors(k, smbus, 1, 4, every) == 1
        assert not smbus.hw.intx_disabled
        assert msi.pci_irq_vector(k, smbus, 0) == smbus.irq
        assert msi.pci_irq_vector(k, smbus, 1) == -EINVAL

    def test_only_what_is_asked_for(self) -> None:
        k = make()
        assert msi.pci_alloc_irq_vectors(k, device(k, NIC), 1, 1, ("msi",)) == 1
        assert device(k, NIC).msi_enabled
        assert msi.pci_alloc_irq_vectors(k, device(k, SMBUS), 1, 1, ("msix", "msi")) == -EINVAL
        assert msi.pci_alloc_irq_vectors(k, device(k, SMBUS), 1, 1, ()) == -ENOSPC

    @pytest.mark.parametrize(("needed", "number"), [(2, 20), (1, 0)])
    def test_the_pin_is_one_vector_with_a_number(self, needed: int, number: int) -> None:
        k = make()
        smbus = device(k, SMBUS)
        smbus.irq = number
        assert msi.pci_alloc_irq_vectors(k, smbus, needed, 4, ("intx",)) == -ENOSPC

    def test_free_switches_either_off(self) -> None:
        k = make()
        for bdf, kind in ((NIC, "msix"), (AHCI, "msi")):
            dev = device(k, bdf)
            msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,))
            msi.pci_free_irq_vectors(k, dev)
            assert not dev.msi_enabled
            assert not dev.msix_enabled
        msi.pci_free_irq_vectors(k, device(k, SMBUS))
        assert not k.outputs

    @pytest.mark.parametrize(("version", "vector"), [("v5.16", 17), ("v5.17", 24)])
    def test_where_the_number_of_a_vector_comes_from(self, version: str, vector: int) -> None:
        k = make(version)
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        dev.irq = 17
        assert msi.pci_irq_vector(k, dev, 0) == vector


class TestShutdown:
    """What the core did at device shutdown up to v4.11, and drivers do by disabling MSI."""

    @pytest.fixture
    def k(self) -> Kernel:
        return make("v4.1")

    def test_of_msi_keeps_numbers_and_handlers(self, k: Kernel) -> None:
        dev = device(k, AHCI)
        pin = dev.irq
        msi.pci_enable_msi(k, dev)
        listen(k, dev, 24)
        msi.pci_msi_shutdown(k, dev)
        assert (dev.irq, dev.msi_enabled, dev.hw.msi_enabled, dev.hw.intx_disabled) == (pin, False, False, False)
        assert irq.irq_has_action(k, 24)
        assert dev.msi_descs

    def test_of_msix_masks_and_keeps_them_too(self, k: Kernel) -> None:
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 1)
        listen(k, dev, 24)
        msi.pci_msix_shutdown(k, dev)
        assert dev.hw.msix_table[0] == (24, True)
        assert not dev.hw.intx_disabled
        assert irq.irq_has_action(k, 24)

    def test_is_nothing_when_off(self, k: Kernel) -> None:
        before = k.world.fingerprint
        msi.pci_msi_shutdown(k, device(k, NIC))
        msi.pci_msix_shutdown(k, device(k, NIC))
        assert k.world.fingerprint == before

    @pytest.mark.parametrize(("bdf", "kind"), [(AHCI, "msi"), (NIC, "msix")])
    def test_a_running_device_then_asserts_its_pin(self, k: Kernel, bdf: str, kind: str) -> None:
        dev = device(k, bdf)
        msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,))
        listen(k, dev, 24)
        dev.hw.irq_status = True
        pin = interrupts.gsi_of(k.machine, dev.hw)
        assert not interrupts.line_asserted(k.machine, pin)
        seen: list[bool] = []
        k.nested = lambda where: seen.append(interrupts.line_asserted(k.machine, pin))
        msi.pci_msi_shutdown(k, dev)
        msi.pci_msix_shutdown(k, dev)
        assert seen == [True]
        irq.settle(k)
        assert not rules(k)

    def test_and_so_kills_the_line_of_a_sharer(self, k: Kernel) -> None:
        dev, sharer = device(k, AHCI), device(k, SMBUS)
        assert sharer.irq == dev.irq
        listen(k, sharer, sharer.irq, shared=True)
        msi.pci_enable_msi(k, dev)
        listen(k, dev, 24)
        dev.hw.irq_status = True
        msi.pci_msi_shutdown(k, dev)
        irq.settle(k)
        assert rules(k) == ["irq/nobody-cared"]

    @pytest.mark.parametrize(("version", "left"), [("v4.11", False), ("v4.12", True), ("v6.12", True)])
    def test_of_a_disconnected_device_changes_the_belief_only(self, version: str, left: bool) -> None:
        k = make(version)
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 1)
        dev.disconnected = True
        msi.pci_disable_msix(k, dev)
        assert not dev.msix_enabled
        assert dev.hw.msix_enabled is left
        assert not irq.desc(k, 24).allocated

    @pytest.mark.parametrize("version", ["v4.12", "v6.12"])
    def test_msi_of_a_disconnected_device(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        pin = dev.irq
        msi.pci_enable_msi(k, dev)
        dev.disconnected = True
        listen(k, dev, 24)
        irq.free_irq(k, 24, dev)
        msi.pci_disable_msi(k, dev)
        assert (dev.msi_enabled, dev.irq, dev.hw.msi_enabled) == (False, pin, True)


class TestRestore:
    def lose_registers(self, dev: PciDev) -> None:
        dev.hw.reset()
        dev.hw.write_register("COMMAND", r.PCI_COMMAND_MEMORY | MASTER)

    @pytest.mark.parametrize("version", VERSIONS)
    def test_of_msi(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        msi.pci_enable_msi(k, dev)
        listen(k, dev, 24)
        self.lose_registers(dev)
        msi.pci_restore_msi_state(k, dev)
        assert (dev.hw.msi_enabled, dev.hw.intx_disabled, dev.hw.msi_data, dev.hw.msi_mask) == (True, True, 24, 0xE)
        assert interrupts.raise_interrupt(k.machine, dev.hw) == interrupts.SENT
        assert not k.outputs

    @pytest.mark.parametrize("version", VERSIONS)
    def test_of_msix(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 2)
        listen(k, dev, 25)
        self.lose_registers(dev)
        msi.pci_restore_msi_state(k, dev)
        assert dev.hw.msix_table.items() == ((0, (24, True)), (1, (25, False)))
        assert (dev.hw.msix_enabled, dev.hw.msix_masked, dev.hw.intx_disabled) == (True, False, True)

    def test_is_nothing_when_both_are_off(self) -> None:
        k = make()
        before = k.world.fingerprint
        msi.pci_restore_msi_state(k, device(k, NIC))
        assert k.world.fingerprint == before

    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("number", [0, 17])
    def test_of_msi_crashes_when_the_number_was_overwritten(self, version: str, number: int) -> None:
        k = make(version)
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        dev.irq = number
        with pytest.raises(Crash) as crash:
            msi.pci_restore_msi_state(k, dev)
        assert crash_of(crash) == ("irq/no-descriptor", "__pci_restore_msi_state")
        assert "its vector is 24" in crash.value.finding.why
        assert texts(k, "BUG") == ["BUG: kernel NULL pointer dereference"]
        assert not dev.hw.msi_enabled

    @pytest.mark.parametrize("version", VERSIONS)
    def test_of_msix_never_does(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 1)
        dev.irq = 0
        msi.pci_restore_msi_state(k, dev)
        assert not k.outputs

    def test_by_another_devices_number_writes_to_that_device(self) -> None:
        k = make()
        dev, other = device(k, AHCI), device(k, NIC)
        msi.pci_enable_msi(k, dev)
        msi.pci_enable_msi(k, other)
        dev.irq = other.irq
        msi.pci_restore_msi_state(k, dev)
        assert rules(k) == ["msi/foreign-descriptor"]

    @pytest.mark.parametrize("version", ["v5.16", "v5.17"])
    def test_of_msix_without_vectors(self, version: str) -> None:
        k = make(version)
        dev = device(k, NIC)
        msi.pci_enable_msix(k, dev, 1)
        dev.msi_descs.clear()
        dev.msi_data = False
        with pytest.raises(Crash) as crash:
            msi.pci_restore_msi_state(k, dev)
        assert crash.value.finding.rule == "msi/enabled-without-vectors"

    @pytest.mark.parametrize(("field", "value"), [("current_state", PCI_D3HOT), ("disconnected", True)])
    def test_messages_are_written_to_a_device_that_can_take_them_only(self, field: str, value: int) -> None:
        k = make()
        dev = device(k, AHCI)
        msi.pci_enable_msi(k, dev)
        self.lose_registers(dev)
        setattr(dev, field, value)
        msi.pci_restore_msi_state(k, dev)
        assert dev.hw.msi_data == 0


class TestEnumeration:
    def left_on(self, k: Kernel, dev: PciDev) -> None:
        dev.hw.write_register("MSI_FLAGS", dev.hw.msi_control | r.PCI_MSI_FLAGS_ENABLE)
        dev.hw.write_register("MSIX_FLAGS", dev.hw.msix_control | r.PCI_MSIX_FLAGS_ENABLE)

    def test_switches_off_what_was_left_on(self) -> None:
        k = make()
        dev = device(k, NIC)
        self.left_on(k, dev)
        msi.pci_msi_init(k, dev)
        assert not dev.hw.msi_enabled
        assert not dev.hw.msix_enabled

    def test_did_not_always(self) -> None:
        k = make("v6.1", "-d5dea7d95c48")
        dev = device(k, NIC)
        self.left_on(k, dev)
        msi.pci_msi_init(k, dev)
        assert dev.hw.msi_enabled

    def test_touches_nothing_else(self) -> None:
        k = make()
        before = k.world.fingerprint
        for dev in k.system.devices:
            msi.pci_msi_init(k, dev)
        assert k.world.fingerprint == before


@pytest.mark.parametrize("version", [*VERSIONS, "v5.14", "v5.16"])
@pytest.mark.parametrize(("bdf", "kind"), [(AHCI, "msi"), (NIC, "msi"), (NIC, "msix")])
def test_a_whole_life_leaves_no_trace(version: str, bdf: str, kind: str) -> None:
    k = make(version)
    dev = device(k, bdf)
    before = k.world.fingerprint
    msi.pci_alloc_irq_vectors(k, dev, 1, 1, (kind,))
    listen(k, dev, 24)
    interrupts.raise_interrupt(k.machine, dev.hw)
    irq.settle(k)
    irq.free_irq(k, 24, dev)
    msi.pci_free_irq_vectors(k, dev)
    devres.devres_release_all(k, dev)
    assert not MsiDesc.get(k.world, f"msi_desc/{dev.bdf}/0").exists
    assert k.world.fingerprint == before
