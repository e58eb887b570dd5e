"""The running kernel: its set of changes, its context, what it prints, and the one door for choices.

Every modelled kernel function takes a Kernel first. It keeps no state of the model itself: what lasts beyond one
event lives in the World; the context below is empty between events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from quiesce.kernel.changes import Change, KernelSet
from quiesce.kernel.objects import BusSlot, PciDev, System
from quiesce.kernel.parameters import Parameters
from quiesce.machine.machine import Machine
from quiesce.snapshot.bdf import Bdf
from quiesce.world import World

if TYPE_CHECKING:
    from quiesce.kernel.driver import PciDriver

IRQ_NONE = "IRQ_NONE"
IRQ_HANDLED = "IRQ_HANDLED"

IrqHandler = Callable[["Kernel", int, Any], str]
"""``handler(kernel, irq, dev_id)`` returns IRQ_NONE or IRQ_HANDLED."""


class Gfp(Enum):
    """Allocation flags that matter here."""

    KERNEL = "GFP_KERNEL"
    ATOMIC = "GFP_ATOMIC"


@dataclass(frozen=True, slots=True)
class Message:
    """A line the real kernel would print."""

    level: str
    """``info``, ``warn``, ``err``, ``WARN`` (with a stack trace) or ``BUG``."""
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule was broken: where, and why in one sentence."""

    rule: str
    why: str
    function: str = ""


class Crash(Exception):
    """The modelled kernel cannot go on: oops, BUG or hang. Ends the life that the search follows."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.rule}: {finding.why}")
        self.finding = finding


class Blocked(Exception):
    """The operation waits for something that only another event can bring; it takes no effect until then."""


@dataclass
class Kernel:
    """One kernel on one machine."""

    world: World
    machine: Machine
    changes: KernelSet
    drivers: dict[str, PciDriver] = field(default_factory=dict)
    """Driver models that exist in this scenario, by name."""
    irq_handlers: dict[str, IrqHandler] = field(default_factory=dict)
    """Interrupt handlers by the key that IrqAction names."""
    nested: Callable[[str], None] | None = None
    """Set by the explorer: may run another operation at the named window."""
    nested_elsewhere: Callable[[str], None] | None = None
    """The same for windows in which only other CPUs go on."""

    outputs: list[Message | Finding] = field(default_factory=list)
    """What the running event printed and which rules it broke."""
    collect: list[Message | Finding] | None = None
    """A list of the caller's to gather the outputs of the next event in."""
    locks: list[str] = field(default_factory=list)
    """Spinlocks held by the running context, innermost last."""
    mutexes: list[str] = field(default_factory=list)
    """Sleeping locks held by the running task (``device_lock 0000:00:1f.2``), innermost last."""
    others: list[str] = field(default_factory=list)
    """Sleeping locks held by tasks that stand still while this one runs inside a window of theirs."""
    hardirq: int = 0
    irqs_off: int = 0
    parameters: Parameters = field(default_factory=Parameters)
    """What the command line says about isolation."""
    alone: bool = False
    """A kernel is starting: there is no other task yet, and nothing can happen at a window."""
    tasks_frozen: bool = False
    """User space stands still for system sleep; in a window only hardware does anything."""

    @property
    def system(self) -> System:
        """State of the machine as a whole."""
        return self._system

    def has(self, change: Change) -> bool:
        """Whether this kernel contains the change."""
        return change in self.changes

    def dev_at(self, bdf: Bdf) -> PciDev | None:
        """Return the device on the bus lists with an address, or None."""
        return BusSlot.get(self.world, f"bus/{bdf}").dev

    def devs_on_bus(self, bdf: Bdf) -> Iterator[PciDev]:
        """Yield the devices on the bus of an address, as the bus list has them."""
        return (dev for dev in self.system.devices if dev.hw.bdf[:2] == bdf[:2])

    def __post_init__(self) -> None:
        self._system = System.get(self.world, "system")
        self._system.lay_out(self.machine.functions.values())

    # -- what it prints --------------------------------------------------------------------------------------

    def printk(self, level: str, text: str) -> None:
        """Print a line."""
        self.outputs.append(Message(level, text))

    def warn(self, text: str, rule: str | None = None, why: str = "", function: str = "") -> None:
        """Print a WARN splat; with ``rule``, it also counts as a violation of that rule."""
        self.printk("WARN", text)
        if rule is not None:
            self.find(rule, why or text, function)

    def find(self, rule: str, why: str, function: str = "") -> None:
        """Record that a rule was broken, and go on."""
        self.outputs.append(Finding(rule, why, function))

    def crash(self, rule: str, text: str, why: str, function: str = "") -> Crash:
        """Print the oops or BUG line ``text`` and return the exception to raise."""
        self.printk("BUG", text)
        return Crash(Finding(rule, why, function))

    # -- context ---------------------------------------------------------------------------------------------

    @contextmanager
    def spinlock(self, name: str) -> Iterator[None]:
        """Hold a spinlock with interrupts off."""
        self.locks.append(name)
        self.irqs_off += 1
        try:
            yield
        finally:
            self.irqs_off -= 1
            self.locks.pop()

    @contextmanager
    def in_hardirq(self) -> Iterator[None]:
        """Run in hard interrupt context."""
        self.hardirq += 1
        self.irqs_off += 1
        try:
            yield
        finally:
            self.irqs_off -= 1
            self.hardirq -= 1

    @contextmanager
    def interrupts_off(self) -> Iterator[None]:
        """Run with interrupts disabled on the CPU."""
        self.irqs_off += 1
        try:
            yield
        finally:
            self.irqs_off -= 1

    @contextmanager
    def freezing(self) -> Iterator[None]:
        """Run with all tasks but the own one frozen."""
        self.tasks_frozen = True
        try:
            yield
        finally:
            self.tasks_frozen = False

    @contextmanager
    def mutex(self, name: str) -> Iterator[None]:
        """Hold a sleeping lock; raises Blocked when another task has it, crashes when this one has it already."""
        self.might_sleep(name)
        if name in self.others:
            raise Blocked(f"waits for {name}")
        if name in self.mutexes:
            raise self.crash("wait/self-deadlock", f"INFO: task blocked on {name}", f"{name} is taken twice")
        self.mutexes.append(name)
        try:
            yield
        finally:
            self.mutexes.pop()

    def might_sleep(self, what: str) -> None:
        """Model of might_sleep(): taking a sleeping lock or GFP_KERNEL memory where nothing may sleep is found."""
        if self.locks or self.hardirq:
            where = f"under {self.locks[-1]}" if self.locks else "in hard interrupt context"
            self.printk("err", "BUG: sleeping function called from invalid context")
            self.find("context/sleep-in-atomic", f"{what} may sleep {where}", what)

    def alloc(self, what: str, gfp: Gfp = Gfp.KERNEL) -> bool:
        """Allocate memory for ``what``; False when the allocation fails, which the search may choose."""
        if gfp is Gfp.KERNEL:
            self.might_sleep(f"{what} ({gfp.value})")
        return not self.may_fail(what)

    # -- choices ---------------------------------------------------------------------------------------------

    def may_fail(self, what: str) -> bool:
        """Whether an operation that can fail does; bounded by ``System.faults_left``."""
        left = self.system.faults_left
        if left == 0 or not self.world.choose(f"{what} fails", (False, True)):
            return False
        self.system.faults_left = left - 1
        return True

    def window(self, where: str, *, other_cpu: bool = False) -> None:
        """Let an interrupt or another task run here, if the search wants that. With ``other_cpu`` also where interrupts
        are off on this one: inside a handler the rest of the machine goes on."""
        hook = self.nested_elsewhere if other_cpu else self.nested
        if hook is not None and not self.alone:
            hook(where)

    def start_event(self) -> None:
        """Forget the context and output of the previous event."""
        self.outputs = [] if self.collect is None else self.collect
        self.locks, self.mutexes, self.others = [], [], []
        self.hardirq = self.irqs_off = 0
        self.tasks_frozen = self.alone = False
