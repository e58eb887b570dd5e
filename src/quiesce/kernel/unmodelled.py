"""Differences between kernels that are known and that the model does not have."""

from __future__ import annotations

from quiesce.kernel.changes import Change


def unmodelled() -> tuple[Change, ...]:
    """Return them in order of release."""
    return ()
