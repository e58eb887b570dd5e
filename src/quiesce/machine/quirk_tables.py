"""Tables of devices that misbehave, as package data: which ids, what they do, and which kernel knows it since when."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pkgutil import get_data


@dataclass(frozen=True, slots=True)
class Quirk:
    """One entry: some devices of one vendor, and the change with which the kernel learnt about them."""

    change: str
    since: str
    """First release in whose tree the entry was seen; in the release before that was looked at, it was absent."""
    vendor: int
    devices: tuple[tuple[int, int], ...]
    """First and last device id of each range."""
    kind: str
    subject: str

    def covers(self, vendor: int, device: int) -> bool:
        """Whether the entry is about this device."""
        if vendor == self.vendor:
            for first, last in self.devices:
                if first <= device <= last:
                    return True
        return False


def read_quirks(package: str, name: str) -> tuple[Quirk, ...]:
    """Read a table that lies beside the modules of ``package``."""
    data = get_data(package, name)
    assert data is not None
    return tuple(_quirk(row) for row in csv.DictReader(data.decode("ascii").splitlines()))


def _quirk(row: dict[str, str]) -> Quirk:
    ranges = (item.partition("-") for item in row["devices"].split())
    devices = tuple((int(first, 16), int(last or first, 16)) for first, _, last in ranges)
    return Quirk(row["change"], row["since"], int(row["vendor"], 16), devices, row["quirk"], row["subject"])


def by_vendor(quirks: tuple[Quirk, ...]) -> dict[int, tuple[Quirk, ...]]:
    """Return the entries of each vendor, in the order of the table."""
    vendors = {quirk.vendor for quirk in quirks}
    return {vendor: tuple(quirk for quirk in quirks if quirk.vendor == vendor) for vendor in vendors}


DMA_ALIAS_QUIRKS = read_quirks("quiesce.machine", "dma_alias_quirks.csv")
"""Devices that send their DMA under another requester id than their own."""
DMA_ALIAS_QUIRKS_OF = by_vendor(DMA_ALIAS_QUIRKS)
"""The same by vendor."""
