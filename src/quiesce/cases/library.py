"""The shipped cases, and cases from files."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from quiesce.cases.case import Case, parse_case
from quiesce.snapshot.errors import BadInput, read_limited_text


@cache
def shipped() -> dict[str, Case]:
    """Return the shipped cases by name: the seven bugs in the order of the reports, then the small ones."""
    folder = Path(str(resources.files("quiesce.cases"))) / "library"
    cases = [parse_case(path.read_text(), str(path)) for path in folder.glob("*.case")]
    order = {name: number for number, name in enumerate(BUGS)}
    return {case.name: case for case in sorted(cases, key=lambda case: (order.get(case.name, len(order)), case.name))}


BUGS = (
    "iommu-msi-lost",
    "alias-without-device",
    "msi-off-at-shutdown",
    "intx-devres-on-detach",
    "managed-outlives-driver",
    "replug-without-iommu",
    "unmap-after-unplug",
)
"""The bugs of the five reports."""


def find_case(name: str) -> Case:
    """Return a shipped case by name, or the case in a file; raises BadInput."""
    if name in shipped():
        return shipped()[name]
    path = Path(name)
    if path.is_file():
        return parse_case(read_limited_text(path), name)
    raise BadInput(name, "case", "a file, or one of " + ", ".join(shipped()))
