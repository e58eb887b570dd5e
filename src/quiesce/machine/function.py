"""One PCI function: what the silicon is and does. Path ``hw/BDF``; hardware truth, never the kernel's belief."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from quiesce.machine import pci_regs as r
from quiesce.machine.config import ConfigSpace
from quiesce.snapshot.bdf import Bdf
from quiesce.world import Field, State, StateDict

if TYPE_CHECKING:
    from quiesce.machine.devices import Behaviour

GONE = (1 << 64) - 1
"""All ones: what a read returns that nothing answers."""


class Function(State):
    """One PCI function, present or not. ``Machine.function`` and ``PciDev.hw`` give it; ``build_machine`` makes it.

    The attributes declared without a Field never change. Config space goes through ``read_config`` and
    ``write_config``; the properties (``command``, ``msi_enabled``...) read registers whether or not anything can reach
    the function, as the silicon itself would.
    """

    bdf: Bdf
    config: ConfigSpace
    upstream: Function | None
    """The bridge above; for a virtual function, the bridge above its physical function."""
    children: tuple[Function, ...]
    """The functions on the bus below, in bus order."""
    header_type: int
    pin: int
    """1 for INTA# to 4 for INTD#, 0 for none."""
    pcie_type: int | None
    """PCI_EXP_TYPE_*, or None for conventional PCI."""
    multifunction: bool
    behaviour: Behaviour
    vendor: int
    device: int
    class_code: int
    """Base class, sub-class and programming interface: 0x010601."""
    capabilities: dict[int, int]
    """First offset of every capability."""
    extended: dict[int, int]
    """First offset of every extended capability."""
    physfn: Function | None
    """The physical function of a virtual one."""
    virtfns: tuple[Function, ...]
    """The virtual functions this one can have, in order, present or not."""

    present: Field[bool] = Field(False)
    """Plugged in; for a virtual function, enabled by its physical function."""
    powered: Field[bool] = Field(True)
    """Main power is on. Off means D3cold: nothing answers and all state is lost."""
    irq_status: Field[bool] = Field(False)
    """An interrupt condition in the device that its driver has not serviced; drives INTx and STATUS.INTERRUPT."""
    irq_enabled: Field[bool] = Field(False)
    """The device's own interrupt enable, outside config space; its driver sets it."""
    engine: Field[str] = Field("off")
    """``running`` when the device interrupts and does DMA by itself, else ``off``."""
    dma_target: Field[tuple[int, ...]] = Field(())
    """IOVA tokens that the device may still write to."""
    message_pending: Field[bool] = Field(False)
    """A message interrupt is held back by a mask (the pending bit)."""
    msix_table: StateDict[int, tuple[int, bool]] = StateDict()
    """MSI-X table entries that were programmed: index -> (data, masked). A reset masks and empties them."""

    # -- reachability ----------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the silicon is there and has power."""
        return self.present and self.powered

    @property
    def reachable(self) -> bool:
        """Whether config requests from the CPU arrive: it and all bridges above live, in D0, and lead here."""
        return self.alive and self.path_open

    @property
    def path_open(self) -> bool:
        """Whether every bridge above passes requests down to this bus."""
        below: Function = self if self.physfn is None else self.physfn
        while below.upstream is not None:
            bridge = below.upstream
            if not (bridge.alive and bridge.forwards(below.bdf.bus)):
                return False
            below = bridge
        return True

    def forwards(self, bus: int) -> bool:
        """Whether this bridge passes config requests for the functions on ``bus`` below it."""
        if self.config.get("BRIDGE_CONTROL") & r.PCI_BRIDGE_CTL_BUS_RESET or self.power_state != r.D0:
            return False
        return self.config.get("SECONDARY_BUS") == bus

    # -- config space ----------------------------------------------------------------------------------------

    def read_config(self, offset: int, size: int) -> int:
        """Read config space as the CPU would: all ones when nothing answers."""
        if not self.reachable:
            return GONE & (1 << 8 * size) - 1
        value = self.config.read(offset, size)
        if offset <= r.PCI_STATUS < offset + size and self.interrupt_status:
            value |= r.PCI_STATUS_INTERRUPT << 8 * (r.PCI_STATUS - offset)
        return value | self._slot_status(offset, size)

    def _slot_status(self, offset: int, size: int) -> int:
        """Presence and link state: bits that follow from what is plugged in below."""
        base = self.capabilities.get(r.PCI_CAP_ID_EXP, 0)
        if not base or not self.is_bridge or not base <= offset + size - 1 or offset >= base + 0x3C:
            return 0
        value = 0
        for register, bit, state in (
            (r.PCI_EXP_SLTSTA, r.PCI_EXP_SLTSTA_PDS, self.has_slot and self.card_present),
            (r.PCI_EXP_LNKSTA, r.PCI_EXP_LNKSTA_DLLLA, self.reports_link and self.link_up),
        ):
            at = base + register
            if state and offset <= at < offset + size:
                value |= bit << 8 * (at - offset)
        return value & (1 << 8 * size) - 1

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write config space as the CPU would: dropped when nothing answers."""
        if not self.reachable:
            return
        before = {register.name: self.config.get(register.name) for register in self.config.touched(offset, size)}
        for register, written, _ in self.config.write(offset, size, value):
            effect = _EFFECTS.get(register.name)
            if effect is not None:
                effect(self, before[register.name], written)

    def read_register(self, name: str) -> int:
        """Read a register by name as the CPU would; 0 when the function has none of that name."""
        register = self.config.registers.get(name)
        return 0 if register is None else self.read_config(register.offset, register.size)

    def write_register(self, name: str, value: int) -> None:
        """Write a register by name as the CPU would; nothing happens when the function has none of that name."""
        register = self.config.registers.get(name)
        if register is not None:
            self.write_config(register.offset, register.size, value)

    def find_capability(self, cap_id: int) -> int:
        """Return the offset of a capability, or 0."""
        return self.capabilities.get(cap_id, 0)

    def find_ext_capability(self, cap_id: int) -> int:
        """Return the offset of an extended capability, or 0."""
        return self.extended.get(cap_id, 0)

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def is_bridge(self) -> bool:
        """Whether it has a bus below (header type 1)."""
        return self.header_type == r.PCI_HEADER_TYPE_BRIDGE

    @property
    def is_pcie(self) -> bool:
        """Whether it has a PCI Express capability."""
        return self.pcie_type is not None

    @property
    def is_virtfn(self) -> bool:
        """Whether it is a virtual function."""
        return self.physfn is not None

    @property
    def has_flr(self) -> bool:
        """Whether it can reset itself (PCIe FLR or Advanced Features)."""
        express, af = self.find_capability(r.PCI_CAP_ID_EXP), self.find_capability(r.PCI_CAP_ID_AF)
        if express and self.config.static(express + r.PCI_EXP_DEVCAP, 4) & r.PCI_EXP_DEVCAP_FLR:
            return True
        return bool(af and self.config.static(af + r.PCI_AF_CAP, 1) & r.PCI_AF_CAP_FLR)

    @property
    def has_slot(self) -> bool:
        """Whether a slot is behind this port."""
        return "EXP_SLTSTA" in self.config.registers

    @property
    def reports_link(self) -> bool:
        """Whether the port reports when its link is up."""
        base = self.find_capability(r.PCI_CAP_ID_EXP)
        return bool(base and self.config.static(base + r.PCI_EXP_LNKCAP, 4) & r.PCI_EXP_LNKCAP_DLLLARC)

    # -- registers -------------------------------------------------------------------------------------------

    @property
    def command(self) -> int:
        """The COMMAND register."""
        return self.config.get("COMMAND")

    @property
    def bus_master(self) -> bool:
        """Whether it may send memory requests, MSI among them."""
        return bool(self.command & r.PCI_COMMAND_MASTER)

    @property
    def intx_disabled(self) -> bool:
        """Whether COMMAND forbids it to assert its pin."""
        return bool(self.command & r.PCI_COMMAND_INTX_DISABLE)

    @property
    def interrupt_status(self) -> bool:
        """STATUS.INTERRUPT: a pin interrupt is waiting inside, whether or not it may be asserted."""
        return self.irq_status and self.pin != 0 and not (self.msi_enabled or self.msix_enabled)

    @property
    def power_state(self) -> int:
        """The state field of the PM capability; D0 without one."""
        return self.config.get("PM_CTRL") & r.PCI_PM_CTRL_STATE_MASK

    @property
    def msi_control(self) -> int:
        """The MSI message control register, 0 without the capability."""
        return self.config.get("MSI_FLAGS")

    @property
    def msi_enabled(self) -> bool:
        """Whether MSI is on."""
        return bool(self.msi_control & r.PCI_MSI_FLAGS_ENABLE)

    @property
    def msi_data(self) -> int:
        """The MSI data register."""
        return self.config.get("MSI_DATA")

    @property
    def msi_mask(self) -> int:
        """The per-vector mask bits, 0 when the function has none."""
        return self.config.get("MSI_MASK")

    @property
    def msix_control(self) -> int:
        """The MSI-X message control register, 0 without the capability."""
        return self.config.get("MSIX_FLAGS")

    @property
    def msix_enabled(self) -> bool:
        """Whether MSI-X is on."""
        return bool(self.msix_control & r.PCI_MSIX_FLAGS_ENABLE)

    @property
    def msi_capacity(self) -> int:
        """How many MSI vectors the function asks for, 0 without the capability."""
        base = self.find_capability(r.PCI_CAP_ID_MSI)
        return 1 << ((self.msi_control & r.PCI_MSI_FLAGS_QMASK) >> 1) if base else 0

    @property
    def msix_capacity(self) -> int:
        """Size of the MSI-X table, 0 without the capability."""
        base = self.find_capability(r.PCI_CAP_ID_MSIX)
        return (self.msix_control & r.PCI_MSIX_FLAGS_QSIZE) + 1 if base else 0

    @property
    def msi_limit(self) -> int:
        """How many MSI vectors the function can have, from its description."""
        base = self.find_capability(r.PCI_CAP_ID_MSI)
        return 1 << ((self.config.static(base + r.PCI_MSI_FLAGS, 2) & r.PCI_MSI_FLAGS_QMASK) >> 1) if base else 0

    @property
    def msix_limit(self) -> int:
        """The size of the MSI-X table, from the function's description."""
        base = self.find_capability(r.PCI_CAP_ID_MSIX)
        return (self.config.static(base + r.PCI_MSIX_FLAGS, 2) & r.PCI_MSIX_FLAGS_QSIZE) + 1 if base else 0

    @property
    def msix_masked(self) -> bool:
        """Whether the function mask holds back all MSI-X vectors."""
        return bool(self.msix_control & r.PCI_MSIX_FLAGS_MASKALL)

    @property
    def bridge_control(self) -> int:
        """The bridge control register."""
        return self.config.get("BRIDGE_CONTROL")

    @property
    def secondary_bus(self) -> int:
        """The bus below a bridge, as programmed now."""
        return self.config.get("SECONDARY_BUS")

    @property
    def subordinate_bus(self) -> int:
        """The highest bus below a bridge, as programmed now."""
        return self.config.get("SUBORDINATE_BUS")

    @property
    def acs_control(self) -> int:
        """The ACS control register, 0 without the capability."""
        return self.config.get("ACS_CTRL")

    @property
    def card_present(self) -> bool:
        """Whether something is plugged in below this port."""
        return any(child.present for child in self.children)

    @property
    def link_up(self) -> bool:
        """Whether the link below this port is up."""
        disabled = self.config.get("EXP_LNKCTL") & r.PCI_EXP_LNKCTL_LD
        return not disabled and any(child.alive for child in self.children)

    # -- life ------------------------------------------------------------------------------------------------

    def below(self) -> Iterator[Function]:
        """Yield everything below this bridge, top down."""
        for child in self.children:
            yield child
            yield from child.below()

    def quiet(self) -> None:
        """Stop all that the device does by itself, as any reset does."""
        self.irq_status = self.irq_enabled = self.message_pending = False
        self.engine = "off"
        self.dma_target = ()
        self.msix_table.clear()

    def reset(self, flr: bool = False) -> None:
        """Reset this function: registers as after power-on, engines off, virtual functions gone.

        A function level reset spares the link registers. A reset bridge resets all below it.
        """
        self.config.reset(keep_flr=flr)
        self.behaviour.on_reset(self)
        for virtual in self.virtfns:
            virtual.vanish()
        if self.is_bridge:
            self.reset_below()

    def reset_below(self) -> None:
        """Hot reset of the bus below: every function on it, and by them all further down."""
        for child in self.children:
            if child.alive:
                child.reset()

    def soft_reset(self) -> None:
        """Lose state on the way from D3hot to D0, as a function without No_Soft_Reset does."""
        state = self.config.get("PM_CTRL") & ~r.PCI_PM_CTRL_STATE_MASK
        self.config.reset(keep_flr=True)
        self.config.set("PM_CTRL", state)
        self.behaviour.on_reset(self)

    def note_slot_change(self) -> None:
        """Record in the slot registers that a card came or went, and the link with it."""
        bits = r.PCI_EXP_SLTSTA_PDC | (r.PCI_EXP_SLTSTA_DLLSC if self.reports_link else 0)
        self.config.set("EXP_SLTSTA", self.config.get("EXP_SLTSTA") | bits)

    def vanish(self) -> None:
        """Be gone, with all state lost."""
        self.config.reset()
        self.behaviour.on_reset(self)
        self.present = False

    def power_off(self) -> None:
        """Take the power of this function and of all below: D3cold."""
        for function in (self, *self.below()):
            function.config.reset()
            function.behaviour.on_reset(function)
            function.powered = False
            for virtual in function.virtfns:
                virtual.vanish()

    def power_on(self) -> None:
        """Give power back to this function and to all below; they come up as after a reset."""
        for function in (self, *self.below()):
            function.powered = True


def _control_bus_reset(fn: Function, before: int, written: int) -> None:
    if written & ~before & r.PCI_BRIDGE_CTL_BUS_RESET:
        fn.reset_below()


def _change_power_state(fn: Function, before: int, written: int) -> None:
    old, new = before & r.PCI_PM_CTRL_STATE_MASK, fn.power_state
    if old == r.D3HOT and new == r.D0 and not before & r.PCI_PM_CTRL_NO_SOFT_RESET:
        fn.soft_reset()


def _start_flr(fn: Function, before: int, written: int) -> None:
    if written & r.PCI_EXP_DEVCTL_BCR_FLR and fn.has_flr:
        fn.reset(flr=True)


def _start_af_flr(fn: Function, before: int, written: int) -> None:
    if written & r.PCI_AF_CTRL_FLR and fn.has_flr:
        fn.reset(flr=True)


def _switch_slot_power(fn: Function, before: int, written: int) -> None:
    base = fn.find_capability(r.PCI_CAP_ID_EXP)
    if not fn.config.static(base + r.PCI_EXP_SLTCAP, 4) & r.PCI_EXP_SLTCAP_PCP:
        return
    off = fn.config.get("EXP_SLTCTL") & r.PCI_EXP_SLTCTL_PCC
    if bool(off) == bool(before & r.PCI_EXP_SLTCTL_PCC):
        return
    for child in fn.children:
        if off:
            child.power_off()
        else:
            child.power_on()


def _enable_virtual_functions(fn: Function, before: int, written: int) -> None:
    on = fn.config.get("SRIOV_CTRL") & r.PCI_SRIOV_CTRL_VFE
    if bool(on) == bool(before & r.PCI_SRIOV_CTRL_VFE):
        return
    for virtual in fn.virtfns[: fn.config.get("SRIOV_NUM_VF") if on else None]:
        if on:
            virtual.present = True
        else:
            virtual.vanish()


Effect = Callable[[Function, int, int], None]
"""``effect(function, value before, value written)``, called after the register has taken the value."""

_EFFECTS: dict[str, Effect] = {
    "BRIDGE_CONTROL": _control_bus_reset,
    "PM_CTRL": _change_power_state,
    "EXP_DEVCTL": _start_flr,
    "AF_CTRL": _start_af_flr,
    "EXP_SLTCTL": _switch_slot_power,
    "SRIOV_CTRL": _enable_virtual_functions,
}
