"""Which ids a function may have when the snapshot shows none, as far as quirk tables make a difference."""

from __future__ import annotations

from quiesce.groups.knowledge import Knowledge, u16
from quiesce.kernel.acs_table import ACS_QUIRKS
from quiesce.machine import pci_regs as r
from quiesce.machine.quirk_tables import Quirk
from quiesce.snapshot.description import FunctionDescription

Ids = tuple[int, int]

_NOBODY = 0x0001
"""A vendor id and a device id that no table names."""
_PORT_KINDS = ("root_port_ids", "root_ports_only", "intel_pch", "intel_spt", "ports_only")
_NETWORK = 0x02
_NETWORK_VENDORS = (0x1924, 0x8086, 0x19A2, 0x10DF, 0x14E4, 0x8088)
"""Vendors whose endpoints in the tables are all network controllers."""
_SOUTHBRIDGE = {
    (0x1002, 0x4383): 0x0403,
    (0x1002, 0x4384): 0x0604,
    (0x1002, 0x4385): 0x0C05,
    (0x1002, 0x4399): 0x0C03,
    (0x1002, 0x439C): 0x0101,
    (0x1002, 0x439D): 0x0601,
    (0x1022, 0x7809): 0x0C03,
    (0x1022, 0x780F): 0x0604,
}
"""Class codes of the functions of AMD southbridges that the tables name."""


def possible_ids(knows: Knowledge, item: FunctionDescription) -> list[tuple[Ids, str]]:
    """Return ids to try, with words: some that no table names, and one chip of each kind of entry that fits what is
    known of vendor and class.
    """
    vendor = u16(item.config, r.PCI_VENDOR_ID) if knows.known(r.PCI_VENDOR_ID, 2) else None
    code = u16(item.config, r.PCI_CLASS_DEVICE) if knows.known(r.PCI_CLASS_DEVICE, 2) else None
    found: dict[tuple[int, str], tuple[Ids, str]] = {}
    for quirk in ACS_QUIRKS:
        ids = _fitting(quirk, code) if vendor in (None, quirk.vendor) else None
        if ids is not None:
            words = f"a chip that the kernel knows to be isolated, such as {ids[0]:04x}:{ids[1]:04x}"
            found.setdefault((quirk.vendor, quirk.kind), (ids, words))
    nobody = (_NOBODY if vendor is None else vendor, _NOBODY)
    return [(nobody, "no chip of the quirk tables" if found else ""), *found.values()]


def _fitting(quirk: Quirk, code: int | None) -> Ids | None:
    """Return ids of an entry that go with a class code; None when none do, or when the entry goes by type alone."""
    if quirk.kind == "rciep":
        return None
    for first, last in quirk.devices:
        for device in range(first, min(last, first + 0x40) + 1):
            if code is None or code in _classes(quirk, device, code):
                return quirk.vendor, device
    return None


def _classes(quirk: Quirk, device: int, code: int) -> tuple[int, ...]:
    if quirk.kind in _PORT_KINDS:
        return (r.PCI_CLASS_BRIDGE_PCI,)
    if quirk.kind == "amd_sb":
        return (_SOUTHBRIDGE.get((quirk.vendor, device), code),)
    if quirk.vendor in _NETWORK_VENDORS:
        return (code,) if code >> 8 == _NETWORK else ()
    return (code,)
