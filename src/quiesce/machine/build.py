"""Builds a described machine into a world."""

from __future__ import annotations

from collections.abc import Mapping

from quiesce.machine import pci_regs as r
from quiesce.machine import topology
from quiesce.machine.config import ConfigSpace
from quiesce.machine.devices import behaviour_of
from quiesce.machine.function import Function
from quiesce.machine.machine import Machine
from quiesce.machine.registers import registers_of
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.dmar import read_dmar
from quiesce.snapshot.ivrs import read_ivrs
from quiesce.world import World

SYNTHETIC_VFS = 2
"""Virtual functions made for a physical function whose snapshot shows none."""


def build_machine(
    world: World, description: MachineDescription, iommu: str | None = None, *, as_found: bool = False
) -> Machine:
    """Build ``description`` into ``world``.

    Registers get the values that firmware leaves, not those of the running system that was dumped; virtual functions
    are there but not present, because nobody has enabled them yet. With ``as_found``, all is as in the dump.
    ``iommu`` chooses ``intel`` or ``amd``; by default the machine has the one its tables describe.
    """
    described = _with_virtual_functions(description)
    machine = Machine(world, description)
    for item in described:
        machine.functions[str(item.bdf)] = _make(world, item, as_found)
    _link(machine.functions)
    _link_virtual_functions(machine)
    for fn, item in zip(machine.functions.values(), described, strict=True):
        fn.present = item.present and (as_found or fn.physfn is None)
    _add_tables(machine, iommu)
    return machine


def _add_tables(machine: Machine, iommu: str | None) -> None:
    description = machine.description
    if description.ivrs is not None:
        machine.ivrs = read_ivrs(description.ivrs, description.source or description.name)
    if description.dmar is not None:
        machine.dmar = read_dmar(description.dmar, description.source or description.name)
    machine.iommu = iommu or ("amd" if machine.ivrs else "intel" if machine.dmar else None)
    for route in description.routing:
        machine.routing[route.segment, route.bus, route.device, route.pin] = route.gsi


def padded(config: bytes) -> bytes:
    """Return config space in full length: what a short dump does not show reads as zero."""
    size = r.PCI_CFG_SPACE_SIZE if len(config) <= r.PCI_CFG_SPACE_SIZE else r.PCI_CFG_SPACE_EXP_SIZE
    return config[:size].ljust(size, b"\0")


def _make(world: World, item: FunctionDescription, as_found: bool) -> Function:
    image = padded(item.config)
    fn = Function.get(world, f"hw/{item.bdf}")
    fn.bdf = item.bdf
    fn.upstream, fn.children = None, ()
    fn.physfn, fn.virtfns = None, ()
    fn.capabilities = topology.capability_list(image)
    fn.extended = topology.extended_capability_list(image)
    fn.config = ConfigSpace(
        world,
        fn.path,
        image,
        registers_of(
            image,
            fn.capabilities,
            fn.extended,
            intx_disable="no-intx-disable" not in item.attributes,
            as_found=as_found,
            master=item.attributes.get("master") == "firmware",
        ),
    )
    _identify(fn, item)
    return fn


def _identify(fn: Function, item: FunctionDescription) -> None:
    image = fn.config
    fn.header_type = image.static(r.PCI_HEADER_TYPE, 1) & r.PCI_HEADER_TYPE_MASK
    fn.multifunction = bool(image.static(r.PCI_HEADER_TYPE, 1) & r.PCI_HEADER_TYPE_MFD)
    pin = image.static(r.PCI_INTERRUPT_PIN, 1)
    fn.pin = pin if pin <= 4 else 0
    fn.vendor = int(item.attributes.get("vendor", "0"), 16) or image.static(r.PCI_VENDOR_ID, 2)
    fn.device = int(item.attributes.get("device", "0"), 16) or image.static(r.PCI_DEVICE_ID, 2)
    fn.class_code = image.static(r.PCI_CLASS_REVISION, 4) >> 8
    express = fn.find_capability(r.PCI_CAP_ID_EXP)
    fn.pcie_type = (image.static(express + r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_TYPE) >> 4 if express else None
    fn.behaviour = behaviour_of(fn.vendor, fn.device, fn.class_code, fn.header_type)


def _link(functions: Mapping[str, Function]) -> None:
    ranges = {fn.bdf: (fn.config.static(r.PCI_SECONDARY_BUS, 1), 0) for fn in functions.values() if fn.is_bridge}
    leads = topology.bridges_by_bus(ranges)
    below: dict[Bdf, list[Function]] = {}
    for fn in functions.values():
        above = topology.parent_of(fn.bdf, leads)
        if above is not None:
            fn.upstream = functions[str(above)]
            below.setdefault(above, []).append(fn)
    for bdf, children in below.items():
        functions[str(bdf)].children = tuple(children)


def _with_virtual_functions(description: MachineDescription) -> tuple[FunctionDescription, ...]:
    """Return all functions in bus order, with made-up virtual functions where the snapshot shows none."""
    functions = {item.bdf: item for item in description.functions}
    for item in description.functions:
        image = padded(item.config)
        capability = topology.extended_capability_list(image).get(r.PCI_EXT_CAP_ID_SRIOV, 0)
        if not capability:
            continue
        places = topology.virtual_addresses(item.bdf, image, capability)
        enabled = topology.enabled_virtual_functions(image, capability)
        if any(
            _is_virtual(functions[place].config, n < enabled) for n, place in enumerate(places) if place in functions
        ):
            continue
        for place in places[:SYNTHETIC_VFS]:
            functions.setdefault(place, _virtual_function(item, image, capability, place))
    return tuple(functions[bdf] for bdf in sorted(functions))


def _is_virtual(config: bytes, enabled: bool) -> bool:
    """Whether what is found where a virtual function would be is one: its ids read ffff, or it was enabled."""
    return enabled or config[:4] == b"\xff\xff\xff\xff"


def _virtual_function(pf: FunctionDescription, image: bytes, capability: int, place: Bdf) -> FunctionDescription:
    """Make a virtual function: ids read ffff, no pin, an Express capability like its physical function's with FLR."""
    vendor = pf.attributes.get("vendor", f"{int.from_bytes(image[:2], 'little'):04x}")
    device = int.from_bytes(image[capability + r.PCI_SRIOV_VF_DID :][:2], "little")
    config = bytearray(r.PCI_CFG_SPACE_EXP_SIZE)
    config[0:4] = b"\xff\xff\xff\xff"
    config[r.PCI_STATUS] = r.PCI_STATUS_CAP_LIST
    config[r.PCI_CLASS_REVISION : r.PCI_CLASS_REVISION + 4] = image[r.PCI_CLASS_REVISION : r.PCI_CLASS_REVISION + 4]
    config[r.PCI_CAPABILITY_LIST] = 0x70
    config[0x70:0x74] = bytes((r.PCI_CAP_ID_MSIX, 0xA0, 0x02, 0x00))
    config[0xA0:0xA4] = bytes((r.PCI_CAP_ID_EXP, 0x00, 0x02, 0x00))
    config[0xA4:0xA8] = r.PCI_EXP_DEVCAP_FLR.to_bytes(4, "little")
    attributes = {"vendor": vendor, "device": f"{device:04x}", "virtual": str(pf.bdf)}
    return FunctionDescription(place, bytes(config), present=False, attributes=attributes)


def _link_virtual_functions(machine: Machine) -> None:
    """Tie virtual functions to their physical ones; a virtual function is on the link of its physical function."""
    for pf in tuple(machine.functions.values()):
        capability = pf.find_ext_capability(r.PCI_EXT_CAP_ID_SRIOV)
        if not capability:
            continue
        places = topology.virtual_addresses(pf.bdf, pf.config.image, capability)
        enabled = topology.enabled_virtual_functions(pf.config.image, capability)
        found = tuple(
            machine.functions[str(place)]
            for number, place in enumerate(places)
            if str(place) in machine.functions
            and _is_virtual(machine.functions[str(place)].config.image, number < enabled)
        )
        pf.virtfns = found
        for virtual in found:
            virtual.physfn, virtual.upstream, virtual.pin = pf, pf.upstream, 0
            _identify_virtual(virtual, pf, capability)
            if pf.upstream is not None and virtual not in pf.upstream.children:
                pf.upstream.children = (*pf.upstream.children, virtual)


def _identify_virtual(virtual: Function, pf: Function, capability: int) -> None:
    """Give a virtual function the ids that its physical function states; its own config space reads ffff there."""
    if virtual.vendor == 0xFFFF:
        virtual.vendor = pf.vendor
        virtual.device = pf.config.static(capability + r.PCI_SRIOV_VF_DID, 2)
        virtual.behaviour = behaviour_of(virtual.vendor, virtual.device, virtual.class_code, virtual.header_type)
