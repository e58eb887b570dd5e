"""What can be fuzzed: for every input format the code that reads it and what there is to begin with.

A target takes bytes, lives in memory alone, and may raise BadInput. It also asks what readers of the result would ask.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import fuzz_seeds as seeds
from quiesce.snapshot import acpi, acpidump
from quiesce.snapshot.acpi_listing import compare_with_listing
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.capabilities.decode import decode
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.dmar import Dmar, ignored_units, mismatched_scope
from quiesce.snapshot.dmesg import read_dmesg
from quiesce.snapshot.iort import Iort
from quiesce.snapshot.ivrs import Ivrs
from quiesce.snapshot.madt import Madt
from quiesce.snapshot.mcfg import Mcfg
from quiesce.snapshot.read import read_text
from quiesce.snapshot.viot import Viot

Target = Callable[[bytes], object]


@dataclass(frozen=True)
class Format:
    """One input format."""

    name: str
    target: Target
    seeds: Callable[[], list[bytes]]
    binary: bool = False
    table: bool = False
    """It is a raw ACPI table: length and checksum are put right after most mutations."""


# -- targets -----------------------------------------------------------------------------------------------------

_DEVICE, _PORT = Bdf.parse("02:00.0"), Bdf.parse("00:1c.0")
_PATH = (_DEVICE, _PORT)


def read_table(data: bytes) -> object:
    """Read a table, list its fields, ask it everything."""
    found = acpi.read_table(data, "table")
    if found is None:
        return None
    count = sum(1 for _ in acpi.fields(data, "table"))
    _ask(found)
    return count


def _ask(found: acpi.Table) -> None:
    if isinstance(found, Dmar):
        found.cover_of(_PATH)
        found.reserved_for(_PATH)
        found.unit_of_acpi("\\_SB.PCI0.I2C0")
        ignored_units(found, [(_PATH, 0x030000)], graphics=False)
        mismatched_scope(found, _PATH, 0, 0x020000)
    elif isinstance(found, Ivrs):
        found.unit_of(0x100)
        found.alias_of(0x100)
        found.last_bdf()
        found.reserved_for(0x100)
        found.special("ioapic")
    elif isinstance(found, Iort):
        found.smmu_of(0x100)
        found.its_of(0x100)
        for node in found.nodes[:4]:
            found.smmu_of_acpi(node.name)
            found.reserved_for(node, 0)
    elif isinstance(found, Viot):
        found.iommu_of(0x100)
        found.endpoint_of(0x100)
    elif isinstance(found, Madt):
        found.io_apics, found.overrides, found.its, found.processors  # noqa: B018
    elif isinstance(found, Mcfg):
        found.window_of(0, 1)


def read_acpidump(data: bytes) -> object:
    """Read a file of tables and each table."""
    found = acpidump.read_acpi(data, "dump")
    for tables in found.tables.values():
        for table in tables[:4]:
            read_table(table)
    return found


def read_listing(data: bytes) -> object:
    """Compare a listing with a table."""
    return compare_with_listing(seeds.table_of_a_recording(), data.decode("latin-1"))


def read_machine_text(data: bytes) -> object:
    """Read a machine from text of whatever format it is, and decode its functions."""
    found = read_text(data.decode("utf-8", "replace"), "text", "text")
    for item in found.functions[:8]:
        decode(item)
    return found


def read_log(data: bytes) -> object:
    """Read a boot log."""
    return read_dmesg(data.decode("utf-8", "replace"), "log", "log")


def decode_config(data: bytes) -> object:
    """Decode configuration space; the second half is the mask of what is known, when there is one."""
    size = 4096 if len(data) > 4096 else 256 if len(data) > 256 else 64
    config, known = data[:size].ljust(size, b"\0"), data[size : 2 * size]
    return decode(FunctionDescription(_DEVICE, config, known=known.ljust(size, b"\0") if known else None))


def predict_groups(data: bytes) -> object:
    """Read a machine from text and predict its groups, with every kind of IOMMU."""
    predict, kernel = _attribute("quiesce.groups.predict", "predict"), _attribute("quiesce.kernel.kernelset", "kernel")
    found = read_text(data.decode("utf-8", "replace"), "text", "text")
    return [predict(found, kernel("v6.12"), iommu=kind) for kind in (None, "intel", "amd")]


def read_any_file(data: bytes) -> object:
    """Read a file of whatever kind, as from a folder or an archive."""
    found = _attribute("quiesce.snapshot.contents", "Contents")()
    _attribute("quiesce.snapshot.read", "read_data")(found, data, "file", "file")
    return found


def read_case(data: bytes) -> object:
    """Read a case."""
    return _attribute("quiesce.cases.case", "parse_case")(data.decode("utf-8", "replace"), "case")


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


# -- all of them -------------------------------------------------------------------------------------------------


def formats() -> dict[str, Format]:
    """Return every format that can be read here, by name."""
    found = [
        *(
            Format(name.lower(), read_table, partial(seeds.tables, name), binary=True, table=True)
            for name in sorted(acpi.READERS)
        ),
        Format("acpidump", read_acpidump, seeds.dumps),
        Format("listing", read_listing, seeds.listings),
        Format("lspci", read_machine_text, seeds.verbose),
        Format("hex", read_machine_text, seeds.hex_dumps),
        Format("recording", read_machine_text, seeds.small_recordings),
        Format("description", read_machine_text, seeds.descriptions),
        Format("config", decode_config, seeds.configs, binary=True),
        Format("groups", predict_groups, seeds.machines),
        Format("case", read_case, seeds.cases),
        Format("dmesg", read_log, seeds.logs),
        Format("archive", read_any_file, seeds.archives, binary=True),
        Format("file", read_any_file, seeds.files, binary=True),
    ]
    return {item.name: item for item in found}
