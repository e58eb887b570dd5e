"""Events as operations on a guest, with a guest that only writes down what it is told."""

import errno

import pytest

from fake_guest import DEVICES, DRIVERS, Clock, FakeGuest, config, image
from quiesce.cases.case import Case
from quiesce.cases.scenario import find_machine
from quiesce.testbed import observe, steps, steps_vfio
from quiesce.testbed.errors import Skipped
from quiesce.testbed.guest_side import STEPS, GuestSide, tell_if_open
from quiesce.testbed.model_side import ModelSide
from quiesce.testbed.observation import UNSEEN
from quiesce.testbed.random_lives import machine_text
from quiesce.testbed.scripted import FOLDER, SCRIPTS
from quiesce.testbed.steps import CANNOT, CannotDo, errno_text
from quiesce.testbed.topology import qemu_machine

AHCI, NIC, EDU, ABSENT = "0000:00:1f.2", "0000:01:00.0", "0000:03:00.0", "0000:02:00.0"
TEXT = machine_text("desk", "intel").replace("02:00.0 xhci", "02:00.0 xhci absent")
DESCRIPTION = find_machine(TEXT)
MODELS = ("ahci", "e1000e", "vfio-pci", "pci-stub", "correct", "i915", "virtio-pci", "uio_pci_generic", "i2c_i801")


@pytest.fixture
def clock(monkeypatch) -> Clock:
    fake = Clock()
    for module in ("steps", "steps_power", "guest_side"):
        monkeypatch.setattr(f"quiesce.testbed.{module}.time", fake)
    return fake


@pytest.fixture
def guest() -> FakeGuest:
    fake = FakeGuest()
    fake.configs = dict.fromkeys((AHCI, NIC, EDU), config())
    for name in ("ahci", "e1000e", "vfio-pci", "pci-stub", "correct", "i801_smbus"):
        fake.folders[f"{DRIVERS}/{name}"] = ["bind", "unbind"]
    fake.folders[DEVICES] = [AHCI, NIC, EDU]
    return fake


@pytest.fixture
def side(guest, clock, tmp_path, monkeypatch) -> GuestSide:
    kernel = image(tmp_path, built_in=("virtio_pci",))
    monkeypatch.setitem(observe._KNOWLEDGE, kernel.vmlinux, None)
    return GuestSide(guest, kernel, qemu_machine(DESCRIPTION), DESCRIPTION, MODELS, (AHCI, EDU))


# -- writes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"), [(0, "0"), (errno.EBUSY, "-EBUSY"), (-errno.ENODEV, "-ENODEV"), (137, "-137")]
)
def test_answers_are_texts_of_the_kernel(answer, text) -> None:
    assert errno_text(answer) == text


@pytest.mark.parametrize(
    ("event", "path", "data"),
    [
        (f"unbind {AHCI}", f"{DEVICES}/{AHCI}/driver/unbind", AHCI),
        (f"remove {AHCI}", f"{DEVICES}/{AHCI}/remove", "1"),
        ("rescan", "/sys/bus/pci/rescan", "1"),
        (f"reset {AHCI}", f"{DEVICES}/{AHCI}/reset", "1"),
        (f"enable {AHCI}", f"{DEVICES}/{AHCI}/enable", "1"),
        (f"disable {AHCI}", f"{DEVICES}/{AHCI}/enable", "0"),
        (f"numvfs-off {AHCI}", f"{DEVICES}/{AHCI}/sriov_numvfs", "0"),
        (f"group-type identity {AHCI}", f"{DEVICES}/{AHCI}/iommu_group/type", "identity"),
        (f"late-open {EDU}", f"{FOLDER}/open", EDU),
        (f"gpu-close {EDU}", f"{FOLDER}/close", EDU),
    ],
)
def test_an_event_is_one_write_and_its_answer_the_kernels(side, guest, event, path, data) -> None:
    assert side.play(event).answer == "0"
    assert guest.writes() == [(path, data)]
    guest.answers[path] = errno.EPERM
    assert side.play(event).answer == "-EPERM"


@pytest.mark.parametrize(("total", "wanted"), [("7", "2"), ("1", "1"), (None, "0")])
def test_as_many_virtual_functions_are_asked_for_as_there_are_two_at_most(side, guest, total, wanted) -> None:
    if total:
        guest.files[f"{DEVICES}/{AHCI}/sriov_totalvfs"] = total
    side.play(f"numvfs-on {AHCI}")
    assert guest.writes() == [(f"{DEVICES}/{AHCI}/sriov_numvfs", wanted)]


def test_a_write_that_does_not_come_back_is_blocked_after_a_while_and_ends_the_life(side, guest, clock) -> None:
    guest.answers[f"{DEVICES}/{AHCI}/driver/unbind"] = None
    began = clock.now
    told = side.play(f"unbind {AHCI}")
    assert (told.answer, told.ended, told.seen["system", "waits"]) == ("blocked", "blocked", "1")
    assert steps.PATIENCE <= clock.now - began < steps.SLOW
    told = side.play(f"enable {AHCI}")
    assert (told.answer, told.ended, told.seen["system", "waits"]) == ("0", "", "0")


def test_a_reset_has_longer_than_an_unbind(side, guest, clock) -> None:
    guest.answers[f"{DEVICES}/{AHCI}/reset"] = None
    began = clock.now
    assert side.play(f"reset {AHCI}").answer == "blocked"
    assert clock.now - began >= steps.SLOW


def test_no_reset_file_is_what_the_model_calls_enotty_and_no_other_file_is(side, guest) -> None:
    guest.answers = dict.fromkeys((f"{DEVICES}/{AHCI}/reset", f"{DEVICES}/{AHCI}/remove"), errno.ENOENT)
    assert side.play(f"reset {AHCI}").answer == "-ENOTTY"
    assert side.play(f"remove {AHCI}").answer == "-ENOENT"


def test_what_the_kernel_says_is_heard_each_time_but_for_what_it_says_only_once(side, guest) -> None:
    every = 'irq 16: nobody cared (try booting with the "irqpoll" option)'
    once = f"ahci {AHCI}: disabling already-disabled device"
    heard = []
    for log in ([every, once], [], [every, once]):
        guest.log = log
        heard.append(side.play(f"enable {AHCI}").seen["system", "alarms"])
    assert heard == ["disabled-twice nobody-cared", "none", "nobody-cared"]


# -- binding ---------------------------------------------------------------------------------------------------


def test_a_driver_whose_table_fits_is_bound_without_override(side, guest) -> None:
    assert side.play(f"bind ahci {AHCI}").answer == "0"
    assert guest.writes() == [(f"{DRIVERS}/ahci/bind", AHCI)]


@pytest.mark.parametrize(("name", "bdf"), [("vfio-pci", AHCI), ("pci-stub", EDU), ("correct", EDU), ("e1000e", AHCI)])
def test_one_whose_table_does_not_fit_is_bound_by_override(side, guest, name, bdf) -> None:
    side.play(f"bind {name} {bdf}")
    assert guest.writes() == [(f"{DEVICES}/{bdf}/driver_override", name), (f"{DRIVERS}/{name}/bind", bdf)]


@pytest.mark.parametrize(("override", "cleared"), [("vfio-pci", True), ("(null)", False), ("", False), ("ahci", False)])
def test_an_override_for_another_driver_is_taken_back(side, guest, override, cleared) -> None:
    guest.files[f"{DEVICES}/{AHCI}/driver_override"] = override
    side.play(f"bind ahci {AHCI}")
    assert ((f"{DEVICES}/{AHCI}/driver_override", "\n") in guest.writes()) is cleared


def test_a_driver_that_is_not_loaded_is_told_and_nothing_is_written(side, guest) -> None:
    del guest.folders[f"{DRIVERS}/ahci"]
    guest.files[f"{DEVICES}/{AHCI}/driver_override"] = "vfio-pci"
    assert side.play(f"bind ahci {AHCI}").answer == "-ENODEV"
    assert guest.writes() == []


def test_drivers_are_bound_by_the_name_that_sysfs_has(side, guest) -> None:
    guest.configs["0000:00:1f.3"] = config()
    side.play("bind i2c_i801 0000:00:1f.3")
    assert guest.writes()[-1] == (f"{DRIVERS}/i801_smbus/bind", "0000:00:1f.3")


def test_a_network_interface_is_brought_up_once_its_driver_has_the_device(side, guest) -> None:
    side.play(f"bind e1000e {NIC}")
    assert len(guest.scripts(f"{DEVICES}/{NIC}/net")) == 1
    guest.answers[f"{DRIVERS}/e1000e/bind"] = errno.EIO
    assert side.play(f"bind e1000e {NIC}").answer == "-EIO"
    assert len(guest.scripts(f"{DEVICES}/{NIC}/net")) == 1


def test_the_same_for_what_a_rescan_has_bound(tmp_path, guest, clock, monkeypatch) -> None:
    kernel = image(tmp_path)
    monkeypatch.setitem(observe._KNOWLEDGE, kernel.vmlinux, None)
    side = GuestSide(guest, kernel, qemu_machine(DESCRIPTION), DESCRIPTION, MODELS, (AHCI, NIC))
    guest.says = [(f"readlink {DEVICES}/{NIC}/driver", 0, "../../bus/pci/drivers/e1000e\n")]
    side.play("rescan")
    assert len(guest.scripts("ip link set")) == 1
    assert guest.scripts(f"{DEVICES}/{AHCI}/net") == []


def test_drivers_that_read_registers_are_not_bound_where_registers_read_0(side, guest) -> None:
    guest.configs[AHCI] = config(bars=b"")
    with pytest.raises(CannotDo, match="lost its addresses"):
        side.play(f"bind ahci {AHCI}")
    assert side.play(f"bind vfio-pci {AHCI}").answer == "0"
    side.play(f"unplug {EDU}")
    with pytest.raises(CannotDo, match="gone"):
        side.play(f"bind correct {EDU}")
    assert side.play(f"bind pci-stub {EDU}").answer == "0"


# -- modules ---------------------------------------------------------------------------------------------------


def test_modules_are_loaded_and_scripts_defined(side, guest) -> None:
    side.play("load ahci")
    side.play("load correct")
    side.play("unload e1000e")
    side.play("unload correct")
    assert guest.scripts("insmod") == ["insmod /mod/ahci.ko"]
    assert guest.scripts("rmmod") == ["rmmod e1000e"]
    assert guest.writes() == [(f"{FOLDER}/define", SCRIPTS["correct"]), (f"{FOLDER}/undefine", "correct")]


def test_what_is_built_in_cannot_be_unloaded(side) -> None:
    with pytest.raises(CannotDo, match="virtio-pci is built into this kernel"):
        side.play("unload virtio-pci")


# -- hardware --------------------------------------------------------------------------------------------------


def test_a_device_that_is_taken_away_is_neither_reset_nor_plugged_in_again(side, guest) -> None:
    side.play(f"unplug {EDU}")
    assert ("surprise", "d03.00.0") in guest.did
    with pytest.raises(CannotDo, match="waits a minute"):
        side.play(f"reset {EDU}")
    with pytest.raises(CannotDo, match="second card"):
        side.play(f"plug {EDU}")
    assert side.play(f"reset {AHCI}").answer == "0"


def test_only_an_empty_slot_takes_a_card(side, guest, clock) -> None:
    with pytest.raises(CannotDo, match="second card"):
        side.play(f"plug {NIC}")
    guest.files[f"{DEVICES}/{ABSENT}/vendor"] = "0x1b36"
    began = clock.now
    assert side.play(f"plug {ABSENT}").answer == "0"
    assert ("plug", "d02.00.0") in guest.did
    assert clock.now - began < 1
    del guest.files[f"{DEVICES}/{ABSENT}/vendor"]
    side.play(f"plug {ABSENT}")
    assert clock.now - began > 8


def test_the_teaching_device_interrupts_by_a_register_and_no_other_does(side, guest) -> None:
    side.play(f"interrupt {EDU}")
    assert guest.scripts("poke") == [f"poke {EDU} 0 0x60 0x1"]
    with pytest.raises(CannotDo, match=f"nothing but its own work makes {AHCI} interrupt"):
        side.play(f"interrupt {AHCI}")


def test_whoever_has_the_device_open_writes_its_register(side, guest) -> None:
    guest.programs.add(f"vfio-{EDU}")
    side.play(f"interrupt {EDU}")
    assert guest.told() == ["wbar 0 0x60 0x1"]
    assert guest.scripts("poke") == []
    guest.replies["wbar 0 0x60 0x1"] = (0, "ERR wbar 5 Input/output error")
    side.play(f"interrupt {EDU}")
    assert len(guest.scripts("poke")) == 1
    assert not tell_if_open(side, AHCI, "x")


def test_a_program_of_uio_clears_the_bit_that_the_kernel_has_set(side, guest) -> None:
    guest.configs[EDU] = config(0x407)
    assert side.play(f"uio-start {EDU}").answer == "0"
    side.play(f"uio-ack {EDU}")
    assert guest.scripts("poke") == [f"poke {EDU} 0 0x64 0xffffffff"]
    (script,) = guest.scripts("/config bs=1 seek=4")
    assert script.startswith(r"printf '\x07\x00' |")


@pytest.mark.parametrize(("verb", "bits"), [("aer-nonfatal", r"\000\200\000\000"), ("aer-fatal", r"\000\000\004\000")])
def test_errors_are_injected_by_address_and_bit(side, guest, verb, bits) -> None:
    assert side.play(f"{verb} {NIC}").answer == "0"
    (script,) = guest.scripts("/dev/aer_inject")
    assert script.startswith(rf"printf '\001\000\000\000{bits}")
    guest.says = [("aer_inject", 1, "no such device\n")]
    with pytest.raises(CannotDo, match=r"aer_inject refused: no such device$"):
        side.play(f"{verb} {NIC}")


@pytest.mark.parametrize(("rc", "answer"), [(0, "0"), (1, "-EIO")])
def test_network_interfaces_go_up_and_down(side, guest, rc, answer) -> None:
    guest.says = [("ip link", rc, "")]
    assert side.play(f"net-down {NIC}").answer == answer
    assert guest.scripts("ip link") == [f"ip link set $(ls {DEVICES}/{NIC}/net) down"]


# -- vfio ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(side, guest) -> GuestSide:
    guest.says = [("iommu_group", 0, "../../../../kernel/iommu_groups/7\n")]
    assert side.play(f"vfio-open {AHCI}").answer == "0"
    guest.did.clear()
    return side


def test_opening_goes_from_the_container_to_the_device(side, guest) -> None:
    guest.says = [("iommu_group", 0, "../../../../kernel/iommu_groups/7\n")]
    assert side.play(f"vfio-open {AHCI}").answer == "0"
    assert ("program", f"vfio-{AHCI}", "/bin/vfio") in guest.did
    assert guest.told() == ["container", "group 7", "attach", f"device {AHCI}"]
    assert guest.programs == {f"vfio-{AHCI}"}


def test_the_first_that_fails_is_what_is_told_and_the_program_ends(side, guest) -> None:
    guest.says = [("iommu_group", 0, "../../../../kernel/iommu_groups/7\n")]
    guest.replies["attach"] = (0, "ERR attach 1 Operation not permitted")
    assert side.play(f"vfio-open {AHCI}").answer == "-EPERM"
    assert guest.told() == ["container", "group 7", "attach"]
    assert guest.programs == set()


def test_after_that_nothing_can_be_told_to_it_and_the_life_ends_with_the_reason(side) -> None:
    with pytest.raises(CannotDo, match=f"no program has {AHCI} open"):
        side.play(f"vfio-reset {AHCI}")
    with pytest.raises(CannotDo, match=f"no program has {AHCI} open"):
        side.play(f"vfio-mem-off {AHCI}")


def test_without_a_group_nothing_is_opened(side, guest) -> None:
    with pytest.raises(CannotDo, match="without IOMMU group"):
        side.play(f"vfio-open {AHCI}")
    assert guest.programs == set()


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ((0, "OK"), "0"),
        ((0, "OK 12"), "0"),
        ((0, "ERR reset 25 Inappropriate ioctl for device"), "-ENOTTY"),
        ((errno.ETIMEDOUT, ""), "blocked"),
    ],
)
def test_replies_of_the_program_become_answers(opened, guest, reply, answer) -> None:
    guest.replies["reset"] = reply
    told = opened.play(f"vfio-reset {AHCI}")
    assert told.answer == answer
    assert told.ended == ("blocked" if answer == "blocked" else "")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ("vfio-req-on", "req"),
        ("vfio-dma-unmap", "unmap 0x100000 0x1000"),
        ("vfio-intx-on", "irq intx 1"),
        ("vfio-intx-off", "irqoff intx"),
        ("vfio-intx-mask", "mask intx"),
        ("vfio-intx-unmask", "unmask intx"),
        ("vfio-intx-unmask-irqfd", "irqfd-unmask"),
        ("vfio-intx-detach", "detach intx"),
        ("vfio-intx-attach", "attach intx"),
        ("vfio-intx-trigger", "trigger intx"),
        ("vfio-msi-off", "irqoff msi"),
        ("vfio-msix-off", "irqoff msix"),
    ],
)
def test_an_event_of_a_monitor_is_one_command(opened, guest, event, line) -> None:
    opened.play(f"{event} {AHCI}")
    assert guest.told() == [line]


@pytest.mark.parametrize(
    ("event", "before", "after"),
    [
        ("vfio-mem-off", 0x407, 0x405),
        ("vfio-mem-on", 0x405, 0x407),
        ("vfio-guest-intx-off", 0x007, 0x407),
        ("vfio-guest-intx-on", 0x407, 0x007),
    ],
)
def test_bits_of_command_are_changed_one_at_a_time(opened, guest, event, before, after) -> None:
    guest.replies["rcfg 4 2"] = (0, f"OK {before:x}")
    opened.play(f"{event} {AHCI}")
    assert guest.told() == ["rcfg 4 2", f"wcfg 4 2 {after:#x}"]


@pytest.mark.parametrize(
    ("reply", "answer"), [((0, "ERR rcfg 5 Input/output error"), "-EIO"), ((errno.ETIMEDOUT, ""), "blocked")]
)
def test_config_space_that_cannot_be_read_is_an_answer_too(opened, guest, reply, answer) -> None:
    guest.replies["rcfg 4 2"] = reply
    assert opened.play(f"vfio-mem-off {AHCI}").answer == answer
    assert guest.told() == ["rcfg 4 2"]


def test_bus_mastering_follows_a_mapping_and_not_one_that_fails(opened, guest) -> None:
    guest.replies["rcfg 4 2"] = (0, "OK 3")
    assert opened.play(f"vfio-dma-map {AHCI}").answer == "0"
    assert guest.told() == ["map 0x100000 0x1000", "rcfg 4 2", "wcfg 4 2 0x7"]
    guest.did.clear()
    guest.replies["map 0x100000 0x1000"] = (0, "ERR map 12 Cannot allocate memory")
    assert opened.play(f"vfio-dma-map {AHCI}").answer == "-ENOMEM"
    assert guest.told() == ["map 0x100000 0x1000"]


def test_servicing_reads_the_eventfd_and_satisfies_the_device(side, guest) -> None:
    guest.programs.add(f"vfio-{EDU}")
    side.play(f"vfio-intx-service {EDU}")
    assert guest.told() == ["events 200", "wbar 0 0x64 0xffffffff"]


def test_closing_ends_the_program(opened, guest) -> None:
    opened.play(f"vfio-close {AHCI}")
    assert ("end", f"vfio-{AHCI}") in guest.did
    assert guest.programs == set()


# -- power -----------------------------------------------------------------------------------------------------


def test_a_machine_asleep_shows_nothing_and_one_that_woke_up_does(side, guest) -> None:
    told = side.play("suspend")
    assert (told.answer, side.phase) == ("0", "asleep")
    assert set(told.seen.values()) == {UNSEEN}
    told = side.play("resume")
    assert (told.answer, side.phase) == ("0", "running")
    assert told.seen[AHCI, "mem"] == "0"


def test_a_refusal_to_sleep_is_an_answer_and_waking_up_at_once_is_none(side, guest) -> None:
    guest.slept = errno.EBUSY
    assert side.play("suspend").answer == "-EBUSY"
    assert side.phase == "running"
    guest.slept = 0
    with pytest.raises(CannotDo, match="woke up at once"):
        side.play("suspend")


def test_a_card_whose_slot_waking_up_would_switch_is_not_put_to_sleep(side, guest) -> None:
    guest.folders[DEVICES].remove(EDU)
    with pytest.raises(CannotDo, match="takes the card out"):
        side.play("suspend")
    side.gone.add(EDU)
    assert side.play("suspend").answer == "0"


def test_a_reboot_is_looked_at_from_outside(side, guest) -> None:
    guest.configs[AHCI] = config(0x406)
    assert side.play(f"enable {AHCI}").seen["system", "waits"] == "0"
    told = side.play("reboot")
    assert guest.did[-1] == ("hold",)
    assert (told.answer, side.phase) == ("0", "down")
    assert (told.seen[AHCI, "master"], told.seen[AHCI, "driver"]) == ("1", UNSEEN)
    assert told.seen["system", "waits"] == UNSEEN


def test_between_two_kernels_counts_what_no_longer_changes(side, guest, clock, monkeypatch) -> None:
    began = clock.now
    monkeypatch.setattr(guest, "config", lambda bdf, length=256: config(0x407 if clock.now < began + 1 else 0x403))
    told = side.play("kexec")
    assert ("kexec",) in guest.did
    assert side.phase == "gap"
    assert told.seen[AHCI, "master"] == "0"
    assert told.seen[AHCI, "mem"] == "1"
    assert 2.5 <= clock.now - began < 3
    monkeypatch.setattr(guest, "config", lambda bdf, length=256: config(0x407))
    assert side.observe()[AHCI, "master"] == "0"
    told = side.play("second-kernel")
    assert (guest.did[-1], side.phase) == (("meet",), "second")
    assert told.seen[AHCI, "master"] == "1"


def test_a_gap_in_which_nothing_comes_to_rest_ends(side, guest, clock, monkeypatch) -> None:
    began = clock.now
    monkeypatch.setattr(guest, "config", lambda bdf, length=256: config(int(clock.now * 1000) & 0x7FF))
    side.play("kexec")
    assert 30 <= clock.now - began < 31


# -- what cannot be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", CANNOT)
def test_what_qemu_cannot_do_is_skipped_with_its_reason(side, verb) -> None:
    with pytest.raises(Skipped) as caught:
        side.play(f"{verb} {AHCI}")
    assert str(caught.value) == f"{verb}: {CANNOT[verb]}"


def test_no_event_is_both_played_and_impossible_and_an_unknown_one_is_said_so(side, guest) -> None:
    assert not set(STEPS) & set(CANNOT)
    with pytest.raises(CannotDo, match=r"^frobnicate: not tried in a guest$"):
        side.play("frobnicate")
    assert guest.did == []


def test_every_event_of_the_model_is_played_or_has_a_reason() -> None:
    drivers = ("ahci", "e1000e", "igb", "i915", "late-unmap", "uio_pci_generic", "vfio-pci", "virtio-pci")
    case = Case("all", machine=TEXT, kernel="v6.12", drivers=drivers, devices=(AHCI, EDU, NIC))
    verbs = {event.split()[0] for event in ModelSide.of(case).events()}
    assert verbs - set(STEPS) - set(CANNOT) == {"boot"}
    assert verbs & set(CANNOT)
    assert verbs > set(steps_vfio.VFIO_STEPS)
