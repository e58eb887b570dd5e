"""What a snapshot says about a machine, before it is built into a world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quiesce.snapshot.bdf import Bdf


@dataclass(frozen=True, slots=True)
class FunctionDescription:
    """One PCI function as it was found, or one that may be plugged in later (``present=False``)."""

    bdf: Bdf
    config: bytes
    """Config space as read: 64, 256 or 4096 bytes."""
    present: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What is known beyond the bytes, e.g. ``vendor`` and ``device`` of a virtual function, whose config space
    reads ffff there; ``driver`` in use; ``pcie`` is ``no`` when the source says that it is conventional PCI."""
    known: bytes | None = None
    """Which bits of ``config`` the source tells, as a mask of the same length; None when it tells all. What lies
    behind the end of ``config`` is unknown where the function can have it."""


@dataclass(frozen=True, slots=True)
class Route:
    """The IO-APIC input that a pin of a slot on a root bus is wired to (a _PRT entry)."""

    device: int
    pin: int
    """1 for INTA# to 4 for INTD#."""
    gsi: int
    segment: int = 0
    bus: int = 0


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """A machine: its functions in bus order, its raw ACPI tables, and what the snapshot could not tell."""

    name: str
    functions: tuple[FunctionDescription, ...]
    ivrs: bytes | None = None
    dmar: bytes | None = None
    routing: tuple[Route, ...] = ()
    source: str = ""
    """The file it was read from."""
    notes: tuple[str, ...] = ()
    """What was reconstructed, assumed or left out."""
    recorded_groups: tuple[tuple[str, ...], ...] | None = None
    """The IOMMU groups that a real kernel formed, when the snapshot has them. For comparison; never an input to
    a prediction."""
    recorded_ungrouped: tuple[str, ...] = ()
    """Functions that the real kernel left without a group."""
    tables: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Raw ACPI tables besides IVRS and DMAR by signature (``APIC``, ``MCFG``, ``IORT``, ``VIOT``...)."""
    kernel: str | None = None
    """The kernel release that the source names, as it stands there."""
    cmdline: str | None = None
    """The kernel's command line, as far as the source shows it."""
    iommu_hint: str | None = None
    """Which IOMMU the source shows to be at work: ``intel``, ``amd``, ``arm``, ``power``, ``virtio``, or ``none``."""

    def function(self, bdf: Bdf) -> FunctionDescription | None:
        """Return the function at an address, or None."""
        return next((item for item in self.functions if item.bdf == bdf), None)


class BootLog(MachineDescription):
    """A machine as a log tells of it: what was found at some time, not what is there at one time."""

    __slots__ = ()
