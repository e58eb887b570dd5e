"""A whole machine: its functions, its firmware tables, and what happens to it from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from quiesce.machine.function import Function
from quiesce.machine.topology import bus_range
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.dmar import Dmar
from quiesce.snapshot.ivrs import Ivrs
from quiesce.world import World


@dataclass
class Machine:
    """The hardware of one machine; ``build_machine`` makes it. Nothing here changes after that."""

    world: World
    description: MachineDescription
    functions: dict[str, Function] = field(default_factory=dict)
    """By address (``0000:00:1f.2``), in bus order, those not plugged in yet among them."""
    ivrs: Ivrs | None = None
    dmar: Dmar | None = None
    iommu: str | None = None
    """``intel``, ``amd`` or None: the IOMMU that the operating system can use."""
    routing: dict[tuple[int, int, int, int], int] = field(default_factory=dict)
    """(segment, bus, device, pin) on a root bus -> IO-APIC input, as far as the snapshot knows."""

    def function(self, bdf: str | Bdf) -> Function:
        """Return the function at an address, full or short; raises KeyError when the machine has none there."""
        if isinstance(bdf, str) and bdf in self.functions:
            return self.functions[bdf]
        return self.functions[str(Bdf.parse(bdf) if isinstance(bdf, str) else bdf)]

    def on_bus(self, segment: int, bus: int) -> Iterator[Function]:
        """Yield the functions on one bus, present or not."""
        return (fn for fn in self.functions.values() if (fn.bdf.segment, fn.bdf.bus) == (segment, bus))

    def describe(self, fn: Function) -> str:
        """Return one line saying what a function is and where."""
        kind = f"{fn.vendor:04x}:{fn.device:04x} class {fn.class_code:06x} {fn.behaviour.name}"
        parts = [str(fn.bdf), kind]
        if fn.is_bridge:
            parts.append(f"bus {bus_range(fn).start:02x}-{bus_range(fn).stop - 1:02x}")
        if fn.pin:
            parts.append(f"INT{' ABCD'[fn.pin]}")
        for name, register in (("MSI", fn.msi_capacity), ("MSI-X", fn.msix_capacity)):
            if register:
                parts.append(f"{name}:{register}")
        if fn.physfn is not None:
            parts.append(f"virtual function of {fn.physfn.bdf}")
        elif fn.upstream is not None:
            parts.append(f"below {fn.upstream.bdf}")
        return "  ".join(parts) + ("" if fn.present else "  (not there yet)")

    def children(self, fn: Function) -> tuple[Function, ...]:
        """Return the functions on the bus below a bridge, present or not."""
        return fn.children

    def root_functions(self) -> Iterator[Function]:
        """Yield the functions with no bridge above."""
        return (fn for fn in self.functions.values() if fn.upstream is None)

    def unplug(self, fn: Function) -> None:
        """Take a function out, with everything below it and its virtual functions; the slot above notices."""
        for gone in (fn, *fn.below()):
            for part in (gone, *gone.virtfns):
                part.vanish()
        self._notify_slot(fn)

    def plug(self, fn: Function) -> None:
        """Put a function in, with everything below it; all come up as after power-on, no firmware runs."""
        for new in (fn, *fn.below()):
            if not new.is_virtfn:
                new.config.reset()
                new.behaviour.on_reset(new)
                new.powered = new.present = True
        self._notify_slot(fn)

    def _notify_slot(self, fn: Function) -> None:
        if fn.upstream is not None:
            fn.upstream.note_slot_change()

    def power_cycle(self) -> None:
        """Take all power and let the firmware start again, as a cold start or a wake from S3 does."""
        for fn in self.functions.values():
            fn.behaviour.on_reset(fn)
            fn.powered = True
            if fn.present and not fn.is_virtfn:
                fn.config.firmware()
            else:
                fn.config.reset()
                fn.present = False
