"""The plan for one device: viability of its group, interrupts, resets, power, and the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.predict import Prediction
from quiesce.kernel.handover import FIRST_READ
from quiesce.kernel.kernelset import KernelSet, version_key
from quiesce.plan import refusals, steps
from quiesce.plan.interrupts import interrupts
from quiesce.plan.model import (
    CONDITIONAL,
    POSSIBLE,
    REFUSED,
    UNKNOWN,
    Alternative,
    Interrupts,
    Member,
    Plan,
    Power,
    Reason,
    Resets,
    Search,
)
from quiesce.plan.owners import holders, member
from quiesce.plan.power import power
from quiesce.plan.resets import resets
from quiesce.snapshot.description import MachineDescription

MOST_ALTERNATIVES = 6
"""An open group with more possibilities than this is not planned for."""

Searcher = Callable[[Plan], Search]


@dataclass(frozen=True, slots=True)
class _Device:
    """What is known of the device whatever its group is."""

    m: LightMachine
    k: KernelSet
    fn: LightFunction
    irq: Interrupts
    reset: Resets
    power: Power


def make_plan(
    description: MachineDescription,
    kernel: KernelSet,
    found: Prediction,
    device: str,
    to: str = "vfio-pci",
    drivers: Mapping[str, str] | None = None,
) -> Plan:
    """Plan to hand ``device`` to the driver ``to`` on a kernel, given the groups that it forms.

    ``drivers`` says who holds which function, beyond what the source tells. No search is run; ``searched`` adds one.
    """
    m = LightMachine(description, found.iommu)
    blank = Plan(device, to, kernel.name, found.iommu, "", REFUSED, (), notes=_notes(kernel, found))
    fn = m.functions.get(device)
    if fn is None:
        reason = Reason("absent", f"the source shows no function at {device}", (device,))
        return replace(blank, refusals=(reason,))
    here = _Device(m, kernel, fn, interrupts(m, kernel, fn), resets(m, kernel, fn), power(fn))
    refused = [*refusals.of_device(m, kernel, fn, found), *refusals.of_virtual(here.power, fn)]
    groups, missing = _groups(found, device)
    if not groups and not refused:
        text = (
            f"its group is open, with more than {MOST_ALTERNATIVES} possibilities: the source does not tell {missing}"
        )
        refused.append(Reason("group-undecided", text, (device,)))
    held = drivers or {}
    alternatives = tuple(_alternative(here, to, group, assumes, held, bool(refused)) for group, assumes in groups)
    plan = replace(
        blank,
        what=what_of(fn),
        refusals=tuple(refused),
        alternatives=alternatives,
        missing=missing,
        interrupts=here.irq,
        resets=here.reset,
        power=here.power,
        verdict=_verdict(refused, alternatives),
    )
    return plan if plan.verdict == REFUSED else _with_the_rest(here, plan)


def _with_the_rest(here: _Device, plan: Plan) -> Plan:
    members = _all_members(plan)
    return replace(
        plan,
        persist=steps.persist(here.m, plan.to, members),
        guest=steps.guest(members),
        back_warnings=tuple(_back_warnings(here, members)),
        checks=tuple(refusals.checks(here.reset, here.irq, members, here.m)),
    )


def _all_members(plan: Plan) -> tuple[Member, ...]:
    """Return the members of all alternatives that are not refused, each once."""
    found = {item.bdf: item for one in plan.alternatives if not one.refusals for item in one.members}
    return tuple(found.values())


def _groups(found: Prediction, device: str) -> tuple[list[tuple[tuple[str, ...], tuple[str, ...]]], str]:
    """Return every group the device may be in with what it assumes, and what would decide between them."""
    for group in found.groups:
        if device in group:
            return [(group, ())], ""
    for item in found.undecided:
        if device in item.functions:
            options: dict[tuple[str, ...], tuple[str, ...]] = {}
            conditions = item.conditions or ((),) * len(item.alternatives)
            for groups, words in zip(item.alternatives, conditions, strict=True):
                options.setdefault(next((group for group in groups if device in group), ()), words)
            if len(options) <= MOST_ALTERNATIVES and item.complete:
                return list(options.items()), item.why
            return [], item.why
    return [], ""


def _alternative(
    here: _Device, to: str, group: tuple[str, ...], assumes: tuple[str, ...], stated: Mapping[str, str], refused: bool
) -> Alternative:
    m, k = here.m, here.k
    held = holders(m, stated)
    functions = [m.functions[bdf] for bdf in group]
    members = tuple(member(m, k, fn, here.fn, held, what_of(fn)) for fn in functions)
    against = tuple(refusals.of_group(m, k, members))
    if not group:
        against = (Reason("no-group", f"no IOMMU covers it then. {refusals.NOIOMMU}", (here.fn.path,)),)
    if against or refused:
        return Alternative(members, assumes, against, (), (), ())
    asked = tuple(refusals.conditions(m, members, here.irq, here.reset, here.power))
    return Alternative(members, assumes, (), asked, steps.there(k, m, to, members), steps.back(k, to, members))


def _verdict(refused: list[Reason], alternatives: tuple[Alternative, ...]) -> str:
    verdicts = {one.verdict for one in alternatives}
    if refused or verdicts <= {REFUSED}:
        return REFUSED
    return POSSIBLE if verdicts == {POSSIBLE} else CONDITIONAL


def _back_warnings(here: _Device, members: tuple[Member, ...]) -> Iterator[str]:
    yield "stop the guest first: the unbind waits, without a time limit, for whoever has the device open"
    if here.reset.works != "yes":
        word = "may be" if here.reset.works == UNKNOWN else "is"
        yield f"there {word} no reset: the old driver meets the device as the guest left it"
    if here.power.keeps_state == "no":
        yield "while idle it sleeps in D3hot and loses its registers: vfio-pci saves and restores them (v5.1+)"
    unknown = [item.bdf for item in members if item.driver is None]
    if unknown:
        yield f"which driver {' '.join(unknown)} had is not known: note it before the hand-over (readlink .../driver)"


def _notes(kernel: KernelSet, found: Prediction) -> tuple[str, ...]:
    notes = list(found.notes)
    if version_key(kernel.name.split()[0]) < version_key(FIRST_READ):
        notes.append(f"quirks of reset and INTx masking are those of {FIRST_READ}: older kernels were not read")
    return tuple(dict.fromkeys(notes))


def what_of(fn: LightFunction) -> str:
    """Return class, ids and name in words."""
    text = f"[{fn.class_code >> 8:04x}] {fn.vendor:04x}:{fn.device:04x}"
    name = fn.item.attributes.get("name", "")
    return f"{text}  {name}" if name else text
