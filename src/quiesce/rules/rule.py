"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from quiesce.kernel.kernel import Finding, Kernel


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must not happen."""

    id: str
    """``family/name``."""
    meaning: str
    """What is wrong when it is broken, in one sentence."""
    why: str
    """Why that is bad: what a user of the machine would see."""
    kernels: str = ""
    """Kernels in which it is known to break."""
    commits: tuple[str, ...] = ()
    """Changes that brought or cured such a fault."""
    example: str = ""
    """What to give to ``quiesce run`` to see it broken: a smallest shipped case, on another kernel where need be."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """A rule that is checked on every state that the search reaches."""

    rule: str
    find: Callable[[Kernel], Iterable[str]]
    """Returns one reason for each way in which the state breaks the rule."""

    def check(self, k: Kernel) -> Iterable[Finding]:
        """Yield the findings in the present state."""
        for why in self.find(k):
            yield Finding(self.rule, why, "state")
