from __future__ import annotations

from quiesce.snapshot.pci_ids import PciIds, system_ids

TEXT = b"""# a comment
8086  Intel Corporation
\t1901  6th-10th Gen Core Processor PCIe Controller (x16)
\t\t1028 06b5  Something
# another
\t2922  82801IR
808a  Other
\t1234  Elsewhere
C 01  Mass storage controller
\t06  SATA controller
\t\t01  AHCI 1.0
"""


def test_names() -> None:
    ids = PciIds(TEXT)
    assert ids.vendor(0x8086) == "Intel Corporation"
    assert ids.device(0x8086, 0x2922) == "82801IR"
    assert ids.class_name(0x0106) == "SATA controller"


def test_a_device_of_another_vendor_is_not_taken() -> None:
    assert PciIds(TEXT).device(0x8086, 0x1234) is None
    assert PciIds(TEXT).device(0x808A, 0x1234) == "Elsewhere"


def test_without_a_file_there_are_common_names() -> None:
    ids = PciIds()
    assert (ids.vendor(0x8086), ids.class_name(0x0604)) == ("Intel Corporation", "PCI bridge")
    assert (ids.vendor(0x7777), ids.device(0x8086, 0x2922), ids.class_name(0x7777)) == (None, None, None)


def test_the_system_has_a_text_or_not() -> None:
    assert system_ids().vendor(0x8086) == "Intel Corporation"
