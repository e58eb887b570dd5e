"""How our reading of ACPI tables agrees with the listings that ``iasl`` made of them, over a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quiesce.snapshot.acpi_listing import compare_with_listing
from quiesce.snapshot.acpidump import read_acpi
from quiesce.snapshot.errors import read_limited, read_limited_text

_HEADLINE = "ACPI Data Table ["


@dataclass
class AcpiRow:
    """One kind of table."""

    tables: int = 0
    compared: int = 0
    differ: int = 0
    not_compared: int = 0
    """Fields that the listing itself shows wrongly."""
    examples: list[str] = field(default_factory=list)


def acpi_agreement(folder: Path) -> dict[str, AcpiRow]:
    """Compare every table that has a listing (``NAME.dsl``) beside it; raises BadInput for one that cannot be read."""
    rows: dict[str, AcpiRow] = {}
    for listing, signature, table in _listed(folder):
        found = compare_with_listing(table, read_limited_text(listing))
        row = rows.setdefault(signature, AcpiRow())
        row.tables += 1
        row.compared += found.compared
        row.differ += len(found.differences)
        row.not_compared += found.mistaken
        row.examples += [f"{listing}: {item}" for item in found.differences[:1]]
    return rows


def _listed(folder: Path) -> Iterator[tuple[Path, str, bytes]]:
    """Yield each listing of a table that lies beside it as raw bytes or as acpidump text."""
    for listing in sorted(folder.rglob("*.dsl")):
        _, _, rest = read_limited_text(listing).partition(_HEADLINE)
        sources = (listing.with_suffix(".dat"), listing.with_suffix(".acpidump.txt"))
        source = next((path for path in sources if path.is_file()), None)
        if rest and source is not None:
            table = read_acpi(read_limited(source), str(source)).first(rest[:4])
            if table is not None:
                yield listing, rest[:4], table


def acpi_lines(rows: dict[str, AcpiRow]) -> list[str]:
    """Return the table in text."""
    lines = ["", f"{'ACPI tables beside the listings of iasl':<50}     tables     fields     differ  not compared"]
    for signature, row in sorted(rows.items()):
        lines.append(f"{signature:<50}{row.tables:>11}{row.compared:>11}{row.differ:>11}{row.not_compared:>14}")
        lines += [f"  {example}" for example in row.examples[:3]]
    return lines
