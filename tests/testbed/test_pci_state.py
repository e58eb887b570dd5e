from __future__ import annotations

from quiesce.testbed.kernel_log import KernelLog
from quiesce.testbed.pci_state import BLOCKED, FAILED, parse_state

TEXT = r"""DEVICE 0000:00:04.0
path=pci0000:00/0000:00:04.0
irq=24
driver=vfio-pci
power/control=on
driver_override!
reset_method=flr bus
sriov_numvfs?16
resource=0x1\n0x\z16; 0x2\n\\
msi_irqs=24:msi,25:msi
config=8680\z12;ff
DEVICE 0000:01:00.0
irq=0
GROUP 3
devices=0000:00:04.0,0000:01:00.0
type=DMA-FQ
reserved_regions=0x1 0x2 direct\n0x3 0x4 msi
GROUP 4
devices=
INTERRUPTS
           CPU0       CPU1
 24:         10          5  IR-PCI-MSI 65536-edge      vfio-msi[0](0000:00:04.0)
NMI:          1          0   Non-maskable interrupts
ERR:          7
"""


def test_attributes_of_each_device() -> None:
    devices = parse_state(TEXT)["dev"]
    assert list(devices) == ["0000:00:04.0", "0000:01:00.0"]
    assert devices["0000:00:04.0"]["reset_method"] == "flr bus"
    assert devices["0000:00:04.0"]["power/control"] == "on"
    assert devices["0000:01:00.0"] == {"irq": "0"}


def test_what_was_escaped_is_plain_again() -> None:
    device = parse_state(TEXT)["dev"]["0000:00:04.0"]
    assert device["config"] == "8680000000000000ff"
    assert device["resource"] == "0x1\n0x0000000000000000 0x2\n\\"


def test_attributes_that_block_or_fail_are_marked() -> None:
    device = parse_state(TEXT)["dev"]["0000:00:04.0"]
    assert device["driver_override"] == BLOCKED
    assert device["sriov_numvfs"] == f"{FAILED} 16"


def test_groups_with_type_and_members() -> None:
    groups = parse_state(TEXT)["group"]
    assert groups["3"]["type"] == "DMA-FQ"
    assert groups["3"]["devices"] == ["0000:00:04.0", "0000:01:00.0"]
    assert groups["3"]["reserved"] == ["0x1 0x2 direct", "0x3 0x4 msi"]
    assert groups["4"] == {"type": "?", "devices": [], "reserved": []}


def test_interrupts_are_summed_over_processors() -> None:
    lines = parse_state(TEXT)["irq"]
    assert lines["24"] == {"count": 15, "what": "IR-PCI-MSI 65536-edge vfio-msi[0](0000:00:04.0)"}
    assert lines["NMI"]["count"] == 1
    assert lines["ERR"] == {"count": 7, "what": ""}


def test_nothing_and_half_a_text_are_read_too() -> None:
    assert parse_state("") == {"dev": {}, "group": {}, "irq": {}}
    assert parse_state(TEXT[: TEXT.index("resource")])["dev"]["0000:00:04.0"]["irq"] == "24"


def test_kernel_messages_without_their_heads_and_dictionaries() -> None:
    text = "6,10,100,-;pci 0000:00:04.0: found\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:04.0\n4,11,101,c;two\\x0alines\n"
    assert KernelLog().lines(text) == ["pci 0000:00:04.0: found", "two", "lines"]


def test_lost_kernel_messages_are_counted() -> None:
    log = KernelLog()
    assert log.lines("6,10,1,-;a\n") == ["a"]
    assert log.lines("6,14,2,-;b\n6,15,2,-;c\n") == ["[3 kernel messages lost]", "b", "c"]
