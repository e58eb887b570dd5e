"""Rules: what must not happen. A rule has an id, a meaning and a reason; an invariant also has a check."""

from quiesce.rules.rule import Invariant, Rule

__all__ = ["Invariant", "Rule"]
