"""quiesce agree: how far quiesce agrees with real kernels and real tools, over a folder of data."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from quiesce.snapshot.errors import BadInput

_PARTS = ("groups", "acpi", "registers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="machines with truth.json beside them, recordings")
    parser.add_argument("--all", action="store_true", help="show machines that agree too")
    parser.add_argument("--only", choices=_PARTS, help="one of the comparisons")


def main(args: argparse.Namespace) -> int:
    """Run the command; status 1 when something disagrees."""
    if not args.folder.is_dir():
        raise BadInput(str(args.folder), "", "a folder")
    parts: dict[str, Callable[[], bool]] = {
        "groups": lambda: _groups(args.folder, args.all),
        "acpi": lambda: _acpi(args.folder),
        "registers": lambda: _registers(args.folder),
    }
    differ = [parts[name]() for name in ([args.only] if args.only else _PARTS)]
    return int(any(differ))


def _groups(folder: Path, everything: bool) -> bool:
    """Compare predicted groups with those that real kernels formed."""
    from quiesce.groups.agree import compare, truths_below
    from quiesce.report.groups import agreement_line, agreement_total

    verdicts: Counter[tuple[str, str]] = Counter()
    for truth in truths_below(folder):
        try:
            found = compare(truth)
        except BadInput as error:
            print(f"quiesce: {error}", file=sys.stderr)
            verdicts[truth.quality or "recording", "unreadable"] += 1
            continue
        verdicts[truth.quality or "recording", found.verdict] += 1
        if everything or found.verdict != "equal":
            print(agreement_line(found), flush=True)
    print("\n".join(agreement_total(verdicts)), flush=True)
    return any(verdict in ("wrong", "unreadable") for _, verdict in verdicts)


def _acpi(folder: Path) -> bool:
    """Compare our reading of ACPI tables with iasl's listings beside them."""
    from quiesce.report.acpi_agreement import acpi_agreement, acpi_lines

    rows = acpi_agreement(folder)
    print("\n".join(acpi_lines(rows)), flush=True)
    return any(row.differ for row in rows.values())


def _registers(folder: Path) -> bool:
    """Compare our decoder with the installed lspci on every dump that has hex bytes."""
    from quiesce.report.decoder_agreement import decoder_agreement, lspci_version, summary

    if lspci_version() is None:
        print("\nregisters: not compared, lspci (pciutils) is not installed")
        return False
    table = decoder_agreement(_dumps(folder))
    print("\n".join(summary(table)))
    return bool(table.unexplained)


def _dumps(folder: Path) -> Iterator[Path]:
    """Yield the files that hold hex dumps of lspci."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text_dump = "hexdumps" in path.parts and path.suffix != ".config"
        if text_dump or (path.name.startswith("lspci") and "xxx" in path.name):
            yield path
