"""The agreement table: how far model and kernels agree, by kernel, IOMMU and family of observations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from quiesce.testbed.compare import AGREE, DIFFER, UNOBSERVED, Difference, Life, tally
from quiesce.testbed.known import reason

VERDICTS = (AGREE, DIFFER, UNOBSERVED)


@dataclass
class Confirmation:
    """What came of one case, or one batch of random lives, on one kernel and IOMMU."""

    case: str
    kernel: str
    """The image's name, such as ``debian:6.12``."""
    release: str
    kernel_set: str
    iommu: str
    lives: list[Life] = field(default_factory=list)
    skipped: str = ""
    """Why nothing was tried."""
    machine: tuple[str, ...] = ()
    """What the guest's machine does otherwise than the case's."""
    left_out: str = ""
    """What of the case could not be lived, though its events were."""
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Observations by family and verdict."""
        return tally(self.lives)

    def differences(self) -> list[tuple[Life, Difference, str]]:
        """Return every difference with its life and the listed reason, empty when nothing listed fits."""
        return [
            (life, difference, reason(difference, life, self.release, self.iommu))
            for life in self.lives
            for difference in life.differences()
        ]

    @property
    def unexplained(self) -> int:
        """How many differences nothing listed explains."""
        return sum(1 for _, _, why in self.differences() if not why)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    kernel: str
    release: str
    iommu: str
    family: str
    agree: int
    differ: int
    listed: int
    """How many of those that differ are listed with their reason."""
    unobserved: int

    @property
    def share(self) -> float:
        """The share of observations that agree, of those that could be made."""
        made = self.agree + self.differ
        return self.agree / made if made else 1.0


def table(confirmations: Iterable[Confirmation]) -> list[Row]:
    """Return the rows by kernel, IOMMU and family, each kernel's total last under the family ``all``."""
    groups: dict[tuple[str, str, str], list[Confirmation]] = {}
    for one in confirmations:
        if not one.skipped:
            groups.setdefault((one.kernel, one.release, one.iommu), []).append(one)
    return [row for key in sorted(groups) for row in _rows(key, groups[key])]


def _rows(key: tuple[str, str, str], members: list[Confirmation]) -> Iterator[Row]:
    counts = sum((one.counts for one in members), Counter[tuple[str, str]]())
    listed = Counter(family for one in members for family in _listed_families(one))
    families = sorted({family for family, _ in counts})
    for family in families:
        agree, differ, unobserved = (counts[family, verdict] for verdict in VERDICTS)
        yield Row(*key, family, agree, differ, listed[family], unobserved)
    totals = [sum(counts[family, verdict] for family in families) for verdict in VERDICTS]
    yield Row(*key, "all", totals[0], totals[1], listed.total(), totals[2])


def _listed_families(one: Confirmation) -> Iterator[str]:
    from quiesce.testbed.compare import family_of

    return (family_of(difference.field) for _, difference, why in one.differences() if why)
