"""What a kernel shows of its PCI devices in /sys and /proc: the running system, a copy of it, or an archive of one.

The files are those of drivers/pci/pci-sysfs.c, iov.c, slot.c, drivers/iommu/iommu.c and iommu-sysfs.c, and
drivers/acpi/sysfs.c. Whoever is not root sees 64 bytes of config space and no ACPI table; then, and where a copy has
no ``config`` at all, the rest is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.draft import Draft
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.tree import Tree, last_of_link, resolve

DEVICES = "sys/bus/pci/devices"
TABLES = "sys/firmware/acpi/tables"
SIGNATURES = ("APIC", "DMAR", "IORT", "IVRS", "MCFG", "VIOT")
_TABLE_LIMIT = 1 << 20
_SIZES = (4096, 256, 64)
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_BUS = re.compile(r"[0-9a-f]{4,8}:([0-9a-f]{2})")
_UNITS = (
    ("intel", re.compile(r"dmar[0-9]+")),
    ("amd", re.compile(r"ivhd[0-9]+")),
    ("arm", re.compile(r"smmu.*|arm-smmu.*|.*\.(?:smmu|iommu)")),
    ("virtio", re.compile(r"virtio[0-9]+")),
    ("power", re.compile(r"iommu-phb[0-9a-f]+|spapr.*")),
)
"""The names that iommu_device_sysfs_add gives to units in /sys/class/iommu."""
_ATTRIBUTES = {
    "driver_override": "driver_override",
    "numa_node": "numa",
    "irq": "irq",
    "label": "label",
    "removable": "removable",
    "reset_method": "reset_method",
    "d3cold_allowed": "d3cold_allowed",
    "power_state": "power_state",
    "sriov_totalvfs": "sriov_totalvfs",
    "sriov_numvfs": "sriov_numvfs",
}
"""Files of a device to the attributes that they become."""
_MEANINGLESS = {"(null)", ""}


@dataclass
class _Device:
    """A function's folder, its path without links, and what is above it."""

    bdf: Bdf
    folder: str
    parent: Bdf | None = None
    group: str | None = None
    buses_below: set[int] = field(default_factory=set)


def find_root(tree: Tree) -> str | None:
    """Return what to put before ``sys/`` and ``proc/`` in a tree; None when there are no PCI devices in it."""
    for first in ("", *(f"{name}/" for name in tree.entries("")[:64])):
        for second in ("", *(f"{first}{name}/" for name in (tree.entries(first.rstrip("/"))[:64] if first else ()))):
            prefix = second or first
            if has_devices(tree, f"{prefix}{DEVICES}"):
                return prefix
    return None


def read_tree(tree: Tree, prefix: str, name: str = "") -> MachineDescription:
    """Read the PCI devices of a tree with ``sys/bus/pci/devices`` in it, and what is beside them."""
    return _read(tree, prefix, f"{prefix}{DEVICES}", name or tree.label)


def read_devices(tree: Tree, name: str) -> MachineDescription:
    """Read a tree that is a copy of ``/sys/bus/pci/devices`` alone."""
    return _read(tree, None, "", name)


def has_devices(tree: Tree, top: str = "") -> bool:
    """Whether a folder has folders, or links to such, named like PCI functions, with something of sysfs in them."""
    for name in tree.entries(top):
        if _ADDRESS.fullmatch(name):
            folder = resolve(tree, f"{top}/{name}")
            if folder and {"config", "vendor"} & set(tree.entries(folder)):
                return True
    return False


def _read(tree: Tree, prefix: str | None, devices: str, name: str) -> MachineDescription:
    found = dict(sorted(_devices(tree, devices)))
    if not found:
        raise BadInput(tree.label, "", "folders of PCI functions with `config` or `vendor` in them")
    _find_buses(tree, found)
    notes: list[str] = []
    functions = tuple(_function(tree, item, notes) for item in found.values())
    groups, ungrouped = _groups(found)
    tables = {} if prefix is None else _tables(tree, prefix, notes)
    _size_notes(functions, notes)
    return MachineDescription(
        name=name,
        functions=functions,
        ivrs=tables.pop("IVRS", (None,))[0],
        dmar=tables.pop("DMAR", (None,))[0],
        source=tree.label,
        notes=tuple(notes),
        recorded_groups=groups,
        recorded_ungrouped=ungrouped,
        tables={key: tuple(item for item in value if item) for key, value in tables.items()},
        kernel=None if prefix is None else _kernel(tree, prefix),
        cmdline=None if prefix is None else _text(tree, f"{prefix}proc/cmdline"),
        iommu_hint=None if prefix is None else _hint(tree, prefix),
    )


def _devices(tree: Tree, top: str) -> Iterator[tuple[Bdf, _Device]]:
    for name in tree.entries(top):
        if not _ADDRESS.fullmatch(name):
            continue
        folder = resolve(tree, f"{top}/{name}" if top else name)
        if folder is None or not {"config", "vendor"} & set(tree.entries(folder)):
            continue
        bdf = Bdf.parse(name)
        above = [part for part in folder.split("/")[:-1] if _ADDRESS.fullmatch(part)]
        group = last_of_link(tree, f"{folder}/iommu_group")
        yield bdf, _Device(bdf, folder, Bdf.parse(above[-1]) if above else None, group)


def _find_buses(tree: Tree, found: dict[Bdf, _Device]) -> None:
    """Note the bus below each bridge: its children are there, and the kernel's ``pci_bus`` is named after it."""
    for item in found.values():
        for name in tree.entries(f"{item.folder}/pci_bus"):
            match = _BUS.fullmatch(name)
            if match is not None:
                item.buses_below.add(int(match[1], 16))
        parent = found.get(item.parent) if item.parent is not None else None
        if parent is not None and last_of_link(tree, f"{item.folder}/physfn") is None:
            parent.buses_below.add(item.bdf.bus)


# -- one function -------------------------------------------------------------------------------------------------


def _function(tree: Tree, item: _Device, notes: list[str]) -> FunctionDescription:
    config = tree.read(f"{item.folder}/config", r.PCI_CFG_SPACE_EXP_SIZE) or b""
    size = next((size for size in _SIZES if size <= len(config)), 0)
    attributes = dict(_attributes(tree, item))
    if not size:
        if config:
            notes.append(f"{item.bdf}: {len(config)} bytes of config space are too few; only the other files are read")
        return _from_files(tree, item, attributes)
    if config[:4] == b"\xff\xff\xff\xff":
        attributes |= _ids(tree, item)
    return FunctionDescription(item.bdf, config[:size], attributes=attributes)


def _attributes(tree: Tree, item: _Device) -> Iterator[tuple[str, str]]:
    links = {"driver": "driver", "physfn": "virtual", "iommu": "iommu"}
    for name in tree.entries(item.folder):
        if name in links:
            value = last_of_link(tree, f"{item.folder}/{name}")
            if value:
                yield links[name], value[:200]
        elif name in _ATTRIBUTES:
            text = _text(tree, f"{item.folder}/{name}")
            if text is not None and text not in _MEANINGLESS and (name, text) != ("numa_node", "-1"):
                yield _ATTRIBUTES[name], text[:200]


def _ids(tree: Tree, item: _Device) -> dict[str, str]:
    numbers = {name: _number(tree, f"{item.folder}/{name}") for name in ("vendor", "device")}
    return {name: f"{value:04x}" for name, value in numbers.items() if value is not None and value <= 0xFFFF}


def _from_files(tree: Tree, item: _Device, attributes: dict[str, str]) -> FunctionDescription:
    """Make a header out of the files that show single registers of it."""
    draft = Draft()
    for name, at, size in (
        ("vendor", r.PCI_VENDOR_ID, 2),
        ("device", r.PCI_DEVICE_ID, 2),
        ("class", r.PCI_CLASS_PROG, 3),
        ("revision", r.PCI_REVISION_ID, 1),
    ):
        value = _number(tree, f"{item.folder}/{name}")
        if value is not None and value < 1 << 8 * size:
            draft.put(at, size, value)
    kind = _header_type(draft, item)
    if kind is not None:
        draft.put(r.PCI_HEADER_TYPE, 1, kind, r.PCI_HEADER_TYPE_MASK)
    if kind:
        below = _number(tree, f"{item.folder}/secondary_bus_number", 10)
        secondary = below if below is not None else min(item.buses_below, default=None)
        subordinate = _number(tree, f"{item.folder}/subordinate_bus_number", 10)
        for at, number in ((r.PCI_SECONDARY_BUS, secondary), (r.PCI_SUBORDINATE_BUS, subordinate)):
            if number is not None and number <= 0xFF:
                draft.put(at, 1, number)
    return draft.describe(item.bdf, attributes)


def _header_type(draft: Draft, item: _Device) -> int | None:
    """The kernel takes no function for a PCI bridge that has no bridge's header (pci_setup_device)."""
    known = draft.known[r.PCI_CLASS_DEVICE] and draft.known[r.PCI_CLASS_DEVICE + 1]
    class_code = int.from_bytes(draft.config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2], "little")
    if known and class_code == 0x0607:
        return r.PCI_HEADER_TYPE_CARDBUS
    if (known and class_code == r.PCI_CLASS_BRIDGE_PCI) or item.buses_below:
        return r.PCI_HEADER_TYPE_BRIDGE
    return r.PCI_HEADER_TYPE_NORMAL if known and class_code >> 8 != 0x06 else None


def _text(tree: Tree, path: str) -> str | None:
    data = tree.read(path, 1 << 14)
    return None if data is None else data.decode("utf-8", "replace").strip("\0\n ")


def _number(tree: Tree, path: str, base: int = 16) -> int | None:
    text = (_text(tree, path) or "").removeprefix("0x")
    try:
        return int(text, base) if text.isalnum() and len(text) <= 8 else None
    except ValueError:
        return None


# -- the machine --------------------------------------------------------------------------------------------------


def _groups(found: dict[Bdf, _Device]) -> tuple[tuple[tuple[str, ...], ...] | None, tuple[str, ...]]:
    members: dict[str, list[str]] = {}
    for item in found.values():
        if item.group is not None:
            members.setdefault(item.group, []).append(str(item.bdf))
    if not members:
        return None, ()
    ungrouped = tuple(str(item.bdf) for item in found.values() if item.group is None)
    return tuple(sorted(map(tuple, members.values()))), ungrouped


def _tables(tree: Tree, prefix: str, notes: list[str]) -> dict[str, tuple[bytes | None, ...]]:
    """Return the ACPI tables that say something about PCI devices."""
    folder = f"{prefix}{TABLES}"
    there = [name for name in tree.entries(folder) if name.rstrip("0123456789") in SIGNATURES]
    found: dict[str, tuple[bytes | None, ...]] = {}
    for name in there:
        data = tree.read(f"{folder}/{name}", _TABLE_LIMIT)
        if data:
            signature = name.rstrip("0123456789")
            found[signature] = (*found.get(signature, ()), data)
        else:
            notes.append(f"the ACPI table {name} is there but cannot be read; it takes root")
    return found


def _kernel(tree: Tree, prefix: str) -> str | None:
    release = _text(tree, f"{prefix}proc/sys/kernel/osrelease")
    if release:
        return release
    match = re.match(r"Linux version (\S+)", _text(tree, f"{prefix}proc/version") or "")
    return match[1] if match else None


def _hint(tree: Tree, prefix: str) -> str | None:
    """Return which IOMMU is at work; ``none`` where the kernel shows that there is no unit."""
    names = tree.entries(f"{prefix}sys/class/iommu")
    for hint, pattern in _UNITS:
        if any(map(pattern.fullmatch, names)):
            return hint
    return "none" if not names and tree.is_folder(f"{prefix}sys/class/iommu") else None


def _size_notes(functions: tuple[FunctionDescription, ...], notes: list[str]) -> None:
    short = sum(1 for item in functions if item.known is None and len(item.config) == r.PCI_STD_HEADER_SIZEOF)
    if short:
        notes.append(f"{short} functions show only 64 bytes: read as root for the capabilities")
    without = sum(1 for item in functions if item.known is not None)
    if without:
        notes.append(f"{without} functions have no config file: of config space only what other files show is known")
