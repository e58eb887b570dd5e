"""All rules: the sanitizers that kernel and machine code raise, and the invariants checked on every state."""

from __future__ import annotations

from quiesce.rules import context, device, devres, iommu, irq, leak, msi, vfio
from quiesce.rules.rule import Invariant, Rule

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (rule for family in (context, device, devres, iommu, irq, leak, msi, vfio) for rule in family.RULES),
        key=lambda rule: rule.id,
    )
)
INVARIANTS: tuple[Invariant, ...] = (*iommu.INVARIANTS, *leak.INVARIANTS)


def invariants() -> tuple[Invariant, ...]:
    """Return the invariants, in a fixed order."""
    return INVARIANTS


def rule(name: str) -> Rule:
    """Return the rule with this id; raises KeyError."""
    return {item.id: item for item in RULES}[name]
