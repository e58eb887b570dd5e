"""The parts of a hand-over plan, as plain data. Addresses are written ``0000:01:00.0``."""

from __future__ import annotations

from dataclasses import dataclass, field

YES, NO, UNKNOWN = "yes", "no", "unknown"
"""Answers about a machine that is known from a snapshot."""

POSSIBLE, CONDITIONAL, REFUSED = "possible", "possible with conditions", "refused"

BIND, RELEASE, STAYS = "bind", "release", "stays"
"""What is done with a member of the group: bound to the new driver, freed of its own, or left as it is."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a plan is refused, or a condition on it."""

    code: str
    """A stable word for scripts."""
    text: str
    functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One function of the group, and what is done with it."""

    bdf: str
    what: str
    """Class, ids and name in words."""
    driver: str | None
    """The driver that has it; "" when it is known to have none, None when the source does not say."""
    blocks: str
    """Whether that driver keeps the group from user space: YES, NO or UNKNOWN."""
    action: str
    why: str
    reserved: tuple[tuple[int, int], ...] = ()
    """First and last address of memory that firmware wants mapped one to one for it."""


@dataclass(frozen=True, slots=True)
class Interrupts:
    """How the device interrupts and what stands in the way."""

    pin: int | None
    """1 for INTA# to 4 for INTD#, 0 for none, None when the source does not say."""
    root: str
    """Where the pin ends: slot and pin on the root bus, such as ``00:1c INTB``; "" without one."""
    input: int | None
    """IO-APIC input, when the routing is known."""
    number: int | None
    """What the source has as the number of its pin's interrupt."""
    number_is: str
    """``irq`` when that is the running kernel's, ``line`` when it is what firmware put into the line register."""
    shared_wire: tuple[str, ...]
    """Functions whose pins end in the same place, whatever firmware does."""
    shared_number: tuple[str, ...]
    """Other functions with the same number of the same sort."""
    disable: str
    """Whether INTx can be masked at the device (DisINTx)."""
    disable_why: str
    hidden: str
    """Why vfio-pci offers no INTx at all; "" when it does."""
    msi: int | None
    """Vectors of MSI; 0 without the capability, None when that is unknown."""
    msix: int | None
    remapping: str
    remapping_why: str


@dataclass(frozen=True, slots=True)
class ResetMethod:
    """One method in the kernel's order."""

    name: str
    there: str
    why: str


@dataclass(frozen=True, slots=True)
class Resets:
    """How the device is brought back to a known state."""

    methods: tuple[ResetMethod, ...]
    works: str
    """Whether a single function can be reset."""
    first: str
    """The method that runs, as far as known; "" for none."""
    bus_mates: tuple[str, ...]
    """Other functions that a bus reset would reset too."""
    hot_reset: str
    """Whether the whole bus can be reset by a user that holds all of it."""
    running: str
    """What the running kernel says in ``reset_method``; "" when the source does not have it."""


@dataclass(frozen=True, slots=True)
class Power:
    """Power states and virtual functions."""

    state: str
    """``D0`` to ``D3hot`` when the snapshot was taken; "" when unknown."""
    d3hot: str
    """Whether the device can be put to sleep while nobody uses it."""
    keeps_state: str
    """Whether it keeps its registers in D3hot (NoSoftRst)."""
    d3cold: str
    """Whether the running kernel may switch its power off (``d3cold_allowed``)."""
    port: str
    """The bridge above, which decides on D3cold with the firmware; "" on the root bus."""
    enabled_vfs: int
    physical: str
    """Of a virtual function, its physical one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One shell command."""

    command: str
    what: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """A rule that some life of the device breaks on this kernel."""

    rule: str
    why: str
    life: tuple[str, ...]
    """The shortest life found; what came before the search is in ``Search.before``."""
    fixed_by: tuple[str, ...]
    """Changes that cure exactly this life, by id, subject and release."""
    case: str
    """A shipped case about the same rule and driver."""


@dataclass(frozen=True, slots=True)
class Search:
    """What the search over lives on this machine gave."""

    ran: bool
    reason: str
    """Why it did not run, or what it could not include."""
    drivers: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    bound: str = ""
    depth: int = 0
    states: int = 0
    seconds: float = 0.0
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alternative:
    """The plan for one group that the device may be in."""

    members: tuple[Member, ...]
    assumes: tuple[str, ...]
    """What is taken for granted, where the source leaves the group open."""
    refusals: tuple[Reason, ...]
    conditions: tuple[Reason, ...]
    steps: tuple[Step, ...]
    back: tuple[Step, ...]

    @property
    def verdict(self) -> str:
        """POSSIBLE, CONDITIONAL or REFUSED."""
        return REFUSED if self.refusals else CONDITIONAL if self.conditions else POSSIBLE


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer."""

    device: str
    to: str
    kernel: str
    iommu: str | None
    what: str
    verdict: str
    refusals: tuple[Reason, ...]
    """Reasons that hold in every alternative."""
    alternatives: tuple[Alternative, ...] = ()
    missing: str = ""
    """What the source would have to tell to decide the group."""
    interrupts: Interrupts | None = None
    resets: Resets | None = None
    power: Power | None = None
    persist: tuple[Step, ...] = ()
    guest: tuple[Step, ...] = ()
    back_warnings: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    """What no listing can tell and the operator has to look at."""
    search: Search = field(default_factory=lambda: Search(False, "not asked for"))
    notes: tuple[str, ...] = ()
