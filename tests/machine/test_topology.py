import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.machines import made
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.machine import Machine
from quiesce.snapshot.bdf import Bdf
from snapshot.snapdata import steady


@pytest.fixture
def m() -> Machine:
    return made()


def test_the_bridge_above_and_the_functions_below(m: Machine) -> None:
    disk = m.function("03:00.0")
    assert [bridge.bdf.short for bridge in topology.chain(disk)] == ["02:00.0", "01:00.0", "00:01.0"]
    assert [fn.bdf.short for fn in m.function("01:00.0").children] == ["02:00.0", "02:01.0"]
    assert [fn.bdf.short for fn in m.function("00:01.0").below()] == [
        "01:00.0",
        "02:00.0",
        "03:00.0",
        "02:01.0",
        "04:00.0",
    ]
    assert [fn.bdf.short for fn in m.root_functions()] == ["00:00.0", "00:01.0", "00:1f.2"]
    assert [fn.bdf.short for fn in m.on_bus(0, 2)] == ["02:00.0", "02:01.0"]


def test_port_types_and_bus_ranges(m: Machine) -> None:
    assert [m.function(bdf).pcie_type for bdf in ("00:01.0", "01:00.0", "02:00.0", "03:00.0", "00:1f.2")] == [
        r.PCI_EXP_TYPE_ROOT_PORT,
        r.PCI_EXP_TYPE_UPSTREAM,
        r.PCI_EXP_TYPE_DOWNSTREAM,
        r.PCI_EXP_TYPE_ENDPOINT,
        None,
    ]
    assert topology.bus_range(m.function("01:00.0")) == range(2, 5)


def test_siblings_in_a_slot() -> None:
    m = made("00:03.0 ahci\n00:03.2 xhci\n00:04.0 smbus\n")
    functions = tuple(m.functions.values())
    assert [fn.bdf.short for fn in topology.slot_siblings(functions[0], functions)] == ["00:03.2"]
    assert topology.slot_siblings(functions[2], functions) == ()


def test_acs_and_ari() -> None:
    m = made("00:01.0 root-port bus=01 acs=SV,UF ari\n01:00.0 igb ari\n00:02.0 root-port bus=02\n02:00.0 nvme\n")
    assert topology.acs_capability(m.function("00:01.0")) == r.PCI_ACS_SV | r.PCI_ACS_UF
    assert topology.acs_capability(m.function("00:02.0")) == 0
    assert [topology.has_ari(m.function(bdf)) for bdf in ("01:00.0", "02:00.0")] == [True, False]
    assert [topology.forwards_ari(m.function(bdf)) for bdf in ("01:00.0", "02:00.0", "00:01.0")] == [True, False, False]


def test_of_two_bridges_to_one_bus_the_first_leads_there() -> None:
    first, second = Bdf.parse("00:01.0"), Bdf.parse("00:02.0")
    assert topology.bridges_by_bus({second: (1, 1), first: (1, 1)}) == {(0, 1): first}


@pytest.mark.parametrize("secondary", [0, 1])
def test_a_bridge_to_its_own_or_a_lower_bus_leads_nowhere(secondary: int) -> None:
    assert topology.bridges_by_bus({Bdf.parse("01:00.0"): (secondary, 5)}) == {}


def listed(*entries: tuple[int, int, int]) -> bytes:
    image = bytearray(256)
    image[r.PCI_STATUS] = r.PCI_STATUS_CAP_LIST
    image[r.PCI_CAPABILITY_LIST] = entries[0][0]
    for at, cap_id, following in entries:
        image[at : at + 2] = bytes((cap_id, following))
    return bytes(image)


def test_the_first_of_two_like_capabilities_counts() -> None:
    assert topology.capability_list(listed((0x40, 8, 0x50), (0x50, 8, 0x60), (0x60, 5, 0))) == {8: 0x40, 5: 0x60}


def test_a_list_that_loops_or_leaves_the_space_ends() -> None:
    assert topology.capability_list(listed((0x40, 1, 0x50), (0x50, 5, 0x40))) == {1: 0x40, 5: 0x50}
    assert topology.capability_list(listed((0x40, 1, 0x20))) == {1: 0x40}
    assert topology.capability_list(listed((0x40, 1, 0xFF))) == {1: 0x40, 0: 0xFC}
    assert topology.capability_list(b"\xff" * 256) == {}


@steady
@given(
    st.sampled_from([0, 8, 64, 256, 4096]),
    st.dictionaries(st.integers(0, 255), st.integers(0, 255), max_size=30),
    st.dictionaries(st.integers(0, 20), st.integers(0, 2**32 - 1), max_size=8),
)
def test_no_image_breaks_the_walk(size: int, low: dict[int, int], high: dict[int, int]) -> None:
    edited = bytearray(4096)
    edited[r.PCI_STATUS] = r.PCI_STATUS_CAP_LIST
    for at, value in low.items():
        edited[at] = value
    for at, value in high.items():
        edited[0x100 + 4 * at : 0x104 + 4 * at] = value.to_bytes(4, "little")
    image = bytes(edited[:size])
    assert all(0x40 <= at < len(image) for at in topology.capability_list(image).values())
    assert all(0x100 <= at < len(image) for at in topology.extended_capability_list(image).values())


def sriov(total: int, offset: int, stride: int, control: int = 0, number: int = 0) -> bytes:
    image = bytearray(0x140)
    for at, value in ((0x08, control), (0x0E, total), (0x10, number), (0x14, offset), (0x16, stride)):
        image[0x100 + at : 0x102 + at] = value.to_bytes(2, "little")
    return bytes(image)


@pytest.mark.parametrize(
    ("pf", "offset", "stride", "expected"),
    [
        ("01:00.0", 0x80, 2, ["01:10.0", "01:10.2", "01:10.4"]),
        ("01:00.1", 0x80, 2, ["01:10.1", "01:10.3", "01:10.5"]),
        ("01:00.0", 0x180, 4, ["02:10.0", "02:10.4", "02:11.0"]),
        ("ff:1f.6", 1, 1, ["ff:1f.7"]),
        ("01:00.0", 0, 1, []),
        ("01:00.0", 1, 0, ["01:00.1"]),
    ],
)
def test_where_virtual_functions_are(pf: str, offset: int, stride: int, expected: list[str]) -> None:
    found = topology.virtual_addresses(Bdf.parse(pf), sriov(3, offset, stride), 0x100)
    assert [bdf.short for bdf in found] == expected


def test_how_many_virtual_functions_were_enabled() -> None:
    assert topology.enabled_virtual_functions(sriov(8, 1, 1, r.PCI_SRIOV_CTRL_VFE, 3), 0x100) == 3
    assert topology.enabled_virtual_functions(sriov(8, 1, 1, 0, 3), 0x100) == 0
