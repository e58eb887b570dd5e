"""quiesce collect: a copy of what the kernel shows of the PCI devices of this machine, to be sent or kept."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from quiesce.snapshot.collect import Collection

_ARCHIVES = (".tar.gz", ".tgz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "target", metavar="DIR|FILE.tar.gz", nargs="?", default="machine.tar.gz", help="default: machine.tar.gz"
    )
    parser.add_argument("--no-redact", action="store_true", help="keep serial numbers, addresses and names")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from quiesce.snapshot.collect import collect, packed

    target = Path(args.target)
    if os.path.lexists(target):
        raise BadInput(args.target, "", "a name that is not taken; nothing is overwritten")
    found = collect(redact=not args.no_redact)
    try:
        if args.target.endswith(_ARCHIVES):
            target.write_bytes(packed(found.tree))
        else:
            _write_folder(target, found.tree.files, found.tree.links, found.tree.folders)
    except (OSError, ValueError) as error:
        raise BadInput(args.target, "", f"a place that can be written to ({error})") from None
    print("\n".join(lines(found, args.target)))
    return 0


def _write_folder(target: Path, files: dict[str, bytes], links: dict[str, str], folders: dict[str, set[str]]) -> None:
    target.mkdir(parents=True)
    for path in sorted(folders):
        (target / path).mkdir(exist_ok=True)
    for path, data in files.items():
        (target / path).write_bytes(data)
    for path, link in links.items():
        (target / path).symlink_to(link)


def lines(found: Collection, target: str) -> list[str]:
    """Return what was taken, what could not be read and why, and what was redacted."""
    tables = ", ".join(found.tables) or "none"
    text = [f"{target}: {found.functions} functions, {found.groups} IOMMU groups, ACPI tables: {tables}"]
    if found.short:
        text.append(
            f"of {found.short} functions only 64 bytes of config space could be read; it takes root for the rest"
        )
    for item in found.unreadable[:20]:
        text.append(f"could not read {item}{'' if os.geteuid() == 0 else '; it may take root'}")
    if len(found.unreadable) > 20:
        text.append(f"could not read {len(found.unreadable) - 20} more files")
    if found.redacted is None:
        text.append("nothing was redacted: serial numbers, addresses and names may be in it")
    else:
        counts = ", ".join(f"{what}: {number}" for what, number in sorted(found.redacted.items()))
        text.append(f"redacted: {counts or 'nothing had to be'}")
    return text
