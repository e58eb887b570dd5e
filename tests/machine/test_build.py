from dataclasses import replace

import pytest

from machine.machines import made
from quiesce.machine import pci_regs as r
from quiesce.machine.build import build_machine
from quiesce.machine.machine import Machine
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine
from quiesce.world import World
from snapshot.snapdata import SHARED, SHIPPED, needs_shared


def shipped(name: str, **options: bool) -> Machine:
    return build_machine(World(), read_machine(SHIPPED / f"{name}.json"), **options)


def test_the_recorded_tree() -> None:
    m = shipped("switch-two-downstream--612--intel")
    above = {fn.bdf.short: fn.upstream.bdf.short for fn in m.functions.values() if fn.upstream}
    assert above == {
        "01:00.0": "00:04.0",
        "02:00.0": "01:00.0",
        "02:01.0": "01:00.0",
        "02:02.0": "01:00.0",
        "03:00.0": "02:00.0",
        "04:00.0": "02:01.0",
    }
    assert m.iommu == "intel"


def test_registers_are_as_firmware_leaves_them() -> None:
    m = shipped("root-ports-acs--612--amd")
    found = shipped("root-ports-acs--612--amd", as_found=True)
    port, disk = "00:04.0", "03:00.0"
    assert (found.function(port).msix_enabled, m.function(port).msix_enabled) == (True, False)
    assert (found.function(disk).bus_master, m.function(disk).bus_master) == (True, False)
    assert (found.function(port).acs_control, m.function(port).acs_control) == (0x1D, 0)
    assert m.function(port).bus_master
    assert m.function(port).secondary_bus == 1
    assert m.function(disk).command & (r.PCI_COMMAND_MEMORY | r.PCI_COMMAND_INTX_DISABLE) == r.PCI_COMMAND_MEMORY
    assert not any(fn.msi_enabled or fn.msix_enabled or fn.intx_disabled for fn in m.functions.values())


def test_recorded_virtual_functions_wait_to_be_enabled() -> None:
    m = shipped("sriov-igb-ari--612--intel")
    pf = m.function("01:00.0")
    assert [fn.bdf.short for fn in pf.virtfns] == ["01:10.0", "01:10.2", "01:10.4", "01:10.6"]
    assert {(fn.vendor, fn.device, fn.behaviour.name, fn.present) for fn in pf.virtfns} == {
        (0x8086, 0x10CA, "ethernet", False)
    }
    assert all(fn.upstream is m.function("00:04.0") for fn in pf.virtfns)
    found = shipped("sriov-igb-ari--612--intel", as_found=True).function("01:00.0")
    assert all(fn.present and fn.reachable for fn in found.virtfns)


def test_made_up_virtual_functions_take_their_ids_from_the_physical_one() -> None:
    m = made("01:00.0 igb sriov=8 vf-offset=0x180\n".replace("0x180", "384"))
    assert [(fn.bdf.short, fn.vendor, fn.device) for fn in m.function("01:00.0").virtfns] == [
        ("02:10.0", 0x8086, 0x10CA),
        ("02:10.2", 0x8086, 0x10CA),
    ]


def test_virtual_functions_of_a_dump_take_their_ids_from_the_physical_one() -> None:
    recorded = read_machine(SHIPPED / "sriov-igb-ari--612--intel.json")
    bare = replace(recorded, functions=tuple(replace(item, attributes={}) for item in recorded.functions))
    virtual = build_machine(World(), bare).function("01:10.0")
    assert (virtual.vendor, virtual.device, virtual.behaviour.name) == (0x8086, 0x10CA, "ethernet")


def test_a_function_where_a_virtual_one_would_be_stays_itself() -> None:
    m = made("01:00.0 igb sriov=4 vf-offset=1 vf-stride=1\n01:00.1 igb\n")
    assert m.function("01:00.1").physfn is None
    assert m.function("01:00.1").present
    assert [fn.bdf.short for fn in m.function("01:00.0").virtfns] == ["01:00.2"]


def test_what_is_not_plugged_in() -> None:
    m = made("00:01.0 root-port bus=01 hotplug\n01:00.0 nvme absent\n")
    assert [fn.present for fn in m.functions.values()] == [True, False]
    m.plug(m.function("01:00.0"))
    assert m.function("01:00.0").reachable


@pytest.mark.parametrize(
    ("line", "wanted", "expected"),
    [("", None, None), ("iommu amd\n", None, "amd"), ("iommu intel\n", None, "intel"), ("", "intel", "intel")],
)
def test_which_iommu(line: str, wanted: str | None, expected: str | None) -> None:
    description = read_machine("00:00.0 host-bridge\n" + line)
    m = build_machine(World(), description, wanted)
    assert (m.iommu, m.ivrs is not None, m.dmar is not None) == (expected, "amd" in line, "intel" in line)


def test_a_bad_table_is_named() -> None:
    description = MachineDescription("m", (FunctionDescription(Bdf(0, 0, 0, 0), bytes(64)),), ivrs=b"IVRS")
    with pytest.raises(BadInput, match="m: offset 0x4"):
        build_machine(World(), description)


def test_routing() -> None:
    assert made("00:01.0 ahci\nroute 00:01 B -> 21\n").routing == {(0, 0, 1, 2): 21}


def test_the_same_description_gives_the_same_state() -> None:
    assert made().world.fingerprint == made().world.fingerprint


def test_lookup_by_any_form_of_address() -> None:
    m = made()
    assert m.function("00:1f.2") is m.function("0000:00:1f.2") is m.function(Bdf(0, 0, 0x1F, 2))
    with pytest.raises(KeyError):
        m.function("00:1e.0")


def test_the_line_that_describes_a_function() -> None:
    m = made("00:01.0 root-port bus=01-02 no-pin\n01:00.0 igb sriov=1\n")
    assert [m.describe(fn) for fn in m.functions.values()] == [
        "0000:00:01.0  1b36:000c class 060400 bridge  bus 01-02  MSI:1",
        "0000:01:00.0  8086:10c9 class 020000 ethernet  INTA  MSI:1  MSI-X:10  below 0000:00:01.0",
        "0000:01:10.0  8086:10ca class 020000 ethernet  MSI-X:3  virtual function of 0000:01:00.0  (not there yet)",
    ]


@needs_shared
def test_the_gigabyte_board() -> None:
    m = build_machine(World(), read_machine(SHARED / "machines" / "gigabyte-990fxa-ud3"))
    assert m.ivrs is not None
    assert m.ivrs.alias_of(Bdf.parse("03:05.0").requester_id) == m.function("00:14.4").bdf.requester_id
    assert m.function("04:00.0").upstream is m.function("00:15.0")
    assert m.function("00:02.0" if "0000:00:02.0" in m.functions else "00:14.4").pcie_type is None
    assert m.function("02:00.1").multifunction
    assert m.function("00:00.2").behaviour.name == "amd-iommu"


@needs_shared
def test_the_fm2_board() -> None:
    m = build_machine(World(), read_machine(SHARED / "machines" / "msi-ms7721-fm2"))
    assert m.iommu == "amd"
    assert m.ivrs is not None
    assert m.ivrs.alias_of(Bdf.parse("02:00.0").requester_id) == m.function("00:14.4").bdf.requester_id
    assert m.function("01:00.0").upstream is m.function("00:04.0")
