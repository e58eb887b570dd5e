"""A machine as it was understood: a line for each function, its IOMMUs and what they cover, and decoded registers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from quiesce.groups.machine import LightFunction, LightMachine, iommu_kind
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.capabilities.decode import (
    UNKNOWN_VALUE,
    Decoded,
    DecodedCapability,
    DecodedRegister,
    decode,
)
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.dmar import Drhd
from quiesce.snapshot.ivrs import IvrsUnit
from quiesce.snapshot.pci_ids import PciIds, system_ids

_SHORT_TYPES = {
    r.PCI_EXP_TYPE_ENDPOINT: "endpoint",
    r.PCI_EXP_TYPE_LEG_END: "legacy endpoint",
    r.PCI_EXP_TYPE_ROOT_PORT: "root port",
    r.PCI_EXP_TYPE_UPSTREAM: "upstream port",
    r.PCI_EXP_TYPE_DOWNSTREAM: "downstream port",
    r.PCI_EXP_TYPE_PCI_BRIDGE: "PCIe-to-PCI bridge",
    r.PCI_EXP_TYPE_PCIE_BRIDGE: "PCI-to-PCIe bridge",
    r.PCI_EXP_TYPE_RC_END: "integrated",
    r.PCI_EXP_TYPE_RC_EC: "event collector",
}
_SHOWN = 8


@dataclass(frozen=True)
class Shown:
    """What a line of the listing says about a function; what is unknown is None."""

    item: FunctionDescription
    decoded: Decoded
    vendor: int | None
    device: int | None
    class_code: int | None
    """Base class and sub-class."""
    revision: int | None
    kind: str | None
    """The device/port type, ``conventional``, or None when the source does not tell."""
    buses: tuple[int, int] | None
    is_bridge: bool
    pin: int | None
    msi: int | None
    """Message interrupts it can have, None without the capability."""
    msix: int | None
    above: str | None
    virtual: str | None
    """The physical function that it is a virtual function of."""
    name: str


def functions_of(description: MachineDescription, only: Iterable[Bdf] = ()) -> list[Shown]:
    """Return what is known of each function, or of some of them."""
    machine, wanted, ids = LightMachine(description, None), set(only), system_ids()
    return [
        _shown(item, machine.functions.get(str(item.bdf)), ids)
        for item in description.functions
        if not wanted or item.bdf in wanted
    ]


def _shown(item: FunctionDescription, place: LightFunction | None, ids: PciIds) -> Shown:
    decoded = decode(item)
    header = decoded.header
    vendor, device = (_id(item, header, name) for name in ("vendor", "device"))
    base, sub = header.value("Class Code", "Base Class Code"), header.value("Class Code", "Sub-Class Code")
    buses = (_bus(header, "Secondary"), _bus(header, "Subordinate"))
    upstream = place.upstream if place is not None else None
    physical = place.physfn if place is not None else None
    return Shown(
        item,
        decoded,
        vendor,
        device,
        None if base is None or sub is None else base << 8 | sub,
        header.value("Class Code", "Revision ID"),
        _kind(item, decoded),
        None if buses[0] is None or buses[1] is None else (buses[0], buses[1]),
        header.value("Header Type", "Header Layout") in (r.PCI_HEADER_TYPE_BRIDGE, r.PCI_HEADER_TYPE_CARDBUS),
        _value(header, "Interrupt Pin", "Interrupt Pin"),
        _capacity(decoded, r.PCI_CAP_ID_MSI, "Multiple Message Capable"),
        _capacity(decoded, r.PCI_CAP_ID_MSIX, "Table Size"),
        None if upstream is None else upstream.path,
        None if physical is None else physical.path,
        _name(item, vendor, device, ids),
    )


def _value(part: DecodedCapability, register: str, name: str) -> int | None:
    try:
        return part.value(register, name)
    except KeyError:
        return None


def _id(item: FunctionDescription, header: DecodedCapability, which: str) -> int | None:
    """Return an id; a virtual function has it beside its bytes."""
    if which in item.attributes:
        return int(item.attributes[which], 16)
    return header.value("Identification", f"{which.capitalize()} ID")


def _bus(header: DecodedCapability, which: str) -> int | None:
    found = _value(header, "Bus Numbers", f"{which} Bus Number")
    return _value(header, "CardBus Bus Numbers", f"{which} Bus Number") if found is None else found


def _kind(item: FunctionDescription, decoded: Decoded) -> str | None:
    express = decoded.find(r.PCI_CAP_ID_EXP)
    if express is not None:
        found = _value(express, "PCI Express Capabilities", "Device/Port Type")
        return None if found is None else _SHORT_TYPES.get(found, f"type {found}")
    return "conventional" if decoded.complete or item.attributes.get("pcie") == "no" else None


def _capacity(decoded: Decoded, cap_id: int, name: str) -> int | None:
    found = decoded.find(cap_id)
    value = None if found is None else _value(found, "Message Control", name)
    if value is None:
        return None
    return value + 1 if cap_id == r.PCI_CAP_ID_MSIX else 1 << value


def _name(item: FunctionDescription, vendor: int | None, device: int | None, ids: PciIds) -> str:
    if vendor is None or device is None:
        return item.attributes.get("name", "")
    maker = ids.vendor(vendor)
    model = ids.device(vendor, device)
    return " ".join(word for word in (maker, model or (f"Device {device:04x}" if maker else None)) if word)


# -- text ------------------------------------------------------------------------------------------------------------


def listing(description: MachineDescription, shown: Sequence[Shown], recorded: bool, verbose: bool) -> Iterator[str]:
    """Yield the lines of ``quiesce show-machine``."""
    yield f"machine  {description.name}: {len(description.functions)} functions"
    if description.kernel:
        yield f"kernel   {description.kernel}"
    numbers = _group_numbers(description) if recorded else None
    rows = [_row(one, numbers) for one in shown]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(rows[0]))] if rows else []
    for one, row in zip(shown, rows, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if verbose:
            yield from decoded_lines(one.decoded)
    yield from iommu_lines(description)
    yield from (f"note: {note}" for note in description.notes)


def _row(one: Shown, numbers: dict[str, str] | None) -> tuple[str, ...]:
    item = one.item
    class_name = None if one.class_code is None else system_ids().class_name(one.class_code)
    row = (
        str(item.bdf),
        *(() if numbers is None else (f"group {numbers.get(str(item.bdf), '-')}",)),
        f"{_hex(one.vendor)}:{_hex(one.device)}",
        f"[{_hex(one.class_code)}] {class_name or ''}".rstrip(),
        one.kind or "kind ?",
        _buses(one),
        _interrupts(one),
        item.attributes.get("driver", ""),
    )
    return (*row, " ".join(filter(None, (one.name, _extras(one)))))


def _hex(value: int | None) -> str:
    return "????" if value is None else f"{value:04x}"


def _buses(one: Shown) -> str:
    if not one.is_bridge:
        return ""
    if one.buses is None:
        return "bus ?"
    first, last = one.buses
    return f"bus {first:02x}" if first == last else f"bus {first:02x}-{last:02x}"


def _interrupts(one: Shown) -> str:
    pin = "INT?" if one.pin is None and not one.decoded.complete else _pin(one.pin or 0)
    parts = [
        pin,
        f"MSI:{one.msi}" if one.msi is not None else "",
        f"MSI-X:{one.msix}" if one.msix is not None else "",
    ]
    return " ".join(part for part in parts if part)


def _pin(pin: int) -> str:
    if pin == 0:
        return ""
    return f"INT{' ABCD'[pin]}" if pin <= 4 else f"INT#{pin}"


def _extras(one: Shown) -> str:
    parts = []
    if one.revision:
        parts.append(f"(rev {one.revision:02x})")
    if one.virtual is not None:
        parts.append(f"(virtual function of {one.virtual})")
    if not one.item.present:
        parts.append("(not there yet)")
    return " ".join(parts)


def _group_numbers(description: MachineDescription) -> dict[str, str]:
    groups = description.recorded_groups or ()
    return {member: str(number) for number, members in enumerate(groups) for member in members}


def iommu_lines(description: MachineDescription) -> Iterator[str]:
    """Yield which IOMMUs there are, and which functions each covers."""
    kind, why = iommu_kind(description)
    yield f"iommu: {kind or 'none'}"
    yield f"  by {why}"
    covered, rest = coverage(description)
    for name, members in covered:
        yield f"  {name}: {_few(members)}"
    if rest and covered:
        yield f"  covered by none: {_few(rest)}"


def _few(members: Sequence[str]) -> str:
    shown = ", ".join(members[:_SHOWN]) or "nothing that is here"
    return shown if len(members) <= _SHOWN else f"{shown} and {len(members) - _SHOWN} more"


def coverage(description: MachineDescription) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Return the units that the tables name, each with the functions it covers, and the functions left over."""
    machine = LightMachine(description, None)
    owners = {path: _owner(machine, fn) for path, fn in machine.functions.items()}
    units: list[IvrsUnit | Drhd] = [
        *(machine.ivrs.units if machine.ivrs else ()),
        *(machine.dmar.units if machine.dmar else ()),
    ]
    found: list[tuple[str, list[str]]] = []
    for unit in units:
        place = f" at {unit.bdf}" if isinstance(unit, IvrsUnit) else ""
        members = [path for path, owner in owners.items() if owner is unit]
        everything = " (and all that no other unit names)" if isinstance(unit, Drhd) and unit.include_all else ""
        found.append((f"unit {unit.base:#x}{place}{everything}", members))
    return found, [path for path, owner in owners.items() if owner is None]


def _owner(machine: LightMachine, fn: LightFunction) -> IvrsUnit | Drhd | None:
    if machine.ivrs is not None:
        return machine.ivrs.unit_of(fn.bdf.requester_id, fn.bdf.segment)
    if machine.dmar is None:
        return None
    path, above = [fn.bdf], fn.upstream
    while above is not None:
        path.append(above.bdf)
        above = above.upstream
    return machine.dmar.unit_of(path, lambda bdf: _secondary(machine, bdf))


def _secondary(machine: LightMachine, bdf: Bdf) -> int | None:
    bridge = machine.functions.get(str(bdf))
    return bridge.item.config[r.PCI_SECONDARY_BUS] if bridge is not None and bridge.is_bridge else None


def decoded_lines(decoded: Decoded) -> Iterator[str]:
    """Yield every field of a function, one on a line."""
    for part in (decoded.header, *decoded.capabilities):
        version = f" v{part.version}" if part.version is not None else ""
        where = f"[{part.offset:02x}{version}]"
        section = f"  ({part.capability.section})" if part.capability.section else ""
        yield f"  {where} {part.capability.name}{section}"
        for register in part.registers:
            yield from _register_lines(register, part.offset)
    if not decoded.complete:
        yield "  the source does not show whether there are more capabilities"
    elif not decoded.extended_complete:
        yield "  the source does not show whether there are more extended capabilities"


def _register_lines(found: DecodedRegister, base: int) -> Iterator[str]:
    number = f" {found.nth}" if found.register.stride else ""
    raw = f"{found.raw:0{2 * found.register.size}x}" if found.known is None else _known_digits(found)
    yield f"    {found.register.name}{number}  +{found.at - base:02x}  {raw}"
    for value in found.fields:
        yield f"      {value.field.name:<48} {value.text}"


def _known_digits(found: DecodedRegister) -> str:
    """Spell a register in hex, with ``?`` for digits that are not known in full."""
    known = found.known or 0
    digits = range(8 * found.register.size - 4, -1, -4)
    return "".join(f"{found.raw >> at & 0xF:x}" if known >> at & 0xF == 0xF else UNKNOWN_VALUE for at in digits)


# -- JSON ------------------------------------------------------------------------------------------------------------


def as_json(
    description: MachineDescription, shown: Sequence[Shown], recorded: bool, verbose: bool
) -> dict[str, object]:
    """Return the same as a structure; unknown values are null."""
    kind, why = iommu_kind(description)
    covered, rest = coverage(description)
    result: dict[str, object] = {
        "name": description.name,
        "source": description.source,
        "kernel": description.kernel,
        "iommu": {
            "kind": kind,
            "by": why,
            "units": [{"unit": name, "covers": members} for name, members in covered],
            "uncovered": rest,
        },
        "functions": [_function_json(one, verbose) for one in shown],
        "notes": list(description.notes),
    }
    if recorded:
        groups = description.recorded_groups
        result["recorded_groups"] = None if groups is None else [list(members) for members in groups]
    return result


def _function_json(one: Shown, verbose: bool) -> dict[str, object]:
    result: dict[str, object] = {
        "address": str(one.item.bdf),
        "vendor": None if one.vendor is None else f"{one.vendor:04x}",
        "device": None if one.device is None else f"{one.device:04x}",
        "class": None if one.class_code is None else f"{one.class_code:04x}",
        "revision": one.revision,
        "name": one.name,
        "kind": one.kind,
        "buses": None if one.buses is None or not one.is_bridge else list(one.buses),
        "pin": " ABCD"[one.pin].strip() or None if one.pin is not None and one.pin <= 4 else None,
        "msi": one.msi,
        "msix": one.msix,
        "below": one.above,
        "virtual_function_of": one.virtual,
        "present": one.item.present,
        "driver": one.item.attributes.get("driver"),
    }
    if verbose:
        parts = (one.decoded.header, *one.decoded.capabilities)
        result["capabilities"] = [_capability_json(part) for part in parts]
        result["capabilities_complete"] = one.decoded.complete and one.decoded.extended_complete
    return result


def _capability_json(part: DecodedCapability) -> dict[str, object]:
    return {
        "name": part.capability.name,
        "offset": part.offset,
        "version": part.version,
        "registers": [
            {
                "name": found.register.name,
                "offset": found.at,
                "number": found.nth if found.register.stride else None,
                "fields": [{"name": item.field.name, "value": item.value, "text": item.text} for item in found.fields],
            }
            for found in part.registers
        ],
    }
