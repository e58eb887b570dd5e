"""Text that lspci prints, in all its forms, whole or as it comes out of mail and forums.

Any mixture will do: ``-x`` to ``-xxxx``, ``-v`` to ``-vvv``, ``-nn``, ``-k``, ``-mm``, ``-vmm``, ``-t``, listings of
IOMMU groups, several of them in one text, with other text between. What is said about one function is put together;
bytes count more than what was decoded from them. ``write`` prints dumps.

Reading is a row of steps, each in a module of its own: ``lspci_paste`` undoes damage, ``lspci_blocks`` finds the
functions, ``lspci_tree`` and ``lspci_tables`` read pictures and tables, ``lspci_hex`` bytes, ``lspci_headline``,
``lspci_lines``, ``lspci_verbose`` and ``lspci_capabilities`` what lspci decoded, ``lspci_combine`` puts it together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.garbage import no_collection
from quiesce.snapshot.image import Image
from quiesce.snapshot.lspci_blocks import Found, Sighting, find_blocks
from quiesce.snapshot.lspci_combine import Description, Part, describe
from quiesce.snapshot.lspci_headline import Headline, read_name
from quiesce.snapshot.lspci_lines import STARTS, whole_line
from quiesce.snapshot.lspci_paste import restored
from quiesce.snapshot.lspci_tables import read_tables
from quiesce.snapshot.lspci_tree import Tree, read_trees
from quiesce.snapshot.lspci_verbose import Around, Ids, rebuild

_GROUP = re.compile(r"IOMMU\s+group:?\s+([0-9]{1,6})\b")
_LISTED = re.compile(r"\s*Capabilities: \[([0-9a-f]{2,3})\b[^\]]*\] (Express)?")
_VERBOSE = ("Control:", "Flags:")
_VIRTUAL = re.compile(r"Virtual Function|\bVF\b")


def read_lspci(text: str, file: str, name: str = "", ids: Mapping[str, Ids] | None = None) -> MachineDescription:
    """Read lspci output of any kind; ``ids`` gives vendor and device ids where the text has names only.

    Raises BadInput when there is no function in it.
    """
    with no_collection():
        return _read(restored(text), file, name, ids or {})


def _read(text: str, file: str, name: str, ids: Mapping[str, Ids]) -> MachineDescription:
    found = find_blocks(text, file)
    read_tables(text, found)
    tree = read_trees(text)
    described = _describe_all(found, tree, ids)
    if not described:
        raise BadInput(
            file, "", "a machine: lspci output (`00:1f.2 SATA controller...`), a boot log, tables, a recording..."
        )
    _set_multifunction(described)
    _with_units(described, found.units)
    groups = {bdf: group for bdf, group in found.groups.items() if bdf in described}
    return MachineDescription(
        name=name or "machine",
        functions=tuple(item.item for item in described.values()),
        source=file,
        notes=_notes(described, found, tree),
        recorded_groups=_groups(groups),
        recorded_ungrouped=tuple(map(str, _ungrouped(described, groups, found))),
    )


# -- from places in the text to functions ------------------------------------------------------------------------


def _describe_all(found: Found, tree: Tree | None, ids: Mapping[str, Ids]) -> dict[Bdf, Description]:
    """Return all functions in bus order."""
    places: dict[Bdf, list[Sighting]] = {}
    listings: dict[int, list[Sighting]] = {}
    for item in found.sightings:
        if item.sure or any(map(STARTS.match, item.lines)):
            places.setdefault(item.bdf, []).append(item)
            if item.lines:
                listings.setdefault(item.listing, []).append(item)
                _note_group(item, found)
    around = {number: _around(items) for number, items in listings.items()}
    extra = _topology(found, tree)
    bdfs = {*places, *(tree.functions if tree else ())}
    return {
        bdf: describe(bdf, places.get(bdf, ()), around, ids.get(str(bdf)), extra.get(bdf, ())) for bdf in sorted(bdfs)
    }


def _note_group(item: Sighting, found: Found) -> None:
    """Note the group that ``-v`` states."""
    for at, line in enumerate(item.lines):
        if "IOMMU" in line and (match := _GROUP.search(whole_line(item.lines, at))) is not None:
            if found.groups.setdefault(item.bdf, match[1]) != match[1]:
                found.grouped_twice.append(item.bdf)
            return


def _around(listing: Sequence[Sighting]) -> Around:
    """Return what a whole listing says about how to read each function of it."""
    lists = express = extended = False
    for item in listing:
        for line in item.lines:
            match = _LISTED.match(line)
            if match is not None:
                lists = True
                express = express or match[2] is not None
                extended = extended or len(match[1]) == 3
    return Around(lists=lists, extended=extended or not express)


def _topology(found: Found, tree: Tree | None) -> dict[Bdf, list[Part]]:
    """Return what trees and paths say about functions."""
    extra: dict[Bdf, list[Part]] = {}
    if tree is not None:
        for bdf, words in tree.functions.items():
            buses = tree.bridges.get(bdf)
            extra.setdefault(bdf, []).append(_bridge(bdf, *buses, read_name(words)) if buses else _named(words))
    lowest: dict[Bdf, int] = {}
    for below, above in found.parents.items():
        lowest[above] = min(below.bus, lowest.get(above, 0xFF))
    for bdf, bus in lowest.items():
        extra.setdefault(bdf, []).append(_bridge(bdf, bus, None, Headline()))
    return extra


def _named(words: str) -> Part:
    rebuilt = rebuild(read_name(words), ())
    return Part(rebuilt.config, rebuilt.known)


def _bridge(bdf: Bdf, first: int, last: int | None, headline: Headline) -> Part:
    """Return a function of which only the buses below it are known."""
    start, image = rebuild(headline, ()), Image()
    image.data[: len(start.config)], image.known[: len(start.known)] = start.config, start.known
    if headline.class_code is None:
        image.put(r.PCI_CLASS_DEVICE, 2, r.PCI_CLASS_BRIDGE_PCI, known=False)
        image.state(r.PCI_CLASS_DEVICE, 2, 0xFF00, r.PCI_CLASS_BRIDGE_PCI)
    image.state(r.PCI_HEADER_TYPE, 1, r.PCI_HEADER_TYPE_MASK, r.PCI_HEADER_TYPE_BRIDGE)
    image.put(r.PCI_PRIMARY_BUS, 1, bdf.bus)
    image.put(r.PCI_SECONDARY_BUS, 1, first)
    image.put(r.PCI_SUBORDINATE_BUS, 1, first if last is None else last, known=last is not None)
    size = r.PCI_STD_HEADER_SIZEOF
    return Part(bytes(image.data[:size]), bytes(image.known[:size]))


def _set_multifunction(described: dict[Bdf, Description]) -> None:
    """Set the multifunction bit, which no text shows, where the device has other functions.

    What it reads in function 0 is known then, but where the others are virtual functions.
    """
    slots: dict[tuple[int, int, int], list[Bdf]] = {}
    for bdf, item in described.items():
        if item.item.known is not None:
            slots.setdefault(bdf.slot, []).append(bdf)
    for slot, members in slots.items():
        others = [bdf for bdf in (Bdf(*slot, number) for number in range(1, 8)) if bdf in described]
        if others and (len(members) > 1 or others != members):
            own = any(not _VIRTUAL.search(described[bdf].item.attributes.get("name", "")) for bdf in others)
            for bdf in members:
                described[bdf].item = _multifunction(described[bdf].item, own and not bdf.function)


def _multifunction(item: FunctionDescription, sure: bool) -> FunctionDescription:
    at, bit = r.PCI_HEADER_TYPE, r.PCI_HEADER_TYPE_MFD
    if item.known is None or item.known[at] & bit or (item.config[at] & bit and not sure):
        return item
    config, known = bytearray(item.config), bytearray(item.known)
    config[at] |= bit
    known[at] |= bit if sure else 0
    return FunctionDescription(item.bdf, bytes(config), item.present, item.attributes, bytes(known))


# -- notes and groups --------------------------------------------------------------------------------------------


def _notes(described: Mapping[Bdf, Description], found: Found, tree: Tree | None) -> tuple[str, ...]:
    rebuilt = sum(1 for item in described.values() if item.rebuilt)
    notes: list[str] = []
    if rebuilt:
        which = "all" if rebuilt == len(described) else f"{rebuilt} of {len(described)}"
        notes.append(f"{which} functions: config space rebuilt from decoded text; what the text leaves out is unknown")
    notes += found.notes
    notes += tree.notes if tree else ()
    notes += _merged({bdf: item.notes for bdf, item in described.items() if item.notes})
    named = [bdf for bdf, item in described.items() if "pcie-type" in item.item.attributes and item.rebuilt]
    notes += _merged({bdf: ["the name says which kind of PCI Express port it is"] for bdf in named})
    twice = {bdf: ["stated to be in two groups; the first counts"] for bdf in found.grouped_twice}
    return (*notes, *_merged(twice))


def _merged(notes: Mapping[Bdf, Sequence[str]]) -> list[str]:
    """Say the same note about several functions once."""
    about: dict[str, list[Bdf]] = {}
    for bdf, found in notes.items():
        for note in dict.fromkeys(found):
            about.setdefault(note, []).append(bdf)
    return [f"{_few(bdfs)}: {note}" for note, bdfs in about.items()]


def _few(bdfs: Sequence[Bdf]) -> str:
    shown = ", ".join(str(bdf) for bdf in bdfs[:3])
    return shown if len(bdfs) <= 3 else f"{shown} and {len(bdfs) - 3} more"


def _groups(groups: Mapping[Bdf, str]) -> tuple[tuple[str, ...], ...] | None:
    found: dict[str, list[str]] = {}
    for bdf, number in groups.items():
        found.setdefault(number, []).append(str(bdf))
    return tuple(sorted(tuple(sorted(members)) for members in found.values())) or None


def _ungrouped(described: Mapping[Bdf, Description], groups: Mapping[Bdf, str], found: Found) -> list[Bdf]:
    """Return the functions of which the text would state a group if they had one."""
    if not groups:
        return []
    if found.lists_groups or 2 * len(groups) >= len(described):
        return [bdf for bdf in described if bdf not in groups]
    shown = {item.bdf for item in found.sightings if any(line.lstrip().startswith(_VERBOSE) for line in item.lines)}
    return [bdf for bdf in described if bdf not in groups and bdf in shown]


def _with_units(described: dict[Bdf, Description], units: Mapping[Bdf, str]) -> None:
    """Note the IOMMU that the text says owns a function."""
    for bdf, unit in units.items():
        if bdf in described:
            item = described[bdf].item
            described[bdf].item = replace(item, attributes={**item.attributes, "iommu": unit})


# -- writing -----------------------------------------------------------------------------------------------------


def write(functions: Iterable[FunctionDescription]) -> str:
    """Return the functions as ``lspci -n -xxxx`` prints them; ``lspci -F`` reads it."""
    return "".join(_write_function(item) for item in functions if item.present)


def _write_function(item: FunctionDescription) -> str:
    number = {at: int.from_bytes(item.config[at : at + 2], "little") for at in (0x00, 0x02, 0x0A)}
    ids = f"{item.attributes.get('vendor', f'{number[0]:04x}')}:{item.attributes.get('device', f'{number[2]:04x}')}"
    lines = [f"{item.bdf} {number[0x0A]:04x}: {ids} (rev {item.config[8]:02x})"]
    for at in range(0, len(item.config), 16):
        lines.append(f"{at:02x}: {item.config[at : at + 16].hex(' ')}")
    return "\n".join(lines) + "\n\n"
