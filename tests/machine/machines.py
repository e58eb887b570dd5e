"""Machines for the tests of this folder."""

from quiesce.machine.build import build_machine
from quiesce.machine.machine import Machine
from quiesce.snapshot.text import read_text
from quiesce.world import World

SWITCH = """\
machine switch
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug power-control
01:00.0 switch-up bus=02
02:00.0 switch-down bus=03
02:01.0 switch-down bus=04
03:00.0 nvme
04:00.0 e1000e
00:1f.2 ahci
"""
"""Two endpoints behind a switch behind a port that can switch power."""


def made(text: str = SWITCH, **options: bool) -> Machine:
    """Build a machine from its description."""
    return build_machine(World(), read_text(text, "machine"), **options)
