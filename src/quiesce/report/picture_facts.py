"""What a picture of a machine shows: functions and where they hang, groups, IOMMU units, isolation; plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quiesce.groups.conditions import Conditions
from quiesce.groups.isolation import Isolation, isolation_of
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.predict import Prediction
from quiesce.kernel.pci_acs import AcsAnswer
from quiesce.machine import pci_regs as r
from quiesce.machine.covering import unit_number
from quiesce.report.class_words import class_words
from quiesce.snapshot.description import MachineDescription

ACS_WORDS = {
    "ACS": "isolated from its peers by its ACS capability",
    "ACS off": "has an ACS capability, but not all of its controls are on",
    "no ACS": "not isolated from its peers",
    "quirk": "isolated as far as the kernel knows, by an entry of its quirk table",
    "override": "called isolated by pcie_acs_override=, which changes nothing in the hardware",
    "PCI": "conventional PCI, which cannot be isolated",
    "?": "the source does not tell whether it is isolated",
    "mixed": "functions that are drawn as one differ in this",
}
"""Everything that can be said of isolation; a function without peers has none of these words."""

_TYPES = {
    None: ("PCI bridge", "conventional PCI"),
    r.PCI_EXP_TYPE_ENDPOINT: ("bridge", "endpoint"),
    r.PCI_EXP_TYPE_LEG_END: ("bridge", "legacy endpoint"),
    r.PCI_EXP_TYPE_ROOT_PORT: ("root port", "root port"),
    r.PCI_EXP_TYPE_UPSTREAM: ("upstream port", "upstream port"),
    r.PCI_EXP_TYPE_DOWNSTREAM: ("downstream port", "downstream port"),
    r.PCI_EXP_TYPE_PCI_BRIDGE: ("PCIe-to-PCI bridge", "PCIe-to-PCI bridge"),
    r.PCI_EXP_TYPE_PCIE_BRIDGE: ("PCI-to-PCIe bridge", "PCI-to-PCIe bridge"),
    r.PCI_EXP_TYPE_RC_END: ("bridge", "integrated endpoint"),
    r.PCI_EXP_TYPE_RC_EC: ("bridge", "event collector"),
}
NO_GROUP = "-"
_SHORTER = (
    ("Advanced Micro Devices, Inc. [AMD/ATI]", "AMD/ATI"),
    ("Advanced Micro Devices, Inc. [AMD]", "AMD"),
    ("Realtek Semiconductor Co., Ltd.", "Realtek"),
    *((f"{name} Corporation", name) for name in ("Intel", "NVIDIA", "Renesas Technology")),
    ("Broadcom Inc. and subsidiaries", "Broadcom"),
    ("Samsung Electronics Co Ltd", "Samsung"),
    ("Mellanox Technologies", "Mellanox"),
    ("ASMedia Technology Inc.", "ASMedia"),
    ("ASPEED Technology, Inc.", "ASPEED"),
)
"""How makers are called in little room."""


@dataclass(frozen=True, slots=True)
class Part:
    """One function; all texts are printable."""

    bdf: str
    parent: str | None
    """The bridge above, or the physical function of a virtual one; None on a root bus."""
    kind: str
    """``root port``, ``endpoint``, ``integrated endpoint``..."""
    what: str
    """Its class in words."""
    class_code: int
    ids: str
    """Vendor and device; empty when the source tells neither."""
    name: str
    driver: str
    group: str
    """Key into ``Picture.groups``; NO_GROUP without one."""
    unit: str | None
    """Key into ``Picture.units``; empty when none covers it, None when that is not known."""
    acs: str
    """A key of ``ACS_WORDS``; empty when it has no peers."""
    acs_why: str
    buses: str = ""
    """Buses below a bridge: ``01`` or ``01-04``."""
    bridge: bool = False
    virtual: bool = False
    sends_as: tuple[str, ...] = ()
    takes_over: str = ""
    """The requester id that stands for everything below a bridge."""
    misplaced: bool = False
    """It is not known behind which bridge its bus is."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group, or functions whose groups are undecided."""

    key: str
    """The number that ``quiesce groups`` gives it; ``?1``... when undecided."""
    members: tuple[str, ...]
    colour: int | None
    """Number of its colour; None for a function alone in its group."""
    why: str = ""
    """What is not known; empty when it is decided."""

    def why_in_short(self, most: int = 5) -> str:
        """What is not known, with the first reasons only."""
        reasons = self.why.split("; ")
        return "; ".join(reasons[: most + 1]) + (f"; and {len(reasons) - most - 1} more" if reasons[most + 1 :] else "")

    @property
    def undecided(self) -> bool:
        """Whether it is open who is with whom."""
        return bool(self.why)


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is drawn."""

    name: str
    kernel: str
    iommu: str
    parts: Mapping[str, Part]
    """By address, in bus order; a parent is always among them."""
    groups: Mapping[str, Group]
    units: Mapping[str, str]
    """IOMMU units and what they are, in words."""
    notes: tuple[str, ...]

    @property
    def counts(self) -> str:
        """How many functions and groups there are, in words."""
        shared = sum(1 for group in self.groups.values() if len(group.members) > 1 and not group.undecided)
        decided = sum(1 for group in self.groups.values() if not group.undecided)
        open_ = sum(len(group.members) for group in self.groups.values() if group.undecided)
        alone = sum(1 for part in self.parts.values() if part.group == NO_GROUP)
        words = [_number(len(self.parts), "function"), f"{_number(decided, 'group')} ({shared} shared)"]
        words += [f"{alone} without a group"] if alone else []
        words += [f"{open_} undecided"] if open_ else []
        return ", ".join(words)


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Return a text from a dump without anything that could control a terminal, or that XML forbids."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text.expandtabs(1))


def gather(description: MachineDescription, conditions: Conditions) -> Picture:
    """Predict the groups of a machine and put together what a picture of it shows."""
    found = conditions.predict(description)
    m = conditions.machine(description)
    isolation = isolation_of(m, conditions.kernel, conditions.parameters)
    groups = _groups(found)
    group_of = {bdf: group.key for group in groups.values() for bdf in group.members}
    parents = _parents(m)
    units = _units(m)
    parts = {
        path: _part(m, fn, isolation[path], parents[path], group_of.get(path, NO_GROUP), units)
        for path, fn in m.functions.items()
    }
    notes = tuple(printable(note) for note in found.notes)
    return Picture(printable(description.name), found.kernel, m.iommu or "none", parts, groups, units, notes)


def _groups(found: Prediction) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    colour = 0
    for number, members in enumerate(found.groups):
        shared = len(members) > 1
        groups[str(number)] = Group(str(number), members, colour if shared else None)
        colour += shared
    for number, item in enumerate(found.undecided, start=1):
        count = f"{len(item.alternatives)}{'' if item.complete else ' or more'} groupings are possible"
        why = f"{count}; not known: {printable(item.why)}"
        groups[f"?{number}"] = Group(f"?{number}", item.functions, colour, why)
        colour += 1
    return groups


def _parents(m: LightMachine) -> dict[str, str | None]:
    """Return what each function hangs below; a dump that makes a circle of it gets the circle cut."""
    parents: dict[str, str | None] = {}
    for path, fn in m.functions.items():
        above = fn.physfn if fn.physfn is not None and fn.physfn.physfn is None else fn.upstream
        parents[path] = None if above is None else above.path
    safe: set[str] = set()
    for path in parents:
        walk: dict[str, None] = {}
        at: str | None = path
        while at is not None and at not in safe and at not in walk:
            walk[at] = None
            at = parents[at]
        if at is not None and at in walk:
            parents[at] = None
        safe.update(walk)
    return parents


def _units(m: LightMachine) -> dict[str, str]:
    if m.iommu == "intel" and m.dmar is not None:
        return {f"DRHD {number}": _drhd_words(unit) for number, unit in enumerate(m.dmar.units)}
    if m.iommu == "amd" and m.ivrs is not None:
        return {f"IVHD {number}": f"AMD IOMMU {unit.bdf}" for number, unit in enumerate(m.ivrs.units)}
    if m.iommu in ("intel", "amd"):
        return {"IOMMU": "no firmware table is there: one unit is assumed"}
    return {}


def _drhd_words(unit: object) -> str:
    base, all_, segment = (getattr(unit, name) for name in ("base", "include_all", "segment"))
    rest = ", covers what no other unit of its segment does" if all_ else ""
    return f"VT-d unit at {base:#x}, segment {segment:04x}{rest}"


def _unit(m: LightMachine, fn: LightFunction, units: Mapping[str, str]) -> str | None:
    if not units:
        return None
    number = unit_number(m, fn)
    return "" if number < 0 else list(units)[number]


def _part(
    m: LightMachine,
    fn: LightFunction,
    isolation: Isolation,
    parent: str | None,
    group: str,
    units: Mapping[str, str],
) -> Part:
    acs, why = _acs(isolation)
    attributes = fn.item.attributes
    return Part(
        bdf=fn.path,
        parent=parent,
        kind=_kind(fn, isolation.types),
        what=class_words(fn.class_code, fn.knows.known(r.PCI_CLASS_PROG, 1)),
        class_code=fn.class_code,
        ids=_ids(fn),
        name=_shorter(printable(attributes.get("name", ""))),
        driver=printable(attributes.get("driver", "")),
        group=group,
        unit=_unit(m, fn, units),
        acs=acs,
        acs_why=why,
        buses=_buses(fn),
        bridge=fn.is_bridge,
        virtual=fn.is_virtfn,
        sends_as=tuple(_short_ids(map(str, isolation.aliases))),
        takes_over=str(isolation.takes_over) if isolation.takes_over else "",
        misplaced=fn in m.unplaced_set and parent is None,
    )


def _shorter(name: str) -> str:
    return next((short + name[len(long) :] for long, short in _SHORTER if name.startswith(long)), name)


def _short_ids(ids: Iterable[str], most: int = 8) -> list[str]:
    found = list(ids)
    return found if len(found) <= most else [*found[:most], f"and {len(found) - most} more"]


def _kind(fn: LightFunction, types: tuple[int | None, ...]) -> str:
    names = dict.fromkeys(_TYPES.get(kind, ("bridge", "function"))[0 if fn.is_bridge else 1] for kind in types)
    if fn.is_virtfn:
        return "virtual function"
    return next(iter(names)) if len(names) == 1 else ("bridge" if fn.is_bridge else "function") + " of unknown type"


def _ids(fn: LightFunction) -> str:
    stated = fn.item.attributes.get("vendor"), fn.item.attributes.get("device")
    if not all(stated) and not fn.knows.ids_known:
        return ""
    return f"{fn.vendor:04x}:{fn.device:04x}"


def _buses(fn: LightFunction) -> str:
    if not fn.is_bridge:
        return ""
    if not fn.knows.known(r.PCI_SECONDARY_BUS, 1):
        return "?"
    first, last = fn.item.config[r.PCI_SECONDARY_BUS], fn.item.config[r.PCI_SUBORDINATE_BUS]
    known = fn.knows.known(r.PCI_SUBORDINATE_BUS, 1)
    return f"{first:02x}" if last <= first or not known else f"{first:02x}-{last:02x}"


def _acs(isolation: Isolation) -> tuple[str, str]:
    """Return the word for a function's isolation, and why, in a sentence."""
    words = dict.fromkeys(_acs_word(answer, capability) for answer, capability in isolation.answers)
    if len(words) > 1:
        choices = " or ".join(f"{word!r}" if word else "no peers" for word in words)
        return "?", f"{ACS_WORDS['?']}: {choices}"
    answer = isolation.answers[0][0]
    word = next(iter(words))
    return word, _acs_why(word, answer)


def _acs_word(answer: AcsAnswer, capability: bool) -> str:
    match answer.reason:
        case "alone":
            return ""
        case "conventional":
            return "PCI"
        case "override":
            return "override"
        case "quirk":
            return "quirk" if answer.enabled else "no ACS"
    if answer.enabled:
        return "ACS"
    return "ACS off" if capability and answer.reason in ("port", "function") else "no ACS"


def _acs_why(word: str, answer: AcsAnswer) -> str:
    if answer.quirk is not None:
        verdict = "is isolated" if answer.enabled else "does not count as isolated"
        return f"{verdict}: {answer.quirk.subject} (quirk {answer.quirk.change}, since {answer.quirk.since})"
    if answer.reason == "bridge":
        return "a bridge to conventional PCI is never isolated"
    if answer.reason == "alone":
        return "has no peers: nothing to be isolated from"
    if word == "no ACS":
        return "has no ACS capability: not isolated from its peers"
    return ACS_WORDS[word]
