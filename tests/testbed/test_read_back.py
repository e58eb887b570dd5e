"""What is read back from a guest, and how it is compared with the description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import pytest

from quiesce.cases.scenario import find_machine
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.read import read_text
from quiesce.testbed.errors import Skipped
from quiesce.testbed.read_back import check, measured, mend, read_back
from quiesce.testbed.topology import qemu_machine

NAME = "flat-root-bus--612--amd"


class Recorded:
    """A guest that shows what a recording has, and remembers the scripts it was given."""

    def __init__(self, name: str, status: int = 0) -> None:
        self.data = json.loads((resources.files("quiesce.cases") / "machines" / f"{name}.json").read_text())
        self.scripts: list[str] = []
        self.status = status

    def snapshot(self, only: str = "") -> Mapping[str, Any]:
        return {"dev": self.data["devices"], "group": self.data["groups"], "irq": {}}

    def shell(self, script: str, timeout: float = 1.0) -> tuple[int, str]:
        self.scripts.append(script)
        table = next((text for name, text in self.data["acpi"].items() if f"tables/{name} " in script), "")
        return self.status, table + "\n"


def test_a_guest_reads_back_as_its_recording() -> None:
    description = find_machine(NAME)
    found = read_back(Recorded(NAME), qemu_machine(description))
    assert [(item.bdf, item.config) for item in found.functions] == [
        (item.bdf, item.config) for item in description.functions
    ]
    assert (found.ivrs, found.dmar) == (description.ivrs, None)
    assert found.recorded_groups == description.recorded_groups
    assert found.recorded_ungrouped == description.recorded_ungrouped
    assert check(description, qemu_machine(description), found) == []


def test_differences_name_the_function_and_what_differs() -> None:
    described = read_text(
        "machine other\n00:00.0 host-bridge\n00:04.0 edu msi=4\n00:05.0 e1000 pin=B\n00:0a.0 edu\n"
        "00:1f.0 isa-bridge\n00:1f.2 ahci\niommu amd 00:01.0\n",
        "test",
    )
    machine = qemu_machine(described)
    found = read_back(Recorded(NAME), machine)
    said = check(described, machine, found)
    assert "0000:00:04.0: msi 1 instead of 4" in said
    assert "0000:00:05.0: pin A instead of B" in said
    assert "0000:00:0a.0: not there" in said
    assert "0000:00:09.0: there, though not described" in said
    assert "0000:00:01.0: id 1022:0008 instead of 1022:1419" in said
    assert set(machine.differences) < set(measured(described, machine, found).differences)


def headers(description: MachineDescription, *addresses: str) -> dict[str, str]:
    functions = {bdf: description.function(Bdf.parse(bdf)) for bdf in addresses}
    return {bdf: function.config[:64].hex() for bdf, function in functions.items() if function is not None}


def test_nothing_is_asked_of_a_guest_without_blank_devices() -> None:
    guest = Recorded(NAME)
    mend(guest, {})
    assert guest.scripts == []


def test_mending_writes_addresses_before_decoding() -> None:
    description = find_machine(NAME)
    guest = Recorded(NAME)
    mend(guest, headers(description, "0000:00:04.0"))
    (script,) = guest.scripts
    writes = [line for line in script.splitlines() if "0000:00:04.0/config" in line]
    assert [line.partition("seek=")[2].split()[0] for line in writes] == ["16", "60", "4"]


def test_a_device_that_cannot_be_mended_is_said() -> None:
    description = find_machine(NAME)
    with pytest.raises(Skipped, match="did not take"):
        mend(Recorded(NAME, status=1), headers(description, "0000:00:04.0"))
