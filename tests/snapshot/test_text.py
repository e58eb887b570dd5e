import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.machine.topology import capability_list, extended_capability_list
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import Route
from quiesce.snapshot.dmar import Scope, read_dmar
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.ivrs import read_ivrs
from quiesce.snapshot.kinds import KINDS
from quiesce.snapshot.text import read_text
from snapshot.snapdata import steady

SMALL = """\
machine small           # a comment
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
01:00.0 ahci pin=B msi=4 maskable
01:00.1 e1000e msix=3 no-msi id=8086:1533 class=020001
00:1e.0 pci-bridge bus=02-05
"""


def config(text: str, bdf: str) -> bytes:
    found = read_text(text, "t").function(Bdf.parse(bdf))
    assert found is not None
    return found.config


def number(data: bytes, offset: int, size: int = 2) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def test_name_and_bus_order() -> None:
    found = read_text(SMALL, "t")
    assert found.name == "small"
    assert [item.bdf.short for item in found.functions] == ["00:00.0", "00:01.0", "00:1e.0", "01:00.0", "01:00.1"]
    assert (found.ivrs, found.dmar) == (None, None)


def test_a_port_leads_to_its_bus_with_acs() -> None:
    data = config(SMALL, "00:01.0")
    assert data[0x18:0x1B] == b"\0\1\1"
    express = capability_list(data)[r.PCI_CAP_ID_EXP]
    assert number(data, express + r.PCI_EXP_FLAGS) == 2 | r.PCI_EXP_TYPE_ROOT_PORT << 4 | r.PCI_EXP_FLAGS_SLOT
    assert number(data, extended_capability_list(data)[r.PCI_EXT_CAP_ID_ACS] + r.PCI_ACS_CAP) == 0x5F


def test_options_of_a_function() -> None:
    data = config(SMALL, "01:00.0")
    msi = capability_list(data)[r.PCI_CAP_ID_MSI]
    assert data[r.PCI_INTERRUPT_PIN] == 2
    assert number(data, msi + r.PCI_MSI_FLAGS) == 0x0184
    other = config(SMALL, "01:00.1")
    assert (number(other, 0), number(other, 2), number(other, 9, 3)) == (0x8086, 0x1533, 0x020001)
    assert r.PCI_CAP_ID_MSI not in capability_list(other)
    assert number(other, capability_list(other)[r.PCI_CAP_ID_MSIX] + r.PCI_MSIX_FLAGS) == 2


def test_a_device_with_several_functions_says_so() -> None:
    assert config(SMALL, "01:00.0")[r.PCI_HEADER_TYPE] == config(SMALL, "01:00.1")[r.PCI_HEADER_TYPE] == 0x80
    assert config(SMALL, "00:00.0")[r.PCI_HEADER_TYPE] == 0
    assert config("00:00.0 ahci multifunction", "00:00.0")[r.PCI_HEADER_TYPE] == 0x80


def test_bus_ranges_follow_from_the_bridges_below() -> None:
    text = (
        "00:01.0 root-port bus=01\n01:00.0 switch-up bus=02\n02:00.0 switch-down bus=03\n02:01.0 switch-down bus=04\n"
    )
    assert config(text, "00:01.0")[0x18:0x1B] == b"\0\1\4"
    assert config(text, "01:00.0")[0x18:0x1B] == b"\1\2\4"
    assert config(SMALL, "00:1e.0")[0x18:0x1B] == b"\0\2\5"


def test_chosen_acs_bits() -> None:
    data = config("00:01.0 root-port bus=01 acs=SV,RR,CR,UF", "00:01.0")
    assert number(data, extended_capability_list(data)[r.PCI_EXT_CAP_ID_ACS] + r.PCI_ACS_CAP) == 0x1D


def test_sriov() -> None:
    data = config("01:00.0 igb sriov=8 vf-offset=384 vf-stride=4 ari", "01:00.0")
    at = extended_capability_list(data)[r.PCI_EXT_CAP_ID_SRIOV]
    assert [number(data, at + item) for item in (0xC, 0xE, 0x10, 0x14, 0x16, 0x1A)] == [8, 8, 0, 384, 4, 0x10CA]


def test_what_is_not_plugged_in_yet() -> None:
    found = read_text("00:01.0 root-port bus=01 hotplug\n01:00.0 nvme absent\n", "t")
    assert [item.present for item in found.functions] == [True, False]


def test_amd() -> None:
    found = read_text(SMALL + "iommu amd 00:00.2\nalias 02:00.0-02:1f.7 -> 00:1e.0\nalias 01:00.1 -> 05:00.0\n", "t")
    assert found.ivrs is not None
    table = read_ivrs(found.ivrs)
    own = found.function(Bdf.parse("00:00.2"))
    assert own is not None
    assert own.config[table.units[0].capability] == r.PCI_CAP_ID_SECDEV
    assert table.alias_of(0x0233) == 0x00F0
    assert table.alias_of(0x0101) == 0x0500
    assert table.unit_of(0x1234) is not None


def test_amd_that_covers_some_devices_only() -> None:
    found = read_text(SMALL + "iommu amd\ncovers 00:00.0-00:17.7 01:00.0\nreserved 01:00.0 0x1000-0x1fff\n", "t")
    assert found.ivrs is not None
    table = read_ivrs(found.ivrs)
    assert [table.unit_of(devid) is not None for devid in (0x00BF, 0x00C0, 0x0100, 0x0101)] == [
        True,
        False,
        True,
        False,
    ]
    assert [(item.first, item.start, item.length, item.unity) for item in table.memory] == [
        (0x100, 0x1000, 0x1000, True)
    ]


def test_intel() -> None:
    found = read_text(SMALL + "iommu intel\nunit 01:00.0\nreserved 01:00.1 0x1000-0x1fff\n", "t")
    assert found.dmar is not None
    table = read_dmar(found.dmar)
    path = Scope("endpoint", 0, ((1, 0), (0, 0)))
    assert [(unit.include_all, unit.scopes) for unit in table.units] == [(False, (path,)), (True, ())]
    assert table.memory[0].scopes == (Scope("endpoint", 0, ((1, 0), (0, 1))),)


def test_routes() -> None:
    assert read_text(SMALL + "route 00:01 C -> 19\n", "t").routing == (Route(1, 3, 19),)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_laid_out(kind: str) -> None:
    options = " bus=01" if KINDS[kind].bridge else ""
    data = config(f"00:03.0 {kind}{options}", "00:03.0")
    known = capability_list(data)
    assert (r.PCI_CAP_ID_EXP in known) == (KINDS[kind].express is not None) == (len(data) == 4096)
    assert (r.PCI_CAP_ID_MSI in known, r.PCI_CAP_ID_MSIX in known) == tuple(
        item in KINDS[kind].options for item in ("msi", "msix")
    )


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", "", "at least one function"),
        ("machine a\nmachine b\n00:00.0 ahci", "line 2", "`machine NAME`, once"),
        ("00:00.0 toaster", "line 1", "a kind of function (host-bridge"),
        ("00:00.0 ahci\n00:00.0 ahci", "line 2", "every address once; 00:00.0 was there before"),
        ("00:20.0 ahci", "line 1", "a PCI address such as 00:1f.2, found '00:20.0'"),
        ("00:00.0 ahci pin=E", "line 1", "pin=A to pin=D, found 'E'"),
        ("00:00.0 ahci msi=3", "line 1", "msi=1 to 32, a power of two, found '3'"),
        ("00:00.0 ahci msix=0", "line 1", "msix=1 to 2048, found '0'"),
        ("00:00.0 ahci shiny", "line 1", "an option of a function"),
        ("00:00.0 ahci bus=01", "line 1", "on a bridge"),
        ("00:01.0 root-port", "line 1", "bus=NN for the bridge 00:01.0"),
        ("00:01.0 root-port bus=00", "line 1", "a bus above 00 behind 00:01.0, found 00"),
        ("00:01.0 root-port bus=02-01", "line 1", "an increasing bus range"),
        ("00:01.0 root-port bus=01 acs=XX", "line 1", "acs=LIST of SV,TB"),
        ("00:01.0 ahci acs", "0000:00:01.0", "acs needs PCI Express"),
        ("00:00.0 ahci\niommu arm", "line 2", "`iommu amd [ADDRESS]` or `iommu intel`, once"),
        ("00:00.0 ahci\nalias 00:00.0 -> 00:01.0", "", "`iommu amd` with `covers` and `alias`"),
        ("00:00.0 ahci\niommu amd\nunit 00:00.0", "", "`iommu intel` with `unit`"),
        ("00:00.0 ahci\nreserved 00:00.0 0x0-0x1", "", "with `reserved`"),
        ("00:00.0 ahci\niommu amd\nalias 00:00.0 00:01.0", "line 3", "`alias FIRST[-LAST] -> TARGET`"),
        ("00:00.0 ahci\niommu amd\ncovers 01:00.0-00:00.0", "line 3", "a range of addresses"),
        ("00:00.0 ahci\nroute 00:01 E -> 1", "line 2", "`route BUS:DEVICE PIN -> INPUT`"),
        ("nonsense here", "line 1", "an address and a kind of function"),
    ],
)
def test_a_bad_line_is_named(text: str, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_text(text, "t")
    assert caught.value.place == place
    assert expected in caught.value.expected


words = st.one_of(
    st.sampled_from([*KINDS, "machine", "iommu", "amd", "intel", "alias", "->", "route", "covers", "unit", "reserved"]),
    st.sampled_from(
        ["00:00.0", "01:00.0", "00:01.0-02:1f.7", "bus=01", "bus=00-ff", "acs", "sriov=256", "vf-offset=65535"]
    ),
    st.sampled_from(
        ["A", "0x1000-0x2000", "msi=32", "msix=2048", "pin=A", "maskable", "no-pm", "ari", "ats", "hotplug"]
    ),
    st.text(max_size=6),
)


@steady
@given(st.lists(st.lists(words, max_size=5).map(" ".join), max_size=6).map("\n".join))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        found = read_text(text, "t")
    except BadInput:
        return
    assert all(len(item.config) in (256, 4096) for item in found.functions)
