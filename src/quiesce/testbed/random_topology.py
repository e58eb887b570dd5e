"""Machines made up by chance, all of which QEMU can build: ports with and without ACS, switches, conventional buses,
multifunction devices, virtual functions, further root buses with and without an IOMMU. A seed always gives the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.dmar import Dmar, Drhd, Scope, write_dmar
from quiesce.snapshot.text import read_text

_CHIPSET = ("00:00.0 host-bridge", "00:1f.0 isa-bridge", "00:1f.2 ahci", "00:1f.3 smbus")
_AMD_FUNCTION = "00:01.0"
_FIRST_SLOT, _LAST_SLOT = 2, 0x1E
_ROOTS = (0x40, 0x80, 0xC0)
_EXPRESS = ("e1000e", "virtio-net", "nvme", "xhci", "virtio-blk", "edu")
_CONVENTIONAL = ("edu", "e1000", "ehci", "uhci")
_INTEGRATED = "integrated id=8086:10d3 class=020000 msi=1 msix=5 pm"
"""What ``e1000e`` is on a root bus: a root complex integrated endpoint, which Linux trusts when it is Intel's."""
_ON_ROOT = ("edu", "e1000", _INTEGRATED, "virtio-net-transitional", "ehci", "uhci", "ahci")
_VFS = "sriov=7 vf-offset=128 vf-stride=2 ari"
_DEEPEST = 3


@dataclass
class _Node:
    kind: str
    options: str = ""
    place: tuple[int, int] = (0, 0)
    """Device and function."""
    below: list[_Node] = field(default_factory=list)
    leads: bool = False


@dataclass
class _Maker:
    random: Random
    left: int
    """Functions that may still be made."""
    virtual: bool

    def chance(self, part: float) -> bool:
        return self.random.random() < part

    def take(self, number: int = 1) -> int:
        """Take up to so many functions from what is left; at least one."""
        taken = max(1, min(number, self.left))
        self.left -= taken
        return taken

    # -- what can be in a slot ---------------------------------------------------------------------------------

    def device(self, kinds: tuple[str, ...], slot: int, several: float = 0.3) -> list[_Node]:
        """An endpoint with one or more functions, of the same kind or of different ones."""
        count = self.take(self.random.randint(2, 4) if self.chance(several) else 1)
        numbers = [0, *sorted(self.random.sample(range(1, 8), count - 1))]
        first = self.random.choice(kinds)
        same = self.chance(0.5)
        return [_Node(first if same else self.random.choice(kinds), "", (slot, number)) for number in numbers]

    def ports(self, slot: int, others: bool = True) -> list[_Node]:
        """One or more root ports in a slot, sometimes with another device's function among them."""
        count = self.take(self.random.randint(2, 4) if self.chance(0.3) else 1)
        found = []
        for function in range(count):
            if function and others and self.chance(0.2):
                found.append(_Node(self.random.choice(_ON_ROOT), "", (slot, function)))
            else:
                found.append(self.port("root-port", (slot, function)))
        return found

    def port(self, kind: str, place: tuple[int, int], depth: int = 0) -> _Node:
        acs = "acs" if kind == "root-port" and self.chance(0.6) else ""
        return _Node(kind, acs, place, self.behind_port(depth), leads=True)

    def behind_port(self, depth: int) -> list[_Node]:
        if self.left <= 0 or self.chance(0.1):
            return []
        draw = self.random.random()
        if draw < 0.2 and depth < _DEEPEST:
            return [self.switch(depth)]
        if draw < 0.35:
            self.take()
            return [_Node("pcie-to-pci", "", (0, 0), self.conventional_bus(depth + 1), leads=True)]
        if draw < 0.5 and self.virtual:
            self.take()
            return [_Node("igb", _VFS)]
        return self.device(_EXPRESS, 0)

    def switch(self, depth: int) -> _Node:
        ports = self.take(self.random.randint(1, 3))
        self.take()
        below = [self.port("switch-down", (slot, 0), depth + 1) for slot in range(ports)]
        return _Node("switch-up", "", (0, 0), below, leads=True)

    def conventional_bus(self, depth: int) -> list[_Node]:
        found: list[_Node] = []
        for slot in range(1, 1 + self.random.randint(1, 3)):
            if self.left <= 0:
                break
            if depth < _DEEPEST and self.chance(0.25):
                self.take()
                kind = "pci-bridge"
                found.append(_Node(kind, "", (slot, 0), self.conventional_bus(depth + 1), leads=True))
            else:
                found += self.device(_CONVENTIONAL, slot)
        return found

    def root_slot(self, slot: int) -> list[_Node]:
        draw = self.random.random()
        if draw < 0.55:
            return self.ports(slot)
        if draw < 0.7:
            self.take()
            kind = self.random.choice(("pci-bridge", "dmi-bridge"))
            return [_Node(kind, "", (slot, 0), self.conventional_bus(1), leads=True)]
        return self.device(_ON_ROOT, slot)

    def further_root(self) -> list[_Node]:
        """Ports on a root bus of their own; QEMU takes nothing but bridges there."""
        found: list[_Node] = []
        for slot in range(self.random.randint(1, 3)):
            if self.left > 0:
                found += self.ports(slot, others=False)
        return found

    def root_bus(self, slots: list[int]) -> list[_Node]:
        found: list[_Node] = []
        for slot in slots:
            if self.left <= 0:
                break
            found += self.root_slot(slot)
        return found


def random_description(
    seed: int, size: int = 14, iommu: str = "intel", *, virtual_functions: bool = False
) -> MachineDescription:
    """Return a machine of about ``size`` functions beside the chipset; ``iommu`` is intel, amd or none. With
    ``virtual_functions`` some network cards have them, which needs QEMU 8.
    """
    random = Random(f"{seed} {size} {virtual_functions}")
    maker = _Maker(random, size, virtual_functions)
    slots = sorted(random.sample(range(_FIRST_SLOT, _LAST_SLOT), 12))
    extra = random.choices((0, 1, 2), (6, 3, 1))[0]
    expanders, slots = slots[:extra], slots[extra:]
    further = {root: maker.further_root() for root in _ROOTS[:extra]}
    first = maker.root_bus(slots)
    first += [_Node("expander", "", (slot, 0)) for slot in expanders]
    bypassed = [root for root in further if maker.chance(0.3) and _may_bypass(root, further, iommu)]
    lines = [*_CHIPSET, *_lines(first, 0)]
    for root, nodes in further.items():
        lines += _lines(nodes, root)
    lines += _iommu_lines(iommu, bypassed)
    found = read_text(f"machine random-{seed}\n" + "\n".join(lines) + "\n", f"random topology {seed}")
    return _without_roots(found, bypassed) if iommu == "intel" and bypassed else found


def _may_bypass(root: int, further: Mapping[int, list[_Node]], iommu: str) -> bool:
    """Whether a root bus may be left out of what the IOMMU covers and the machine still decides something.

    A device above the last id of an IVRS table makes real kernels read behind the end of a table at boot, whatever that
    gives (5.10 to 7.2: ``rlookup_table`` is used before the id is compared). What VT-d does not cover gets no message
    interrupts while others are remapped, and without them the 82576 driver enables no virtual functions.
    """
    last = max((other for other, nodes in further.items() if nodes), default=root)
    return iommu != "none" and not (iommu == "amd" and root >= last) and not _virtual_in(further[root])


def _virtual_in(nodes: list[_Node]) -> bool:
    return any(node.kind == "igb" or _virtual_in(node.below) for node in nodes)


def _lines(nodes: list[_Node], bus: int) -> list[str]:
    """Number the buses as firmware does, depth first, and write one line for each function."""
    return list(_below(nodes, bus, iter(range(bus + 1, 0x100))))


def _below(nodes: list[_Node], bus: int, numbers: Iterator[int]) -> Iterator[str]:
    for node in sorted(nodes, key=lambda node: node.place):
        address = f"{bus:02x}:{node.place[0]:02x}.{node.place[1]}"
        if not node.leads:
            yield f"{address} {node.kind} {node.options}"
            continue
        secondary = next(numbers)
        yield f"{address} {node.kind} bus={secondary:02x} {node.options}"
        yield from _below(node.below, secondary, numbers)


def _iommu_lines(iommu: str, bypassed: list[int]) -> list[str]:
    if iommu == "intel":
        return ["iommu intel"]
    if iommu != "amd":
        return []
    covers = [f"{bus:02x}:00.0-{bus + 0x3F:02x}:1f.7" for bus in (0, *_ROOTS) if bus not in bypassed]
    return [f"iommu amd {_AMD_FUNCTION}", *([f"covers {' '.join(covers)}"] if bypassed else [])]


def _without_roots(found: MachineDescription, bypassed: list[int]) -> MachineDescription:
    """Let the VT-d unit name what it covers, instead of everything."""
    led_to = {item.config[0x19] for item in found.functions if item.config[0x0E] & 0x7F == 1}
    scopes = tuple(
        Scope(
            "bridge" if item.config[0x0E] & 0x7F == 1 else "endpoint",
            item.bdf.bus,
            ((item.bdf.device, item.bdf.function),),
        )
        for item in found.functions
        if item.bdf.bus not in led_to and item.bdf.bus not in bypassed
    )
    return replace(found, dmar=write_dmar(Dmar((Drhd(0, 0xFED90000, False, scopes),), flags=1)))
