import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.dmesg import read_dmesg
from quiesce.snapshot.errors import BadInput
from snapshot.snapdata import needs_shared, shared, steady

STAMP = "[    0.311234] "
PORT = "pci 0000:00:1c.0: [8086:a110] type 01 class 0x060400"
DISK = "pci 0000:00:1f.2: [8086:2922] type 00 class 0x010601"


def log(*lines: str, prefix: str = STAMP) -> MachineDescription:
    return read_dmesg("".join(f"{prefix}{line}\n" for line in lines), "log")


def only(*lines: str, prefix: str = STAMP) -> FunctionDescription:
    (found,) = log(*lines, prefix=prefix).functions
    return found


def value(item: FunctionDescription, at: int, size: int) -> tuple[int, int]:
    """The known bits at an offset, and which they are."""
    assert item.known is not None
    assert len(item.known) == len(item.config)
    known = int.from_bytes(item.known[at : at + size], "little")
    return int.from_bytes(item.config[at : at + size], "little") & known, known


def express_type(item: FunctionDescription) -> tuple[int, int]:
    assert value(item, r.PCI_STATUS, 2)[0] & r.PCI_STATUS_CAP_LIST
    at, known = value(item, r.PCI_CAPABILITY_LIST, 1)
    assert known == 0xFF
    assert value(item, at, 1) == (r.PCI_CAP_ID_EXP, 0xFF)
    flags, mask = value(item, at + r.PCI_EXP_FLAGS, 2)
    return flags >> 4 & mask >> 4 & 0xF, mask >> 4 & 0xF


@pytest.mark.parametrize(
    "prefix",
    [
        STAMP,
        "",
        " ",
        "<6>[    0.1234] ",
        "[    0.000000] [      T0] ",
        "[  +0.000004] ",
        "[    3.434741 <    0.008705>] ",
        "[Fri May  1 09:46:33 2026] ",
        "Nov 14 08:32:39 host kernel: ",
        "May 30 17:35:46 host kernel: [  278.999488] ",
        "2026-01-01T00:00:00.000000+01:00 host kernel: ",
        "> > [    0.311234] ",
    ],
)
def test_prefixes_of_consoles_journals_and_mails(prefix: str) -> None:
    item = only(DISK, prefix=prefix)
    assert (item.bdf, item.config[:4].hex()) == (Bdf(0, 0, 0x1F, 2), "86802229")


@pytest.mark.parametrize(
    ("line", "kind", "class_code", "class_known"),
    [
        (PORT, 1, 0x060400, 0xFFFFFF),
        ("pci 0000:00:1c.0: [8086:a110] type 1 class 0x000604", 1, 0x060400, 0xFFFF00),
        ("pci 0000:00:1c.0: found [8086/a110] class 000604 header type 01", 1, 0x060400, 0xFFFF00),
        ("PCI: Found 0000:00:1c.0 [8086/a110] 000604 01", 1, 0x060400, 0xFFFF00),
        ("PCI: Found 00:e0 [8086/a110] 000604 81", 1, 0x060400, 0xFFFF00),
        ("pci 0000:00:1c.0: [8086:a110] type 01 class 0x0604001", 1, 0, 0),
    ],
)
def test_a_function_in_the_shapes_of_all_kernels(line: str, kind: int, class_code: int, class_known: int) -> None:
    item = only(line)
    assert (str(item.bdf), value(item, 0, 4)) == ("0000:00:1c.0", (0xA1108086, 0xFFFFFFFF))
    assert value(item, r.PCI_HEADER_TYPE, 1) == (kind, 0x7F)
    assert value(item, r.PCI_CLASS_PROG, 3) == (class_code, class_known)
    assert value(item, r.PCI_REVISION_ID, 1) == (0, 0)
    assert value(item, r.PCI_CAPABILITY_LIST, 1) == (0, 0)
    assert value(item, r.PCI_STATUS, 2) == (0, 0)


@pytest.mark.parametrize(
    ("words", "pcie_type"),
    [
        ("PCIe Endpoint", 0x0),
        ("PCIe Legacy Endpoint", 0x1),
        ("PCIe Root Port", 0x4),
        ("PCIe Switch Upstream Port", 0x5),
        ("PCIe Switch Downstream Port", 0x6),
        ("PCIe to PCI/PCI-X bridge", 0x7),
        ("PCI/PCI-X to PCIe bridge", 0x8),
        ("PCIe Root Complex Integrated Endpoint", 0x9),
        ("PCIe Root Complex Event Collector", 0xA),
    ],
)
def test_the_pcie_type_in_words(words: str, pcie_type: int) -> None:
    item = only(f"{PORT} {words}")
    assert express_type(item) == (pcie_type, 0xF)
    assert "pcie" not in item.attributes
    head = value(item, r.PCI_CAPABILITY_LIST, 1)[0]
    assert value(item, head + r.PCI_CAP_LIST_NEXT, 1) == (0, 0)


@pytest.mark.parametrize("words", ["conventional PCI endpoint", "conventional PCI bridge", "CardBus bridge"])
def test_conventional_functions_are_said_to_be(words: str) -> None:
    item = only(f"{DISK} {words}")
    assert item.attributes == {"pcie": "no"}
    assert len(item.config) == 64


@pytest.mark.parametrize(
    ("lines", "pcie_type", "known"),
    [
        (("pcieport 0000:00:1c.0: PME: Signaling with IRQ 122",), 4, 0xF),
        (("pcieport 0000:00:1c.0: AER: enabled with IRQ 122",), 4, 0xF),
        (("pcieport 0000:00:1c.0: enabling device (0104 -> 0107)",), 4, 0xC),
        (("pcieport 0000:00:1c.0: pciehp: Slot #4 AttnBtn- PwrCtrl- HotPlug+ Surprise+",), 4, 0xC),
        (("pcieport 0000:00:1c.0: DPC: enabled with IRQ 122",), 4, 0xC),
        (("pci 0000:00:1c.0: Intel PCH root port ACS workaround enabled",), 4, 0xF),
        (("pci 0000:00:1c.0: enabling Extended Tags",), 0, 0),
        (("pci 0000:00:1c.0: 8.000 Gb/s available PCIe bandwidth (8.0 GT/s PCIe x1 link)",), 0, 0),
    ],
)
def test_other_lines_prove_a_port(lines: tuple[str, ...], pcie_type: int, known: int) -> None:
    assert express_type(only(PORT, *lines)) == (pcie_type, known)


def test_what_was_said_in_words_is_not_overruled() -> None:
    item = only(f"{PORT} PCIe Switch Downstream Port", "pcieport 0000:00:1c.0: DPC: enabled with IRQ 122")
    assert express_type(item) == (6, 0xF)
    assert item.attributes == {"driver": "pcieport"}


def test_slot_power_management_and_extended_capabilities() -> None:
    item = only(
        PORT,
        "pci 0000:00:1c.0: PME# supported from D0 D3hot D3cold",
        "pci 0000:00:1c.0: supports D1",
        "pci 0000:00:1c.0: Intel SPT PCH root port ACS workaround enabled",
        "pcieport 0000:00:1c.0: pciehp: Slot #4 AttnBtn- PwrCtrl- MRL- AttnInd- PwrInd- HotPlug+ Surprise+ NoCompl+",
    )
    express = value(item, r.PCI_CAPABILITY_LIST, 1)[0]
    assert value(item, express + r.PCI_EXP_FLAGS, 2) == (0x140, 0x1F0)
    assert value(item, express + r.PCI_EXP_SLTCAP, 4) == (4 << 19 | 0x40060, 0x1FFF << 19 | 0x4007F)
    power = value(item, express + r.PCI_CAP_LIST_NEXT, 1)[0]
    assert value(item, power, 1)[0] == r.PCI_CAP_ID_PM
    assert value(item, power + r.PCI_PM_PMC, 2) == (0xCA00, 0xFE00)
    assert value(item, 0x100, 4) == (r.PCI_EXT_CAP_ID_ACS, 0xFFFF)


def test_virtual_functions_announce_themselves_at_the_physical_one() -> None:
    item = only(
        DISK, "pci 0000:00:1f.2: VF(n) BAR0 space: [mem 0xd4208000-0xd4307fff 64bit pref] (contains BAR0 for 64 VFs)"
    )
    assert value(item, 0x100, 2)[0] == r.PCI_EXT_CAP_ID_SRIOV
    assert value(item, 0x100 + r.PCI_SRIOV_TOTAL_VF, 2) == (64, 0xFFFF)


@pytest.mark.parametrize(
    ("text", "secondary", "subordinate"),
    [
        ("PCI bridge to [bus 03-05]", 3, 5),
        ("PCI bridge to [bus 03]", 3, 3),
        ("PCI bridge to [bus 03-05] (subtractive decode)", 3, 5),
        ("CardBus bridge to [bus 03-06]", 3, 6),
        ("PCI bridge, secondary bus 0000:03", 3, None),
    ],
)
def test_bus_numbers_of_bridges(text: str, secondary: int, subordinate: int | None) -> None:
    item = only(PORT, f"pci 0000:00:1c.0: {text}")
    assert value(item, r.PCI_SECONDARY_BUS, 1) == (secondary, 0xFF)
    assert value(item, r.PCI_SUBORDINATE_BUS, 1) == ((subordinate, 0xFF) if subordinate is not None else (0, 0))


def test_the_last_bus_numbers_count() -> None:
    item = only(
        PORT,
        "pci 0000:00:1c.0: PCI bridge to [bus 03-ff]",
        "pci_bus 0000:03: busn_res: [bus 03-ff] end is updated to 04",
    )
    assert value(item, r.PCI_SECONDARY_BUS, 2) == (0x0403, 0xFFFF)


def test_a_bridge_without_numbers_keeps_them_unknown() -> None:
    assert value(only(PORT), r.PCI_PRIMARY_BUS, 3) == (0, 0)


@pytest.mark.parametrize(
    ("text", "at", "size", "expected"),
    [
        ("reg 0x10: [mem 0xfe000000-0xfe0fffff 64bit pref]", 0x10, 8, 0xFE00000C),
        ("reg 10: [mem 0xfe000000-0xfe0fffff]", 0x10, 4, 0xFE000000),
        ("reg 0x14: [io  0xe000-0xe07f]", 0x14, 4, 0xE001),
        ("BAR 1 [io  0xe000-0xe07f]", 0x14, 4, 0xE001),
        ("BAR 0: assigned [mem 0xfe000000-0xfe0fffff]", 0x10, 4, 0xFE000000),
        ("reg 10 io port: [0xe000-0xe07f]", 0x10, 4, 0xE001),
        ("reg 10 32bit mmio: [0xfe000000-0xfe0fffff]", 0x10, 4, 0xFE000000),
        ("BAR 0 [mem size 0x00100000]", 0x10, 4, None),
        ("BAR 0: failed to assign [mem size 0x00100000]", 0x10, 4, None),
    ],
)
def test_base_addresses(text: str, at: int, size: int, expected: int | None) -> None:
    known = (1 << 8 * size) - 1
    found = value(only(DISK, f"pci 0000:00:1f.2: {text}"), at, size)
    assert found == ((expected, known) if expected is not None else (0, 0))


def test_saved_header_words_are_the_registers_themselves() -> None:
    item = only(PORT, "pcieport 0000:00:1c.0: save config 0x0c: 0x00810010", "pci 0000:00:1c.0: save config 0x34: 0x40")
    assert value(item, r.PCI_HEADER_TYPE, 1) == (0x81, 0xFF)


def test_saved_words_of_a_device_that_was_gone_say_nothing() -> None:
    item = only(PORT, "pcieport 0000:00:1c.0: save config 0x3c: 0xffffffff")
    assert value(item, r.PCI_INTERRUPT_PIN, 1)[1] == 0


def test_several_functions_of_a_device_show_that_it_is_multifunction() -> None:
    found = log(PORT, PORT.replace("1c.0", "1c.4"), DISK)
    assert [value(item, r.PCI_HEADER_TYPE, 1) for item in found.functions] == [(0x81, 0xFF), (1, 0x7F), (0, 0x7F)]


def test_groups_are_kept_apart() -> None:
    found = log(PORT, DISK, "pci 0000:00:1c.0: Adding to iommu group 5", "iommu: Adding device 0000:01:00.0 to group 5")
    assert found.recorded_groups == (("0000:00:1c.0", "0000:01:00.0"),)
    assert found.recorded_ungrouped == ("0000:00:1f.2",)
    assert log(PORT).recorded_groups is None


def test_a_function_that_only_a_group_names_has_nothing_but_its_address() -> None:
    item = only("mlx5_core 000a:11:00.2: Adding to iommu group 6")
    assert (str(item.bdf), item.attributes) == ("000a:11:00.2", {"driver": "mlx5_core"})
    assert item.known == bytes(64)


def test_removed_and_found_again() -> None:
    bus = "pci 0000:00:1c.0: PCI bridge to [bus 03]"
    card = "pci 0000:03:00.0: [8086:1533] type 00 class 0x020000"
    gone = "pci_bus 0000:03: busn_res: [bus 03] is released"
    grouped = "pci 0000:03:00.0: Adding to iommu group 5"
    found = log(PORT, bus, card, grouped, gone)
    assert [item.present for item in found.functions] == [True, False]
    assert any("not present" in note for note in found.notes)
    assert found.recorded_groups is None
    found = log(PORT, bus, card, gone, card)
    assert [item.present for item in found.functions] == [True, True]
    assert any("found more than once" in note for note in found.notes)
    found = log(PORT, bus, card, grouped, "pci 0000:03:00.0: Removing from iommu group 5")
    assert [item.present for item in found.functions] == [True, False]


def test_what_answers_with_ones_is_not_a_function() -> None:
    bad = "pci 0000:03:00.0: [ffff:ffff] type 7f class 0xffffff"
    found = log(PORT, bad, "pci 0000:03:00.0: unknown header type 7f, ignoring device")
    assert [item.present for item in found.functions] == [True, False]


def test_of_several_starts_the_last_with_functions_counts() -> None:
    found = log("Linux version 5.4.0 (a@b)", PORT, "Linux version 6.1.0-x (a@b)", DISK, "Linux version 6.2.0 (a@b)")
    assert ([str(item.bdf) for item in found.functions], found.kernel) == (["0000:00:1f.2"], "6.1.0-x")
    root = "PCI host bridge to bus 0000:00"
    assert len(log(root, PORT, root, DISK).functions) == 1
    assert len(log(root, PORT, DISK).functions) == 2


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("DMAR: Intel(R) Virtualization Technology for Directed I/O", "intel"),
        ("PCI-DMA: Intel(R) Virtualization Technology for Directed I/O", "intel"),
        ("pci 0000:00:00.2: AMD-Vi: Found IOMMU cap 0x40", "amd"),
        ("AMD-Vi: Found IOMMU at 0000:00:00.2 cap 0x40", "amd"),
        ("arm-smmu-v3 arm-smmu-v3.0.auto: option mask 0x0", "arm"),
        ("virtio_iommu virtio0: input address: 64 bits", "virtio"),
        ("pci 0001:01     : [PE# fd] Setting up 32-bit TCE table at 0..80000000", "power"),
        ("AMD-Vi: AMD IOMMUv2 functionality not available on this system", None),
        ("DMAR: IOMMU enabled", None),
    ],
)
def test_which_iommu_was_at_work(line: str, hint: str | None) -> None:
    assert log(DISK, line).iommu_hint == hint


def test_kernel_command_line_and_model() -> None:
    found = log(
        "Linux version 6.5.0-rc1 (a@b) (gcc)",
        "Command line: ro quiet",
        "DMI: Dell Inc. OptiPlex/0H21J3, BIOS 1.2 01/01/2020",
        "Kernel command line: ro quiet intel_iommu=on",
        DISK,
    )
    assert (found.kernel, found.cmdline, found.name) == (
        "6.5.0-rc1",
        "ro quiet intel_iommu=on",
        "Dell Inc. OptiPlex/0H21J3",
    )


def test_lines_that_mail_wrapped_are_joined() -> None:
    text = (
        f"{STAMP}Booting\n{STAMP}pci 0000:00:1c.0: [8086:a110] type 01 class 0x060400\nPCIe Root Port\n"
        f"{STAMP}pci 0000:00:1c.0: PCI bridge to\n[bus 03-05]\n{STAMP}x\n"
    )
    (item,) = read_dmesg(text, "t").functions
    assert express_type(item) == (4, 0xF)
    assert value(item, r.PCI_SECONDARY_BUS, 1) == (3, 0xFF)


def test_what_the_collector_left_out_is_said() -> None:
    found = log(DISK, "### collector: 12 lines left out here ###", "### collector: 30 lines left out here ###")
    assert any(note.startswith("42 lines were left out") for note in found.notes)


@pytest.mark.parametrize("text", ["", "hello\n", "00:1f.2 SATA controller: Intel\n", "[ 0.1] usb 1-1: new device\n"])
def test_what_is_no_log_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="a kernel log with lines such as"):
        read_dmesg(text, "t")


def test_no_more_functions_than_a_machine_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.dmesg._MOST", 2)
    found = log(*(f"pci 0000:00:{device:02x}.0: [8086:a110] type 00 class 0x020000" for device in range(4)))
    assert len(found.functions) == 2
    assert any("left out" in note for note in found.notes)


LOGS = shared("dmesg/*.txt", "machines/*/dmesg.txt", "machines/*/report-dmesg.txt")
HIDDEN = {"dell-r740-sriov", "xps13-9360-s3"}
"""Here the number of a group was given again after the hidden function 00:1f.1 had been removed without a word."""


@needs_shared
@pytest.mark.parametrize("path", LOGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_real_log_shows_every_function_that_its_lines_name(path: Path) -> None:
    text = path.read_text(errors="replace")
    named = set(re.findall(r"([0-9a-f]{4,5}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): \[[0-9a-f]{4}:[0-9a-f]{4}\] type", text))
    found = read_dmesg(text, str(path))
    assert named <= {str(item.bdf) for item in found.functions}
    for item in found.functions:
        assert item.known is not None
        assert len(item.known) == len(item.config)


TRUTHS = [path for path in shared("dmesg/*.truth.json", "machines/*/*truth.json") if '"boot log"' in path.read_text()]


@needs_shared
@pytest.mark.parametrize("path", TRUTHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_groups_of_every_real_log_are_read_back(path: Path) -> None:
    truth = json.loads(path.read_text())
    source = path.parent / truth["groups_from"]
    found = read_dmesg(source.read_text(errors="replace"), str(source))
    grouped = {bdf for group in truth["groups"] for bdf in group}
    assert grouped <= {str(item.bdf) for item in found.functions}
    if truth["topology"] == truth["groups_from"] and truth["functions"]:
        assert len(found.functions) == truth["functions"]
    if truth["id"] not in HIDDEN:
        assert sorted(map(sorted, truth["groups"])) == sorted(map(sorted, found.recorded_groups or ()))
    if truth["kernel_evidence"] == "dmesg" and found.kernel is not None:
        assert found.kernel.startswith(re.split("[-+]", truth["kernel"])[0])


SEED = "\n".join(
    f"{STAMP}{line}"
    for line in (
        "Linux version 6.5.0 (a@b)",
        "PCI host bridge to bus 0000:00",
        f"{PORT} PCIe Root Port",
        "pci 0000:00:1c.0: reg 0x10: [mem 0xfe000000-0xfe0fffff 64bit pref]",
        "pci 0000:00:1c.0: PCI bridge to [bus 03-05]",
        "pci_bus 0000:03: busn_res: [bus 03-ff] end is updated to 04",
        DISK,
        "pci 0000:00:1f.2: VF(n) BAR0 space: [mem 0xd4208000-0xd4307fff 64bit pref] (contains BAR0 for 64 VFs)",
        "pcieport 0000:00:1c.0: pciehp: Slot #4 AttnBtn- PwrCtrl- HotPlug+ Surprise+",
        "pci 0000:00:1f.2: save config 0x0c: 0x00810010",
        "pci 0000:00:1f.2: Adding to iommu group 5",
    )
)


@steady
@given(st.data())
def test_no_change_to_a_log_breaks_reading(data: st.DataObject) -> None:
    text = SEED
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        inserted = data.draw(
            st.one_of(st.text(max_size=4), st.sampled_from(["0", "f", ":", "[", "]", "\n", "\r", " "]))
        )
        text = text[:at] + inserted + text[at + data.draw(st.integers(0, 6)) :]
    try:
        found = read_dmesg(text, "t")
    except BadInput:
        return
    assert all(item.known is not None and len(item.known) == len(item.config) for item in found.functions)
