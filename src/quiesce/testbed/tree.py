"""The bus tree of a description: what hangs below what, and which numbers the guest's firmware gives to its buses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quiesce.machine import topology
from quiesce.machine.build import padded
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.testbed.errors import Skipped
from quiesce.testbed.qemu_devices import EXPANDER_IDS
from quiesce.testbed.shape import Shape, shape_of

LAST_BUS = 0xFF


@dataclass(frozen=True)
class Tree:
    """The functions of a description that are to be built, without virtual functions."""

    functions: Mapping[Bdf, FunctionDescription]
    shapes: Mapping[Bdf, Shape]
    secondary: Mapping[Bdf, int]
    """Bus below each bridge that leads somewhere, as described."""
    virtual: Mapping[Bdf, tuple[Bdf, int]]
    """Virtual function -> its physical function and its number there, from 0."""

    def parent(self, bdf: Bdf) -> Bdf | None:
        """Return the bridge above, None on a root bus."""
        return next((bridge for bridge, bus in self.secondary.items() if bus == bdf.bus), None)

    def above(self, bdf: Bdf) -> Iterator[Bdf]:
        """Yield the bridges above, nearest first."""
        bridge = self.parent(bdf)
        while bridge is not None:
            yield bridge
            bridge = self.parent(bridge)

    def on_bus(self, bus: int) -> tuple[Bdf, ...]:
        """Return the functions on a described bus, in order."""
        return tuple(bdf for bdf in self.functions if bdf.bus == bus)

    @property
    def roots(self) -> tuple[int, ...]:
        """The root buses: bus 0 and those that no bridge leads to."""
        led_to = set(self.secondary.values())
        return tuple(sorted({0} | {bdf.bus for bdf in self.functions if bdf.bus not in led_to}))

    @property
    def expanders(self) -> tuple[Bdf, ...]:
        """QEMU's expander functions on bus 0; the n-th stands for the n-th further root bus."""
        return tuple(bdf for bdf in self.on_bus(0) if self.shapes[bdf].ids == EXPANDER_IDS)


def tree_of(description: MachineDescription) -> Tree:
    """Read the tree; raises Skipped for what QEMU has no tree for."""
    foreign = next((item.bdf for item in description.functions if item.bdf.segment), None)
    if foreign is not None:
        raise Skipped(f"{foreign} is in a PCI segment of its own; QEMU's q35 has one")
    virtual = _virtual_functions(description)
    functions = {item.bdf: item for item in sorted(description.functions, key=lambda item: item.bdf)}
    kept = {bdf: item for bdf, item in functions.items() if bdf not in virtual}
    shapes = {bdf: shape_of(item) for bdf, item in kept.items()}
    ranges = {bdf: (kept[bdf].config[r.PCI_SECONDARY_BUS], 0) for bdf, shape in shapes.items() if shape.bridge}
    leads = topology.bridges_by_bus(ranges)
    return Tree(kept, shapes, {bridge: bus for (_, bus), bridge in leads.items()}, virtual)


def _virtual_functions(description: MachineDescription) -> dict[Bdf, tuple[Bdf, int]]:
    """Return the functions that are virtual ones of another: they are not built, they appear when enabled."""
    there = {item.bdf: item for item in description.functions}
    found: dict[Bdf, tuple[Bdf, int]] = {}
    for item in description.functions:
        image = padded(item.config)
        capability = topology.extended_capability_list(image).get(r.PCI_EXT_CAP_ID_SRIOV, 0)
        if capability:
            for number, place in enumerate(topology.virtual_addresses(item.bdf, image, capability)):
                if place in there and there[place].config[:2] == b"\xff\xff":
                    found[place] = item.bdf, number
    return found


def guest_buses(tree: Tree) -> dict[int, int]:
    """Return described bus -> bus in the guest. SeaBIOS numbers depth first in the order of device and function,
    from each root on; a further root keeps its number where the numbers below the root before leave it free.
    """
    found: dict[int, int] = {}
    last = -1
    for root in tree.roots:
        found[root] = max(root, last + 1)
        last = _number_below(tree, root, found, found[root])
    if last > LAST_BUS:
        raise Skipped(f"{len(found)} buses numbered by the firmware go beyond bus ff")
    return found


def _number_below(tree: Tree, bus: int, found: dict[int, int], last: int) -> int:
    """Number the buses below ``bus``; returns the last number given."""
    for bdf in tree.on_bus(bus):
        below = tree.secondary.get(bdf)
        if below is not None:
            found[below] = last + 1
            last = _number_below(tree, below, found, last + 1)
        elif tree.shapes[bdf].bridge:
            last += 1
    return last
