"""What a running kernel believes of its PCI devices, read out of its memory from outside.

Nothing runs in the guest for it: the layout of the structures comes from the kernel's own type information, their
beginning from the address of ``pci_root_buses``, which is a constant of the image because guests boot with nokaslr.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.testbed.btf import Layout, Layouts, cached_layouts
from quiesce.testbed.elf import read_section
from quiesce.testbed.errors import Skipped
from quiesce.testbed.store import write_atomic

if TYPE_CHECKING:
    from quiesce.testbed.guest import Guest

Memory = Callable[[int, int], bytes]
"""``memory(address, length)`` reads by virtual address."""

WANTED: Mapping[str, tuple[str, ...]] = {
    "pci_bus": ("node", "children", "devices", "number", "sysdata"),
    "pci_sysdata": ("domain",),
    "pci_dev": (
        "bus_list",
        "devfn",
        "irq",
        "msi_enabled",
        "msix_enabled",
        "is_managed",
        "enable_cnt.counter",
        "is_busmaster",
        "match_driver",
        "error_state",
        "current_state",
        "state_saved",
        "is_physfn",
        "sriov",
        "driver_override",
        "dev.driver_override.name",
        "dev.driver",
        "dev.devres_head",
        "dev.iommu",
        "dev.iommu_group",
        "dev.dma_iommu",
        "dev.flags#DEV_FLAG_DMA_IOMMU",
        "dev.dma_ops",
        "dev.msi.data",
        "dev.kobj.kref.refcount.refs.counter",
    ),
    "pci_sriov": ("num_VFs",),
    "device_driver": ("name",),
    "devres_node": ("entry", "release"),
    "action_devres": ("data", "action"),
    "devres": ("data", "release"),
    "devres_action": ("action.action",),
    "iommu_group": ("id", "domain", "default_domain", "blocking_domain", "owner", "owner_cnt", "devices_kobj"),
    "iommu_domain": ("type",),
    "kobject": ("entry", "kref.refcount.refs.counter"),
    "kset": ("list",),
}
"""The structures and fields that are read, as far as a kernel has them."""

ROOT, GROUPS, TAINT = "pci_root_buses", "iommu_group_kset", "tainted_mask"
_SYMBOLS = (
    r"pci_root_buses|iommu_group_kset|tainted_mask|devm_[a-z0-9_]*|pcim_[a-z0-9_]*|dmam_[a-z0-9_]*|group_[a-z]*_release|"
    r"msi_device_data_release|pci_[a-z0-9_]*release"
)
_MAX_DEVICES, _MAX_RECORDS = 4096, 256
_NAME = 64
_ACTION = "devm_action_release"
_FLUSH_QUEUE = 1 << 3
_TYPES = {0: "blocked", 1: "unmanaged", 3: "DMA", 4: "identity"}
"""``iommu_domain.type``: paging, the DMA API's, passing through; bits of include/linux/iommu.h."""


@dataclass(frozen=True, slots=True)
class GroupSeen:
    """An IOMMU group."""

    number: int
    type: str
    """Of the default domain: ``DMA`` with flush queue or not, ``identity``, ``unmanaged``, ``blocked``, ``unknown``."""
    domain: str
    """``default``, ``blocking``, ``other``, ``none``."""
    owner: bool | None
    """Whether user space owns its DMA; None before that was kept."""
    users: int | None
    references: int | None


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """A PCI device as the kernel's structures show it."""

    bdf: str
    values: Mapping[str, int | None]
    """Numbers by their path in ``struct pci_dev``; None for a field that this kernel does not have."""
    driver: str
    override: str | None
    devres: tuple[str, ...]
    """What would release each managed resource, oldest first; ``unknown`` without a name."""
    group: GroupSeen | None
    vfs: int


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is constant of one kernel image."""

    layouts: Layouts
    symbols: Mapping[int, str]

    def address(self, name: str) -> int | None:
        """Return the address of a symbol, None when the kernel does not tell it."""
        return next((address for address, symbol in self.symbols.items() if symbol == name), None)


def knowledge(vmlinux: Path, symbols: Callable[[str], str], folder: Path) -> Knowledge:
    """Return layouts and symbols of an image, kept in ``folder`` from one use to the next.

    ``symbols`` takes a regular expression and returns the matching lines of /proc/kallsyms; it is asked once per image.
    Raises Skipped for a kernel without type information.
    """
    btf = read_section(vmlinux, ".BTF")
    if btf is None:
        raise Skipped(f"{vmlinux.name} carries no type information (CONFIG_DEBUG_INFO_BTF)")
    identity = hashlib.sha256(btf + (read_section(vmlinux, ".notes") or b"") + _SYMBOLS.encode()).hexdigest()
    return Knowledge(cached_layouts(btf, WANTED, folder), _cached_symbols(identity, symbols, folder))


def _cached_symbols(identity: str, ask: Callable[[str], str], folder: Path) -> Mapping[int, str]:
    file = folder / f"symbols-{identity[:32]}.json"
    try:
        return {int(address, 16): str(name) for address, name in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        found = _parse_symbols(ask(f" ({_SYMBOLS})$"))
        if ROOT in found.values():
            write_atomic(file, json.dumps({f"{address:x}": name for address, name in found.items()}).encode())
        return found


def _parse_symbols(text: str) -> dict[int, str]:
    lines = (line.split() for line in text.splitlines())
    return {int(words[0], 16): words[2] for words in lines if len(words) == 3}


def kallsyms(guest: Guest) -> Callable[[str], str]:
    """Return the question for symbols, put to a running guest."""

    def ask(pattern: str) -> str:
        _, text = guest.shell(f"grep -E '{pattern}' /proc/kallsyms", 60)
        return text

    return ask


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is read at one moment."""

    devices: Mapping[str, DeviceSeen]
    """Every device on a bus list, by address."""
    groups: int | None
    """How many IOMMU groups there are, those without devices too; None where that cannot be read."""
    taint: int | None
    """The kernel's marks."""


class Torn(Exception):
    """The lists were changing while they were read, or are broken."""


class Structures:
    """Reads the devices of one guest; keeps nothing from one reading to the next."""

    def __init__(self, memory: Memory, known: Knowledge) -> None:
        self._memory = memory
        self._known = known
        root = known.address(ROOT)
        if root is None:
            raise Skipped(f"this kernel has no symbol {ROOT}: its structures cannot be read")
        self._root = root
        self._names: dict[int, str] = {}
        self._domains: dict[int, int] = {}
        self._groups: dict[int, GroupSeen] = {}
        self.reads = 0

    def look(self) -> Seen:
        """Read everything; raises Torn."""
        self._names, self._domains, self._groups = {}, {}, {}
        return Seen(self._devices(), self._count_groups(), self._taint())

    def _devices(self) -> dict[str, DeviceSeen]:
        found: dict[str, DeviceSeen] = {}
        for bus in self._buses(self._root):
            found |= {seen.bdf: seen for seen in self._bus(*bus)}
        return found

    # -- walking -------------------------------------------------------------------------------------------------

    def _read(self, address: int, length: int) -> bytes:
        self.reads += 1
        data = self._memory(address, length)
        if len(data) < length:
            raise Torn(f"{length} bytes at {address:#x}")
        return data

    def _layout(self, name: str) -> Layout:
        if name not in self._known.layouts:
            raise Skipped(f"this kernel has no struct {name}: its structures cannot be read")
        return self._known.layouts[name]

    def _list(self, head: int, structure: str, link: str) -> Iterator[tuple[int, bytes]]:
        """Yield address and bytes of every entry of a list; one read each, because an entry holds the way on."""
        layout = self._layout(structure)
        offset = layout.fields[link].byte
        at = int.from_bytes(self._read(head, 8), "little")
        for _ in range(_MAX_DEVICES):
            if at == head:
                return
            data = self._read(at - offset, layout.size)
            yield at - offset, data
            at = int.from_bytes(data[offset : offset + 8], "little")
        raise Torn(f"list of {structure} at {head:#x}")

    def _buses(self, head: int) -> Iterator[tuple[int, bytes]]:
        children = self._layout("pci_bus").fields["children"].byte
        for address, data in self._list(head, "pci_bus", "node"):
            yield address, data
            if int.from_bytes(data[children : children + 8], "little") != address + children:
                yield from self._buses(address + children)

    def _bus(self, address: int, bus: bytes) -> Iterator[DeviceSeen]:
        layout = self._layout("pci_bus")
        devices = layout.fields["devices"].byte
        if int.from_bytes(bus[devices : devices + 8], "little") == address + devices:
            return
        place = f"{self._domain(layout.value(bus, 'sysdata') or 0):04x}:{layout.fields['number'].value(bus):02x}"
        for at, data in self._list(address + devices, "pci_dev", "bus_list"):
            yield self._device(place, at, data)

    def _domain(self, sysdata: int) -> int:
        layout = self._known.layouts.get("pci_sysdata")
        if layout is None or "domain" not in layout.fields or not sysdata:
            return 0
        if sysdata not in self._domains:
            self._domains[sysdata] = layout.value(self._read(sysdata, layout.size), "domain") or 0
        return self._domains[sysdata]

    # -- one device ----------------------------------------------------------------------------------------------

    def _device(self, bus: str, address: int, data: bytes) -> DeviceSeen:
        layout = self._layout("pci_dev")
        values = {path: layout.value(data, path) for path in WANTED["pci_dev"]}
        devfn = values["devfn"] or 0
        return DeviceSeen(
            bdf=f"{bus}:{devfn >> 3:02x}.{devfn & 7}",
            values=values,
            driver=self._driver(values["dev.driver"] or 0),
            override=self._override(values),
            devres=self._devres(address + layout.fields["dev.devres_head"].byte, values["dev.devres_head"] or 0),
            group=self._group(values["dev.iommu_group"] or 0),
            vfs=self._vfs(values),
        )

    def _string(self, address: int) -> str:
        """Return a text; the first page it touches may be the last one mapped, so little is read."""
        if not address:
            return ""
        if address not in self._names:
            length = min(_NAME, 4096 - address % 4096)
            self._names[address] = self._read(address, length).partition(b"\0")[0].decode("ascii", "replace")
        return self._names[address]

    def _pointer(self, address: int) -> int:
        return int.from_bytes(self._read(address, 8), "little")

    def _driver(self, address: int) -> str:
        if not address:
            return ""
        if address not in self._names:
            name = address + self._layout("device_driver").fields["name"].byte
            self._names[address] = self._string(self._pointer(name))
        return self._names[address]

    def _override(self, values: Mapping[str, int | None]) -> str | None:
        pointer = values["driver_override"]
        if pointer is None:
            pointer = values["dev.driver_override.name"]
        return None if pointer is None else self._string(pointer)

    def _vfs(self, values: Mapping[str, int | None]) -> int:
        """The pointer shares its place with a virtual function's to its physical one, hence the mark."""
        layout = self._known.layouts.get("pci_sriov")
        if layout is None or not values["is_physfn"] or not values["sriov"]:
            return 0
        return layout.value(self._read(values["sriov"], layout.size), "num_VFs") or 0

    # -- managed resources ---------------------------------------------------------------------------------------

    def _devres(self, head: int, first: int) -> tuple[str, ...]:
        """Walk the list; its head lies in the device, so that what its first entry is has been read already."""
        layout = self._layout("devres_node")
        entry = layout.fields["entry"].byte
        names: list[str] = []
        at = first & (1 << 64) - 1
        while at != head and len(names) < _MAX_RECORDS:
            node = self._read(at - entry, layout.size)
            names.append(self._release(at - entry, layout.value(node, "release") or 0))
            at = int.from_bytes(node[entry : entry + 8], "little")
        return tuple(names)

    def _release(self, node: int, function: int) -> str:
        """Return what releases a node. Since v7.1 its own function is one for all, and the record names the rest."""
        name = self._known.symbols.get(function, "")
        if name == _ACTION:
            return self._symbol_at(node, self._action_place()) or _ACTION
        return name or self._symbol_at(node, self._place("devres", "release")) or "unknown"

    def _action_place(self) -> int | None:
        """Return where an action's function is behind the node: in a record of its own, or in the data."""
        own = self._place("devres_action", "action.action")
        header, action = self._place("devres", "data"), self._place("action_devres", "action")
        return own if own is not None or header is None or action is None else header + action

    def _place(self, structure: str, field: str) -> int | None:
        layout = self._known.layouts.get(structure)
        return None if layout is None or field not in layout.fields else layout.fields[field].byte

    def _symbol_at(self, node: int, offset: int | None) -> str:
        return "" if offset is None else self._known.symbols.get(self._pointer(node + offset), "")

    # -- groups --------------------------------------------------------------------------------------------------

    def _group(self, address: int) -> GroupSeen | None:
        if not address:
            return None
        if address not in self._groups:
            self._groups[address] = self._read_group(address)
        return self._groups[address]

    def _read_group(self, address: int) -> GroupSeen:
        layout = self._layout("iommu_group")
        data = self._read(address, layout.size)
        return GroupSeen(
            number=layout.value(data, "id") or 0,
            type=self._domain_type(layout.value(data, "default_domain") or 0),
            domain=_domain_kind(layout, data),
            owner=None if (owner := layout.value(data, "owner")) is None else bool(owner),
            users=layout.value(data, "owner_cnt"),
            references=self._references(layout.value(data, "devices_kobj") or 0),
        )

    def _domain_type(self, domain: int) -> str:
        layout = self._known.layouts.get("iommu_domain")
        if layout is None or not domain:
            return "unknown"
        number = layout.value(self._read(domain, layout.size), "type") or 0
        return _TYPES.get(number & ~_FLUSH_QUEUE, "unknown")

    def _count_groups(self) -> int | None:
        """Count the groups by their place in sysfs, where those are too that no device points to."""
        at, kset = self._known.address(GROUPS), self._place("kset", "list")
        if at is None or kset is None:
            return None
        found = self._pointer(at)
        return sum(1 for _ in self._list(found + kset, "kobject", "entry")) if found else 0

    def _taint(self) -> int | None:
        at = self._known.address(TAINT)
        return None if at is None else self._pointer(at)

    def _references(self, kobject: int) -> int | None:
        layout = self._known.layouts.get("kobject")
        if layout is None or not kobject:
            return None
        return layout.value(self._read(kobject, layout.size), "kref.refcount.refs.counter")


def _domain_kind(layout: Layout, group: bytes) -> str:
    domain = layout.value(group, "domain")
    if not domain:
        return "none"
    for kind in ("default", "blocking"):
        if domain == layout.value(group, f"{kind}_domain"):
            return kind
    return "other"
