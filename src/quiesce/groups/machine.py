"""A machine as a snapshot tells of it: functions, the tree they hang in, and which of them an IOMMU covers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from quiesce.groups.knowledge import Knowledge, looks_like_bridge
from quiesce.groups.silicon import Silicon, possible_silicon
from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.snapshot.description import FunctionDescription, MachineDescription

if TYPE_CHECKING:
    from quiesce.snapshot.dmar import Dmar
    from quiesce.snapshot.iort import Iort
    from quiesce.snapshot.ivrs import Ivrs
    from quiesce.snapshot.viot import Viot

_VIRTUAL = re.compile(r"\bVF\b|Virtual Function")
"""What names of virtual functions have in them."""
_ATI = b"\x02\x10"
_NO_QUIRK = (0x0001, 0x0001)
"""Ids that no table names."""


class LightConfig:
    """Configuration space of a light function: what the snapshot has, and what the kernel has written since."""

    def __init__(self, fn: LightFunction) -> None:
        self._fn = fn

    def static(self, offset: int, size: int) -> int:
        """Return what the snapshot has at an offset."""
        return int.from_bytes(self._fn.item.config[offset : offset + size], "little")

    def get(self, name: str) -> int:
        """Return what a register holds; only ARI forwarding is asked for."""
        if name != "EXP_DEVCTL2":
            raise KeyError(name)
        at = self._fn.silicon.capabilities.get(r.PCI_CAP_ID_EXP, 0)
        return self.static(at + r.PCI_EXP_DEVCTL2, 2) if at else 0


class LightFunction:
    """One function; a ``SiliconView`` whose silicon may still be open between several possibilities."""

    def __init__(self, item: FunctionDescription) -> None:
        self.item = item
        self.bdf = item.bdf
        self.path = str(item.bdf)
        self.upstream: LightFunction | None = None
        self.physfn: LightFunction | None = None
        self.has_siblings = False
        """Other functions of its slot are there."""
        self.options: tuple[Silicon, ...] = ()
        self._ids: tuple[int, int] | None = None
        self.chosen: Silicon | None = None
        self.ways: list[Silicon] | None = None
        """One of the options for each way in which it can behave, once that was asked."""
        self.decide: Callable[[LightFunction], Silicon] = lambda fn: fn.options[0]
        self.written: dict[int, int] = {}
        self.config = LightConfig(self)
        self.looks_like_bridge = looks_like_bridge(item)

    @property
    def silicon(self) -> Silicon:
        """What it is; asks ``decide`` when that is open."""
        if self.chosen is None:
            self.chosen = self.decide(self)
        return self.chosen

    @property
    def open(self) -> bool:
        """Whether the snapshot leaves open what it is."""
        return len(self.options) > 1

    @cached_property
    def knows(self) -> Knowledge:
        """Which bits the snapshot tells."""
        return Knowledge(self.item)

    def may_be(self, options: tuple[Silicon, ...]) -> None:
        """Set the possibilities."""
        self.options = options
        ids = {(silicon.vendor, silicon.device) for silicon in options}
        self._ids = ids.pop() if len(ids) == 1 else None
        self.chosen = options[0] if len(options) == 1 else None

    @property
    def ids_settled(self) -> bool:
        """Whether all possibilities have the same ids."""
        return self._ids is not None

    @property
    def ids(self) -> tuple[int, int]:
        """Vendor and device id."""
        return self._ids or (self.silicon.vendor, self.silicon.device)

    @property
    def vendor(self) -> int:
        """Vendor id."""
        return self.ids[0]

    @property
    def device(self) -> int:
        """Device id."""
        return self.ids[1]

    @property
    def class_code(self) -> int:
        """Base class, sub-class and programming interface."""
        return self.options[0].class_code

    @property
    def pcie_type(self) -> int | None:
        """PCI_EXP_TYPE_*, or None for conventional PCI."""
        return self.silicon.pcie_type

    @property
    def is_pcie(self) -> bool:
        """Whether it has a PCI Express capability."""
        return self.pcie_type is not None

    @property
    def is_bridge(self) -> bool:
        """Whether it has a bus below."""
        return self.looks_like_bridge

    @property
    def is_virtfn(self) -> bool:
        """Whether it is a virtual function."""
        return self.physfn is not None

    @property
    def multifunction(self) -> bool:
        """The header's multifunction bit; where the snapshot does not show it, whether the slot has other functions."""
        if self.knows.known(r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_MFD):
            return bool(self.item.config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MFD)
        return self.has_siblings

    def find_ext_capability(self, cap_id: int) -> int:
        """Return the offset of an extended capability, or 0."""
        return self.silicon.extended.get(cap_id, 0)

    def read_config(self, offset: int, size: int) -> int:
        """Read configuration space; ACS controls that the kernel itself sets are off until it has set them."""
        if offset in self.written:
            return self.written[offset]
        value = int.from_bytes(self.silicon.image[offset : offset + size], "little")
        base = self.find_ext_capability(r.PCI_EXT_CAP_ID_ACS)
        return value & ~_SET_BY_KERNEL if base and offset == base + r.PCI_ACS_CTRL else value

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write configuration space: only the ACS control registers are ever written."""
        self.written[offset] = value & (1 << 8 * size) - 1


_SET_BY_KERNEL = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF


class LightMachine:
    """All functions by address, in bus order, and the firmware tables."""

    def __init__(self, description: MachineDescription, iommu: str | None) -> None:
        self.description = description
        self.iommu = iommu
        self.ivrs: Ivrs | None = None
        self.dmar: Dmar | None = None
        self.iort: Iort | None = None
        self.viot: Viot | None = None
        _read_tables(self, description)
        present = sorted((item for item in description.functions if item.present), key=lambda item: item.bdf)
        self.functions = {str(item.bdf): LightFunction(item) for item in present}
        self.shows_drivers = any("driver" in item.attributes for item in present)
        first = self.functions.get("0000:00:00.0")
        self.old_amd = first is not None and first.item.config[:2] == _ATI
        """The host bridge is one of the chipsets before Zen."""
        self.unplaced: tuple[LightFunction, ...] = ()
        """Functions on a bus to which no bridge is known to lead, though one of some bridges may."""
        self.unplaced_set: frozenset[LightFunction] = frozenset()
        self.places: dict[int, list[LightFunction]] = {}
        """By segment, the bridges of which the snapshot does not tell what bus is below."""
        _link(self)
        _link_virtual(self)
        _mark_siblings(self.functions.values())
        for fn in self.functions.values():
            fn.may_be(possible_silicon(fn.item, _ids(fn), fn.upstream is None))


def _read_tables(m: LightMachine, description: MachineDescription) -> None:
    """Read what there is; the readers of all kinds of tables are imported only where there is one."""
    source, tables = description.source or description.name, description.tables
    if description.ivrs is not None:
        from quiesce.snapshot.ivrs import read_ivrs

        m.ivrs = read_ivrs(description.ivrs, source)
    if description.dmar is not None:
        from quiesce.snapshot.dmar import read_dmar

        m.dmar = read_dmar(description.dmar, source)
    if "IORT" in tables:
        from quiesce.snapshot.iort import read_iort

        m.iort = read_iort(tables["IORT"][0], source)
    if "VIOT" in tables:
        from quiesce.snapshot.viot import read_viot

        m.viot = read_viot(tables["VIOT"][0], source)


def _link(m: LightMachine) -> None:
    bridges = {fn.bdf: fn for fn in m.functions.values() if fn.is_bridge}
    knows = {bdf: fn.knows.known(r.PCI_SECONDARY_BUS, 1) for bdf, fn in bridges.items()}
    ranges = {bdf: (fn.item.config[r.PCI_SECONDARY_BUS], 0) for bdf, fn in bridges.items() if knows[bdf]}
    leads = topology.bridges_by_bus(ranges)
    for fn in m.functions.values():
        above = topology.parent_of(fn.bdf, leads)
        fn.upstream = None if above is None else bridges[above]
    m.places = {}
    for bdf in sorted(bdf for bdf in bridges if not knows[bdf]):
        m.places.setdefault(bdf.segment, []).append(bridges[bdf])
    lowest = {segment: found[0].bdf.bus for segment, found in m.places.items()}
    roots = {fn.bdf[:2] for fn in m.functions.values() if _is_host_bridge(fn.item)}
    m.unplaced = tuple(
        fn
        for fn in m.functions.values()
        if fn.upstream is None and fn.bdf.bus > lowest.get(fn.bdf.segment, 0xFF) and fn.bdf[:2] not in roots
    )
    m.unplaced_set = frozenset(m.unplaced)


def _is_host_bridge(item: FunctionDescription) -> bool:
    return int.from_bytes(item.config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2], "little") == r.PCI_CLASS_BRIDGE_HOST


def _link_virtual(m: LightMachine) -> None:
    """Tie virtual functions to their physical ones: by the SR-IOV capability, or because the snapshot says so.
    No bridge is one, so that the way up ends whatever a snapshot says.
    """
    for fn in tuple(m.functions.values()):
        for virtual in _virtual_of(m, fn):
            if not virtual.is_bridge:
                virtual.physfn, virtual.upstream = fn, fn.upstream
    for fn in m.functions.values():
        owner = m.functions.get(fn.item.attributes.get("virtual", ""))
        if owner is None and fn.bdf.function and _VIRTUAL.search(fn.item.attributes.get("name", "")):
            owner = m.functions.get(str(fn.bdf._replace(function=0)))
        if owner is not None and owner is not fn and not fn.is_bridge:
            fn.physfn, fn.upstream = owner, owner.upstream


def _virtual_of(m: LightMachine, fn: LightFunction) -> Iterable[LightFunction]:
    image = fn.item.config
    if len(image) <= r.PCI_CFG_SPACE_SIZE:
        return ()
    at = topology.extended_capability_list(image).get(r.PCI_EXT_CAP_ID_SRIOV, 0)
    if not at:
        return ()
    enabled = topology.enabled_virtual_functions(image, at)
    places = topology.virtual_addresses(fn.bdf, image, at)
    found = ((number, m.functions.get(str(place))) for number, place in enumerate(places))
    return [
        virtual
        for number, virtual in found
        if virtual is not None and (number < enabled or virtual.item.config[:4] == b"\xff\xff\xff\xff")
    ]


def _mark_siblings(functions: Iterable[LightFunction]) -> None:
    slots: dict[tuple[int, int, int], list[LightFunction]] = {}
    for fn in functions:
        slots.setdefault(fn.bdf.slot, []).append(fn)
    for members in slots.values():
        for fn in members:
            fn.has_siblings = len(members) > 1


def _ids(fn: LightFunction) -> tuple[int, int] | None:
    """Return the ids when they are known, those that the snapshot states beside the bytes first."""
    stated = fn.item.attributes.get("vendor"), fn.item.attributes.get("device")
    if stated[0] is not None and stated[1] is not None:
        return int(stated[0], 16), int(stated[1], 16)
    if fn.physfn is not None and fn.item.config[:4] == b"\xff\xff\xff\xff":
        return _ids_of_virtual(fn.physfn)
    if fn.knows.ids_known:
        return tuple(int.from_bytes(fn.item.config[at : at + 2], "little") for at in (0, 2))  # type: ignore[return-value]
    return None


def _ids_of_virtual(pf: LightFunction) -> tuple[int, int] | None:
    """Return what the SR-IOV capability gives to virtual functions; None when the snapshot does not show it."""
    image = pf.item.config
    at = topology.extended_capability_list(image).get(r.PCI_EXT_CAP_ID_SRIOV, 0)
    if not at or pf.physfn is not None:
        return None
    vendor = (_ids(pf) or _NO_QUIRK)[0]
    at += r.PCI_SRIOV_VF_DID
    return vendor, int.from_bytes(image[at : at + 2], "little")


def iommu_kind(description: MachineDescription) -> tuple[str | None, str]:
    """Return which IOMMU a machine has and what says so, in words; None when nothing does."""
    if description.ivrs is not None:
        return "amd", "the IVRS table"
    if description.dmar is not None:
        return "intel", "the DMAR table"
    if description.iommu_hint:
        return (None if description.iommu_hint == "none" else description.iommu_hint), "what the source says"
    for item in description.functions:
        vendor = int.from_bytes(item.config[:2], "little")
        if item.bdf.bus == 0 and vendor in (0x8086, 0x1022):
            return ("intel" if vendor == 0x8086 else "amd"), f"the vendor of {item.bdf}; no ACPI table is there"
    return None, "nothing in the source"
