"""A small model that needs no driver: counters that events move, on a machine with nothing but a host bridge."""

from __future__ import annotations

from quiesce.explore.model import Event, Model, NotNow
from quiesce.explore.search import Bounds, Search
from quiesce.kernel.changes import kernel
from quiesce.kernel.kernel import Blocked, Kernel
from quiesce.machine.build import build_machine
from quiesce.rules import Invariant
from quiesce.snapshot.text import read_text
from quiesce.world import Field, State, World


class Counter(State):
    """A number that may go to 3."""

    value: Field[int] = Field(0)


def counter(k: Kernel, name: str) -> Counter:
    return Counter.get(k.world, f"counter/{name}")


def up(k: Kernel, name: str) -> int:
    one = counter(k, name)
    if one.value == 3:
        raise NotNow
    k.window("before the step")
    one.value += 1
    return one.value


def down(k: Kernel, name: str) -> None:
    one = counter(k, name)
    if one.value == 0:
        raise Blocked("somebody to count up")
    if k.may_fail("step down"):
        k.printk("err", "step down failed")
        return
    one.value -= 1


def burst(k: Kernel) -> None:
    total = counter(k, "a").value + counter(k, "b").value
    if total == 5:
        raise k.crash("memory/refcount", "BUG: five", "the counters add up to five", "burst")
    if total == 4:
        k.find("leak/regions", "the counters add up to four", "burst")


def toy_model(windows: int = 0, faults: int = 0) -> Model:
    world = World()
    machine = build_machine(world, read_text("machine toy\n00:00.0 host-bridge", "toy"))
    k = Kernel(world, machine, kernel("v6.12"))
    k.system.phase = "running"
    k.system.windows_left, k.system.faults_left = windows, faults
    world.forget()
    events = [
        Event("up a", lambda k: up(k, "a"), nestable=True),
        Event("up b", lambda k: up(k, "b"), nestable=True),
        Event("down a", lambda k: down(k, "a")),
        Event("burst", burst),
    ]
    return Model(k, events)


def sixes(k: Kernel) -> list[str]:
    return ["six"] if counter(k, "a").value + counter(k, "b").value == 6 else []


def toy_search(depth: int = 8, first_only: bool = False, windows: int = 0, faults: int = 0) -> Search:
    return Search(
        toy_model(windows, faults),
        lambda rule: True,
        [Invariant("dma/six", sixes)],
        Bounds(depth=depth),
        first_only=first_only,
    )
