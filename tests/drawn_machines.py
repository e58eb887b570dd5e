"""Machines for the tests of pictures."""

from __future__ import annotations

import re
from dataclasses import replace

from quiesce.groups.conditions import Conditions
from quiesce.kernel.changes import kernel
from quiesce.report.picture_facts import Picture, gather
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.read import read_text

SERVER = """
machine server
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
01:00.0 igb multifunction
01:00.1 igb
00:02.0 root-port bus=02-05 no-acs
02:00.0 switch-up bus=03-05
03:00.0 switch-down bus=04 acs
04:00.0 nvme
03:01.0 switch-down bus=05 acs
00:1e.0 pci-bridge bus=06
06:00.0 e1000
00:1f.0 isa-bridge
00:1f.2 ahci
iommu intel
unit 00:1f.2
"""
HOSTILE = "</text><script>alert(1)</script>\"'&\x00\x1b]]>"
LISTING = """
00:00.0 Host bridge: A host bridge
00:01.0 PCI bridge: A root port (rev 04) (prog-if 00 [Normal decode])
\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0
01:00.0 Ethernet controller: A card
01:00.1 Ethernet controller: A card
"""


def uncore(slots: int, *, bus: int = 0x7F) -> str:
    """Return the lines of a bus full of single functions that nobody looks for."""
    return "".join(f"{bus:02x}:{slot:02x}.0 conventional class=088000\n" for slot in range(slots))


def described(text: str, name: str | None = None) -> MachineDescription:
    found = read_text(text, "test")
    return found if name is None else replace(found, name=name)


def picture_of(description: MachineDescription, release: str = "v6.12", iommu: str = "intel") -> Picture:
    tabled = description.dmar is not None or description.ivrs is not None
    return gather(description, Conditions(kernel(release), iommu=None if tabled else iommu))


def drawn(text: str = SERVER, release: str = "v6.12", iommu: str = "intel") -> Picture:
    return picture_of(described(text), release, iommu)


def hostile() -> Picture:
    description = described(SERVER, HOSTILE)
    functions = (replace(item, attributes={"name": HOSTILE, "driver": HOSTILE}) for item in description.functions)
    return picture_of(replace(description, functions=tuple(functions), notes=(HOSTILE,)))


def references(text: str) -> set[str]:
    """Return everything that could leave the file."""
    found = set(re.findall(r"""(?:href|src)\s*=\s*["']?[^\s"'>]+|@import|https?:[^\s"'<]+|url\([^)]*\)""", text))
    return found - {"http://www.w3.org/2000/svg", "url(#hatch)"}
