"""All kinds of ACPI tables that say something about PCI devices: one way to read whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from quiesce.snapshot import dmar_parts, iort_parts, ivrs_parts, madt, mcfg, viot
from quiesce.snapshot.acpi_layout import FieldValue, Notes, Part, View, field_values
from quiesce.snapshot.dmar import Dmar, read_dmar
from quiesce.snapshot.iort import Iort, read_iort
from quiesce.snapshot.ivrs import Ivrs, read_ivrs
from quiesce.snapshot.madt import Madt, read_madt
from quiesce.snapshot.mcfg import Mcfg, read_mcfg
from quiesce.snapshot.table import open_table
from quiesce.snapshot.viot import Viot, read_viot

Table = Dmar | Ivrs | Madt | Mcfg | Iort | Viot

READERS: Mapping[str, Callable[[bytes, str], Table]] = {
    "APIC": read_madt,
    "DMAR": read_dmar,
    "IORT": read_iort,
    "IVRS": read_ivrs,
    "MCFG": read_mcfg,
    "VIOT": read_viot,
}
"""The readers by the signature of their table."""

_PARTS: Mapping[str, Callable[[View, Notes], Iterator[Part]]] = {
    "APIC": madt.parts_of,
    "DMAR": dmar_parts.parts_of,
    "IORT": iort_parts.parts_of,
    "IVRS": ivrs_parts.parts_of,
    "MCFG": mcfg.parts_of,
    "VIOT": viot.parts_of,
}


def signature_of(data: bytes) -> str:
    """Return the signature at the start of a raw table."""
    return data[:4].decode("latin-1")


def read_table(data: bytes, file: str = "table") -> Table | None:
    """Read a raw table of any kind; None when it is of a kind that says nothing about PCI devices. Raises BadInput."""
    reader = READERS.get(signature_of(data))
    return None if reader is None else reader(data, file)


def fields(data: bytes, file: str = "table") -> Iterator[FieldValue]:
    """Yield every field of a raw table of one of the kinds in `READERS`, in order; raises BadInput.

    Together they are the whole table; what no structure accounts for comes as fields called ``unread``.
    """
    signature = signature_of(data)
    table = open_table(data, signature.encode("latin-1"), file)
    yield from field_values(list(_PARTS[signature](table, Notes())), table)
