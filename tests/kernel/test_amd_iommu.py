"""The AMD IOMMU driver: its own function, aliases and groups, when devices leave their domain (kernel/amd_*.py)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from dmatest import ALONE, NIC, SHARED, broken, hold, let_go, mapped, replug, start, unbind, unplug, write
from toykernel import Toy, device, make_kernel, texts

from quiesce.drivers import models
from quiesce.kernel import amd_iommu, base_dd, dma, iommu, iommu_checks, irq, pci_sysfs, suspend
from quiesce.kernel import boot as kernel_boot
from quiesce.kernel.amd_dev_data import AmdDevData, AmdIommu
from quiesce.kernel.iommu_group import UNMANAGED, IommuGroup
from quiesce.kernel.kernel import Crash, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import interrupts
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf
from quiesce.world import Recording

PHANTOM = """
machine phantom
00:00.0 host-bridge
00:04.0 conventional
00:05.0 conventional
00:06.0 conventional
iommu amd
alias 00:04.0 -> 00:1e.7
alias 00:05.0 -> 00:1e.7
"""
"""Two devices send under an id that no device has."""

BRIDGED = """
machine bridged
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
01:00.0 pcie-to-pci bus=02
02:01.0 conventional
02:02.0 conventional
iommu amd
alias 02:01.0-02:02.7 -> 02:00.0
"""
"""The usual case of a phantom: a PCIe-to-PCI bridge sends as function 00.0 of the bus below it."""

REAL = """
machine real
00:00.0 host-bridge
00:04.0 conventional
00:05.0 conventional
iommu amd
alias 00:05.0 -> 00:04.0
"""
"""The alias is a device."""

IOMMU = "00:00.2"


def boot(version: str, machine: str, changed: Iterable[str] = (), load: Iterable[str] = ()) -> Kernel:
    drivers = models(load).values()
    k = make_kernel(version, machine, *drivers, changed=changed)
    kernel_boot.boot(k, list(load))
    k.start_event()
    return k


def group(k: Kernel, bdf: str) -> IommuGroup:
    found = device(k, bdf).iommu_group
    assert isinstance(found, IommuGroup)
    return found


def dte(k: Kernel, bdf: str) -> int | None:
    """The domain that requests with this id are translated by, None when they are blocked."""
    return hardware.live_domain(k.machine, Bdf.parse(bdf))


def remove(k: Kernel, bdf: str) -> None:
    pci_sysfs.remove_store(k, device(k, bdf))


class TestOwnFunction:
    @pytest.mark.parametrize("version", ["v3.6", "v4.2", "v4.3", "v4.4", "v4.5", "v5.17", "v6.12", "v6.16", "v7.3"])
    def test_it_has_an_interrupt_and_no_driver(self, version: str) -> None:
        k = boot(version, ALONE + "iommu amd\n")
        dev = device(k, IOMMU)
        assert dev.driver is None
        assert dev.msi_enabled
        assert dev.hw.msi_enabled
        assert [action.name for action in irq.desc(k, dev.irq).actions] == ["AMD-Vi"]

    def test_the_interrupt_arrives_and_is_claimed(self) -> None:
        k = boot("v6.12", ALONE + "iommu amd\n")
        fn = k.machine.function(IOMMU)
        assert interrupts.raise_interrupt(k.machine, fn) == interrupts.SENT
        irq.settle(k)
        assert not fn.irq_status
        assert texts(k) == []

    @pytest.mark.parametrize(
        ("version", "bindable"),
        [("v4.2", True), ("v4.3-rc5", True), ("v4.3-rc6", False), ("v5.10", False), ("v6.15", False), ("v6.16", True)],
    )
    def test_who_may_bind_to_it(self, version: str, bindable: bool) -> None:
        assert device(boot(version, ALONE + "iommu amd\n"), IOMMU).match_driver == bindable

    def wild(self, version: str) -> Kernel:
        """A suspended machine with a driver that matches everything and takes nothing."""
        k = make_kernel(version, ALONE + "iommu amd\n", Toy("wild", answer=-19))
        kernel_boot.boot(k, ["wild"])
        k.start_event()
        suspend.suspend(k)
        return k

    def test_a_failed_probe_costs_the_iommu_its_number_and_resume_its_life(self) -> None:
        k = self.wild("v4.3-rc5")
        assert device(k, IOMMU).irq == 0
        with pytest.raises(Crash) as crash:
            suspend.resume(k)
        assert crash.value.finding.rule.startswith("irq/")

    def test_the_ban_spares_both(self) -> None:
        k = self.wild("v4.3-rc6")
        assert device(k, IOMMU).irq != 0
        suspend.resume(k)
        assert broken(k) == []

    def test_a_driver_of_its_own_keeps_others_away(self) -> None:
        k = boot("v4.3-rc5", ALONE + "iommu amd\n", ["amd-iommu-pci-driver"], ["amd-iommu", "pciback"])
        dev = device(k, IOMMU)
        assert dev.driver == "amd-iommu"
        assert [action.name for action in irq.desc(k, dev.irq).actions] == ["AMD-Vi"]
        assert base_dd.device_driver_attach(k, "pciback", dev) != 0
        suspend.suspend(k)
        suspend.resume(k)
        assert broken(k) == []

    def test_but_can_be_unbound_under_everybody(self) -> None:
        k = boot("v6.12", ALONE + "iommu amd\n", ["amd-iommu-pci-driver"], ["amd-iommu"])
        dev = device(k, IOMMU)
        lost = dev.irq
        buffer = mapped(k)
        assert write(k, buffer.iova + 0x1000).startswith("fault:")
        pci_sysfs.unbind_store(k, "amd-iommu", dev)
        assert broken(k) == ["iommu/unbound-live"]
        assert write(k, buffer.iova + 0x1000) == "ok", "whatever the device writes to now hits memory"
        assert not irq.irq_has_action(k, lost)
        assert not dev.msi_enabled

    def test_without_the_proposal_its_driver_does_not_exist(self) -> None:
        k = boot("v6.16", ALONE + "iommu amd\n", [], ["amd-iommu"])
        assert device(k, IOMMU).driver is None

    def test_interrupts_are_remapped_from_v37_on(self) -> None:
        for version, remapped in (("v3.6", False), ("v3.7", True), ("v6.12", True)):
            k = boot(version, ALONE + "iommu amd\n")
            assert interrupts.remaps(k.machine, k.machine.function(NIC)) == remapped

    def test_a_machine_whose_function_is_not_known_has_no_interrupt(self) -> None:
        k = make_kernel("v6.12", ALONE + "iommu amd\n")
        k.machine.function(IOMMU).present = False
        kernel_boot.boot(k)
        assert AmdIommu.get(k.world, "amd/iommu/0").dev is None
        assert device(k, NIC).iommu_group is not None


OOPS, SPLIT, TOGETHER = "oops", "split", "together"

ALIASES = [
    # version, changes, outcome for the phantom on the root bus, outcome below the bridge
    ("v3.6-rc7", (), OOPS, OOPS),
    ("v3.6", (), SPLIT, SPLIT),
    ("v3.7", (), SPLIT, SPLIT),
    ("v3.8", (), TOGETHER, TOGETHER),
    ("v3.13", (), TOGETHER, TOGETHER),
    ("v3.16", (), TOGETHER, TOGETHER),
    ("v3.17", (), TOGETHER, TOGETHER),
    ("v3.18", (), SPLIT, TOGETHER),
    ("v4.1", (), SPLIT, TOGETHER),
    ("v4.4", (), SPLIT, TOGETHER),
    ("v4.7", (), SPLIT, TOGETHER),
    ("v5.6", (), SPLIT, TOGETHER),
    ("v5.10", (), SPLIT, TOGETHER),
    ("v6.1", (), SPLIT, TOGETHER),
    ("v6.12", (), SPLIT, TOGETHER),
    ("v7.3", (), SPLIT, TOGETHER),
    ("v3.6-rc7", ("amd-alias-self",), SPLIT, SPLIT),
    ("v3.6-rc7", ("amd-alias-dev-data-group",), TOGETHER, TOGETHER),
    ("v3.6-rc7", ("amd-alias-table-walk",), TOGETHER, TOGETHER),
    ("v3.6-rc7", ("iommu-group-bus-private",), TOGETHER, TOGETHER),
    ("v3.6-rc7", ("amd-alias-groups",), TOGETHER, TOGETHER),
    ("v3.8", ("-amd-alias-groups",), SPLIT, SPLIT),
    ("v6.12", ("amd-alias-dev-data-group",), TOGETHER, TOGETHER),
    ("v6.12", ("amd-alias-table-walk",), TOGETHER, TOGETHER),
    ("v6.12", ("iommu-group-bus-private",), TOGETHER, TOGETHER),
]


class TestAliasWithoutDevice:
    @pytest.mark.parametrize(("version", "changed", "root_bus", "below_bridge"), ALIASES)
    def test_outcome(self, version: str, changed: tuple[str, ...], root_bus: str, below_bridge: str) -> None:
        assert self.outcome(version, PHANTOM, changed, "00:04.0", "00:05.0") == root_bus
        assert self.outcome(version, BRIDGED, changed, "02:01.0", "02:02.0") == below_bridge

    def outcome(self, version: str, machine: str, changed: tuple[str, ...], one: str, other: str) -> str:
        try:
            k = boot(version, machine, changed)
        except Crash as crash:
            return OOPS if crash.finding.rule == "iommu/alias-without-device" else str(crash)
        together = group(k, one) is group(k, other)
        breaches = {pair[:2] for pair in iommu_checks.isolation_breaches(k)}
        assert (breaches == set()) == together, "two groups for one requester id overstate the isolation"
        return TOGETHER if together else SPLIT

    def test_the_oops_is_the_one_that_was_reported(self) -> None:
        k = make_kernel("v3.6-rc7", PHANTOM)
        with pytest.raises(Crash):
            kernel_boot.boot(k)
        assert texts(k, "BUG") == ["BUG: unable to handle kernel NULL pointer dereference"]

    @pytest.mark.parametrize("version", ["v3.6-rc7", "v3.6", "v3.8", "v4.1", "v4.4", "v6.12"])
    def test_an_alias_that_exists_is_no_trouble(self, version: str) -> None:
        k = boot(version, REAL)
        assert group(k, "00:04.0") is group(k, "00:05.0")

    @pytest.mark.parametrize("version", ["v3.6-rc7", "v3.6", "v6.12"])
    def test_without_any_alias_everybody_boots(self, version: str) -> None:
        k = boot(version, "\n".join(line for line in PHANTOM.splitlines() if not line.startswith("alias")))
        assert group(k, "00:04.0") is not group(k, "00:05.0")

    @pytest.mark.parametrize(
        ("version", "changed", "stays"),
        [
            ("v3.8", (), True),
            ("v3.6-rc7", ("amd-alias-dev-data-group",), True),
            ("v6.12", ("amd-alias-dev-data-group",), True),
            ("v3.6-rc7", ("amd-alias-table-walk",), False),
            ("v6.12", ("iommu-group-bus-private",), False),
        ],
    )
    def test_who_remembers_the_group_when_all_are_gone(
        self, version: str, changed: tuple[str, ...], stays: bool
    ) -> None:
        """The prototype never drops its reference; what searches among the living finds another group next time."""
        k = boot(version, PHANTOM, changed)
        old = group(k, "00:04.0")
        for bdf in ("00:04.0", "00:05.0"):
            remove(k, bdf)
        assert old.exists == stays
        assert iommu_checks.leaked_group_references(k) == []
        taken = IommuGroup.fresh(k.world, "group", name="somebody else's")
        pci_sysfs.rescan_store(k)
        assert (group(k, "00:04.0") is old) == stays
        assert group(k, "00:04.0") is group(k, "00:05.0")
        assert taken.exists

    def test_the_walk_sees_only_who_is_there_with_a_group(self) -> None:
        """A device that is being added or removed is on the bus without a group, and so is passed over."""
        k = boot("v3.6-rc7", PHANTOM, ["amd-alias-table-walk"])
        remove(k, "00:05.0")
        first = device(k, "00:04.0")
        held, first.iommu_group = first.iommu_group, None
        pci_sysfs.rescan_store(k)
        first.iommu_group = held
        assert group(k, "00:04.0") is not group(k, "00:05.0")


class TestShowdown:
    """IVRS alias against PCI alias, v3.17 to v5.5; then every alias gets the entry."""

    QUIRK = "machine m\n00:01.0 root-port bus=01 acs\n01:00.0 ahci id=1b4b:9123\niommu amd\n"

    @pytest.mark.parametrize("version", ["v4.1", "v4.4", "v5.5", "v5.6", "v6.12"])
    def test_an_alias_that_only_pci_knows(self, version: str) -> None:
        k = boot(version, self.QUIRK)
        dev = device(k, "01:00.0")
        assert tuple(dev.dma_alias_mask) == (1,)
        buffer = mapped(k, dev=dev)
        assert write(k, buffer.iova, "01:00.0") == "ok", "it sends as 01:00.1"
        assert texts(k) == []

    def test_an_alias_that_only_the_ivrs_table_knows(self) -> None:
        k = make_kernel("v4.1", PHANTOM)
        kernel_boot.boot(k)
        said = [text for text in texts(k, "info") if text.startswith("AMD-Vi")]
        assert said[:2] == [
            "AMD-Vi: Using IVRS reported alias 00:1e.7 for device 0000:00:04.0[1234:11e8], "
            "kernel reported alias 00:04.0",
            "AMD-Vi: Added PCI DMA alias 1e.7 for 0000:00:04.0",
        ]
        assert tuple(device(k, "00:04.0").dma_alias_mask) == (0xF7,)

    def test_v56_adds_it_without_a_word(self) -> None:
        k = make_kernel("v5.6", PHANTOM)
        kernel_boot.boot(k)
        assert not [text for text in texts(k) if "IVRS" in text]
        assert tuple(device(k, "00:04.0").dma_alias_mask) == (0xF7,)

    def test_before_there_is_no_showdown(self) -> None:
        k = make_kernel("v3.13", PHANTOM)
        kernel_boot.boot(k)
        assert tuple(device(k, "00:04.0").dma_alias_mask) == ()

    @pytest.mark.parametrize("version", ["v3.6", "v3.8", "v4.1"])
    def test_two_devices_of_one_alias_share_a_domain_before_v42(self, version: str) -> None:
        k = boot(version, PHANTOM)
        one, other = device(k, "00:04.0"), device(k, "00:05.0")
        buffers = [mapped(k, dev=dev) for dev in (one, other)]
        assert buffers[0].domain is buffers[1].domain
        assert [write(k, buffer.iova, bdf) for buffer, bdf in zip(buffers, ("00:04.0", "00:05.0"), strict=True)] == [
            "ok",
            "ok",
        ]

    @pytest.mark.parametrize("version", ["v4.4", "v5.5", "v5.6", "v6.12"])
    def test_later_the_last_one_attached_owns_the_entry(self, version: str) -> None:
        """In two groups with two domains, only one of them can do DMA: the entry of the alias is one."""
        k = boot(version, PHANTOM)
        one, other = (mapped(k, dev=device(k, bdf)) for bdf in ("00:04.0", "00:05.0"))
        assert one.domain is not other.domain
        assert other.domain is not None
        assert dte(k, "00:1e.7") == other.domain.number
        dma.dma_unmap_single(k, device(k, "00:05.0"), other)
        assert write(k, one.iova, "00:04.0").startswith("fault:")

    def test_together_both_can(self) -> None:
        k = boot("v6.12", PHANTOM, ["amd-alias-dev-data-group"])
        one, other = (mapped(k, dev=device(k, bdf)) for bdf in ("00:04.0", "00:05.0"))
        assert write(k, one.iova, "00:04.0") == write(k, other.iova, "00:05.0") == "ok"

    def test_user_space_may_not_have_half_of_an_alias(self) -> None:
        """Before v4.2 the hardware's view protects what the split groups promise wrongly."""
        k = boot("v3.6", PHANTOM)
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, group(k, "00:04.0")) == -16
        k = boot("v3.8", PHANTOM)
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        assert iommu.iommu_attach_group(k, domain, group(k, "00:06.0")) == 0

    @pytest.mark.parametrize(("version", "copied"), [("v5.5", False), ("v5.6", True)])
    def test_one_alias_or_all(self, version: str, copied: bool) -> None:
        """A device with an IVRS alias besides the alias that PCI knows: which entries follow it."""
        k = boot(version, self.QUIRK + "alias 01:00.0 -> 00:1f.7\n")
        assert dte(k, "00:1f.7") is not None
        assert (dte(k, "01:00.1") is not None) == copied


class TestDetaching:
    @pytest.mark.parametrize(
        ("version", "after_unbind", "after_removal"),
        [
            ("v3.6", False, False),
            ("v4.0", False, False),
            ("v4.1", True, True),
            ("v4.3", True, False),
            ("v4.5", True, False),
            ("v5.8", True, False),
            ("v6.12", True, False),
        ],
    )
    def test_whether_the_entry_stays_alive(self, version: str, after_unbind: bool, after_removal: bool) -> None:
        k = start(version, "amd")
        mapped(k)
        unbind(k)
        assert (dte(k, NIC) is not None) == after_unbind
        unplug(k)
        assert (dte(k, NIC) is not None) == after_removal
        assert bool(iommu_checks.live_entries_of_absent(k)) == after_removal

    def test_v43_in_a_group_with_others_it_stays(self) -> None:
        """The domain is not freed, and nothing else detaches; v4.5 does."""
        for version, live in (("v4.3", True), ("v4.4", True), ("v4.5", False)):
            k = start(version, "amd", SHARED)
            unplug(k)
            assert (dte(k, NIC) is not None) == live

    @pytest.mark.parametrize("version", ["v3.5", "v3.6", "v3.13", "v4.1", "v4.3", "v4.5", "v5.5", "v5.8-rc1", "v6.12"])
    @pytest.mark.parametrize("machine", [ALONE, SHARED])
    @pytest.mark.parametrize("held", [False, True])
    def test_replug_works_always(self, version: str, machine: str, held: bool) -> None:
        k = start(version, "amd", machine)
        data = device(k, NIC).iommu_priv
        dev = hold(k) if held else None
        unplug(k)
        new = replug(k)
        assert new.iommu_priv is data, "the data of a requester id is kept for ever"
        assert new.driver == "toy"
        buffer = mapped(k, dev=new)
        assert write(k, buffer.iova) == "ok"
        if dev is not None:
            let_go(k, dev)
        assert write(k, buffer.iova) == "ok"
        assert broken(k) == []

    def test_a_late_unmap_gives_an_unbound_device_its_dma_back(self) -> None:
        k = start("v3.6", "amd")
        buffer, forgotten = mapped(k), mapped(k)
        unbind(k)
        assert write(k, forgotten.iova).startswith("fault:")
        dma.dma_unmap_single(k, device(k, NIC), buffer)
        assert write(k, forgotten.iova) == "ok"
        assert broken(k) == ["iommu/reattached-without-driver"]

    @pytest.mark.parametrize("version", ["v3.6", "v4.1", "v4.3", "v5.5", "v6.12"])
    def test_user_space_gets_the_device_and_gives_it_back(self, version: str) -> None:
        k = start(version, "amd")
        unbind(k)
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        own = group(k, NIC)
        assert iommu.iommu_attach_group(k, domain, own) == 0
        domain.page_table.mappings.add(0x5000)
        assert write(k, 0x5000) == "ok"
        iommu.iommu_detach_group(k, domain, own)
        iommu.iommu_domain_free(k, domain)
        assert write(k, 0x5000).startswith("fault:")
        assert pci_sysfs.bind_store(k, "toy", device(k, NIC)) == 0
        assert write(k, mapped(k).iova) == "ok"

    def test_freeing_a_domain_detaches_what_is_in_it(self) -> None:
        k = start("v6.12", "amd")
        unbind(k)
        domain = iommu.iommu_domain_alloc(k, UNMANAGED)
        assert domain is not None
        amd_iommu.attach_dev(k, domain, device(k, NIC))
        iommu.iommu_domain_free(k, domain)
        assert dte(k, NIC) is None
        assert iommu_checks.dangling_domains(k) == []


class TestCorners:
    @pytest.mark.parametrize("version", ["v3.6", "v4.3", "v6.12"])
    def test_a_device_that_no_iommu_covers(self, version: str) -> None:
        k = make_kernel(version, ALONE + "iommu amd\ncovers 00:01.0\n", Toy("toy"))
        kernel_boot.boot(k, ["toy"])
        assert device(k, NIC).iommu_group is None
        buffer = mapped(k)
        assert buffer.how == "direct"
        assert write(k, buffer.iova) == "ok"

    @pytest.mark.parametrize("version", ["v3.6", "v4.3", "v5.8", "v6.12"])
    def test_no_memory_for_the_data_leaves_the_device_to_itself(self, version: str) -> None:
        k = make_kernel(version, ALONE + "iommu amd\n")
        kernel_boot.enumerate_all(k)
        amd_iommu.init(k)
        dev = device(k, NIC)
        k.system.faults_left = 1
        k.world.recording = Recording(forced=(1,))
        add = amd_iommu.probe_device if version in ("v5.8", "v6.12") else amd_iommu.add_device
        assert add(k, dev) == -12
        k.world.recording = None
        assert dev.iommu_priv is None
        assert write(k, 0x1000) == "ok"

    @pytest.mark.parametrize("version", ["v3.6", "v4.3", "v6.12"])
    def test_memory_that_firmware_wants_mapped(self, version: str) -> None:
        k = start(version, "amd", ALONE + "reserved 01:00.0 0x7f000000-0x7f0fffff\n")
        mapped(k)
        assert write(k, 0x7F000000) == "ok"

    def test_the_next_kernel_starts_afresh(self) -> None:
        k = start("v4.1", "amd")
        first = AmdDevData.get(k.world, f"amd/dev_data/0000:{NIC}")
        assert first.domain is not None
        amd_iommu.init(k)
        assert not first.exists
        assert tuple(amd_iommu.amd_vi(k).dev_data_list) == ()

    def test_every_entry_in_use_leads_to_a_domain_that_exists(self) -> None:
        for version in ("v3.6", "v4.3", "v6.12"):
            k = start(version, "amd", SHARED)
            for _ in range(2):
                unplug(k)
                assert iommu_checks.dangling_domains(k) == []
                dev: PciDev = replug(k)
                assert dev.iommu_group is not None
