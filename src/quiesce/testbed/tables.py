"""ACPI tables that replace QEMU's own, where a description names aliases, reserved memory or gaps that QEMU would
not write.

The kernel takes a table from the initramfs in place of the firmware's when the names in the header are the same and
the OEM revision is higher (CONFIG_ACPI_TABLE_UPGRADE).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.dmar import Dmar, Drhd, Rmrr, Scope, read_dmar, write_dmar
from quiesce.snapshot.ivrs import IvhdEntry, Ivmd, Ivrs, IvrsUnit, read_ivrs, write_ivrs
from quiesce.testbed.tree import Tree

AMD_BASE, AMD_CAPABILITY = 0xFED80000, 0x40
INTEL_BASE = 0xFED90000
_AMD_FLAGS, _AMD_INFO = 0xD1, 0x2800
_LAST = 0xFFFF
_IOAPIC = IvhdEntry("ioapic", 0x00A0, 0x00A0)
_IOAPIC_SCOPE = Scope("ioapic", 0xFF, ((0, 0),))
_OEM_ID, _OEM_TABLE_ID, _OEM_REVISION = b"BOCHS ", b"BXPC    ", 1


def replacing(table: bytes, revision: int = _OEM_REVISION + 1) -> bytes:
    """Give a table the header with which the kernel prefers it to QEMU's table of the same signature."""
    found = bytearray(table)
    found[10:16], found[16:24] = _OEM_ID, _OEM_TABLE_ID
    found[24:28] = revision.to_bytes(4, "little")
    found[9] = 0
    found[9] = -sum(found) & 0xFF
    return bytes(found)


def uncovered(description: MachineDescription, tree: Tree, kind: str | None) -> frozenset[Bdf]:
    """Return the functions that no IOMMU translates for, by the description's table of this kind."""
    if kind == "amd" and description.ivrs is not None:
        ivrs = read_ivrs(description.ivrs)
        own = {unit.devid for unit in ivrs.units}
        ids = {bdf: bdf.requester_id for bdf in tree.functions}
        return frozenset(bdf for bdf, devid in ids.items() if devid not in own and ivrs.unit_of(devid) is None)
    if kind == "intel" and description.dmar is not None:
        dmar = read_dmar(description.dmar)
        paths = {bdf: (bdf, *tree.above(bdf)) for bdf in tree.functions}
        return frozenset(bdf for bdf, path in paths.items() if dmar.unit_of(path, tree.secondary.get) is None)
    return frozenset()


def override(
    description: MachineDescription,
    tree: Tree,
    kind: str | None,
    gaps: frozenset[Bdf],
    at: Mapping[Bdf, Bdf],
    own: Bdf | None,
) -> dict[str, bytes]:
    """Return the tables that must replace QEMU's, by name. ``gaps`` are functions that the table must leave out,
    ``at`` says where a function is in the guest, ``own`` where the AMD IOMMU's function is.
    """
    if kind == "amd" and own is not None:
        return _amd(description, tree, gaps, at, own)
    return _intel(description, tree, gaps, at) if kind == "intel" else {}


def kept_free(replaced: Mapping[str, bytes]) -> list[str]:
    """Return command line options that keep the kernel off memory that a table calls reserved; real firmware says so
    in its memory map, and VT-d complains of one that does not.
    """
    spans = [(item.base, item.limit + 1 - item.base) for item in _reserved_by_intel(replaced)]
    if "IVRS" in replaced:
        spans += [(item.start, item.length) for item in read_ivrs(replaced["IVRS"]).memory]
    return [f"memmap={length:#x}${start:#x}" for start, length in spans]


def _reserved_by_intel(replaced: Mapping[str, bytes]) -> tuple[Rmrr, ...]:
    return read_dmar(replaced["DMAR"]).memory if "DMAR" in replaced else ()


# -- AMD ---------------------------------------------------------------------------------------------------------


def _amd(
    description: MachineDescription, tree: Tree, gaps: frozenset[Bdf], at: Mapping[Bdf, Bdf], own: Bdf
) -> dict[str, bytes]:
    ivrs = Ivrs(()) if description.ivrs is None else read_ivrs(description.ivrs)
    wanted = {bdf: Bdf.from_devid(ivrs.alias_of(bdf.requester_id)) for bdf in tree.functions}
    same = all(_alias_by_qemu(tree, bdf) == alias for bdf, alias in wanted.items()) or not _aliases(ivrs)
    if same and not gaps and not ivrs.memory:
        return {}
    entries = (*_covered(tree, gaps, at), *(_moved(entry, at) for entry in _aliases(ivrs)), _IOAPIC)
    unit = IvrsUnit(0x10, _AMD_FLAGS, own.requester_id, AMD_CAPABILITY, AMD_BASE, 0, 0, entries)
    memory = tuple(_moved_memory(item, at) for item in ivrs.memory)
    return {"IVRS": replacing(write_ivrs(Ivrs((unit,), memory, info=_AMD_INFO)))}


def _aliases(ivrs: Ivrs) -> tuple[IvhdEntry, ...]:
    found = (entry for unit in ivrs.units for entry in unit.entries)
    return tuple(entry for entry in found if entry.alias is not None)


def _alias_by_qemu(tree: Tree, bdf: Bdf) -> Bdf:
    """What is behind a conventional bridge or a bridge from PCI Express to PCI is described by QEMU as sending under
    the bridge's id, or as function 0 of the bus below it.
    """
    alias = bdf
    for bridge in tree.above(bdf):
        shape = tree.shapes[bridge]
        if shape.express == r.PCI_EXP_TYPE_PCI_BRIDGE:
            alias = Bdf(0, tree.secondary[bridge], 0, 0)
        elif shape.express is None:
            alias = bridge
    return alias


def _covered(tree: Tree, gaps: frozenset[Bdf], at: Mapping[Bdf, Bdf]) -> Iterator[IvhdEntry]:
    if not gaps:
        yield IvhdEntry("all", 0, _LAST)
        return
    covered = (at[bdf].requester_id for bdf in tree.functions if bdf in at and bdf not in gaps)
    yield from (IvhdEntry("select", devid, devid) for devid in covered)


def _moved(entry: IvhdEntry, at: Mapping[Bdf, Bdf]) -> IvhdEntry:
    assert entry.alias is not None
    first, last, alias = (_moved_id(devid, at) for devid in (entry.first, entry.last, entry.alias))
    return replace(entry, first=first, last=max(first, last), alias=alias)


def _moved_memory(item: Ivmd, at: Mapping[Bdf, Bdf]) -> Ivmd:
    if item.applies == "all":
        return item
    first = _moved_id(item.first, at)
    return replace(item, first=first, last=max(first, _moved_id(item.last, at)))


def _moved_id(devid: int, at: Mapping[Bdf, Bdf]) -> int:
    """Follow a requester id to the guest; one without a device moves with its bus."""
    bdf = Bdf.from_devid(devid)
    if bdf in at:
        return at[bdf].requester_id
    bus = next((there.bus for here, there in at.items() if here.bus == bdf.bus), bdf.bus)
    return bdf._replace(bus=bus).requester_id


# -- Intel -------------------------------------------------------------------------------------------------------


def _intel(
    description: MachineDescription, tree: Tree, gaps: frozenset[Bdf], at: Mapping[Bdf, Bdf]
) -> dict[str, bytes]:
    dmar = Dmar(()) if description.dmar is None else read_dmar(description.dmar)
    memory = tuple(_moved_rmrr(item, tree, at) for item in dmar.memory)
    if not memory and not gaps:
        return {}
    scopes = tuple(_scopes(tree, gaps, at)) if gaps else ()
    unit = Drhd(0, INTEL_BASE, not gaps, (_IOAPIC_SCOPE, *scopes))
    return {"DMAR": replacing(write_dmar(Dmar((unit,), memory, flags=1)))}


def _scopes(tree: Tree, gaps: frozenset[Bdf], at: Mapping[Bdf, Bdf]) -> Iterator[Scope]:
    for bdf in tree.functions:
        if bdf in at and bdf not in gaps:
            yield _scope(tree, bdf, at)


def _scope(tree: Tree, bdf: Bdf, at: Mapping[Bdf, Bdf]) -> Scope:
    """Name a function by its path. A bridge must be named as such, and everything below it comes with it."""
    path = [bdf, *tree.above(bdf)][::-1]
    return Scope(
        "bridge" if tree.shapes[bdf].bridge else "endpoint",
        at[path[0]].bus,
        tuple((at[step].device, at[step].function) for step in path),
    )


def _moved_rmrr(item: Rmrr, tree: Tree, at: Mapping[Bdf, Bdf]) -> Rmrr:
    found = (scope.resolve(item.segment, tree.secondary.get) for scope in item.scopes)
    named = tuple(bdf for bdf in found if bdf is not None and bdf in at)
    return replace(item, scopes=tuple(_scope(tree, bdf, at) for bdf in named))
