"""quiesce agree: how far quiesce agrees with real machines and real tools, over a folder of data."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from quiesce.snapshot.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="machines with truth.json beside them, recordings")
    parser.add_argument("--all", action="store_true", help="show machines that agree too")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    if not args.folder.is_dir():
        raise BadInput(str(args.folder), "", "a folder")
    return _groups(args.folder, args.all)


def _groups(folder: Path, everything: bool) -> int:
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
            print(agreement_line(found))
    print("\n".join(agreement_total(verdicts)))
    return int(any(verdict in ("wrong", "unreadable") for _, verdict in verdicts))
