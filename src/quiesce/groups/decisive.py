"""Which of the reasons why two functions are apart decide: tried by taking isolation away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from quiesce.groups.conditions import Conditions
from quiesce.groups.edit import with_acs
from quiesce.groups.step import Step
from quiesce.kernel.acs_table import ACS_QUIRKS
from quiesce.kernel.kernelset import Change, KernelSet, find
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput


def mark_decisive(
    description: MachineDescription, conditions: Conditions, names: Sequence[str], steps: Sequence[Step]
) -> tuple[Step, ...]:
    """Mark a smallest set of functions whose isolation keeps two functions apart; without any, say what else does."""
    candidates = list(dict.fromkeys(step.function for step in steps if step.kind == "isolates"))
    if not joined_without(description, conditions, names, candidates):
        return (*steps, _never(description, names, steps))
    for name in tuple(candidates):
        fewer = [other for other in candidates if other != name]
        if joined_without(description, conditions, names, fewer):
            candidates = fewer
    chosen = set(candidates)
    quirks = {step.change for step in steps if step.function in chosen and step.change}
    marked = [replace(step, decisive=_counts(step, chosen, quirks)) for step in steps]
    return (*marked, *([] if candidates else [_never(description, names, steps)]))


def _counts(step: Step, chosen: Collection[str], quirks: Collection[str]) -> bool:
    return step.kind == "isolates" and (step.function in chosen or step.change in quirks)


def joined_without(
    description: MachineDescription, conditions: Conditions, names: Sequence[str], functions: Sequence[str]
) -> bool:
    """Whether two functions would share a group if the named ones were not isolated: without ACS capability, and
    without the quirks that stand for one.
    """
    for name in functions:
        try:
            description = with_acs(description, name, None)
        except BadInput:
            continue
    present = {(item.bdf, item.attributes.get("vendor")): item for item in description.functions}
    wanted = [item for (bdf, _), item in present.items() if str(bdf) in functions]
    ids = [(int.from_bytes(item.config[0:2], "little"), int.from_bytes(item.config[2:4], "little")) for item in wanted]
    gone = set(_quirks_for(ids))
    kernel = KernelSet(conditions.kernel.name, conditions.kernel.changes - gone)
    found = conditions.on(kernel).predict(description)
    return any(names[0] in group and names[1] in group for group in found.groups)


def _quirks_for(ids: Sequence[tuple[int, int]]) -> Iterator[Change]:
    for quirk in ACS_QUIRKS:
        if any(quirk.covers(*pair) for pair in ids):
            yield find(quirk.change)


def _never(description: MachineDescription, names: Sequence[str], steps: Sequence[Step]) -> Step:
    one, other = (Bdf.parse(name) for name in names)
    if one.segment != other.segment:
        fact = "different segments: no rule joins what is in them"
    elif any(step.kind == "order" for step in steps):
        fact = "the order in which they met the IOMMU keeps them apart, not isolation"
    else:
        fact = "no lack of ACS would join them: their ways up meet in the root complex only, which no rule asks"
    return Step("nothing", names[0], names[1], fact, "tried: without ACS and quirks on both ways", decisive=True)
