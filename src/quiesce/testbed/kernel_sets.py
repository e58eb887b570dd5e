"""Which kernel of the model a real kernel is: a mainline release, the backports that its stable series took, and what
the switches of the instrumented kernel do to it.

``backports.csv`` has one row for each series that was read and each modelled change. Where it differs from the mainline
release of the series, the kernel's expression names the change: ``v6.12 + dfa2f4d5f9e5``. docs/kernel-sets.md tells how
the rows came about.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from quiesce.kernel import changes
from quiesce.kernel.kernelset import NEWEST
from quiesce.snapshot.errors import BadInput

READ = {"5.10": 223, "6.1": 192, "6.12": 118, "7.2": 13}
"""The series in ``backports.csv``, with the point release whose source was read. Of later ones nothing is known."""

OLDEST = "v3.5"
_RELEASE = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~]?rc(\d+))?(.*)")
_BUILD_NUMBER = re.compile(r"-\d+\S*-\S+")
"""Debian's and Ubuntu's ``-32-amd64`` behind a version whose third number is always 0."""


@dataclass(frozen=True, slots=True)
class KnownKernel:
    """What is known of a real kernel."""

    expression: str
    note: str = ""
    """In which respect the expression may be wrong; empty when the kernel lies in a series that was read."""


@dataclass(frozen=True, slots=True)
class Backport:
    """One row: whether the kernels of a series contain a change."""

    kernel: str
    change: str
    present: bool
    """In the point release that was read."""
    since: int | None
    """First point release with the change; None when it is that of the series, or was never taken."""
    until: int | None
    """First point release without it again."""
    evidence: str

    def at(self, point: int) -> bool:
        """Whether the point release contains the change."""
        if self.since is None and self.until is None:
            return self.present
        return (self.since or 0) <= point and (self.until is None or point < self.until)


@dataclass(frozen=True, slots=True)
class Switch:
    """A fault that the instrumented kernel brings back (``quiesce.bugs``)."""

    name: str
    bit: int
    meaning: str
    case: str
    edits: str
    """What makes the model behave in the same way, as in a kernel expression."""


SWITCHES = (
    Switch(
        "irq-zeroed",
        0,
        "a probe that fails or is refused zeroes pci_dev.irq, and drivers are offered the AMD IOMMU's function",
        "iommu-msi-lost",
        "+ 3be5fa236649 + switch-irq-zeroed",
    ),
    Switch(
        "alias-deref",
        1,
        "the function that an IVRS alias names is used without asking whether it is there",
        "alias-without-device",
        "+ switch-alias-deref",
    ),
    Switch(
        "msi-off",
        2,
        "MSI and MSI-X are switched off after the shutdown callback",
        "msi-off-at-shutdown",
        "- fda78d7a0ead",
    ),
    Switch(
        "intx-record",
        3,
        "pci_intx() makes a devres record on every call for a managed device",
        "intx-devres-on-detach",
        "- dfa2f4d5f9e5 - 00f89ae4e759 - fc8c818e7569",
    ),
    Switch(
        "stays-managed",
        4,
        "is_managed outlives the driver, and pci_intx() makes a devres record when it changes the bit",
        "managed-outlives-driver",
        "- dfa2f4d5f9e5 - fc8c818e7569",
    ),
    Switch(
        "no-data",
        5,
        "a device at an address that VT-d has released once can map nothing",
        "replug-without-iommu",
        "+ switch-no-data",
    ),
    Switch(
        "unmap-bug",
        6,
        "a mapping that is given back after VT-d has released its device is a BUG_ON",
        "unmap-after-unplug",
        "+ switch-unmap-bug",
    ),
)


# -- kernels -------------------------------------------------------------------------------------------------


def kernel_set_of(release: str, package: str = "") -> str:
    """Return the model's kernel set for a kernel such as ``6.12.107+deb13-amd64``; see ``known_kernel``."""
    return known_kernel(release, package).expression


def known_kernel(release: str, package: str = "") -> KnownKernel:
    """Return what is known of a kernel by its release name and, where that does not say it, its package's version.

    A kernel of a series that was not read is taken for its mainline release. Raises BadInput for what is no release.
    """
    series, point, rc = _point_release(release, package)
    base = f"v{series}" + (f"-rc{rc}" if rc else "")
    nearest = _nearest(base)
    if nearest != base:
        return KnownKernel(nearest, f"{release} lies outside {OLDEST} to {NEWEST}: taken for {nearest}")
    if rc or (series not in READ and point == 0):
        return KnownKernel(base)
    if series not in READ:
        return KnownKernel(base, f"the backports of {series} kernels are not known: taken for {base}")
    read = READ[series]
    expression = _expression(base, _backported(series, read if point is None else point))
    if point is None:
        return KnownKernel(expression, f"{release} does not tell its point release: taken for {series}.{read}")
    late = f"backports are known up to {series}.{read}" if point > read else ""
    return KnownKernel(expression, late)


def backports() -> tuple[Backport, ...]:
    """Return every row of the table."""
    return _table()


def _point_release(release: str, package: str) -> tuple[str, int | None, str | None]:
    """Return the series, the number of the point release (None when it is not told) and of the release candidate."""
    series, point, rc, rest = _parse(release)
    if package.split():
        packaged = _parse(package.split()[-1])
        if packaged[0] == series:
            return packaged[:3]
    unknown = rc is None and point == 0 and _BUILD_NUMBER.match(rest) is not None
    return series, None if unknown else point, rc


def _parse(text: str) -> tuple[str, int, str | None, str]:
    match = _RELEASE.fullmatch(text.strip())
    if match is None:
        raise BadInput("kernel", repr(text[:60]), "a release such as 6.12.107+deb13-amd64, or a package's version")
    major, minor, point, rc, rest = match.groups()
    return f"{int(major)}.{int(minor)}", int(point or 0), rc, rest


def _nearest(base: str) -> str:
    """Return the tag itself, or the end of the model's range on whose side it lies."""
    key = changes.version_key(base)
    if key < changes.version_key(OLDEST):
        return OLDEST
    return NEWEST if key > changes.version_key(NEWEST) else base


# -- switches ------------------------------------------------------------------------------------------------


def kernel_set_with(release: str, switches: Iterable[str], package: str = "") -> str:
    """Return the model's kernel set for an instrumented kernel with some of its switches on."""
    base, *words = kernel_set_of(release, package).split()
    edits = _edits(words)
    for switch in (find_switch(name) for name in switches):
        for change, added in _edits(switch.edits.split()).items():
            if edits.get(change, added) is not added:
                del edits[change]
            elif _contains(base, change) is not added:
                edits[change] = added
    return _expression(base, edits)


def switch_mask(switches: Iterable[str]) -> int:
    """Return the value of ``quiesce.bugs`` that turns some switches on."""
    mask = 0
    for name in switches:
        mask |= 1 << find_switch(name).bit
    return mask


def find_switch(name: str) -> Switch:
    """Return the switch that is called ``msi-off``, or ``QUIESCE_MSI_OFF`` as in the kernel; raises BadInput."""
    wanted = name.lower().removeprefix("quiesce_").replace("_", "-")
    for switch in SWITCHES:
        if switch.name == wanted:
            return switch
    raise BadInput("switch", repr(name[:60]), "one of " + ", ".join(switch.name for switch in SWITCHES))


# -- expressions ---------------------------------------------------------------------------------------------


def _edits(words: Sequence[str]) -> dict[str, bool]:
    """Return the changes of ``+ a - b``, with True for those that are added."""
    return {change: sign == "+" for sign, change in zip(words[::2], words[1::2], strict=True)}


def _expression(base: str, edits: dict[str, bool]) -> str:
    added = [f"+ {change}" for change, there in edits.items() if there]
    removed = [f"- {change}" for change, there in edits.items() if not there]
    return " ".join((base, *added, *removed))


def _contains(base: str, change: str) -> bool:
    """Whether a mainline release has a change in its history, taken back later or not."""
    since = changes.find(change).since
    return since is not None and changes.version_key(since) <= changes.version_key(base)


def _backported(series: str, point: int) -> dict[str, bool]:
    base = f"v{series}"
    rows = (row for row in _table() if row.kernel == series)
    return {row.change: row.at(point) for row in rows if row.at(point) is not _contains(base, row.change)}


@cache
def _table() -> tuple[Backport, ...]:
    text = files("quiesce.testbed").joinpath("backports.csv").read_text(encoding="ascii")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()))


def _row(row: dict[str, str]) -> Backport:
    since, until = (_point(row["kernel"], row[column]) for column in ("since", "until"))
    return Backport(row["kernel"], row["change"], row["present"] == "yes", since, until, row["evidence"])


def _point(series: str, version: str) -> int | None:
    return int(version.removeprefix(f"{series}.")) if version else None
