"""How a MADT is laid out: ACPI specification 6.5, section 5.2.12."""

from __future__ import annotations

from quiesce.snapshot.acpi_layout import Bits, Field, Layout
from quiesce.snapshot.table import HEADER

TABLE = HEADER.and_then(Field("local apic", 4), Field("flags", 4, bits=(Bits("dual 8259", 0),)))
_START = (Field("type", 1), Field("length", 1))
UNKNOWN = Layout("unknown", *_START)

_ENABLED = (Bits("enabled", 0), Bits("online capable", 1))
_INTI = (Bits("polarity", 0, 2), Bits("trigger", 2, 2))
_GICC = (Bits("enabled", 0), Bits("performance trigger", 1), Bits("maintenance trigger", 2))


def _layout(name: str, *fields: Field) -> Layout:
    return Layout(name, *_START, *fields)


def _reserved(size: int) -> Field:
    return Field("reserved", size, "bytes")


ENTRIES = {
    0: _layout("local apic", Field("uid", 1), Field("apic id", 1), Field("flags", 4, bits=_ENABLED)),
    1: _layout("io-apic", Field("id", 1), _reserved(1), Field("address", 4), Field("gsi base", 4)),
    2: _layout(
        "interrupt override", Field("bus", 1), Field("source", 1), Field("gsi", 4), Field("flags", 2, bits=_INTI)
    ),
    3: _layout("nmi source", Field("flags", 2, bits=_INTI), Field("gsi", 4)),
    4: _layout("local apic nmi", Field("uid", 1), Field("flags", 2, bits=_INTI), Field("lint", 1)),
    5: _layout("local apic address", _reserved(2), Field("address", 8)),
    6: _layout("io-sapic", Field("id", 1), _reserved(1), Field("gsi base", 4), Field("address", 8)),
    7: _layout(
        "local sapic",
        Field("processor", 1),
        Field("id", 1),
        Field("eid", 1),
        _reserved(3),
        Field("flags", 4, bits=_ENABLED),
        Field("uid", 4),
    ),
    8: _layout(
        "platform interrupt",
        Field("flags", 2, bits=_INTI),
        Field("kind", 1),
        Field("id", 1),
        Field("eid", 1),
        Field("vector", 1),
        Field("gsi", 4),
        Field("source flags", 4, bits=(Bits("cpei override", 0),)),
    ),
    9: _layout("x2apic", _reserved(2), Field("apic id", 4), Field("flags", 4, bits=_ENABLED), Field("uid", 4)),
    10: _layout("x2apic nmi", Field("flags", 2, bits=_INTI), Field("uid", 4), Field("lint", 1), _reserved(3)),
    11: _layout(
        "gicc",
        _reserved(2),
        Field("cpu interface", 4),
        Field("uid", 4),
        Field("flags", 4, bits=_GICC),
        Field("parking version", 4),
        Field("performance gsi", 4),
        Field("parked address", 8),
        Field("base", 8),
        Field("gicv", 8),
        Field("gich", 8),
        Field("maintenance gsi", 4),
        Field("redistributor", 8),
        Field("mpidr", 8),
        Field("efficiency class", 1),
        _reserved(1),
        Field("spe gsi", 2),
        Field("trbe gsi", 2),
    ),
    12: _layout(
        "gicd",
        _reserved(2),
        Field("id", 4),
        Field("base", 8),
        Field("gsi base", 4),
        Field("version", 1),
        _reserved(3),
    ),
    13: _layout(
        "gic msi frame",
        _reserved(2),
        Field("id", 4),
        Field("base", 8),
        Field("flags", 4, bits=(Bits("select spi", 0),)),
        Field("spi count", 2),
        Field("spi base", 2),
    ),
    14: _layout("gicr", _reserved(2), Field("base", 8), Field("span", 4)),
    15: _layout("gic its", _reserved(2), Field("id", 4), Field("base", 8), _reserved(4)),
    16: _layout("wakeup", Field("version", 2), _reserved(4), Field("mailbox", 8), Field("reset vector", 8)),
    17: _layout("core pic", Field("version", 1), Field("uid", 4), Field("core id", 4), Field("flags", 4)),
    18: _layout(
        "lio pic",
        Field("version", 1),
        Field("base", 8),
        Field("span", 2),
        Field("cascade", 2, "bytes"),
        Field("cascade map", 8, "bytes"),
    ),
    19: _layout("ht pic", Field("version", 1), Field("base", 8), Field("span", 2), Field("cascade", 8, "bytes")),
    20: _layout("eio pic", Field("version", 1), Field("cascade", 1), Field("node", 1), Field("node map", 8)),
    21: _layout("msi pic", Field("version", 1), Field("address", 8), Field("first", 4), Field("count", 4)),
    22: _layout(
        "bio pic", Field("version", 1), Field("base", 8), Field("span", 2), Field("id", 2), Field("gsi base", 2)
    ),
    23: _layout("lpc pic", Field("version", 1), Field("base", 8), Field("span", 2), Field("cascade", 1)),
    24: _layout(
        "rintc",
        Field("version", 1),
        _reserved(1),
        Field("flags", 4, bits=_ENABLED),
        Field("hart id", 8),
        Field("uid", 4),
        Field("external id", 4),
        Field("imsic", 8),
        Field("imsic span", 4),
    ),
    25: _layout(
        "imsic",
        Field("version", 1),
        _reserved(1),
        Field("flags", 4),
        Field("ids", 2),
        Field("guest ids", 2),
        Field("guest index bits", 1),
        Field("hart index bits", 1),
        Field("group index bits", 1),
        Field("group index shift", 1),
    ),
    26: _layout(
        "aplic",
        Field("version", 1),
        Field("id", 1),
        Field("flags", 4),
        Field("hardware id", 8, "bytes"),
        Field("idcs", 2),
        Field("sources", 2),
        Field("gsi base", 4),
        Field("base", 8),
        Field("span", 4),
    ),
    27: _layout(
        "plic",
        Field("version", 1),
        Field("id", 1),
        Field("hardware id", 8, "bytes"),
        Field("sources", 2),
        Field("max priority", 2),
        Field("flags", 4),
        Field("span", 4),
        Field("base", 8),
        Field("gsi base", 4),
    ),
}
"""The entries by type; those of 17 to 23 are LoongArch's, of 24 to 27 RISC-V's."""

LOCAL_SAPIC = 7
LEAST = {11: 40, 16: 16}
"""Sizes of the oldest forms of entries that grew: GICC in ACPI 5.0, the wakeup structure before its reset vector."""
