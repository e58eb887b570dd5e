"""The machine that a guest turned out to be, as a description: what the model is then run on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.qemu_recording import read_recording
from quiesce.testbed.errors import Skipped
from quiesce.testbed.shape import differences, shape_of
from quiesce.testbed.topology import QemuMachine
from quiesce.testbed.tree import tree_of

_TABLES = ("DMAR", "IVRS", "MCFG")
_SYSFS = "/sys/bus/pci/devices"
_KEPT = ("vendor", "device", "class", "irq", "config")
_BLANKED = ((r.PCI_BASE_ADDRESS_0, 24), (r.PCI_INTERRUPT_LINE, 1), (r.PCI_COMMAND, 2))
"""What a device needs back after it was blanked: BARs and the interrupt line before decoding is switched on."""


class Shell(Protocol):
    """What of a guest is needed here."""

    def snapshot(self, only: str = "") -> Mapping[str, Any]:
        """All PCI state as the agent gives it."""

    def shell(self, script: str, timeout: float = ...) -> tuple[int, str]:
        """Run a script in the guest."""


def read_back(guest: Shell, machine: QemuMachine) -> MachineDescription:
    """Return the guest's functions, tables and groups, by the reader of recordings."""
    text = recording(guest.snapshot(), tables_in(guest), machine.name)
    return read_recording(text, f"guest of {machine.name}")


def recording(snapshot: Mapping[str, Any], tables: Mapping[str, str], name: str, **more: object) -> str:
    """Return what an agent showed in the layout of the recordings that come with quiesce."""
    devices = {bdf: _kept(item) for bdf, item in snapshot["dev"].items()}
    groups = {number: {"type": item["type"], "devices": item["devices"]} for number, item in snapshot["group"].items()}
    members = {bdf for item in groups.values() for bdf in item["devices"]}
    ungrouped = sorted(bdf for bdf in devices if bdf not in members)
    data = {"name": name, **more, "devices": devices, "groups": groups, "ungrouped": ungrouped, "acpi": dict(tables)}
    return json.dumps(data, indent=1)


def _kept(item: Mapping[str, Any]) -> dict[str, Any]:
    """What no driver has touched is as firmware left it, bus mastering too."""
    kept = {key: item[key] for key in _KEPT if key in item}
    return kept if item.get("driver") else kept | {"master": "firmware"}


def tables_in(guest: Shell) -> dict[str, str]:
    """Return the guest's IOMMU tables in base64, those that replaced the firmware's where there are such."""
    found = {}
    for name in _TABLES:
        _, text = guest.shell(f"base64 /sys/firmware/acpi/tables/{name} 2>/dev/null | tr -d '\\n'")
        if text.strip():
            found[name] = text.strip()
    return found


def check(description: MachineDescription, machine: QemuMachine, found: MachineDescription) -> list[str]:
    """Say in what a guest is not as described: functions that are missing or more, ids, capabilities, interrupts."""
    said: list[str] = []
    tree = tree_of(description)
    expected = set()
    for bdf, function in tree.functions.items():
        there = machine.at.get(str(bdf))
        if there is None or not function.present:
            continue
        expected.add(there)
        real = found.function(Bdf.parse(there))
        if real is None:
            said.append(f"{bdf}: not there")
        else:
            said += [f"{bdf}: {what}" for what in differences(shape_of(function), shape_of(real))]
    extra = (item.bdf for item in found.functions if str(item.bdf) not in expected | set(machine.at.values()))
    return said + [f"{bdf}: there, though not described" for bdf in extra]


def measured(description: MachineDescription, machine: QemuMachine, found: MachineDescription) -> QemuMachine:
    """Return the machine with the differences that only a boot shows added."""
    new = (said for said in check(description, machine, found) if not said.endswith("though not described"))
    return replace(machine, differences=(*machine.differences, *new))


def mend(guest: Shell, before: Mapping[str, str]) -> None:
    """Give devices that came blank out of a snapshot their addresses back, as they were in ``before``: their headers
    in hex, which must have been read while no driver held them. Raises Skipped when a device does not take them.
    """
    lines = []
    for address, header in before.items():
        config = bytes.fromhex(header)
        lines += [_write(address, at, config[at : at + size]) for at, size in _BLANKED]
    status, text = guest.shell("\n".join(["set -e", *lines])) if lines else (0, "")
    if status:
        raise Skipped(f"a restored device did not take its addresses back: {text.strip()[-200:]}")


def _write(address: str, at: int, data: bytes) -> str:
    octal = "".join(f"\\{byte:03o}" for byte in data)
    return f"printf '{octal}' | dd of={_SYSFS}/{address}/config bs=1 seek={at} conv=notrunc 2>/dev/null"
