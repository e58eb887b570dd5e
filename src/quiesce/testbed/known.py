"""Differences between model and kernels that are known, each with its reason, from ``known_differences.txt``.

A line of that file: ``KERNELS IOMMUS EVENT SUBJECT FIELD  reason``, the first five being patterns; blanks of an event
are written ``_``. A listed difference still counts as one; it only does not need to be explained again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from quiesce.testbed.compare import Difference


@dataclass(frozen=True, slots=True)
class Known:
    """One known difference."""

    kernels: str
    iommus: str
    event: str
    subject: str
    field: str
    reason: str

    def fits(self, difference: Difference, release: str, iommu: str) -> bool:
        """Whether a difference found on this kernel is this one."""
        found = (release, iommu, difference.event.replace(" ", "_"), difference.subject, difference.field)
        patterns = (self.kernels, self.iommus, self.event, self.subject, self.field)
        return all(fnmatchcase(text, pattern) for text, pattern in zip(found, patterns, strict=True))


@cache
def known_differences() -> tuple[Known, ...]:
    """Return the list."""
    text = (resources.files("quiesce.testbed") / "known_differences.txt").read_text()
    lines = (line.split(None, 5) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(Known(*words) for words in lines)


def reason(difference: Difference, release: str, iommu: str) -> str:
    """Return why a difference is expected, or an empty text."""
    return next((known.reason for known in known_differences() if known.fits(difference, release, iommu)), "")


def unexplained(found: Iterable[Difference], release: str, iommu: str) -> list[Difference]:
    """Return the differences that nothing listed explains."""
    return [difference for difference in found if not reason(difference, release, iommu)]
