"""The table of functions that Proxmox VE prints: ``pvesh get /nodes/NODE/hardware/pci``."""

from __future__ import annotations

import re

from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.lspci_blocks import Found, Sighting

_ROWS_AT_MOST = 20_000
_NUMBER = re.compile(r"0x([0-9a-fA-F]{1,6})")


def read_tables(text: str, found: Found) -> None:
    """Add the functions of such tables to what was found."""
    start = text.find("iommugroup")
    while start >= 0:
        begin, end = text.rfind("\n", 0, start) + 1, text.find("\n", start)
        header = _cells(text[begin : end if end >= 0 else len(text)])
        if {"id", "iommugroup", "class"} <= set(header) and end >= 0:
            _read_rows(
                header, text[end + 1 :].split("\n", _ROWS_AT_MOST)[:_ROWS_AT_MOST], text.count("\n", 0, end) + 2, found
            )
            return
        start = text.find("iommugroup", start + 1)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("\u2502", "|").strip().strip("|").split("|")]


def _read_rows(header: list[str], lines: list[str], number: int, found: Found) -> None:
    for at, line in enumerate(lines):
        if "|" not in line and "\u2502" not in line:
            continue
        row = dict(zip(header, _cells(line), strict=False))
        try:
            bdf = Bdf.parse(row.get("id", ""))
        except ValueError:
            continue
        record = {"Slot": str(bdf)}
        for name, field in (("vendor", "Vendor"), ("device", "Device"), ("class", "Class")):
            match = _NUMBER.fullmatch(row.get(name, ""))
            if match is not None:
                record[field] = match[1].lower().zfill(6 if name == "class" else 4)
        if "Class" in record:
            record["ProgIf"], record["Class"] = record["Class"][4:], record["Class"][:4]
        record["Name"] = f"{row.get('vendor_name', '')} {row.get('device_name', '')}".strip()
        found.sightings.append(Sighting(bdf, number + at, record=record, listing=-1))
        if row.get("iommugroup", "").isdigit():
            found.groups.setdefault(bdf, row["iommugroup"])
