"""A described machine whose functions have drivers, and plans on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.plan.make import make_plan
from quiesce.plan.model import Plan
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.read import read_text

SMALL = """machine small
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
00:02.0 root-port bus=02
00:1d.0 pcie-to-pci bus=03
00:1f.0 isa-bridge multifunction
00:1f.2 ahci
00:1f.3 smbus
01:00.0 nvme
02:00.0 display
02:00.1 audio
03:01.0 e1000
03:02.0 e1000
"""
INTEL = SMALL + "iommu intel\n"
AMD = SMALL + "iommu amd\n"
DRIVERS = {
    "0000:00:01.0": "pcieport",
    "0000:00:02.0": "pcieport",
    "0000:00:1f.0": "lpc_ich",
    "0000:00:1f.2": "ahci",
    "0000:00:1f.3": "i801_smbus",
    "0000:01:00.0": "nvme",
    "0000:02:00.0": "nouveau",
    "0000:02:00.1": "snd_hda_intel",
    "0000:03:01.0": "e1000",
    "0000:03:02.0": "e1000",
}


def machine(text: str = INTEL, drivers: Mapping[str, str] = DRIVERS) -> MachineDescription:
    found = read_text(text, "machine")
    held = (
        replace(item, attributes={**item.attributes, "driver": drivers[str(item.bdf)]})
        if str(item.bdf) in drivers
        else item
        for item in found.functions
    )
    return replace(found, functions=tuple(held))


def plan(device: str, text: str = INTEL, release: str = "v6.12", drivers: Mapping[str, str] = DRIVERS) -> Plan:
    return plan_of(machine(text, drivers), device, release)


def plan_of(description: MachineDescription, device: str, release: str = "v6.12") -> Plan:
    name = kernel(release)
    return make_plan(
        description, name, predict(description, name), f"0000:{device}" if device.count(":") == 1 else device
    )


def codes(found: Plan) -> list[str]:
    """All reasons of a refusal."""
    return [
        reason.code for reason in (*found.refusals, *(one for group in found.alternatives for one in group.refusals))
    ]


def conditions(found: Plan) -> list[str]:
    return [reason.code for group in found.alternatives for reason in group.conditions]


def actions(found: Plan) -> dict[str, str]:
    return {item.bdf[5:]: item.action for group in found.alternatives for item in group.members}
