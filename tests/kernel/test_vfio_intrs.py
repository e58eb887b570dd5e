"""INTx and MSI of devices that user space has, version by version, and the races that versions closed."""

from __future__ import annotations

from errno import EINVAL

import pytest
from drivertest import INTEL, at_window, bind, booted, can, device, interrupt, operate, rules, texts, unbind

from quiesce.kernel import irq, vfio_intrs, vfio_pci
from quiesce.kernel.kernel import Blocked, Crash, Kernel
from quiesce.kernel.vfio_intrs import VfioPciDevice
from quiesce.machine.pci_regs import PCI_COMMAND, PCI_COMMAND_INTX_DISABLE

AHCI = "00:1f.2"
EXCLUSIVE = INTEL.replace("00:1f.2 ahci", "00:1f.2 ahci no-intx-disable").replace(
    "00:1f.3 smbus", "00:1f.3 smbus pin=B"
)


def opened(version: str, *, before: str = "", machine: str = INTEL, changed: tuple[str, ...] = ()) -> Kernel:
    """A kernel on which user space has the AHCI controller open, after another driver had it."""
    k = booted(version, machine, [name for name in (before, "vfio-pci") if name], changed=changed)
    if before:
        assert bind(k, before, AHCI) == 0
        unbind(k, AHCI)
    assert bind(k, "vfio-pci", AHCI) == 0
    assert operate(k, "vfio-open", AHCI) == 0
    return k


def vdev_of(k: Kernel) -> VfioPciDevice:
    vdev = vfio_pci.vdev_of(k, device(k, AHCI))
    assert vdev is not None
    return vdev


def raised(k: Kernel) -> bool:
    trigger = vdev_of(k).triggers[0]
    return trigger is not None and trigger.signalled


@pytest.mark.parametrize("version", ["v3.6", "v4.1", "v5.3", "v6.1", "v6.9", "v6.11", "v6.14", "v6.18", "v7.3"])
@pytest.mark.parametrize("machine", [INTEL, EXCLUSIVE], ids=["shared", "exclusive"])
def test_an_interrupt_is_masked_signalled_and_unmasked(version: str, machine: str) -> None:
    k = opened(version, machine=machine)
    assert operate(k, "vfio-intx-on", AHCI) == 0
    vdev, hw = vdev_of(k), device(k, AHCI).hw
    assert vdev.pci_2_3 is (machine is INTEL)
    interrupt(k, AHCI)
    assert raised(k)
    assert vdev.masked
    assert hw.intx_disabled is vdev.pci_2_3
    assert hw.irq_status, "only user space can satisfy the device"
    operate(k, "vfio-intx-service", AHCI)
    operate(k, "vfio-intx-unmask", AHCI)
    assert not vdev.masked
    assert not raised(k)
    interrupt(k, AHCI)
    assert raised(k)
    assert rules(k) == []


@pytest.mark.parametrize("machine", [INTEL, EXCLUSIVE], ids=["shared", "exclusive"])
def test_a_pending_interrupt_is_signalled_again_by_unmasking(machine: str) -> None:
    k = opened("v6.12", machine=machine)
    operate(k, "vfio-intx-on", AHCI)
    interrupt(k, AHCI)
    trigger = vdev_of(k).triggers[0]
    assert trigger is not None
    trigger.signalled = False
    operate(k, "vfio-intx-unmask", AHCI)
    assert trigger.signalled
    assert vdev_of(k).masked
    assert rules(k) == []


@pytest.mark.parametrize(
    ("version", "changed", "sleeps"),
    [
        ("v6.10", (), False),
        ("v6.11-rc1", (), False),
        ("v6.11-rc2", (), True),
        ("v6.11-rc7", (), True),
        ("v6.11", (), False),
        ("v6.12", (), False),
        ("v6.14", (), False),
        ("v6.11-rc7", ("fc8c818e7569",), False),
        ("v6.11-rc7", ("intx-gfp-atomic",), False),
        ("v6.11-rc7", ("vfio-unmanaged-intx",), False),
        ("v6.11-rc7", ("vfio-intx-outside-lock",), False),
        ("v6.11", ("-fc8c818e7569",), True),
    ],
)
def test_masking_after_a_managed_driver(version: str, changed: tuple[str, ...], sleeps: bool) -> None:
    """is_managed outlives ahci, and pci_intx() under irqlock allocates.

    In v6.11-rc1 every call makes a record, so the first does, which is not under the lock.
    """
    if version == "v6.11-rc1":
        k = opened(version)
        device(k, AHCI).is_managed = True
    else:
        k = opened(version, before="ahci", changed=changed)
    operate(k, "vfio-intx-on", AHCI)
    before = rules(k)
    operate(k, "vfio-intx-mask", AHCI)
    assert before == []
    assert ("context/sleep-in-atomic" in rules(k)) is sleeps
    assert vdev_of(k).masked


def test_masking_after_an_unmanaged_driver_never_sleeps() -> None:
    for version in ("v6.10", "v6.11-rc2", "v6.11", "v6.14"):
        k = opened(version, before="legacy-intx")
        operate(k, "vfio-intx-on", AHCI)
        operate(k, "vfio-intx-mask", AHCI)
        assert rules(k) == []


@pytest.mark.parametrize(("changed", "parted"), [(("vfio-intx-outside-lock",), True), ((), False)])
def test_calling_pci_intx_outside_the_lock_lets_flag_and_device_part(changed: tuple[str, ...], parted: bool) -> None:
    """The hypervisor unmasks by eventfd, which takes no igate, between the flag and the bit."""
    k = opened("v6.11-rc7", changed=changed)
    operate(k, "vfio-intx-on", AHCI)
    seen = at_window(k, "not at the device", lambda: vfio_intrs.intx_unmask(k, vdev_of(k)))
    operate(k, "vfio-intx-mask", AHCI)
    assert bool(seen) is parted
    assert rules(k) == (["vfio/intx-mask-disagrees"] if parted else [])


def test_an_interrupt_before_the_bit_is_nobodys() -> None:
    k = opened("v6.11-rc7", changed=("vfio-intx-outside-lock",))
    operate(k, "vfio-intx-on", AHCI)
    at_window(k, "not at the device", lambda: interrupt_now(k))
    operate(k, "vfio-intx-mask", AHCI)
    assert any(rule.startswith("irq/") for rule in rules(k))


@pytest.mark.parametrize(("version", "stuck"), [("v5.10", True), ("v6.8", True), ("v6.9", False), ("v7.3", False)])
def test_an_interrupt_while_an_exclusive_line_is_requested(version: str, stuck: bool) -> None:
    """fe9a7082684e: the line was enabled before it was disabled, and an interrupt in between disabled it twice."""
    k = opened(version, machine=EXCLUSIVE)
    operate(k, "vfio-guest-intx-off", AHCI)
    hw = device(k, AHCI).hw
    hw.engine, hw.irq_enabled = "running", True
    at_window(k, "requested", lambda: interrupt_now(k))
    assert operate(k, "vfio-intx-on", AHCI) == 0
    k.nested = None
    hw.irq_status = False
    operate(k, "vfio-guest-intx-on", AHCI)
    assert ("vfio/intx-stuck" in rules(k)) is stuck
    assert (irq.desc(k, device(k, AHCI).irq).depth > 0) is stuck


def interrupt_now(k: Kernel) -> None:
    """The device raises its interrupt inside a running event."""
    k.machine.function(AHCI).irq_status = True


@pytest.mark.parametrize(("version", "oops"), [("v4.1", True), ("v6.8", True), ("v6.9", False), ("v6.12", False)])
def test_a_signal_without_eventfd(version: str, oops: bool) -> None:
    """18c198c96a81: the eventfd could be taken away while INTx mode stayed."""
    k = opened(version)
    operate(k, "vfio-intx-on", AHCI)
    operate(k, "vfio-intx-detach", AHCI)
    if oops:
        with pytest.raises(Crash, match="vfio/null-eventfd"):
            operate(k, "vfio-intx-trigger", AHCI)
    else:
        operate(k, "vfio-intx-trigger", AHCI)
        assert rules(k) == []
        operate(k, "vfio-intx-attach", AHCI)
        interrupt(k, AHCI)
        assert raised(k)


@pytest.mark.parametrize(("version", "raced"), [("v6.8", True), ("v6.9", False)])
def test_the_guest_unmasks_while_intx_is_torn_down(version: str, raced: bool) -> None:
    """810cd4bb5345 and 18c198c96a81: without igate the guest's write runs into a half removed mode."""
    k = opened(version)
    operate(k, "vfio-intx-on", AHCI)
    operate(k, "vfio-guest-intx-off", AHCI)
    interrupt_now(k)
    seen = at_window(k, "handler freed", lambda: vfio_pci.vfio_config_write_disintx(k, vdev_of(k), False))
    if raced:
        with pytest.raises(Crash, match="vfio/null-eventfd"):
            operate(k, "vfio-intx-off", AHCI)
    else:
        operate(k, "vfio-intx-off", AHCI)
        assert rules(k) == []
    assert bool(seen) is raced


def test_external_masking_waits_for_igate() -> None:
    k = opened("v6.12")
    operate(k, "vfio-intx-on", AHCI)
    vdev = vdev_of(k)
    k.others = [f"igate {device(k, AHCI).bdf}"]
    with pytest.raises(Blocked, match="igate"):
        vfio_pci.vfio_config_write_disintx(k, vdev, True)
    k = opened("v6.8")
    operate(k, "vfio-intx-on", AHCI)
    k.others = [f"igate {device(k, AHCI).bdf}"]
    vfio_pci.vfio_config_write_disintx(k, vdev_of(k), True)
    assert vdev_of(k).masked


def test_an_exclusive_line_is_masked_at_once_since_v6_18() -> None:
    for version, unlazy in (("v6.17", False), ("v6.18", True)):
        k = opened(version, machine=EXCLUSIVE)
        operate(k, "vfio-intx-on", AHCI)
        line = irq.desc(k, device(k, AHCI).irq)
        assert line.disable_unlazy is unlazy
        operate(k, "vfio-intx-mask", AHCI)
        assert line.masked is unlazy
        operate(k, "vfio-intx-off", AHCI)
        assert not line.disable_unlazy


def test_an_exclusive_line_cannot_be_had_on_a_shared_pin() -> None:
    shared = EXCLUSIVE + "route 00:1f A -> 19\nroute 00:1b A -> 19\n"
    k = booted("v6.12", shared, ["snd_hda_intel", "vfio-pci"])
    assert bind(k, "snd_hda_intel", "00:1b.0") == 0
    bind(k, "vfio-pci", AHCI)
    operate(k, "vfio-open", AHCI)
    answer = operate(k, "vfio-intx-on", AHCI)
    assert answer is not None
    assert answer < 0
    assert any("Flags mismatch" in line for line in texts(k))
    assert vdev_of(k).irq_type == "none"


@pytest.mark.parametrize("version", ["v3.6", "v5.3", "v6.12", "v7.3"])
def test_message_interrupts(version: str) -> None:
    k = opened(version)
    operate(k, "vfio-intx-on", AHCI)
    assert not can(k, "vfio-msi-on", AHCI)
    assert vfio_pci.vfio_set_irqs(k, vdev_of(k), lambda: -EINVAL) == -EINVAL
    operate(k, "vfio-intx-off", AHCI)
    assert operate(k, "vfio-msi-on", AHCI) == 0
    assert device(k, AHCI).msi_enabled
    interrupt(k, AHCI)
    assert raised(k)
    assert operate(k, "vfio-msi-off", AHCI) == 0
    assert not device(k, AHCI).msi_enabled
    assert rules(k) == []


@pytest.mark.parametrize(("version", "disabled"), [("v5.7", True), ("v5.8", False), ("v6.12", False)])
def test_vfio_undoes_what_msi_does_to_disintx(version: str, disabled: bool) -> None:
    """abafbc551fdd: COMMAND is written back as it was before the vectors were made."""
    k = opened(version)
    hw = device(k, AHCI).hw
    assert not hw.intx_disabled
    operate(k, "vfio-msi-on", AHCI)
    assert hw.intx_disabled is disabled
    operate(k, "vfio-msi-off", AHCI)
    assert not hw.intx_disabled


@pytest.mark.parametrize(("version", "disabled"), [("v5.7", False), ("v5.8", True)])
def test_vfio_keeps_disintx_of_before_when_msi_goes(version: str, disabled: bool) -> None:
    k = opened(version)
    hw = device(k, AHCI).hw
    operate(k, "vfio-msi-on", AHCI)
    hw.write_config(PCI_COMMAND, 2, hw.command | PCI_COMMAND_INTX_DISABLE)
    operate(k, "vfio-msi-off", AHCI)
    assert hw.intx_disabled is disabled


def test_closing_tears_any_mode_down() -> None:
    for mode in ("vfio-intx-on", "vfio-msi-on"):
        k = opened("v6.12")
        operate(k, mode, AHCI)
        operate(k, "vfio-close", AHCI)
        dev = device(k, AHCI)
        assert not dev.msi_enabled
        assert vdev_of(k).irq_type == "none"
        assert dev.enable_cnt == 0
        assert rules(k) == []
