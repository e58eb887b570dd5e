"""Every mode of lspci, listings of groups, and mixtures of them."""

import pytest

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci import read_lspci
from snapshot.snapdata import header, hex_lines


def one(found: MachineDescription, bdf: str) -> FunctionDescription:
    item = found.function(Bdf.parse(bdf))
    assert item is not None
    return item


def field(item: FunctionDescription, at: int, size: int = 1) -> int | None:
    """Return what is known there; None when any bit of it is not."""
    known = b"\xff" * len(item.config) if item.known is None else item.known
    if known[at : at + size] != b"\xff" * size:
        return None
    return int.from_bytes(item.config[at : at + size], "little")


# -- lists ----------------------------------------------------------------------------------------------------------

LIST = "00:1c.4 PCI bridge [0604]: Intel Corporation 8 Series PCI Express Root Port #5 [8086:9c18] (rev e4)\n"


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        '00:1c.4 "PCI bridge [0604]" "Intel Corporation [8086]" "8 Series Root Port #5 [9c18]" -re4 "" ""\n',
        '00:1c.4 "0604" "8086" "9c18" -re4 "" ""\n',
        "Slot:\t00:1c.4\nClass:\tPCI bridge [0604]\nVendor:\tIntel [8086]\nDevice:\tPort [9c18]\nRev:\te4\n",
        "00:1c.4 0604: 8086:9c18 (rev e4)\n",
        "\u2502 class    \u2502 device \u2502 id           \u2502 iommugroup \u2502 vendor \u2502\n"
        "\u2502 0x060400 \u2502 0x9c18 \u2502 0000:00:1c.4 \u2502         -1 \u2502 0x8086 \u2502\n",
    ],
)
def test_lists_tell_ids_and_class(text: str) -> None:
    item = one(read_lspci(text, "list"), "00:1c.4")
    assert (field(item, 0, 2), field(item, 2, 2), field(item, 10, 2)) == (0x8086, 0x9C18, 0x0604)


def test_lists_tell_nothing_of_buses_and_capabilities() -> None:
    found = read_lspci(LIST, "list")
    item = one(found, "00:1c.4")
    assert len(item.config) == 64
    assert [field(item, at) for at in (r.PCI_SECONDARY_BUS, r.PCI_CAPABILITY_LIST, r.PCI_STATUS)] == [None] * 3
    assert item.config[r.PCI_HEADER_TYPE] == 1
    assert "0000:00:1c.4: a bridge whose bus numbers are not stated; what is below it is unknown" in found.notes


def test_a_name_that_states_the_kind_of_port_is_kept_as_evidence() -> None:
    found = read_lspci(LIST, "list")
    assert one(found, "00:1c.4").attributes["pcie-type"] == "root-port: Root Port"
    assert "0000:00:1c.4: the name says which kind of PCI Express port it is" in found.notes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ASM1184e PCIe Switch Port", None),
        ("PEX 8748 Downstream Port", "switch-down: Downstream Port"),
        ("PCIe Upstream Switch Port", "switch-up: Upstream Switch Port"),
        ("XIO2001 PCI Express-to-PCI Bridge", "pcie-to-pci: PCI Express-to-PCI"),
        ("AST1150 PCI-to-PCI Bridge", None),
        ("GPP Bridge to Bus A", None),
    ],
)
def test_only_words_that_leave_no_doubt_are_evidence(name: str, kind: str | None) -> None:
    found = read_lspci(f"01:00.0 PCI bridge [0604]: Maker {name} [1b21:1184]\n", "list")
    assert found.functions[0].attributes.get("pcie-type") == kind


@pytest.mark.parametrize(
    ("words", "vendor", "device"),
    [
        ("Intel Corporation Device 4637", 0x8086, 0x4637),
        ("Intel Corporation Nice thing", 0x8086, None),
        ("Broadcom Inc. and subsidiaries Device 1234", 0x14E4, 0x1234),
        ("Broadcom HT2100 PCI-Express Bridge", None, None),
        ("Red Hat, Inc. Device 0010", None, None),
        ("Nobody Device 0010", None, None),
    ],
)
def test_ids_from_names(words: str, vendor: int | None, device: int | None) -> None:
    item = read_lspci(f"01:00.0 Host bridge: {words}\n", "list").functions[0]
    assert (field(item, 0, 2), field(item, 2, 2)) == (vendor, device)


def test_multifunction_follows_from_other_functions_but_virtual_ones() -> None:
    text = "00:01.0 Host bridge: x\n00:01.1 Host bridge: x\n00:02.0 Host bridge: x\n" + "".join(
        f"00:03.{number} Ethernet controller: Intel Corporation I350{name}\n"
        for number, name in ((0, ""), (4, " Virtual Function"))
    )
    found = read_lspci(text, "list")
    shown = {bdf: one(found, bdf).known[r.PCI_HEADER_TYPE] >> 7 for bdf in ("00:01.0", "00:02.0", "00:03.0")}  # type: ignore[index]
    assert shown == {"00:01.0": 1, "00:02.0": 0, "00:03.0": 0}


# -- decoded text ---------------------------------------------------------------------------------------------------

BRIEF = """\
00:01.1 PCI bridge: Maker GPP Bridge (prog-if 00 [Normal decode])
	Flags: bus master, fast devsel, latency 0, IRQ 27, IOMMU group 2
	Bus: primary=00, secondary=01, subordinate=03, sec-latency=0
	Capabilities: [50] Power Management version 3
	Capabilities: [58] Express Root Port (Slot-), IntMsgNum 3
	Capabilities: [100] Vendor Specific Information: ID=0001 Rev=1 Len=010 <?>
	Capabilities: [2a0] Access Control Services
	Kernel driver in use: pcieport

"""


def test_brief_text_tells_which_capabilities_there_are_but_not_their_bits() -> None:
    item = one(read_lspci(BRIEF, "-v"), "00:01.1")
    assert (field(item, 0x19), field(item, 0x34), field(item, 0x51), field(item, 0x59)) == (1, 0x50, 0x58, 0)
    assert item.known is not None
    assert (item.config[0x5A] & 0xF0, item.known[0x5A] & 0xF0) == (0x40, 0xF0)
    assert (item.config[0x5B], item.known[0x5B]) == (3 << 1, 0x3F)
    assert (field(item, 0x2A0, 2), item.config[0x2A3], item.known[0x2A2]) == (r.PCI_EXT_CAP_ID_ACS, 0, 0xF0)
    assert (field(item, 0x2A4), field(item, 0x2A6)) == (None, None)
    assert field(item, r.PCI_INTERRUPT_PIN) is None


def test_hidden_capabilities_are_unknown_and_none_are_known_to_be_none() -> None:
    text = "00:02.0 Host bridge: x\n\tFlags: fast devsel\n\tCapabilities: <access denied>\n\n"
    assert field(one(read_lspci(text, "user"), "00:02.0"), r.PCI_CAPABILITY_LIST) is None
    text = "00:02.0 Host bridge: x\n\tFlags: fast devsel\n\n"
    assert field(one(read_lspci(text, "root"), "00:02.0"), r.PCI_CAPABILITY_LIST) == 0


def test_without_any_extended_capability_their_absence_is_unknown() -> None:
    text = "00:02.0 Host bridge: x\n\tFlags: fast devsel\n\tCapabilities: [40] Express Endpoint, MSI 00\n\n"
    assert len(one(read_lspci(text, "conf1"), "00:02.0").config) == 4096
    assert field(one(read_lspci(text, "conf1"), "00:02.0"), 0x100, 4) is None
    assert field(one(read_lspci(text + BRIEF, "ecam"), "00:02.0"), 0x100, 4) == 0


# -- mixtures -------------------------------------------------------------------------------------------------------


def test_text_adds_what_short_bytes_leave_out() -> None:
    data = header(vendor=0x1022, device=0x14DB, class_code=0x060400, kind=1, size=256)
    text = f"# lspci -n -xxx\n00:01.1 0604: 1022:14db\n{hex_lines(data)}\n# lspci -v\n{BRIEF}"
    found = read_lspci(text, "both")
    item = one(found, "00:01.1")
    assert item.config[:0x40] == data[:0x40]
    assert field(item, 0x2A0, 2) == r.PCI_EXT_CAP_ID_ACS
    assert found.recorded_groups == (("0000:00:01.1",),)
    assert item.attributes["driver"] == "pcieport"


def test_listings_that_contradict_each_other_are_noted() -> None:
    found = read_lspci(LIST + "\n$ lspci -n\n00:1c.4 0604: 8086:1234\n", "both")
    assert field(one(found, "00:1c.4"), 2, 2) == 0x9C18
    assert any("ids are stated twice and differently" in note for note in found.notes)


def test_a_log_around_a_listing_is_no_function() -> None:
    text = "[    0.1] pci 0000:00:02.0: [8086:1234]\n" + LIST + "[    9.9] 00000000: 00 11 22 33\n00: not this\n"
    assert [str(item.bdf) for item in read_lspci(text, "log").functions] == ["0000:00:1c.4"]


# -- trees ----------------------------------------------------------------------------------------------------------

TREE = r"""
-+-[0001:40]---00.0-[41]--
 \-[0000:00]-+-00.0  Intel Corporation Device 5918
             +-01.0-[01-04]----00.0-[02-04]--+-01.0-[03]----00.0  Maker [12ab:34cd] Thing
             |                               \-02.0-[04]--
             \-1f.0  Intel Corporation LPC +-[x] 00.0
"""


def test_a_tree_tells_functions_and_buses() -> None:
    found = read_lspci(TREE, "tree")
    assert [str(item.bdf) for item in found.functions] == [
        "0000:00:00.0",
        "0000:00:01.0",
        "0000:00:1f.0",
        "0000:01:00.0",
        "0000:02:01.0",
        "0000:02:02.0",
        "0000:03:00.0",
        "0001:40:00.0",
    ]
    assert {str(item.bdf): tuple(item.config[0x18:0x1B]) for item in found.functions if item.config[0x0E] & 1} == {
        "0000:00:01.0": (0, 1, 4),
        "0000:01:00.0": (1, 2, 4),
        "0000:02:01.0": (2, 3, 3),
        "0000:02:02.0": (2, 4, 4),
        "0001:40:00.0": (0x40, 0x41, 0x41),
    }
    assert field(one(found, "00:01.0"), r.PCI_SECONDARY_BUS) == 1
    assert field(one(found, "00:00.0"), 0, 4) == 0x59188086


def test_a_tree_and_a_list_go_together() -> None:
    found = read_lspci("00:01.0 PCI bridge [0604]: Maker Port [8086:1901]\n" + TREE, "both")
    item = one(found, "00:01.0")
    assert (field(item, 2, 2), field(item, 0x19), field(item, 0x1A)) == (0x1901, 1, 4)


# -- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "IOMMU Group 0:\n\t00:00.0 Host bridge [0600]: x [8086:1]\nIOMMU Group 1:\n"
        "\t00:01.0 PCI bridge [0604]: x [8086:1901]\n\t01:00.0 VGA compatible controller [0300]: y [10de:1c03]\n",
        "IOMMU Group 1 00:01.0 PCI bridge [0604]: x [8086:1901]\nIOMMU Group 0 00:00.0 Host bridge [0600]: x [8086:1]\n"
        "IOMMU Group 1 01:00.0 VGA compatible controller [0300]: y [10de:1c03]\n",
        "Group:  0   0000:00:00.0 Host bridge [0600]: x [8086:1234]\n"
        "Group:  1   0000:00:01.0 PCI bridge [0604]: x [8086:1901]   Driver: pcieport\n"
        "Group:  1   0000:01:00.0 VGA compatible controller [0300]: y [10de:1c03]\n",
        "IOMMU group 0\n00:00.0 Host bridge [0600]: x [8086:1234]\n\nIOMMU group 1\n"
        "00:01.0 PCI bridge [0604]: x [8086:1901]\n01:00.0 VGA compatible controller [0300]: y [10de:1c03]\n",
        "IOMMU: dmar0\n  IOMMU Group: 0\n    Group Device: 0000:00:00.0 - Host bridge [0600]: x [8086:1234]\n\n"
        "  IOMMU Group: 1\n    Group Device: 0000:00:01.0 - PCI bridge [0604]: x [8086:1901]\n"
        "    Group Device: 0000:01:00.0 - VGA compatible controller [0300]: y [10de:1c03]\n",
        "/sys/kernel/iommu_groups/1/devices/0000:01:00.0\n/sys/kernel/iommu_groups/1/devices/0000:00:01.0\n"
        "/sys/kernel/iommu_groups/0/devices/0000:00:00.0\n",
        "/sys/kernel/iommu_groups/0/devices:\n0000:00:00.0\n\n/sys/kernel/iommu_groups/1/devices:\n"
        "0000:00:01.0  0000:01:00.0\n",
        "/sys/kernel/iommu_groups/0/devices:\ntotal 0\nlrwxrwxrwx 1 root root 0 Jan  1 10:00 0000:00:00.0 -> "
        "../../../../devices/pci0000:00/0000:00:00.0\n\n/sys/kernel/iommu_groups/1/devices:\ntotal 0\n"
        "lrwxrwxrwx 1 root root 0 Jan  1 10:00 0000:00:01.0 -> ../../../../devices/pci0000:00/0000:00:01.0\n"
        "lrwxrwxrwx 1 root root 0 Jan  1 0000:01:00.0 -> ../../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0\n",
        "/sys/kernel/iommu_groups/\n"
        "\u251c\u2500\u2500 0\n\u2502   \u251c\u2500\u2500 devices\n"
        "\u2502   \u2502   \u2514\u2500\u2500 0000:00:00.0 -> ../../../../devices/pci0000:00/0000:00:00.0\n"
        "\u2502   \u251c\u2500\u2500 reserved_regions\n\u2514\u2500\u2500 1\n    \u251c\u2500\u2500 devices\n"
        "    \u2502   \u251c\u2500\u2500 0000:00:01.0 -> ../../../../devices/pci0000:00/0000:00:01.0\n"
        "    \u2502   \u2514\u2500\u2500 0000:01:00.0 -> ../../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0\n",
    ],
)
def test_listings_of_groups(text: str) -> None:
    found = read_lspci(text, "groups")
    assert [str(item.bdf) for item in found.functions] == ["0000:00:00.0", "0000:00:01.0", "0000:01:00.0"]
    assert found.recorded_groups == (("0000:00:00.0",), ("0000:00:01.0", "0000:01:00.0"))
    assert found.recorded_ungrouped == ()


def test_paths_tell_what_is_below_a_bridge() -> None:
    text = (
        "/sys/kernel/iommu_groups/1/devices/0000:01:00.0 -> "
        "../../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0\n"
        "/sys/kernel/iommu_groups/1/devices/0000:00:01.0 -> ../../../../devices/pci0000:00/0000:00:01.0\n"
    )
    item = one(read_lspci(text, "ls"), "00:01.0")
    assert (field(item, r.PCI_SECONDARY_BUS), field(item, r.PCI_SUBORDINATE_BUS)) == (1, None)


def test_the_unit_that_owns_a_group_is_kept() -> None:
    text = "IOMMU: dmar7\n  IOMMU Group: 0\n    Group Device: 0000:00:00.0 - Host bridge [0600]: x [8086:1234]\n"
    assert one(read_lspci(text, "groups"), "00:00.0").attributes["iommu"] == "dmar7"


def test_a_function_without_a_group_among_grouped_ones() -> None:
    text = "00:00.0 Host bridge: x\n00:01.0 PCI bridge: y\n\nIOMMU Group 4:\n\t00:01.0 PCI bridge: y\n"
    assert read_lspci(text, "both").recorded_ungrouped == ("0000:00:00.0",)


def test_a_listing_without_groups_has_none() -> None:
    assert read_lspci("IOMMU Group * 00:00.0 Host bridge [0600]: x [8086:1234]\n", "none").recorded_groups is None


def test_more_functions_than_a_machine_can_have() -> None:
    text = "".join(
        f"{at >> 16:04x}:{at >> 8 & 0xFF:02x}:{at >> 3 & 0x1F:02x}.{at & 7} 0600: 8086:1\n" for at in range(120_001)
    )
    with pytest.raises(BadInput, match="at most 120000 functions"):
        read_lspci(text, "many")
