"""From a machine description to a QEMU q35 machine with the same functions at the same addresses, where QEMU can.

``docs/machines-in-qemu.md`` says what comes out as described, what comes near, and what cannot be built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.testbed import qemu_devices as q
from quiesce.testbed import tables
from quiesce.testbed.errors import Skipped
from quiesce.testbed.qemu_devices import Place, QemuDevice, Recipe, Version
from quiesce.testbed.shape import Shape
from quiesce.testbed.tree import Tree, guest_buses, tree_of

Iommu = Literal["same", "intel", "amd", "none"]

_ROOT = "pcie.0"
_MOST = 240
_HOST, _LPC, _SATA, _SMBUS = (Bdf(0, 0, *place) for place in ((0, 0), (0x1F, 0), (0x1F, 2), (0x1F, 3)))
_CHIPSET = {
    _HOST: r.PCI_CLASS_BRIDGE_HOST,
    _LPC: r.PCI_CLASS_BRIDGE_ISA,
    _SATA: r.PCI_CLASS_STORAGE_SATA,
    _SMBUS: r.PCI_CLASS_SERIAL_SMBUS,
}
"""Functions that q35 brings with it, and the class a description must have there to mean them."""
_CHIPSET_DRIVERS = {_HOST: "mch", _LPC: "ICH9-LPC", _SATA: "ich9-ahci", _SMBUS: "ICH9-SMB"}
_SWITCHED_OFF = {_SATA: "sata=off", _SMBUS: "smbus=off"}
_NATIVE_HOTPLUG = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
"""Slots are looked after by pciehp, as on most real machines, and not by ACPI."""
_KERNEL = {"intel": "intel_iommu=on", "amd": "amd_iommu_dump=1", None: ""}


@dataclass(frozen=True)
class QemuMachine:
    """A machine for QEMU, and how it relates to the description it was made from."""

    name: str
    devices: tuple[QemuDevice, ...]
    """What is there when the guest boots, chipset functions with an empty bus among them."""
    iommu: str | None
    """``intel``, ``amd`` or None."""
    arguments: tuple[str, ...]
    """Everything for QEMU but memory, kernel, initramfs, command line, serial lines and QMP."""
    append: str
    """What the kernel's command line needs for this machine."""
    tables: Mapping[str, bytes]
    """ACPI tables that replace QEMU's own."""
    at: Mapping[str, str]
    """Address in the description -> address in the guest; virtual functions too."""
    by_bdf: Mapping[str, QemuDevice]
    """Address in the guest -> device; those in ``absent`` too."""
    differences: tuple[str, ...] = ()
    """What QEMU has otherwise than described, as far as known before booting; ``read_back.check`` measures the rest."""
    snapshots: bool = False
    """Whether QEMU can save and restore it."""
    blank: tuple[str, ...] = ()
    """Addresses in the guest of devices that a restored machine has with blank configuration space."""
    absent: tuple[QemuDevice, ...] = ()
    """Described as not plugged in: for an event to plug in."""
    needs: Version = q.OLDEST
    """The oldest QEMU that has all of it."""


def qemu_machine(
    description: MachineDescription, iommu: Iommu = "same", wanted: Collection[str] | None = None
) -> QemuMachine:
    """Return the QEMU machine for a description; raises Skipped with what cannot be built.

    ``iommu`` chooses another IOMMU than the one the description's tables speak of. Where only some devices are
    ``wanted``, another one with which QEMU could not save the machine is stood in for by a silent one.
    """
    return _Builder(description, iommu, wanted).machine()


def _described_kind(description: MachineDescription) -> str | None:
    return "amd" if description.ivrs is not None else "intel" if description.dmar is not None else None


class _Builder:
    """Puts one machine together; each step adds to what the next ones need."""

    def __init__(self, description: MachineDescription, iommu: Iommu, wanted: Collection[str] | None) -> None:
        self.description = description
        self.wanted = wanted
        self.tree: Tree = tree_of(description)
        self.kind = _described_kind(description) if iommu == "same" else None if iommu == "none" else str(iommu)
        self.notes: list[str] = []
        self.machine_options = ["q35", "accel=tcg", "kernel-irqchip=off"]
        self.backends: list[str] = []
        self.made: dict[Bdf, QemuDevice] = {}
        self.recipes: dict[Bdf, Recipe] = {}
        self.absent: list[QemuDevice] = []
        self.own = self._own_function()
        self.built = [bdf for bdf in self.tree.functions if not self._is_amd_function(bdf)]
        self.buses = guest_buses(self.tree)
        self.same_kind = self.kind == _described_kind(description)
        self.uncovered = tables.uncovered(description, self.tree, self.kind) if self.same_kind else frozenset()

    # -- the steps ---------------------------------------------------------------------------------------------

    def machine(self) -> QemuMachine:
        """Run all steps."""
        self._check_slots()
        self._chipset()
        self._expanders()
        for bdf in self.built:
            if bdf not in self.made:
                self._function(bdf)
        at = self._addresses()
        gaps = self.uncovered - self._bypassed()
        replaced = tables.override(self.description, self.tree, self.kind, gaps, at, self.own) if self.same_kind else {}
        self._note_renumbered(at)
        devices = tuple(self.made[bdf] for bdf in self._in_order() if self.made[bdf] not in self.absent)
        plain = {str(here): str(there) for here, there in at.items()}
        return QemuMachine(
            name=self.description.name,
            devices=devices,
            iommu=self.kind,
            arguments=self._arguments(devices),
            append=" ".join((_KERNEL[self.kind], *tables.kept_free(replaced))).strip(),
            tables=replaced,
            at={**plain, **self._virtual_addresses(at)},
            by_bdf={str(at[bdf]): self.made[bdf] for bdf in self.made if bdf in at},
            differences=tuple(self.notes),
            snapshots=self.kind != "amd" and all(recipe.migrates for recipe in self.recipes.values()),
            blank=tuple(
                str(at[bdf])
                for bdf, recipe in self.recipes.items()
                if not recipe.keeps_state and self.made[bdf] not in self.absent
            ),
            absent=tuple(self.absent),
            needs=max((recipe.needs for recipe in self.recipes.values()), default=q.OLDEST),
        )

    def _is_amd_function(self, bdf: Bdf) -> bool:
        return self.tree.shapes[bdf].class_code >> 8 == r.PCI_CLASS_SYSTEM_IOMMU

    def _own_function(self) -> Bdf | None:
        """Where QEMU puts the AMD IOMMU's own function: function 0 of the first slot that is free."""
        if self.kind != "amd":
            return None
        taken = {bdf.device for bdf in self.tree.on_bus(0) if not self._is_amd_function(bdf)} | {0, 0x1F}
        free = next((device for device in range(32) if device not in taken), None)
        if free is None:
            raise Skipped("the AMD IOMMU's own function needs a slot of bus 0, and all 32 are taken")
        return Bdf(0, 0, free, 0)

    def _check_slots(self) -> None:
        """Refuse what QEMU, or the firmware's scan, would not show."""
        if len(self.built) > _MOST:
            raise Skipped(f"{len(self.built)} functions are more than the {_MOST} that chassis numbers suffice for")
        for bdf in self.built:
            shape, parent = self.tree.shapes[bdf], self.tree.parent(bdf)
            above = None if parent is None else self.tree.shapes[parent].express
            one_slot = above in (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_DOWNSTREAM)
            if one_slot and bdf.device:
                raise Skipped(f"{bdf} is in slot {bdf.device:x} behind a port; QEMU has slot 0 only there")
            if parent is None and bdf.bus and not shape.bridge:
                raise Skipped(f"{bdf} is on a further root bus; QEMU takes nothing but bridges there")
            if above == r.PCI_EXP_TYPE_PCI_BRIDGE and not bdf.device and self._below_expander(bdf):
                raise Skipped(
                    f"{bdf} is in slot 0 behind a PCIe to PCI bridge; below an expander QEMU has no such slot"
                )
            slot_head = bdf._replace(function=0)
            if bdf.function and slot_head not in self.tree.functions and slot_head != _LPC:
                raise Skipped(f"{bdf} has no function 0 beside it; nothing would find it")
            if bdf.slot == _HOST.slot and bdf != _HOST:
                raise Skipped(f"{bdf} is beside the host bridge, which has one function on q35")
            if not shape.bridge and shape.header != r.PCI_HEADER_TYPE_NORMAL:
                raise Skipped(f"{bdf} is a CardBus bridge; QEMU has none")

    def _below_expander(self, bdf: Bdf) -> bool:
        return [bdf, *self.tree.above(bdf)][-1].bus != 0

    def _chipset(self) -> None:
        """Take over q35's own functions where the description means them; do without the others where QEMU can."""
        for bdf, sub_class in _CHIPSET.items():
            shape = self.tree.shapes.get(bdf)
            if shape is not None and shape.class_code >> 8 == sub_class:
                self._builtin(bdf, shape)
            elif bdf in _SWITCHED_OFF:
                self.machine_options.append(_SWITCHED_OFF[bdf])
            elif shape is None:
                self.notes.append(f"{bdf}: there, though not described: q35 always has it")
            else:
                raise Skipped(
                    f"{bdf} is always {_CHIPSET_DRIVERS[bdf]} on q35, not {shape.vendor:04x}:{shape.device:04x}"
                )

    def _builtin(self, bdf: Bdf, shape: Shape) -> None:
        self.made[bdf] = QemuDevice("", _CHIPSET_DRIVERS[bdf], "", "")
        if shape.ids not in _Q35_IDS:
            self._note(bdf, shape, "q35's own")

    def _note(self, bdf: Bdf, shape: Shape, what: str) -> None:
        self.notes.append(f"{bdf}: {what} stands for {shape.vendor:04x}:{shape.device:04x}")

    def _expanders(self) -> None:
        """Give every further root bus its expander on bus 0; one that is not described gets a free slot."""
        roots = [bus for bus in self.tree.roots if bus]
        slots = [*self.tree.expanders]
        while len(slots) < len(roots):
            slots.append(self._free_slot(slots))
            self.notes.append(f"{slots[-1]}: an expander for root bus {roots[len(slots) - 1]:02x}, not described")
        unused = max([*self.buses.values(), 0]) + 1
        for number, bdf in enumerate(slots):
            bus = self.buses[roots[number]] if number < len(roots) else unused + number
            properties = {"bus_nr": str(bus)}
            if number < len(roots) and roots[number] in self._bypassed_roots():
                properties["bypass_iommu"] = "on"
            self._add(bdf, q.EXPANDER, properties)

    def _free_slot(self, more: list[Bdf]) -> Bdf:
        taken = {bdf.device for bdf in (*self.tree.on_bus(0), *more)} | {0, 0x1F}
        taken |= {self.own.device} if self.own is not None else set()
        free = next((device for device in range(0x1E, 0, -1) if device not in taken), None)
        if free is None:
            raise Skipped("a further root bus needs a slot of bus 0, and all 32 are taken")
        return Bdf(0, 0, free, 0)

    def _function(self, bdf: Bdf) -> None:
        shape = self.tree.shapes[bdf]
        recipe = q.recipe_for(shape)
        if recipe is not None and self._only_in_the_way(bdf, recipe):
            recipe = q.SILENT
        if recipe is None:
            raise Skipped(f"{bdf} is a bridge of PCI Express type {shape.express}; QEMU has none like it")
        if not q.is_exact(shape, recipe):
            self._note(bdf, shape, recipe.driver)
        if self.tree.secondary.get(bdf) is not None and not recipe.leads_on:
            raise Skipped(f"{bdf} leads to another bus, {recipe.driver} would not")
        place = Place(_id(bdf), self._number(), self.tree.parent(bdf) is None)
        self.backends += recipe.backend(shape, place)
        self._add(bdf, recipe, recipe.options(shape, place))

    def _only_in_the_way(self, bdf: Bdf, recipe: Recipe) -> bool:
        """Whether a device that nobody wants is all that keeps the machine from being saved."""
        if recipe.migrates or self.wanted is None or self.kind == "amd" or self.tree.shapes[bdf].sriov:
            return False
        return str(bdf) not in self.wanted

    def _number(self) -> int:
        return len(self.made) + 1

    def _add(self, bdf: Bdf, recipe: Recipe, properties: dict[str, str]) -> None:
        shape = self.tree.shapes.get(bdf)
        if shape is not None and shape.multifunction:
            properties = {"multifunction": "on", **properties}
        device = QemuDevice(
            _id(bdf),
            recipe.driver,
            self._bus(bdf),
            f"{bdf.device:x}.{bdf.function:x}",
            tuple(properties.items()),
            self._hotpluggable(bdf, recipe),
        )
        self.made[bdf], self.recipes[bdf] = device, recipe
        function = self.tree.functions.get(bdf)
        if function is not None and not function.present:
            if not device.hotpluggable:
                raise Skipped(f"{bdf} is not plugged in at first, and QEMU cannot plug it in there later")
            self.absent.append(device)

    def _bus(self, bdf: Bdf) -> str:
        parent = self.tree.parent(bdf)
        if parent is not None:
            return _id(parent)
        roots = [bus for bus in self.tree.roots if bus]
        if bdf.bus == 0:
            return _ROOT
        number = roots.index(bdf.bus)
        return [device.id for device in self.made.values() if device.driver == q.EXPANDER.driver][number]

    def _hotpluggable(self, bdf: Bdf, recipe: Recipe) -> bool:
        """Whether the bus takes hot-plug. A root bus does not, and bridges are left where they are."""
        parent = self.tree.parent(bdf)
        if parent is None or recipe.leads_on:
            return False
        return self.tree.shapes[parent].express != r.PCI_EXP_TYPE_UPSTREAM

    # -- what follows ------------------------------------------------------------------------------------------

    def _below_root(self, root: int) -> list[Bdf]:
        def root_of(bdf: Bdf) -> int:
            return [bdf, *self.tree.above(bdf)][-1].bus

        return [bdf for bdf in self.built if root_of(bdf) == root]

    def _bypassed_roots(self) -> tuple[int, ...]:
        """Root buses of which the description's tables cover nothing: QEMU can leave them out of its IOMMU."""
        return tuple(root for root in self.tree.roots if root and self.uncovered.issuperset(self._below_root(root)))

    def _bypassed(self) -> frozenset[Bdf]:
        return frozenset(bdf for root in self._bypassed_roots() for bdf in self._below_root(root))

    def _addresses(self) -> dict[Bdf, Bdf]:
        found = {bdf: bdf._replace(bus=self.buses[bdf.bus]) for bdf in self.built}
        for bdf in (bdf for bdf in self.tree.functions if self._is_amd_function(bdf)):
            if self.own is not None and self.own not in found.values():
                found[bdf] = self.own
            else:
                why = "QEMU has one AMD IOMMU" if self.own is not None else "this machine has no AMD IOMMU"
                self.notes.append(f"{bdf}: not there, because {why}")
        extra = (bdf for bdf in self.made if bdf not in found)
        return found | {bdf: bdf for bdf in extra if bdf not in self.tree.functions}

    def _virtual_addresses(self, at: Mapping[Bdf, Bdf]) -> dict[str, str]:
        """Virtual functions keep their distance to the physical one, which holds where QEMU has the same device."""
        found = {}
        for virtual, (physical, _) in self.tree.virtual.items():
            devid = at[physical].requester_id + virtual.requester_id - physical.requester_id
            found[str(virtual)] = str(Bdf.from_devid(devid))
        return found

    def _note_renumbered(self, at: Mapping[Bdf, Bdf]) -> None:
        moved = [f"{here.short} is at {there.short}" for here, there in at.items() if here != there]
        if moved:
            self.notes.append("other addresses: " + ", ".join(moved))

    def _in_order(self) -> Iterator[Bdf]:
        """Parents before children. What is in slots before the AMD IOMMU's function comes before it, see
        ``_arguments``.
        """
        yield from sorted(self.made, key=lambda bdf: (len(list(self.tree.above(bdf))), bdf))

    def _arguments(self, devices: tuple[QemuDevice, ...]) -> tuple[str, ...]:
        first: list[str] = []
        rest: list[str] = []
        for device in devices:
            if not device.bus:
                continue  # q35 brings it
            early = (
                self.own is not None and device.bus == _ROOT and int(device.addr.split(".")[0], 16) < self.own.device
            )
            (first if early else rest).extend(("-device", device.argument()))
        iommu = ("-device", f"{self.kind}-iommu,intremap=on") if self.kind else ()
        base = ("-nodefaults", "-no-user-config", "-display", "none", "-cpu", "max", "-smp", "1")
        machine = ("-machine", ",".join(self.machine_options))
        return (*base, *machine, *_NATIVE_HOTPLUG, *self.backends, *first, *iommu, *rest)


_Q35_IDS = ((0x8086, 0x29C0), (0x8086, 0x2918), (0x8086, 0x2922), (0x8086, 0x2930))


def _id(bdf: Bdf) -> str:
    return f"d{bdf.bus:02x}.{bdf.device:02x}.{bdf.function}"
