"""Differences between model and kernels that are known, each with its reason, from ``known_differences.txt``.

A line of that file: ``KERNELS IOMMUS EVENT SUBJECT FIELD  reason``, the first five being patterns; blanks of an event
are written ``_``, and ``+`` at its end says from there on. A listed difference still counts as one; it only does not
need to be explained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from quiesce.testbed.compare import Difference, Life


@dataclass(frozen=True, slots=True)
class Known:
    """One known difference."""

    kernels: str
    iommus: str
    event: str
    subject: str
    field: str
    reason: str

    def fits(self, difference: Difference, release: str, iommu: str, before: Sequence[str] = ()) -> bool:
        """Whether a difference found on this kernel is this one; ``before`` are the events before its own."""
        found = (release, iommu, difference.subject, difference.field)
        patterns = (self.kernels, self.iommus, self.subject, self.field)
        if not all(fnmatchcase(text, pattern) for text, pattern in zip(found, patterns, strict=True)):
            return False
        lasting = self.event.endswith("+")
        events = (*before, difference.event) if lasting else (difference.event,)
        return any(fnmatchcase(event.replace(" ", "_"), self.event.removesuffix("+")) for event in events)


@cache
def known_differences() -> tuple[Known, ...]:
    """Return the list."""
    text = (resources.files("quiesce.testbed") / "known_differences.txt").read_text()
    lines = (line.split(None, 5) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(Known(*words) for words in lines)


def reason(difference: Difference, life: Life, release: str, iommu: str) -> str:
    """Return why a difference in a life is expected, or an empty text."""
    before = life.events[: max(difference.step - 1, 0)]
    return next((known.reason for known in known_differences() if known.fits(difference, release, iommu, before)), "")


def unexplained(life: Life, release: str, iommu: str) -> list[Difference]:
    """Return the differences of a life that nothing listed explains."""
    return [difference for difference in life.differences() if not reason(difference, life, release, iommu)]
