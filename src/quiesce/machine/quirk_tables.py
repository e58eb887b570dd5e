"""Tables of devices that misbehave, as package data: which ids, what they do, and which kernel knows it since when."""

from __future__ import annotations

import os
from typing import NamedTuple


class Quirk(NamedTuple):
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


def read_quirks(beside: str, name: str) -> tuple[Quirk, ...]:
    """Read a table that lies beside a module; a plain one, in which only the last column may hold a comma."""
    with open(os.path.join(os.path.dirname(beside), name), encoding="ascii") as file:
        lines = file.read().splitlines()
    return tuple(_quirk(*line.split(",", 5)) for line in lines[1:])


def _quirk(change: str, since: str, vendor: str, devices: str, kind: str, subject: str) -> Quirk:
    ranges = (item.partition("-") for item in devices.split())
    found = tuple((int(first, 16), int(last or first, 16)) for first, _, last in ranges)
    return Quirk(change, since, int(vendor, 16), found, kind, subject)


def by_vendor(quirks: tuple[Quirk, ...]) -> dict[int, tuple[Quirk, ...]]:
    """Return the entries of each vendor, in the order of the table."""
    vendors = {quirk.vendor for quirk in quirks}
    return {vendor: tuple(quirk for quirk in quirks if quirk.vendor == vendor) for vendor in vendors}


DMA_ALIAS_QUIRKS = read_quirks(__file__, "dma_alias_quirks.csv")
"""Devices that send their DMA under another requester id than their own."""
DMA_ALIAS_QUIRKS_OF = by_vendor(DMA_ALIAS_QUIRKS)
"""The same by vendor."""
