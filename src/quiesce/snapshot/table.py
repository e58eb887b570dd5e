"""What all raw ACPI tables have in common: the header, the checksum, and the walk over the structures behind it."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.snapshot.acpi_layout import Field, Layout, Notes, Part, View

HEADER_SIZE = 36
TABLE_LIMIT = 1 << 18
"""No table of the kinds read here is larger; the MADT of a machine with 8,192 processors is half of it."""

HEADER = Layout(
    "header",
    Field("signature", 4, "bytes"),
    Field("length", 4),
    Field("revision", 1),
    Field("checksum", 1),
    Field("oem id", 6, "bytes"),
    Field("oem table id", 8, "bytes"),
    Field("oem revision", 4),
    Field("compiler id", 4, "bytes"),
    Field("compiler revision", 4),
)
"""ACPI specification, section 5.2.6."""


def open_table(data: bytes, signature: bytes, file: str, notes: Notes | None = None) -> View:
    """Check the header of a table and return all of it.

    A wrong signature or length raises BadInput. A wrong checksum and bytes behind the table are noted, as Linux only
    warns of the first (drivers/acpi/acpica/tbprint.c; it is less patient with IVRS, see `quiesce.snapshot.ivrs`).
    """
    whole = View(data, 0, len(data), file)
    found = whole.raw(0, 4, "the table's signature")
    if found != signature:
        raise whole.bad(0, f"the signature {signature.decode()}, found {found!r}")
    length = whole.uint(4, 4, "the table's length")
    if not HEADER_SIZE <= length <= len(data):
        raise whole.bad(4, f"a table length from {HEADER_SIZE} to the {len(data)} bytes there are, found {length}")
    if length > TABLE_LIMIT:
        raise whole.bad(4, f"a table of at most {TABLE_LIMIT} bytes, found {length}")
    if notes is not None:
        if len(data) > length:
            notes.add(length, f"{len(data) - length} bytes behind the table")
        if sum(data[:length]) & 0xFF:
            notes.add(9, "the checksum is wrong")
    return View(data, 0, length, file)


def head(table: View, layout: Layout) -> Part:
    """Return a table's header with the fields that its kind has behind it."""
    if len(table) < layout.size:
        raise table.bad(len(table), f"the {layout.size} bytes that every such table has")
    return Part(layout, table)


def structures(table: View, first: int, what: str, notes: Notes, sizes: tuple[int, int] = (2, 2)) -> Iterator[View]:
    """Yield the span of each structure from offset ``first`` on; ``sizes`` are those of its type and length fields.

    What cannot be walked over is noted and ends the walk. A structure that passes the end of the table makes Linux
    refuse a DMAR table (dmar_walk_remapping_entries in drivers/iommu/intel/dmar.c) and is not noticed elsewhere; one of
    0 bytes ends a DMAR table there, and Linux does not get past it in an IVRS table (find_last_devid_acpi).
    """
    signature = table.data[:4]
    at, least = first, sum(sizes)
    while at < len(table):
        if len(table) - at < least:
            notes.add(at, f"{len(table) - at} bytes at the end are no structure")
            return
        size = table.uint(at + sizes[0], sizes[1], "a length")
        if size < least:
            text = f"{what} of {size} bytes; what follows it is not read"
            notes.add(at + sizes[0], text, refused=not size and signature == b"IVRS")
            return
        if at + size > len(table):
            notes.add(
                at, f"{what} of {size} bytes, but only {len(table) - at} are left", refused=table.data[:4] == b"DMAR"
            )
            return
        yield table.part(at, size, what)
        at += size


def sealed(signature: bytes, body: bytes, revision: int = 1) -> bytes:
    """Return a table with header and checksum around ``body``."""
    length = (HEADER_SIZE + len(body)).to_bytes(4, "little")
    table = bytearray(signature + length + bytes((revision, 0)) + b"QUIESCQUIESCE " + bytes(4) + b"QSCE" + bytes(4))
    table += body
    table[9] = -sum(table) & 0xFF
    return bytes(table)
