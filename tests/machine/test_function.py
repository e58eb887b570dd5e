import pytest

from machine.machines import made
from quiesce.machine import pci_regs as r
from quiesce.machine.build import build_machine
from quiesce.machine.function import Function
from quiesce.machine.machine import Machine
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.image import Image
from quiesce.world import World

ONES = 0xFFFFFFFF


@pytest.fixture
def m() -> Machine:
    return made()


def answers(m: Machine) -> set[str]:
    return {bdf for bdf, fn in m.functions.items() if fn.read_config(0, 4) != ONES}


SWITCH = {"0000:01:00.0", "0000:02:00.0", "0000:02:01.0", "0000:03:00.0", "0000:04:00.0"}
ALL = {"0000:00:00.0", "0000:00:01.0", "0000:00:1f.2", *SWITCH}


def expresses(fn: Function, register: int) -> int:
    return fn.find_capability(r.PCI_CAP_ID_EXP) + register


# -- who answers -------------------------------------------------------------------------------------------------


def test_everything_answers_at_first(m: Machine) -> None:
    assert answers(m) == ALL


def test_what_is_below_an_unplugged_switch_is_gone(m: Machine) -> None:
    m.unplug(m.function("01:00.0"))
    assert answers(m) == ALL - SWITCH


def test_reads_of_what_is_gone_are_ones_and_writes_are_dropped(m: Machine) -> None:
    disk = m.function("03:00.0")
    m.unplug(disk)
    disk.write_config(r.PCI_COMMAND, 2, 7)
    assert [disk.read_config(0, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, ONES]
    assert disk.command == 0


def test_a_bridge_in_d3hot_answers_but_forwards_nothing(m: Machine) -> None:
    m.function("01:00.0").write_register("PM_CTRL", r.D3HOT)
    assert answers(m) == ALL - SWITCH | {"0000:01:00.0"}


def test_a_bridge_without_bus_numbers_forwards_nothing(m: Machine) -> None:
    m.function("00:01.0").write_config(r.PCI_SECONDARY_BUS, 1, 0)
    assert answers(m) == ALL - SWITCH


def test_a_plugged_switch_needs_bus_numbers_first(m: Machine) -> None:
    switch = m.function("01:00.0")
    m.unplug(switch)
    m.plug(switch)
    assert answers(m) == ALL - SWITCH | {"0000:01:00.0"}
    switch.write_config(r.PCI_PRIMARY_BUS, 4, 0x00040201)
    assert answers(m) == ALL - SWITCH | {"0000:01:00.0", "0000:02:00.0", "0000:02:01.0"}


def test_a_held_bus_reset_hides_what_is_below(m: Machine) -> None:
    port = m.function("02:01.0")
    port.write_register("BRIDGE_CONTROL", r.PCI_BRIDGE_CTL_BUS_RESET)
    assert answers(m) == ALL - {"0000:04:00.0"}
    port.write_register("BRIDGE_CONTROL", 0)
    assert answers(m) == ALL


def test_slot_power(m: Machine) -> None:
    port = m.function("00:01.0")
    control = port.config.get("EXP_SLTCTL")
    port.write_register("EXP_SLTCTL", control | r.PCI_EXP_SLTCTL_PCC)
    assert answers(m) == ALL - SWITCH
    port.write_register("EXP_SLTCTL", control)
    assert "0000:01:00.0" in answers(m)
    assert m.function("03:00.0").command == 0


def test_without_a_power_controller_slot_power_stays_on() -> None:
    m = made("00:01.0 root-port bus=01 hotplug\n01:00.0 nvme\n")
    m.function("00:01.0").write_register("EXP_SLTCTL", r.PCI_EXP_SLTCTL_PCC)
    assert m.function("01:00.0").reachable


def test_d3cold(m: Machine) -> None:
    m.function("02:01.0").power_off()
    assert answers(m) == ALL - {"0000:02:01.0", "0000:04:00.0"}
    m.function("02:01.0").power_on()
    assert answers(m) == ALL - {"0000:04:00.0"}


# -- status and slots --------------------------------------------------------------------------------------------


def test_interrupt_status_shows_the_pin_interrupt(m: Machine) -> None:
    disk = m.function("00:1f.2")
    assert disk.read_config(r.PCI_STATUS, 2) & r.PCI_STATUS_INTERRUPT == 0
    disk.irq_status = True
    assert disk.read_config(r.PCI_STATUS, 2) & r.PCI_STATUS_INTERRUPT
    assert disk.read_config(r.PCI_STATUS, 1) & r.PCI_STATUS_INTERRUPT
    assert disk.read_config(r.PCI_COMMAND, 4) & r.PCI_STATUS_INTERRUPT << 16
    disk.write_register("COMMAND", r.PCI_COMMAND_INTX_DISABLE)
    assert disk.read_config(r.PCI_STATUS, 2) & r.PCI_STATUS_INTERRUPT


def test_interrupt_status_is_for_the_pin_only(m: Machine) -> None:
    disk = m.function("00:1f.2")
    disk.irq_status = True
    disk.write_register("MSI_FLAGS", r.PCI_MSI_FLAGS_ENABLE)
    assert disk.read_config(r.PCI_STATUS, 2) & r.PCI_STATUS_INTERRUPT == 0


def test_the_slot_shows_presence_link_and_changes(m: Machine) -> None:
    port, switch = m.function("00:01.0"), m.function("01:00.0")
    status, link = expresses(port, r.PCI_EXP_SLTSTA), expresses(port, r.PCI_EXP_LNKSTA)
    assert port.read_config(status, 2) == r.PCI_EXP_SLTSTA_PDS
    assert port.read_config(link, 2) & r.PCI_EXP_LNKSTA_DLLLA
    m.unplug(switch)
    assert port.read_config(status, 2) == r.PCI_EXP_SLTSTA_PDC | r.PCI_EXP_SLTSTA_DLLSC
    assert port.read_config(link, 2) & r.PCI_EXP_LNKSTA_DLLLA == 0
    port.write_config(status, 2, r.PCI_EXP_SLTSTA_PDC | r.PCI_EXP_SLTSTA_DLLSC)
    assert port.read_config(status, 2) == 0
    m.plug(switch)
    assert port.read_config(status, 2) == r.PCI_EXP_SLTSTA_PDC | r.PCI_EXP_SLTSTA_DLLSC | r.PCI_EXP_SLTSTA_PDS


def test_a_disabled_link_is_down(m: Machine) -> None:
    port = m.function("00:01.0")
    port.write_register("EXP_LNKCTL", r.PCI_EXP_LNKCTL_LD)
    assert not port.link_up
    assert port.card_present


# -- resets ------------------------------------------------------------------------------------------------------


def busy(fn: Function) -> None:
    fn.write_register("COMMAND", 0x0407)
    fn.write_register("MSIX_FLAGS", r.PCI_MSIX_FLAGS_ENABLE)
    fn.write_register("EXP_LNKCTL", 0x0040)
    fn.engine, fn.irq_enabled, fn.irq_status, fn.message_pending = "running", True, True, True
    fn.dma_target = (1, 2)
    fn.msix_table[0] = (24, False)


def is_quiet(fn: Function) -> bool:
    state = (fn.engine, fn.irq_enabled, fn.irq_status, fn.message_pending, fn.dma_target, fn.msix_table.items())
    return state == ("off", False, False, False, (), ())


def test_flr_resets_all_but_the_link(m: Machine) -> None:
    disk = m.function("03:00.0")
    busy(disk)
    disk.write_config(expresses(disk, r.PCI_EXP_DEVCTL), 2, r.PCI_EXP_DEVCTL_BCR_FLR)
    assert is_quiet(disk)
    assert (disk.command, disk.msix_enabled, disk.config.get("EXP_DEVCTL")) == (0, False, 0x2810)
    assert disk.config.get("EXP_LNKCTL") == 0x0040
    assert disk.config.get("BASE_ADDRESS_0") == 0


def test_a_function_without_flr_ignores_the_bit(m: Machine) -> None:
    nic = m.function("04:00.0")
    busy(nic)
    nic.write_config(expresses(nic, r.PCI_EXP_DEVCTL), 2, r.PCI_EXP_DEVCTL_BCR_FLR)
    assert nic.engine == "running"
    assert nic.read_register("EXP_DEVCTL") & r.PCI_EXP_DEVCTL_BCR_FLR == 0


def test_a_bus_reset_reaches_everything_below(m: Machine) -> None:
    disk, nic = m.function("03:00.0"), m.function("04:00.0")
    busy(disk)
    busy(nic)
    m.function("00:01.0").write_register("BRIDGE_CONTROL", r.PCI_BRIDGE_CTL_BUS_RESET)
    assert is_quiet(disk)
    assert is_quiet(nic)
    assert disk.config.get("EXP_LNKCTL") == 0
    assert m.function("01:00.0").secondary_bus == 0
    assert m.function("00:01.0").secondary_bus == 1


def test_a_bus_reset_happens_once_when_the_bit_rises(m: Machine) -> None:
    port, nic = m.function("02:01.0"), m.function("04:00.0")
    port.write_register("BRIDGE_CONTROL", r.PCI_BRIDGE_CTL_BUS_RESET)
    nic.engine = "running"
    port.write_register("BRIDGE_CONTROL", r.PCI_BRIDGE_CTL_BUS_RESET | r.PCI_BRIDGE_CTL_SERR)
    assert nic.engine == "running"


@pytest.mark.parametrize(("option", "command"), [("", 0), ("no-soft-reset", 7)])
def test_leaving_d3hot_resets_unless_the_function_says_not(option: str, command: int) -> None:
    fn = made(f"00:03.0 e1000e {option}\n").function("00:03.0")
    fn.write_register("COMMAND", 7)
    fn.engine = "running"
    fn.write_register("PM_CTRL", r.D3HOT)
    assert fn.power_state == r.D3HOT
    fn.write_register("PM_CTRL", r.D0)
    assert (fn.command, fn.engine) == (command, "running" if command else "off")
    assert fn.config.get("PM_CTRL") & r.PCI_PM_CTRL_NO_SOFT_RESET == (r.PCI_PM_CTRL_NO_SOFT_RESET if option else 0)


def test_a_plugged_function_has_power_on_values(m: Machine) -> None:
    disk = m.function("03:00.0")
    busy(disk)
    m.unplug(disk)
    assert is_quiet(disk)
    m.plug(disk)
    assert disk.reachable
    assert (disk.command, disk.msix_enabled) == (0, False)


def test_a_power_cycle_brings_the_firmware_values_back(m: Machine) -> None:
    disk = m.function("03:00.0")
    fresh = m.world.fingerprint
    busy(disk)
    m.function("02:01.0").power_off()
    m.power_cycle()
    assert m.world.fingerprint == fresh


def test_a_power_cycle_does_not_bring_an_unplugged_card_back(m: Machine) -> None:
    m.unplug(m.function("03:00.0"))
    m.power_cycle()
    assert answers(m) == ALL - {"0000:03:00.0"}


# -- virtual functions -------------------------------------------------------------------------------------------

SRIOV = "00:01.0 root-port bus=01 ari\n01:00.0 igb sriov=4 ari\n"


def test_virtual_functions_come_and_go_with_vf_enable() -> None:
    m = made(SRIOV)
    pf = m.function("01:00.0")
    assert [str(fn.bdf) for fn in pf.virtfns] == ["0000:01:10.0", "0000:01:10.2"]
    assert not any(fn.present for fn in pf.virtfns)
    pf.write_register("SRIOV_NUM_VF", 1)
    pf.write_register("SRIOV_CTRL", r.PCI_SRIOV_CTRL_VFE | r.PCI_SRIOV_CTRL_MSE)
    assert [fn.present for fn in pf.virtfns] == [True, False]
    pf.virtfns[0].engine = "running"
    pf.write_register("SRIOV_CTRL", 0)
    assert [(fn.present, fn.engine) for fn in pf.virtfns] == [(False, "off"), (False, "off")]


@pytest.mark.parametrize("how", ["flr", "unplug", "bus reset", "power"])
def test_virtual_functions_go_with_their_physical_one(how: str) -> None:
    m = made(SRIOV)
    pf = m.function("01:00.0")
    pf.write_register("SRIOV_NUM_VF", 2)
    pf.write_register("SRIOV_CTRL", r.PCI_SRIOV_CTRL_VFE)
    assert all(fn.reachable for fn in pf.virtfns)
    match how:
        case "flr":
            pf.write_config(expresses(pf, r.PCI_EXP_DEVCTL), 2, r.PCI_EXP_DEVCTL_BCR_FLR)
        case "unplug":
            m.unplug(pf)
        case "bus reset":
            m.function("00:01.0").write_register("BRIDGE_CONTROL", r.PCI_BRIDGE_CTL_BUS_RESET)
        case _:
            pf.power_off()
    assert not any(fn.present for fn in pf.virtfns)
    assert pf.config.get("SRIOV_CTRL") == 0


# -- registers by name -------------------------------------------------------------------------------------------


def test_capacities(m: Machine) -> None:
    assert (m.function("03:00.0").msix_capacity, m.function("03:00.0").msi_capacity) == (65, 0)
    assert made("00:03.0 ahci msi=8\n").function("00:03.0").msi_capacity == 8


def test_what_a_device_cannot_disable() -> None:
    fn = made("00:03.0 conventional no-intx-disable\n").function("00:03.0")
    fn.write_register("COMMAND", 0x0407)
    assert fn.command == 0x0007


def test_a_function_without_the_register(m: Machine) -> None:
    disk = m.function("00:1f.2")
    disk.write_register("ACS_CTRL", 1)
    assert (disk.read_register("ACS_CTRL"), disk.acs_control, disk.msix_control) == (0, 0, 0)


def test_acs_control_takes_what_the_capability_has() -> None:
    port = made("00:01.0 root-port bus=01 acs=SV,RR\n").function("00:01.0")
    port.write_register("ACS_CTRL", 0x7F)
    assert port.acs_control == r.PCI_ACS_SV | r.PCI_ACS_RR


def test_advanced_features_reset_a_conventional_function() -> None:
    image = Image()
    image.put(r.PCI_VENDOR_ID, 4, 0x29228086)
    at = image.capability(r.PCI_CAP_ID_AF, 8)
    image.put(at + r.PCI_AF_CAP, 1, 0x01 | r.PCI_AF_CAP_FLR)
    bdf = Bdf(0, 0, 0x1A, 0)
    description = MachineDescription("af", (FunctionDescription(bdf, image.bytes()),))
    fn = build_machine(World(), description).function(bdf)
    fn.write_register("COMMAND", 7)
    fn.write_config(at + r.PCI_AF_CTRL, 1, r.PCI_AF_CTRL_FLR)
    assert (fn.has_flr, fn.command, fn.read_config(at + r.PCI_AF_CTRL, 1)) == (True, 0, 0)


def test_registers_by_their_properties(m: Machine) -> None:
    disk = made("00:03.0 ahci msi=4 maskable\n").function("00:03.0")
    disk.write_register("MSI_MASK", 0b1010)
    assert (disk.msi_mask, disk.msix_masked) == (0b1010, False)
    port = m.function("00:01.0")
    port.write_register("BRIDGE_CONTROL", r.PCI_BRIDGE_CTL_SERR)
    assert (port.bridge_control, port.secondary_bus, port.subordinate_bus) == (r.PCI_BRIDGE_CTL_SERR, 1, 4)
