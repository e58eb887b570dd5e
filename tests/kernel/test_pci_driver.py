from __future__ import annotations

from errno import EBUSY, EIO, ENODEV

import pytest
from toykernel import AHCI, E1000E, SMALL, ShutdownToy, SleepToy, Toy, device, only, refuse, rules, texts

from quiesce.kernel import base_dd, changes, iommu, msi, pci, pci_acs_enable, pci_driver
from quiesce.kernel.driver import DeviceId
from quiesce.kernel.objects import PCI_D0, PCI_D3HOT, PCI_UNKNOWN

BDF = "0000:00:02.0"
SRIOV = """
00:00.0 host-bridge
00:01.0 root-port bus=01
01:00.0 igb sriov=2
"""

# -- matching ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        (DeviceId(), True),
        (DeviceId(0x8086, 0x2922), True),
        (DeviceId(0x8086, 0x2923), False),
        (DeviceId(base_class=0x01), True),
        (DeviceId(base_class=0x01, sub_class=0x06), True),
        (DeviceId(base_class=0x01, sub_class=0x08), False),
        (DeviceId(override_only=True), False),
    ],
)
def test_the_id_table(boot, entry, fits):
    k = boot("v6.12", SMALL, Toy(ids=(entry,)), load=())
    assert pci_driver.pci_bus_match(k, "toy", device(k, "00:02.0")) is fits


def test_an_override_excludes_all_other_drivers_and_needs_no_table(boot):
    k = boot("v6.12", SMALL, Toy("any"), Toy("none", ids=()), Toy("only", ids=(DeviceId(override_only=True),)), load=())
    dev = device(k, "00:02.0")
    fits = {name: pci_driver.pci_bus_match(k, name, dev) for name in k.drivers}
    assert fits == {"any": True, "none": False, "only": False}
    for chosen in k.drivers:
        dev.driver_override = chosen
        assert [name for name in k.drivers if pci_driver.pci_bus_match(k, name, dev)] == [chosen]


def test_there_is_no_override_before_v3_16(boot):
    fits = {}
    for version in ("v3.15", "v3.16"):
        k = boot(version, SMALL, Toy("none", ids=()), load=())
        dev = device(k, "00:02.0")
        dev.driver_override = "none"
        fits[version] = pci_driver.pci_bus_match(k, "none", dev)
    assert fits == {"v3.15": False, "v3.16": True}


def test_ids_added_at_run_time(boot):
    k = boot("v6.12", SMALL, Toy(ids=()), load=())
    dev = device(k, "00:02.0")
    assert pci_driver.pci_match_device(k, "toy", dev) is None
    k.system.dynids.add(("toy", 0x8086, 0x2922))
    assert pci_driver.pci_match_device(k, "toy", dev) == DeviceId(0x8086, 0x2922)
    assert pci_driver.pci_match_device(k, "toy", device(k, "01:00.0")) is None


def test_a_driver_may_narrow_its_table(boot):
    k = boot("v6.12", SMALL, Toy(matches=lambda k, dev: dev.bdf == BDF))
    assert [dev.bdf for dev in k.system.devices if dev.driver] == [BDF]


# -- probe and remove --------------------------------------------------------------------------------------------


def test_the_core_knows_the_driver_during_probe_and_remove(boot):
    seen = []
    note = lambda k, dev: seen.append((dev.driver, dev.pci_driver))  # noqa: E731
    k = boot("v6.12", SMALL, Toy(ids=AHCI, on_probe=note, on_remove=note))
    base_dd.device_release_driver(k, device(k, "00:02.0"))
    assert seen == [("toy", "toy")] * 2
    assert device(k, "00:02.0").pci_driver is None


def test_a_positive_answer_counts_as_success(boot):
    k = boot("v6.12", SMALL, Toy(ids=AHCI, answer=1), load=())
    k.system.loaded.add("toy")
    assert base_dd.device_driver_attach(k, "toy", device(k, "00:02.0")) == 0
    assert texts(k, "warn") == [f"toy {BDF}: Driver probe function unexpectedly returned 1"]


def test_a_failed_probe_leaves_no_reference(boot):
    k = boot("v6.12", SMALL, Toy(answer=-EIO), load=())
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    assert (tuple(dev.refs), dev.pci_driver) == ((), None)


@pytest.mark.parametrize(
    ("version", "lost", "answer"),
    [
        ("v4.1", False, -ENODEV),
        ("v4.3", True, -ENODEV),
        ("v4.4", False, -ENODEV),
        ("v4.5", False, -ENODEV),
        ("v5.10", False, -ENODEV),
    ],
)
def test_probing_a_device_that_uses_msi_without_a_driver_loses_its_number(boot, version, lost, answer):
    k = boot(version, SMALL, Toy(on_probe=refuse), load=())
    dev = device(k, "01:00.0")
    pci.pci_enable_device(k, dev)
    assert msi.pci_enable_msi(k, dev) == 0
    vector = dev.irq
    assert base_dd.device_driver_attach(k, "toy", dev) == answer
    assert (dev.irq != vector) is lost
    if lost:
        assert (dev.irq, dev.irq_managed) == (0, False)


def test_the_number_is_lost_even_to_a_driver_whose_table_does_not_fit(boot):
    k = boot("v4.3", SMALL, Toy(ids=()), load=())
    dev = device(k, "01:00.0")
    pci.pci_enable_device(k, dev)
    msi.pci_enable_msi(k, dev)
    assert pci_driver.pci_device_probe(k, "toy", dev) == -ENODEV
    assert (dev.irq, k.drivers["toy"].log, tuple(dev.refs)) == (0, [], ())


def test_v4_4_refuses_to_probe_a_device_that_uses_msi(boot):
    k = boot("v4.4", SMALL, Toy(), load=())
    dev = device(k, "01:00.0")
    assert base_dd.device_driver_attach(k, "toy", dev) == 0
    pci.pci_enable_device(k, dev)
    msi.pci_enable_msi(k, dev)
    base_dd.device_release_driver(k, dev)
    base_dd.device_driver_attach(k, "toy", dev)
    assert k.drivers["toy"].log[-1] == "remove 0000:01:00.0"
    assert texts(k, "warn") == [f"toy: probe of {dev.bdf} failed with error -{EBUSY}"]


@pytest.mark.parametrize("change", ["no-alloc-irq-while-msi", "msi-without-driver"])
def test_proposals_that_keep_the_number(boot, change):
    k = boot("v4.3", SMALL, Toy(on_probe=refuse), load=(), changed=[change])
    dev = device(k, "01:00.0")
    pci.pci_enable_device(k, dev)
    msi.pci_enable_msi(k, dev)
    vector = dev.irq
    base_dd.device_driver_attach(k, "toy", dev)
    assert dev.irq == vector


@pytest.mark.parametrize(("version", "state"), [("v3.6", PCI_UNKNOWN), ("v7.1", PCI_UNKNOWN), ("v7.2", PCI_D0)])
def test_the_power_state_after_an_unbind(boot, version, state):
    k = boot(version, SMALL, Toy(on_probe=lambda k, dev: pci.pci_enable_device(k, dev)))
    dev = device(k, "00:02.0")
    assert dev.current_state == PCI_D0
    base_dd.device_release_driver(k, dev)
    assert dev.current_state == state


def test_the_core_cleans_up_nothing_at_remove(boot):
    def use(k, dev):
        pci.pci_enable_device(k, dev)
        pci.pci_set_master(k, dev)

    k = boot("v6.12", SMALL, Toy(ids=AHCI, on_probe=use))
    dev = device(k, "00:02.0")
    base_dd.device_release_driver(k, dev)
    assert (dev.enable_cnt, dev.is_busmaster, dev.hw.bus_master) == (1, True, True)


# -- virtual functions -------------------------------------------------------------------------------------------


def sriov(k, dev, num_vfs):
    from quiesce.kernel import iov

    if num_vfs:
        return iov.pci_enable_sriov(k, dev, num_vfs) or num_vfs
    iov.pci_disable_sriov(k, dev)
    return 0


@pytest.mark.parametrize(
    ("version", "override", "probed"),
    [
        ("v4.11", None, True),
        ("v4.12", None, False),
        ("v4.12", "vf", False),
        ("v5.2", "vf", False),
        ("v5.3", "vf", True),
        ("v6.12", None, False),
    ],
)
def test_virtual_functions_may_be_barred_from_probing(boot, version, override, probed):
    k = boot(version, SRIOV, Toy("pf", ids=only(0x8086, 0x10C9)), Toy("vf", ids=only(0x8086, 0x10CA)))
    pf = device(k, "01:00.0")
    pf.drivers_autoprobe = False
    sriov(k, pf, 1)
    (vf,) = (dev for dev in k.system.devices if dev.is_virtfn)
    if override:
        vf.driver_override = override
        base_dd.device_attach(k, vf)
    assert (vf.driver == "vf") is probed
    pf.drivers_autoprobe = True
    base_dd.device_attach(k, vf)
    assert vf.driver == "vf"


def test_a_driver_that_leaves_sriov_on_is_complained_about(boot):
    k = boot("v6.12", SRIOV, Toy("pf", ids=only(0x8086, 0x10C9)), Toy("vf", ids=only(0x8086, 0x10CA)))
    pf = device(k, "01:00.0")
    sriov(k, pf, 2)
    base_dd.device_release_driver(k, pf)
    assert texts(k, "warn") == ["pf 0000:01:00.0: driver left SR-IOV enabled after remove"]
    assert [dev.driver for dev in k.system.devices if dev.is_virtfn] == ["vf", "vf"]


# -- DMA ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def claims(monkeypatch):
    log = []

    def claim(k, dev):
        log.append("use")
        return 0

    monkeypatch.setattr(iommu, "iommu_device_use_default_domain", claim)
    monkeypatch.setattr(iommu, "iommu_device_unuse_default_domain", lambda k, dev: log.append("unuse"))
    monkeypatch.setattr(pci_acs_enable, "pci_enable_acs", lambda k, dev: log.append("acs"))
    return log


@pytest.mark.parametrize(
    ("version", "log"),
    [("v5.18", []), ("v5.19", ["use", "unuse"]), ("v6.19", ["use", "unuse"]), ("v7.0", ["acs", "use", "unuse"])],
)
def test_binding_claims_the_default_domain(boot, claims, version, log):
    k = boot(version, SMALL, Toy(), load=())
    claims.clear()
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, "toy", dev)
    base_dd.device_release_driver(k, dev)
    assert claims == log


@pytest.mark.parametrize(
    ("name", "without", "log"),
    [
        ("toy", None, []),
        ("pci-stub", None, []),
        ("pci-stub", "-18c7a349d072", ["use", "unuse"]),
        ("pcieport", None, []),
        ("pcieport", "-c7d469849747", ["use", "unuse"]),
        ("vfio-pci", None, []),
        ("vfio-pci", "-70693f470848", ["use", "unuse"]),
    ],
)
def test_drivers_that_manage_dma_themselves_claim_nothing(boot, claims, name, without, log):
    k = boot("v6.12", SMALL, Toy(name, driver_managed_dma=True), load=(), changed=[without] if without else [])
    claims.clear()
    dev = device(k, "00:02.0")
    base_dd.device_driver_attach(k, name, dev)
    base_dd.device_release_driver(k, dev)
    assert claims == log


def test_the_iommu_core_configures_without_a_driver(boot, claims):
    k = boot("v7.3", SMALL, Toy(), load=())
    claims.clear()
    assert pci_driver.pci_dma_configure(k, None, device(k, "00:02.0")) == 0
    assert claims == ["acs"]


# -- shutdown ----------------------------------------------------------------------------------------------------


def shut_down(boot, version, *, kexec, changed=(), unbind=False):
    def use(k, dev):
        pci.pci_enable_device(k, dev)
        pci.pci_set_master(k, dev)
        msi.pci_enable_msi(k, dev)

    k = boot(version, SMALL, ShutdownToy(ids=E1000E, on_probe=use), changed=changed)
    dev = device(k, "01:00.0")
    if unbind:
        base_dd.device_release_driver(k, dev)
    k.system.kexec_in_progress = kexec
    pci_driver.pci_device_shutdown(k, dev)
    return k, dev


@pytest.mark.parametrize("kexec", [False, True])
@pytest.mark.parametrize(("version", "off"), [("v3.6", True), ("v4.11", True), ("v4.12", False), ("v6.12", False)])
def test_messages_at_shutdown(boot, version, off, kexec):
    _, dev = shut_down(boot, version, kexec=kexec)
    assert dev.hw.msi_enabled is not off
    assert not dev.hw.intx_disabled or not off


@pytest.mark.parametrize(
    ("version", "at_reboot", "at_kexec"),
    [
        ("v3.5", True, True),
        ("v3.6", True, True),
        ("v3.8", True, True),
        ("v3.9", True, True),
        ("v3.12", True, True),
        ("v3.13", False, True),
        ("v4.1", False, True),
        ("v6.12", False, True),
    ],
)
def test_bus_mastering_at_shutdown(boot, version, at_reboot, at_kexec):
    _, dev = shut_down(boot, version, kexec=False)
    assert dev.hw.bus_master is not at_reboot
    _, dev = shut_down(boot, version, kexec=True)
    assert dev.hw.bus_master is not at_kexec


@pytest.mark.parametrize(("version", "spared"), [("v3.12", True), ("v6.12", True), ("v7.2", False)])
def test_a_device_that_lost_its_driver_is_spared_even_for_kexec(boot, version, spared):
    _, dev = shut_down(boot, version, kexec=True, unbind=True)
    assert dev.hw.bus_master is spared


def test_up_to_v3_8_only_enabled_devices_are_disabled(boot):
    k = boot("v3.6")
    dev = device(k, "00:02.0")
    pci_driver.pci_device_shutdown(k, dev)
    assert (rules(k), texts(k), dev.enable_cnt) == ([], [], 0)
    pci.pci_enable_device(k, dev)
    pci_driver.pci_device_shutdown(k, dev)
    assert dev.enable_cnt == 0


@pytest.mark.parametrize(("kexec", "off"), [(False, False), (True, True)])
def test_proposal_messages_off_only_for_kexec(boot, kexec, off):
    _, dev = shut_down(boot, "v4.1", kexec=kexec, changed=["msi-off-only-for-kexec"])
    assert dev.hw.msi_enabled is not off


def test_proposal_intx_off_besides(boot):
    _, dev = shut_down(boot, "v4.1", kexec=False, changed=["shutdown-disables-intx"])
    assert (dev.hw.msi_enabled, dev.hw.intx_disabled) == (False, True)
    _, dev = shut_down(boot, "v4.1", kexec=False)
    assert (dev.hw.msi_enabled, dev.hw.intx_disabled) == (False, False)


def test_a_driver_without_the_callback_is_not_called(boot):
    k = boot("v6.12", SMALL, Toy("plain", ids=AHCI), ShutdownToy("clean", ids=E1000E))
    for bdf in ("00:02.0", "01:00.0"):
        pci_driver.pci_device_shutdown(k, device(k, bdf))
    assert k.drivers["plain"].log == [f"probe {BDF}"]
    assert k.drivers["clean"].log[-1] == "shutdown 0000:01:00.0"


def test_a_window_opens_after_the_drivers_shutdown(boot, windows):
    k = boot("v6.12", SMALL, ShutdownToy(ids=AHCI))
    seen = windows(k)
    pci_driver.pci_device_shutdown(k, device(k, "00:02.0"))
    pci_driver.pci_device_shutdown(k, device(k, "01:00.0"))
    assert seen == [f"pci_device_shutdown {BDF}: driver shut down"]


# -- system sleep ------------------------------------------------------------------------------------------------


def sleep(k, dev):
    pci_driver.pci_pm_suspend(k, dev)
    pci_driver.pci_pm_suspend_noirq(k, dev)


def wake(k, dev):
    pci_driver.pci_pm_resume_noirq(k, dev)
    pci_driver.pci_pm_resume(k, dev)


@pytest.mark.parametrize("version", ["v3.6", "v4.3", "v6.12", "v7.3"])
def test_a_device_without_driver_comes_back_with_its_messages(boot, version):
    k = boot(version, SMALL)
    dev = device(k, "01:00.0")
    pci.pci_enable_device(k, dev)
    pci.pci_set_master(k, dev)
    msi.pci_enable_msi(k, dev)
    vector = dev.irq
    sleep(k, dev)
    assert (dev.hw.bus_master, dev.current_state) == (False, PCI_UNKNOWN)
    k.machine.power_cycle()
    assert not dev.hw.msi_enabled
    wake(k, dev)
    assert (dev.hw.msi_enabled, dev.hw.bus_master, dev.current_state, dev.irq) == (True, True, PCI_D0, vector)
    assert not dev.state_saved or k.has(changes.STATE_SAVED_AT_ADD)


def test_a_device_that_is_not_enabled_is_left_alone(boot):
    k = boot("v6.12", SMALL)
    dev = device(k, "00:02.0")
    before = dev.hw.command
    sleep(k, dev)
    assert dev.hw.command == before
    wake(k, dev)
    assert dev.enable_cnt == 0


def test_a_bridge_without_driver_keeps_bus_mastering(boot):
    k = boot("v6.12", SMALL)
    port = device(k, "00:01.0")
    pci.pci_enable_device(k, port)
    pci.pci_set_master(k, port)
    sleep(k, port)
    assert port.hw.bus_master
    assert port.hw.power_state == PCI_D0


def test_drivers_that_take_part_are_called_and_their_devices_sleep_in_d3hot(boot):
    k = boot("v6.12", SMALL, SleepToy(ids=E1000E, on_probe=lambda k, dev: pci.pci_enable_device(k, dev)))
    dev = device(k, "01:00.0")
    sleep(k, dev)
    assert (dev.current_state, dev.hw.power_state) == (PCI_D3HOT, PCI_D3HOT)
    wake(k, dev)
    assert (dev.current_state, dev.hw.power_state) == (PCI_D0, PCI_D0)
    assert k.drivers["toy"].log[-2:] == [f"suspend {dev.bdf}", f"resume {dev.bdf}"]


def test_a_driver_that_saves_the_state_keeps_the_power_state_to_itself(boot):
    class Saver(SleepToy):
        def suspend(self, k, dev):
            return pci.pci_save_state(k, dev)

    k = boot("v6.12", SMALL, Saver(ids=E1000E, on_probe=lambda k, dev: pci.pci_enable_device(k, dev)))
    dev = device(k, "01:00.0")
    sleep(k, dev)
    assert dev.hw.power_state == PCI_D0


def test_drivers_that_do_not_take_part_are_not_called(boot):
    k = boot("v6.12", SMALL, Toy(ids=E1000E, on_probe=lambda k, dev: pci.pci_enable_device(k, dev)))
    dev = device(k, "01:00.0")
    sleep(k, dev)
    wake(k, dev)
    assert k.drivers["toy"].log == [f"probe {dev.bdf}" for dev in k.system.devices if dev.driver]
    assert dev.hw.command & 2


def test_a_suspend_that_is_called_off_restores_what_was_saved(boot):
    k = boot("v6.12", SMALL)
    dev = device(k, "01:00.0")
    pci.pci_enable_device(k, dev)
    pci.pci_set_master(k, dev)
    sleep(k, dev)
    assert not dev.hw.bus_master
    pci_driver.pci_pm_resume(k, dev)
    assert (dev.hw.bus_master, dev.state_saved) == (True, False)
