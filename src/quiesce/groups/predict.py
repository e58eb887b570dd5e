"""The groups that a kernel forms on a machine, or all groupings that the snapshot leaves possible.

A machine falls into units that cannot influence each other: a slot of a root bus with all below it. Each unit is booted
by itself; one whose outcome depends on something that the snapshot leaves open is booted once for every possibility.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from quiesce.groups.coverage import BY_DRIVER
from quiesce.groups.kernel import LightKernel
from quiesce.groups.machine import LightMachine, iommu_kind
from quiesce.groups.old import is_complete, old_groups
from quiesce.groups.possible import Outcome, Partition
from quiesce.groups.power import power_groups
from quiesce.groups.split import outcomes_of
from quiesce.groups.units import units_of
from quiesce.kernel import changes
from quiesce.kernel.kernelset import KernelSet
from quiesce.kernel.parameters import Parameters
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.garbage import no_collection, set_aside


class Undecided(NamedTuple):
    """Functions whose grouping depends on something that the snapshot does not tell."""

    why: str
    """What is missing, in words."""
    functions: tuple[str, ...]
    alternatives: tuple[Partition, ...]
    """Every grouping of the functions that is still possible; some of them where ``complete`` is False."""
    complete: bool = True
    ungrouped: tuple[tuple[str, ...], ...] = ()
    """For each alternative, the functions that it leaves without a group."""
    conditions: tuple[tuple[str, ...], ...] = ()
    """For each alternative, what one way to it assumes."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a kernel makes of a machine."""

    kernel: str
    iommu: str | None
    groups: Partition
    """Decided groups, in bus order."""
    ungrouped: tuple[str, ...]
    undecided: tuple[Undecided, ...] = ()
    notes: tuple[str, ...] = ()
    messages: tuple[str, ...] = field(default=(), repr=False)
    """What the kernel prints on the way."""

    @property
    def functions(self) -> frozenset[str]:
        """All functions that are spoken of."""
        found = {bdf for group in self.groups for bdf in group} | set(self.ungrouped)
        return frozenset(found.union(*(item.functions for item in self.undecided)))


def predict(
    description: MachineDescription,
    kernel: KernelSet,
    parameters: Parameters | None = None,
    iommu: str | None = None,
    order: Sequence[str] = (),
) -> Prediction:
    """Predict the groups; ``iommu`` (``intel``, ``amd``, ``arm``, ``virtio``, ``none``) overrides what the snapshot
    shows, ``order`` names functions that are probed before all others. Raises BadInput when a firmware table is broken.
    """
    kind, evidence = (iommu, "") if iommu else iommu_kind(description)
    kind = None if kind == "none" else kind
    with no_collection():
        m = LightMachine(description, kind)
    parameters = parameters or Parameters()
    notes = [*description.notes, *_notes(m, evidence, kernel)]
    everything = tuple(str(fn.bdf) for fn in m.functions.values())
    if kind is None or parameters.iommu_off:
        return Prediction(kernel.name, kind, (), everything, notes=(*notes, "no IOMMU is at work: no groups"))
    if kind == "power":
        groups, alone = power_groups(m.functions.values())
        return Prediction(kernel.name, kind, tuple(map(tuple, groups)), tuple(alone), notes=tuple(notes))
    if changes.CENTRAL_GROUP_LOOKUP not in kernel:
        return _before_3_17(description, m, kernel, notes)
    with set_aside():
        parts = (outcomes_of(m, lambda: LightKernel(m, kernel, parameters), unit, order) for unit in units_of(m))
        outcomes = [outcome for found in parts for outcome in found]
    return _assembled(kernel, kind, outcomes, notes)


def _before_3_17(
    description: MachineDescription, m: LightMachine, kernel: KernelSet, notes: Sequence[str]
) -> Prediction:
    everything = tuple(m.functions)
    if m.iommu not in ("intel", "amd") or not is_complete(m):
        why = "kernels before v3.17 are run on complete dumps of Intel and AMD machines only"
        question = Undecided(why, everything, (), False)
        return Prediction(kernel.name, m.iommu, (), (), (question,), tuple(notes))
    groups = old_groups(description, kernel, m.iommu)
    grouped = {bdf for group in groups for bdf in group}
    alone = tuple(bdf for bdf in everything if bdf not in grouped)
    return Prediction(kernel.name, m.iommu, groups, alone, notes=(*notes, "before v3.17: groups without reasons"))


def _assembled(kernel: KernelSet, kind: str, outcomes: Iterable[Outcome], notes: Sequence[str]) -> Prediction:
    groups: list[tuple[str, ...]] = []
    ungrouped: list[str] = []
    undecided: list[Undecided] = []
    messages: list[str] = []
    for outcome in outcomes:
        groups += outcome.groups
        ungrouped += outcome.ungrouped
        messages += outcome.messages
        if outcome.alternatives:
            undecided.append(_undecided(outcome))
    return Prediction(
        kernel.name,
        kind,
        tuple(groups),
        tuple(ungrouped),
        tuple(undecided),
        tuple(dict.fromkeys(notes)),
        tuple(messages),
    )


def _undecided(outcome: Outcome) -> Undecided:
    why = "; ".join(outcome.asked)
    parts = outcome.functions, outcome.alternatives, outcome.complete, outcome.without_group, outcome.conditions
    return Undecided(why, *parts)


def _driver_notes(m: LightMachine, kernel: KernelSet) -> list[str]:
    if changes.IOMMU_PROBE_IN_CORE in kernel:
        return []
    if m.shows_drivers:
        return ["a function meets the IOMMU when its driver comes (before v6.15): those without a driver have no group"]
    return ["a function without a driver gets no group on this kernel; the source does not show which have one"]


def _notes(m: LightMachine, evidence: str, kernel: KernelSet) -> list[str]:
    notes = [f"IOMMU: {m.iommu} by {evidence}"] if m.iommu and evidence else []
    if m.iommu == "amd" and m.ivrs is None:
        notes.append("no IVRS table: the IOMMU is taken to cover all functions behind its own, and to know no aliases")
    if m.iommu == "intel" and m.dmar is None:
        notes.append("no DMAR table: every function is taken to be covered")
    if m.iommu in BY_DRIVER:
        notes += _driver_notes(m, kernel)
    return notes
