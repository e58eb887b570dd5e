"""How far predictions agree with groups that real kernels formed, machine by machine.

A machine's truth lies beside it: ``truth.json`` or ``NAME.truth.json`` with the kernel, the kind of IOMMU and the
groups. A recording has its groups in itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quiesce.groups.predict import Prediction, Undecided, predict
from quiesce.kernel.kernelset import NEWEST, KernelSet, UnknownKernel, kernel
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput, read_limited_text
from quiesce.snapshot.read import read_machine

_RELEASE = re.compile(r"v?([0-9]+\.[0-9]+)")
_PLATFORMS = ("intel", "amd", "arm", "power", "virtio")


@dataclass(frozen=True, slots=True)
class Truth:
    """One machine whose groups are known."""

    name: str
    source: Path
    kernel: str
    """As the recording names it; may be empty."""
    platform: str | None
    groups: tuple[tuple[str, ...], ...]
    quality: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one prediction compares with the truth."""

    name: str
    kernel: str
    functions: int
    decided: int
    """Functions of the truth whose group is decided."""
    wrong: tuple[tuple[str, ...], ...]
    """Groups of the truth that the prediction rules out."""
    unseen: int
    """Functions of the truth that the source does not show."""
    incomplete: int = 0
    """Open questions of which not all alternatives were listed."""
    quality: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """``equal``, ``possible`` (undecided, and the truth is among the alternatives), ``open`` (not all alternatives
        were listed, and the truth is not among those), or ``wrong``.
        """
        if self.wrong:
            return "open" if self.incomplete and not self.note else "wrong"
        return "equal" if self.decided == self.functions - self.unseen else "possible"


def truths_below(folder: Path) -> Iterator[Truth]:
    """Yield every machine with known groups in a folder, in order of their paths."""
    for path in sorted(folder.rglob("*truth.json")):
        yield _from_truth_file(path)
    for path in sorted(folder.rglob("*--*--*.json")):
        description = read_machine(path)
        if description.recorded_groups is not None:
            yield Truth(path.stem, path, description.kernel or "", description.iommu_hint, description.recorded_groups)


def _from_truth_file(path: Path) -> Truth:
    try:
        data: dict[str, Any] = json.loads(read_limited_text(path))
        groups = tuple(tuple(str(bdf) for bdf in group) for group in data["groups"])
        name, release, platform = str(data["id"]), str(data.get("kernel", "")), data.get("platform")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(str(path), "", 'JSON with "id", "kernel", "platform" and "groups"') from None
    alone = path.name == "truth.json"
    source = (
        path.parent if alone else path.with_name(str(data.get("topology") or path.name.replace(".truth.json", ".txt")))
    )
    platform = platform if platform in _PLATFORMS else None
    return Truth(name, source, release, platform, groups, str(data.get("quality", "")))


def kernel_of(release: str) -> KernelSet:
    """Return the set of a release as a source writes it, the newest when it names none that is known."""
    match = _RELEASE.match(release)
    try:
        return kernel(f"v{match[1]}") if match else kernel(NEWEST)
    except UnknownKernel:
        return kernel(NEWEST)


def compare(truth: Truth, description: MachineDescription | None = None) -> Agreement:
    """Predict a machine's groups and compare; raises BadInput when its source cannot be read."""
    description = description or read_machine(truth.source)
    found = predict(description, kernel_of(truth.kernel), iommu=truth.platform)
    seen = {str(item.bdf) for item in description.functions if item.present}
    truth_seen = [tuple(bdf for bdf in group if bdf in seen) for group in truth.groups]
    wrong = [group for group in truth_seen if group and not allowed(found, group)]
    functions = sum(len(group) for group in truth.groups)
    decided = {bdf for group in found.groups for bdf in group}
    return Agreement(
        truth.name,
        found.kernel,
        functions,
        sum(1 for group in truth_seen for bdf in group if bdf in decided),
        tuple(wrong),
        functions - sum(len(group) for group in truth_seen),
        sum(1 for item in found.undecided if not item.complete),
        truth.quality,
    )


def allowed(found: Prediction, group: Iterable[str]) -> bool:
    """Whether a real group was predicted, or what open questions say of its members leaves it possible."""
    wanted = set(group)
    if any(set(item) == wanted for item in found.groups):
        return True
    asked = [item for item in found.undecided if not wanted.isdisjoint(item.functions)]
    open_ones = {bdf for item in asked for bdf in item.functions}
    return wanted <= open_ones and all(_among(wanted.intersection(item.functions), item) for item in asked)


def _among(wanted: set[str], question: Undecided) -> bool:
    """Whether a real group, as far as it concerns the functions of an open question, is in an alternative."""
    return any(wanted == set(item) for groups in question.alternatives for item in groups)
