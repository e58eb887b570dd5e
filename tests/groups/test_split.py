"""Units with too many open questions (groups/split.py)."""

from __future__ import annotations

from dataclasses import replace

from quiesce.groups.agree import allowed
from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.read import read_text

PORTS = range(14)


def switch(acs: str) -> MachineDescription:
    """A switch with many ports, each with a device of two functions; ``acs`` on every other port."""
    lines = ["machine switch", "00:00.0 host-bridge", "00:01.0 root-port bus=01 acs", "01:00.0 switch-up bus=02"]
    for number in PORTS:
        lines.append(f"02:{number:02x}.0 switch-down bus={number + 3:02x} {acs if number % 2 else 'no-acs'}")
        lines += [f"{number + 3:02x}:00.{function} nvme multifunction" for function in (0, 1)]
    return read_text("\n".join([*lines, "iommu intel", ""]), "switch")


def cut(description: MachineDescription) -> MachineDescription:
    """Keep what is there without extended configuration space: whether anything has ACS is open."""
    items = tuple(replace(item, config=item.config[:256]) for item in description.functions)
    return replace(description, functions=items)


def test_every_part_is_listed_in_full() -> None:
    found = predict(cut(switch("acs")), kernel("v6.12"))
    assert len(found.undecided) == len(PORTS) + 2
    assert all(item.complete for item in found.undecided)
    assert ("0000:00:01.0",) not in found.groups
    assert found.functions == {str(item.bdf) for item in switch("acs").functions}


def test_what_is_true_of_the_whole_machine_stays_possible() -> None:
    for acs in ("acs", "no-acs"):
        truth, found = predict(switch(acs), kernel("v6.12")), predict(cut(switch(acs)), kernel("v6.12"))
        assert truth.undecided == ()
        assert all(allowed(found, group) for group in truth.groups)


def test_what_cannot_be_is_ruled_out() -> None:
    """The two functions of a slot may be together or apart, but not one of them with the port and the other not."""
    found = predict(cut(switch("acs")), kernel("v6.12"))
    assert allowed(found, ["0000:03:00.0", "0000:03:00.1"])
    assert allowed(found, ["0000:03:00.0"])
    assert not allowed(found, ["0000:02:00.0", "0000:03:00.0"])
    assert not allowed(found, ["0000:00:00.0", "0000:00:01.0"])


def test_few_questions_are_answered_together() -> None:
    small = read_text("machine m\n00:01.0 root-port bus=01 acs\n01:00.0 nvme\niommu intel\n", "m")
    assert len(predict(cut(small), kernel("v6.12")).undecided) == 1
