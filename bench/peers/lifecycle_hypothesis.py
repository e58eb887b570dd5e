"""The life of one SATA function between ahci and vfio-pci, as a stateful test of hypothesis.

The peer of the shipped case managed-outlives-driver and the same model as lifecycle.pml beside it. Prints one JSON
line: whether an example was found, how many events it has, and how many examples were tried.

    python lifecycle_hypothesis.py [--fixed] [--seed N] [--examples N] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

FAULTS = 1
"""How many allocations may fail in one life."""


class SleepInAtomic(AssertionError):
    """An allocation that may sleep was made under a spinlock."""


class Life(RuleBasedStateMachine):
    """One device, two drivers."""

    fixed = False
    lives = 0
    events: list[str]
    """The events of the life that failed last: after shrinking, the smallest one."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = ""
        self.is_managed = self.msi = self.disintx = self.record = False
        self.opened = self.intx = self.masked = self.irqlock = False
        self.faults = FAULTS
        self.done: list[str] = []
        Life.lives += 1

    def alloc(self, fails: bool) -> bool:
        """Model of kmalloc(GFP_KERNEL): may sleep, may fail."""
        if self.irqlock:
            Life.events = self.done
            raise SleepInAtomic
        if fails and self.faults:
            self.faults -= 1
            return False
        return True

    def pci_intx(self, on: bool, fails: bool) -> None:
        """drivers/pci/pci.c, v6.11-rc7: managed only if the bit changes."""
        if self.disintx != on:
            return
        if self.is_managed and not self.record:
            if not self.alloc(fails):
                return
            self.record = True
        self.disintx = not on

    @rule(fails=st.booleans(), no_msi=st.booleans(), no_record=st.booleans())
    @precondition(lambda self: not self.driver)
    def bind_ahci(self, fails: bool, no_msi: bool, no_record: bool) -> None:
        """Bind ahci, which is managed and prefers MSI."""
        self.done.append("bind ahci")
        if not self.alloc(fails):
            return
        self.driver, self.is_managed, self.disintx = "ahci", True, False
        self.msi = self.alloc(no_msi)
        self.pci_intx(not self.msi, no_record)

    @rule(fails=st.booleans())
    @precondition(lambda self: not self.driver)
    def bind_vfio(self, fails: bool) -> None:
        """Bind vfio-pci, which is not managed."""
        self.done.append("bind vfio-pci")
        if self.alloc(fails):
            self.driver = "vfio-pci"

    @rule()
    @precondition(lambda self: self.driver and not self.opened)
    def unbind(self) -> None:
        """Unbind; devres gives back what ahci took."""
        self.done.append("unbind")
        if self.driver == "ahci":
            if self.record:
                self.record = self.disintx = False
            self.msi = False
            if self.fixed:
                self.is_managed = False
        self.driver = ""

    @rule()
    @precondition(lambda self: self.driver == "vfio-pci" and not self.opened)
    def vfio_open(self) -> None:
        """Open the device file."""
        self.done.append("vfio-open")
        self.opened, self.disintx = True, False

    @rule()
    @precondition(lambda self: self.opened)
    def vfio_close(self) -> None:
        """Close it; COMMAND is set to INTX_DISABLE."""
        self.done.append("vfio-close")
        self.opened = self.intx = self.masked = False
        self.disintx = True

    @rule(fails=st.booleans(), no_record=st.booleans())
    @precondition(lambda self: self.opened and not self.intx)
    def vfio_intx_on(self, fails: bool, no_record: bool) -> None:
        """Forward the device's INTx to the guest."""
        self.done.append("vfio-intx-on")
        if self.alloc(fails):
            self.masked = False
            self.pci_intx(True, no_record)
            self.intx = True

    @rule()
    @precondition(lambda self: self.intx)
    def vfio_intx_off(self) -> None:
        """Stop forwarding."""
        self.done.append("vfio-intx-off")
        self.intx = self.masked = False

    @rule(no_record=st.booleans())
    @precondition(lambda self: self.intx and not self.masked)
    def vfio_intx_mask(self, no_record: bool) -> None:
        """The guest masks its interrupt: pci_intx() under the interrupt lock."""
        self.done.append("vfio-intx-mask")
        self.irqlock = True
        self.pci_intx(False, no_record)
        self.masked, self.irqlock = True, False

    @rule()
    @precondition(lambda self: self.intx and self.masked)
    def vfio_intx_unmask(self) -> None:
        """The guest unmasks it."""
        self.done.append("vfio-intx-unmask")
        self.disintx = self.masked = False

    @rule()
    @precondition(lambda self: self.intx and not self.masked and not self.disintx)
    def interrupt(self) -> None:
        """The device interrupts; the handler masks it."""
        self.done.append("interrupt")
        self.disintx = self.masked = True


def search(fixed: bool, number: int, examples: int, steps: int) -> dict[str, Any]:
    """Let hypothesis look for a life that goes wrong, and shrink it."""
    Life.fixed = fixed
    Life.events = []
    found = False
    begin = time.monotonic()
    machine = seed(number)(type("SeededLife", (Life,), {}))
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.target, Phase.shrink),
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )
    except SleepInAtomic:
        found = True
    return {
        "peer": "hypothesis",
        "fixed": fixed,
        "seed": number,
        "found": found,
        "steps": len(Life.events),
        "events": Life.events,
        "lives": Life.lives,
        "seconds": time.monotonic() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Search one small lifecycle with hypothesis.")
    parser.add_argument("--fixed", action="store_true", help="with fc8c818e7569: is_managed is cleared at unbind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=20_000, help="lives to try at most")
    parser.add_argument("--steps", type=int, default=50, help="events in a life at most")
    args = parser.parse_args()
    print(json.dumps(search(args.fixed, args.seed, args.examples, args.steps)))


if __name__ == "__main__":
    main()
