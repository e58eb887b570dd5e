"""The smallest changes that free a function from its group. Each is tried: the prediction is run with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quiesce.groups.conditions import Conditions
from quiesce.groups.edit import Edited, card_of, removed
from quiesce.groups.evidence import kind_of
from quiesce.groups.history import relevant
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.move import behind, is_slot, moved
from quiesce.groups.peer_path import Hop, peer_path
from quiesce.groups.why import find_function
from quiesce.kernel import changes
from quiesce.kernel.kernelset import NEWEST, UnknownKernel, kernel, releases, version_key
from quiesce.kernel.parameters import parse_parameters
from quiesce.machine import pci_regs as r
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput

RISKS = (
    "none: isolation is as before, or better",
    "low: another kernel, which changes more than this",
    "depends on the order in which drivers come; nothing keeps it",
    "the kernel believes in isolation that the hardware does not give",
)


@dataclass(frozen=True, slots=True)
class Cut:
    """A change that frees a function, tried."""

    kind: str
    """``parameter``, ``change``, ``kernel``, ``move``, ``swap``, ``remove``, ``order`` or ``override``."""
    what: str
    """What to do, in words."""
    option: str
    """The option of ``quiesce what-if`` (or word of the kernel command line) that stands for it."""
    size: int
    """How many things have to be done."""
    risk: int
    """Index into ``RISKS``."""
    group: tuple[str, ...]
    """The function's group afterwards, under present addresses."""
    freed: tuple[str, ...]
    """Members that are not in it any more."""
    paths: tuple[tuple[Hop, ...], ...] = ()
    """Ways between the function and others that stay open though the kernel does not know."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """What can be done about a group."""

    function: str
    kernel: str
    group: tuple[str, ...]
    unwanted: tuple[str, ...]
    """Members besides the function that are no bridges: VFIO tolerates those (v4.4+)."""
    found: tuple[Cut, ...]
    """Smallest first, then by risk."""
    nothing: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class _Case:
    description: MachineDescription
    conditions: Conditions
    m: LightMachine
    fn: LightFunction
    group: tuple[str, ...]
    unwanted: frozenset[str]

    def tried(self, edited: Edited, conditions: Conditions) -> tuple[str, ...] | None:
        """Return the group after a change, when it is decided and holds fewer unwanted members. One that leaves any of
        them without a group frees nobody: such a function is not isolated, but not translated.
        """
        now = edited.renamed.get(self.fn.path, self.fn.path)
        former = {new: old for old, new in edited.renamed.items()}
        found = conditions.predict(edited.description)
        group = next((group for group in found.groups if now in group), None)
        if group is None or any(former.get(bdf, bdf) in self.group for bdf in found.ungrouped):
            return None
        before = tuple(sorted(former.get(bdf, bdf) for bdf in group))
        disturbing = [bdf for bdf in before if bdf != self.fn.path and not self.m.functions[bdf].is_bridge]
        fewer = len(disturbing) < len(self.unwanted) or (not self.unwanted and len(before) < len(self.group))
        return before if fewer else None

    def cut(self, kind: str, what: str, option: str, size: int, risk: int, group: tuple[str, ...]) -> Cut:
        """Return a cut that was tried."""
        freed = tuple(bdf for bdf in self.group if bdf not in group)
        return Cut(kind, what, option, size, risk, group, freed)


def cuts(description: MachineDescription, conditions: Conditions, function: str) -> Cuts:
    """Return every change that was found to free a function from unwanted members of its group. Raises BadInput."""
    m = conditions.machine(description)
    fn = find_function(m, function)
    group = next((group for group in conditions.predict(description).groups if fn.path in group), ())
    unwanted = tuple(bdf for bdf in group if bdf != fn.path and not m.functions[bdf].is_bridge)
    name = conditions.kernel.name
    if len(group) < 2:
        why = "it is alone in its group already" if group else "its group is not decided, or it has none: quiesce why"
        return Cuts(fn.path, name, group, unwanted, (), why)
    case = _Case(description, conditions, m, fn, group, frozenset(unwanted))
    found = sorted(
        (item for finder in _FINDERS for item in finder(case)),
        key=lambda item: (item.size, item.risk, _left(case, item), item.kind, item.what),
    )
    return Cuts(fn.path, name, group, unwanted, tuple(found), "" if found else _why_none(case))


def _left(case: _Case, item: Cut) -> int:
    return len(case.unwanted.intersection(item.group))


def _why_none(case: _Case) -> str:
    conventional = next((fn for fn in _above(case.fn) if fn.pcie_type in (None, r.PCI_EXP_TYPE_PCI_BRIDGE)), None)
    if conventional is not None:
        name = f"{kind_of(conventional)} {conventional.bdf.short}"
        return f"the {name} sends on all requests under one id; nothing parts them"
    return "nothing that was tried parts them: other slots, kernels, parameters, removal of what shares"


def _above(fn: LightFunction) -> Iterator[LightFunction]:
    bridge = fn.upstream
    while bridge is not None:
        yield bridge
        bridge = bridge.upstream


# -- finders -----------------------------------------------------------------------------------------------------


def _parameters(case: _Case) -> Iterator[Cut]:
    """Without what the command line switches off; with ``config_acs=`` where a port has the capability."""
    given = case.conditions.parameters
    here = Edited(case.description)
    if given.disable_acs_redir or given.config_acs:
        without = replace(given, disable_acs_redir=(), config_acs=())
        group = case.tried(here, case.conditions.with_parameters(without))
        if group is not None:
            words = "take pci=disable_acs_redir= and pci=config_acs= off the kernel command line"
            yield case.cut("parameter", words, "", 1, 0, group)
    if changes.CONFIG_ACS_PARAMETER not in case.conditions.kernel:
        return
    ports = [bdf for bdf in case.group if case.m.functions[bdf].find_ext_capability(r.PCI_EXT_CAP_ID_ACS)]
    for bdf in ports:
        word = f"pci=config_acs=1x111x1@{bdf}"
        asked = replace(given, config_acs=(*parse_parameters([word]).config_acs, *given.config_acs))
        group = case.tried(here, case.conditions.with_parameters(asked))
        if group is not None:
            yield case.cut("parameter", f"switch the ACS of {bdf} on: {word}", f"--parameter {word}", 1, 0, group)


def _changes(case: _Case) -> Iterator[Cut]:
    """Single changes to this kernel."""
    present = case.conditions.kernel.changes
    for change in relevant():
        if change.since is None or change in present:
            continue
        edited = case.conditions.kernel.edited([change.id])
        group = case.tried(Edited(case.description), case.conditions.on(edited))
        if group is not None:
            words = f"a kernel with {change.id} ({change.since}): {change.subject}"
            yield case.cut("change", words, f"--with {change.id}", 1, 1, group)


def _kernels(case: _Case) -> Iterator[Cut]:
    """The nearest releases, older and newer, on which it is free."""
    try:
        own = version_key(case.conditions.kernel.name.split()[0])
    except UnknownKernel:
        return
    tags = [tag.partition("-")[0] for tag, _ in releases() if version_key("v3.18") <= version_key(tag)]
    finals = sorted({*tags, NEWEST}, key=version_key)
    newer = [tag for tag in finals if version_key(tag) > own]
    older = [tag for tag in reversed(finals) if version_key(tag) < own]
    for direction in (newer, older):
        for tag in direction:
            group = case.tried(Edited(case.description), case.conditions.on(kernel(tag)))
            if group is not None:
                yield case.cut("kernel", f"kernel {tag}", f"--kernel {tag}", 1, 1, group)
                break


def _slots(case: _Case) -> Iterator[Cut]:
    """Every other slot of this machine, free or not."""
    card = card_of(case.m, case.fn.path)
    for port in case.m.functions.values():
        if not is_slot(port) or port.path in card or port is case.fn.upstream:
            continue
        try:
            edited = moved(case.description, str(case.fn.bdf._replace(function=0)), port.path)
            group = case.tried(edited, case.conditions)
        except BadInput:
            continue
        if group is None:
            continue
        occupant = [bdf for bdf in behind(case.m, port) if case.m.functions[bdf].upstream is port]
        words = f"put the card into the slot of {port.bdf.short}"
        if occupant:
            words = f"exchange the card with {case.m.functions[occupant[0]].bdf.short} in the slot of {port.bdf.short}"
        option = f"--move {case.fn.bdf.short}={port.bdf.short}"
        yield case.cut("swap" if occupant else "move", words, option, 2 if occupant else 1, 0, group)


def _removals(case: _Case) -> Iterator[Cut]:
    """Each other card of the group; all of them when one does not do."""
    own = set(card_of(case.m, case.fn.path))
    tops: dict[str, int] = {}
    for bdf in sorted(case.unwanted - own):
        fn = case.m.functions[bdf]
        if (fn.physfn or fn).upstream is not None and not fn.is_virtfn:
            tops.setdefault(bdf.rpartition(".")[0], 0)
    edited, gone = Edited(case.description), list[str]()
    for place in tops:
        group = case.tried(removed(case.description, place), case.conditions)
        if group is not None:
            yield case.cut("remove", f"take {place.removeprefix('0000:')} out", f"--remove {place}", 1, 0, group)
        edited = removed(edited.description, place)
        gone.append(place)
    if len(gone) > 1:
        group = case.tried(edited, case.conditions)
        if group is not None:
            words = f"take {', '.join(place.removeprefix('0000:') for place in gone)} out"
            option = " ".join(f"--remove {place}" for place in gone)
            yield case.cut("remove", words, option, len(gone), 0, group)


def _order(case: _Case) -> Iterator[Cut]:
    """Another order, where a function meets the IOMMU when its driver comes."""
    if case.m.iommu != "arm" or changes.IOMMU_PROBE_IN_CORE in case.conditions.kernel:
        return
    group = case.tried(Edited(case.description), replace(case.conditions, order=(case.fn.path,)))
    if group is not None:
        words = f"have the driver of {case.fn.bdf.short} bind before that of the ports above"
        yield case.cut("order", words, f"--order {case.fn.bdf.short}", 1, 2, group)


def _overrides(case: _Case) -> Iterator[Cut]:
    """``pcie_acs_override=``, with the ways that stay open."""
    ids = {(case.m.functions[bdf].vendor, case.m.functions[bdf].device) for bdf in case.group}
    values = ["downstream", "multifunction", *(f"id:{vendor:04x}:{device:04x}" for vendor, device in sorted(ids))]
    found = [item for value in values for item in _override(case, value)]
    yield from found or _override(case, "downstream,multifunction")


def _override(case: _Case, value: str) -> Iterator[Cut]:
    word = f"pcie_acs_override={value}"
    added = parse_parameters([word])
    given = case.conditions.parameters
    both = replace(
        given,
        override=given.override | added.override,
        override_ids=given.override_ids | added.override_ids,
    )
    group = case.tried(Edited(case.description), case.conditions.with_parameters(both))
    if group is None:
        return
    cut = case.cut("override", f"{word} (no mainline kernel has it)", f"--parameter {word}", 1, 3, group)
    ends = [bdf for bdf in cut.freed if bdf in case.unwanted] or list(cut.freed[:1])
    yield replace(cut, paths=tuple(peer_path(case.m, case.fn.path, bdf) for bdf in _one_per_card(case, ends)))


def _one_per_card(case: _Case, members: Sequence[str]) -> list[str]:
    return list({case.m.functions[bdf].bdf.slot: bdf for bdf in reversed(members)}.values())[::-1]


_FINDERS: tuple[Callable[[_Case], Iterator[Cut]], ...] = (
    _parameters,
    _changes,
    _kernels,
    _slots,
    _removals,
    _order,
    _overrides,
)
