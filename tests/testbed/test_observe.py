from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from quiesce.testbed import observe as real
from quiesce.testbed.config_bits import SIZE, config_fields
from quiesce.testbed.errors import Skipped
from quiesce.testbed.observation import (
    DEVICE_FIELDS,
    FIELDS,
    HARDWARE_FIELDS,
    SYSTEM,
    SYSTEM_FIELDS,
    UNSEEN,
    partition,
)
from quiesce.testbed.structures import WANTED, DeviceSeen, GroupSeen, Seen, Torn

AHCI, NIC, LPC = "0000:00:1f.2", "0000:01:00.0", "0000:00:1f.0"
INTERRUPTS = """           CPU0
 16:          0  IR-IO-APIC  16-fasteoi   ahci[0000:00:1f.2], other
 25:          4  IR-PCI-MSI-0000:01:00.0   0-edge      eth0-rx-0
 26:          4  IR-PCI-MSI-0000:01:00.0   1-edge      eth0-tx-0
"""
TOLD = f"""{NIC}/msi_irqs/25 {NIC}/msi_irqs/26
{NIC}/reset_method:flr bus
{AHCI}/reset_method:
{INTERRUPTS}"""


def _config(**changes: int) -> bytes:
    """MSI at 0x50, PM at 0x60, MSI-X at 0x70."""
    data = bytearray(SIZE)
    data[0:4], data[4], data[6] = b"\x86\x80\x22\x29", changes.get("command", 7) & 0xFF, 0x10
    data[0x34], data[0x3D] = 0x50, 1
    data[5] = changes.get("command", 7) >> 8
    data[0x50:0x54] = bytes((0x05, 0x60, changes.get("msi", 0), 0))
    data[0x60:0x68] = bytes((0x01, 0x70, 0, 0, changes.get("power", 0), 0, 0, 0))
    data[0x70:0x74] = bytes((0x11, 0, 2, changes.get("msix", 0)))
    return bytes(data)


def _seen(bdf: str, group: GroupSeen | None = None, driver: str = "", **numbers: int | None) -> DeviceSeen:
    values: dict[str, int | None] = dict.fromkeys(WANTED["pci_dev"], 0)
    values |= {"error_state": 1, **numbers}
    return DeviceSeen(bdf, values, driver, "", (), group, 0)


class FakeGuest:
    """Answers what an observation asks of a guest."""

    def __init__(self, configs: Mapping[str, bytes]) -> None:
        self.configs = configs
        self.asked: list[str] = []

    def config(self, bdf: str, length: int) -> bytes:
        return self.configs.get(bdf, b"\xff" * length)

    def shell(self, script: str, timeout: float) -> tuple[int, str]:
        self.asked.append(script)
        return 0, TOLD

    def qmp(self, command: str) -> None:
        self.asked.append(command)

    def virtual(self, address: int, length: int) -> bytes:
        return bytes(length)


IMAGE: Any = SimpleNamespace(vmlinux=None)
GROUP = GroupSeen(4, "DMA", "default", False, 1, 3)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Any:
    devices = {
        AHCI: _seen(AHCI, GROUP, "ahci", irq=16, **{"enable_cnt.counter": 1, "is_managed": 1}),
        LPC: _seen(LPC, GROUP, match_driver=None),
        NIC: _seen(NIC, irq=25, msix_enabled=1, **{"enable_cnt.counter": (1 << 32) - 1, "dev.dma_iommu": None}),
    }
    monkeypatch.setattr(real, "read_structures", lambda guest, image: Seen(devices, 2, 1 << 9))
    return FakeGuest({AHCI: _config(msi=1), NIC: _config(msix=0xC0, power=3, command=0x407)})


def test_every_field_of_every_subject_is_there(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, (AHCI, NIC))
    assert {name for subject, name in seen if subject == AHCI} == set(DEVICE_FIELDS)
    assert {name for subject, name in seen if subject == SYSTEM} == set(SYSTEM_FIELDS)


def test_a_device_on_a_line(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, (AHCI,))
    names = ("driver", "irq", "line_handlers", "vectors", "is_managed", "devres", "msi", "reset_methods", "group_held")
    assert [seen[AHCI, name] for name in names] == ["ahci", "line", "2", "0", "1", "-", "1", "none", "1"]


def test_a_device_with_messages(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, (NIC,))
    names = (
        "irq",
        "vectors",
        "message_handlers",
        "enable_cnt",
        "msix",
        "msix_masked",
        "power",
        "intx_disable",
        "group",
    )
    assert [seen[NIC, name] for name in names] == ["message", "2", "2", "-1", "1", "1", "D3hot", "1", "none"]


def test_the_whole(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, (AHCI,), ["nobody cared"], waits=False)
    assert {name: text for (subject, name), text in seen.items() if subject == SYSTEM} == {
        "groups": f"{LPC} {AHCI}",
        "empty_groups": "1",
        "alarms": "nobody-cared",
        "taint": "W",
        "waits": "0",
    }


def test_what_this_kernel_does_not_have_is_unseen(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, (LPC,))
    assert seen[LPC, "match_driver"] == UNSEEN
    assert seen[LPC, "mem"] == "gone"


def test_a_sleeping_guest_is_not_asked(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, (NIC,), awake=False)
    assert guest.asked == []
    assert (seen[NIC, "vectors"], seen[NIC, "driver"], seen[NIC, "msix"]) == (UNSEEN, "none", "1")


def test_a_device_the_kernel_has_let_go(guest: Any) -> None:
    seen = real.observe(guest, IMAGE, ("0000:05:00.0",))
    assert (seen["0000:05:00.0", "present"], seen["0000:05:00.0", "driver"]) == ("0", "-")


def test_without_a_kernel_only_the_silicon_shows(guest: Any) -> None:
    now = real.observe_outside(guest, (NIC,))
    before = real.observe_outside(guest, (NIC, AHCI), {NIC: _config()})
    assert {name for (subject, name), text in now.items() if text != UNSEEN and subject == NIC} == set(HARDWARE_FIELDS)
    assert (now[NIC, "msix"], before[NIC, "msix"]) == ("1", "0")
    assert before.get((AHCI, "msix"), UNSEEN) == UNSEEN


def test_structures_that_tear_are_read_again_while_the_guest_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    guest: Any = FakeGuest({})
    answers = iter([Torn("x"), Seen({}, 0, 0)])

    class Reader:
        def __init__(self, memory: object, known: object) -> None: ...

        def look(self) -> Seen:
            answer = next(answers)
            if isinstance(answer, Torn):
                raise answer
            return answer

    monkeypatch.setattr(real, "_knowledge_of", lambda guest, image: object())
    monkeypatch.setattr(real, "Structures", Reader)
    assert real.read_structures(guest, IMAGE) == Seen({}, 0, 0)
    assert guest.asked == ["stop", "cont", "stop", "cont"]


def test_config_space_that_is_cut_or_silent_is_gone() -> None:
    assert set(config_fields(b"").values()) == {"gone"} == set(config_fields(b"\xff" * SIZE).values())


def test_a_capability_that_comes_twice_counts_the_first_time() -> None:
    data = bytearray(_config(msi=1))
    data[0x70] = 0x05
    assert config_fields(bytes(data))["msi"] == "1"


def test_capabilities_in_a_circle_end() -> None:
    data = bytearray(_config())
    data[0x71] = 0x50
    assert config_fields(bytes(data))["power"] == "D0"


def test_partitions_are_sorted() -> None:
    assert partition([("b", "a"), ("0",)]) == "0 | a b"
    assert partition([]) == "none"


def test_every_field_says_where_it_comes_from() -> None:
    families = {"device", "irq", "msi", "devres", "iommu", "group", "memory", "context", "vfio", "message"}
    assert {field.family for field in FIELDS.values()} <= families
    assert {field.guest for field in FIELDS.values()} <= {"structure", "config", "sysfs", "proc", "log", "steps"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["debian:5.10", "debian:6.1", "debian:6.12", "debian:newest"])
def test_model_and_real_kernel_start_alike(name: str) -> None:
    """Of a machine nobody has touched yet, every text of the two sides is the same."""
    from quiesce.cases.case import Case
    from quiesce.testbed.compare import Moment, differences
    from quiesce.testbed.guest import Guest
    from quiesce.testbed.images import find_image
    from quiesce.testbed.model_side import ModelSide
    from quiesce.testbed.read_back import read_back
    from quiesce.testbed.topology import qemu_machine

    devices = (AHCI, NIC, "0000:02:00.0")
    try:
        from quiesce.cases.scenario import find_machine

        image = find_image(name)
        machine = qemu_machine(find_machine("root-ports-acs--612--intel"))
        guest = Guest(image, machine, ("ahci", "e1000e"))
        guest.start()
    except Skipped as reason:
        pytest.skip(str(reason))
    with guest:
        guest.kernel_log()
        case = Case(name="start", machine="x", kernel=image.kernel_set, drivers=("ahci", "e1000e"), devices=devices)
        model = ModelSide(case, read_back(guest, machine), devices)
        moment = Moment(0, "start", "", "", model.start(), real.observe(guest, image, devices))
    assert list(differences(moment)) == []
