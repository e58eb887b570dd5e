"""Rules on what nobody will ever give back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quiesce.kernel.iommu_checks import leaked_group_references
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.msi_desc import leaked_vectors
from quiesce.kernel.pci import leaked_regions
from quiesce.kernel.x86_irq import leaked_pins
from quiesce.rules.rule import Invariant, Rule

RULES = (
    Rule(
        "leak/legacy-irq",
        "An interrupt input is held for a device that has no driver and is not enabled.",
        "The input is never given back; its number stays assigned.",
        example="legacy-irq-after-remove",
    ),
    Rule(
        "leak/msi-vectors",
        "Interrupt vectors stay allocated for a device that nobody drives any more.",
        "Vectors run out; the device may still send to them.",
        example="teach-leaky-msi",
    ),
    Rule(
        "leak/regions",
        "A device without a driver still has its BARs requested.",
        'The next probe fails with "can\'t reserve".',
        "Drivers that relied on managed requests, from v6.16 on.",
        ("51f6aec99cb0",),
    ),
    Rule(
        "leak/iommu-group-reference",
        "A group without devices is held by something that is gone.",
        "The group and its number are never given back.",
    ),
    Rule(
        "leak/dma-mapping",
        "An I/O virtual address stays mapped although the mapping has been given back.",
        "The address space fills, and the device can still reach the memory.",
        "Late unmaps that took another path than the map did.",
        ("6fc7020cf298", "b5c58b2fdc42"),
        example="unmap-after-unplug --with vtd-late-unmap-warns",
    ),
)


def _pins(k: Kernel) -> Iterable[str]:
    return (f"input {leak.gsi} is held by {leak.holder or 'a structure that is gone'}" for leak in leaked_pins(k))


def _vectors(k: Kernel) -> Iterable[str]:
    return (f"irq {irq} of {device} will not be given back" for irq, device in leaked_vectors(k))


def _regions(k: Kernel) -> Iterable[str]:
    for dev in k.system.devices:
        for bar, name in leaked_regions(dev):
            yield f"BAR {bar} of {dev.bdf} is still requested by {name}, which is not bound"


def _while_it_matters(find: Callable[[Kernel], Iterable[str]]) -> Callable[[Kernel], Iterable[str]]:
    """A kernel that is being left for good need not give anything back."""
    return lambda k: () if k.system.phase in ("shutdown", "crashed") else find(k)


INVARIANTS = (
    Invariant("leak/legacy-irq", _while_it_matters(_pins)),
    Invariant("leak/msi-vectors", _while_it_matters(_vectors)),
    Invariant("leak/regions", _while_it_matters(_regions)),
    Invariant("leak/iommu-group-reference", _while_it_matters(leaked_group_references)),
)
