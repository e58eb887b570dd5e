"""quiesce kernel: the real kernels that cases are confirmed on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.cli import FINDINGS, common
from quiesce.snapshot.errors import BadInput
from quiesce.testbed.errors import Skipped

if TYPE_CHECKING:
    from quiesce.testbed.images import KernelImage


_QEMU = "qemu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _fetch_arguments(actions.add_parser("fetch", help="bring Debian's kernels into the store, by apt"))
    _add_arguments(actions.add_parser("add", help="bring your own kernel into the store"))
    _build_arguments(actions.add_parser("build", help="build the instrumented kernel, with switches for old faults"))
    listing = actions.add_parser("list", help="list what is in the store")
    listing.add_argument("--check", action="store_true", help="compare every file with its checksum")
    common.add_format_argument(listing)
    actions.add_parser("remove", help="take a kernel out of the store").add_argument("name", metavar="NAME")


def _mirror_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mirror", metavar="URL", help="a Debian mirror (default: the one this machine's apt uses)")


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    names = "debian:5.10, debian:6.1, debian:6.12, debian:newest; qemu for a newer QEMU beside the installed one"
    parser.add_argument("names", metavar="NAME", nargs="+", help=names)
    parser.add_argument("--no-headers", action="store_true", help="without what modules of our own are built against")
    parser.add_argument("--update", action="store_true", help="look for a newer version of what is there already")
    _mirror_argument(parser)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="a bzImage, or a kernel build tree")
    parser.add_argument("--name", metavar="N", help="its name in the store, added:N (default: its release)")
    parser.add_argument("--modules", metavar="DIR", type=Path, help="where its modules lie (default: the build tree)")
    parser.add_argument("--headers", metavar="DIR", type=Path, help="what external modules are built against")
    parser.add_argument("--kernel", metavar="SET", default="", help="the model's kernel set (default: by its release)")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tree", metavar="DIR", type=Path, help="a Linux 6.12 source tree to build in (default: fetch)"
    )
    parser.add_argument("--jobs", type=common.processes, help="compilers at a time (default: one per core)")
    _mirror_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    actions = {"fetch": _fetch, "add": _add, "build": _build, "list": _list, "remove": _remove}
    try:
        return actions[args.action](args)
    except Skipped as reason:
        common.clear_progress()
        print(f"quiesce: {reason}", file=sys.stderr)
        return FINDINGS


def _say(line: str) -> None:
    """Show how far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _fetch(args: argparse.Namespace) -> int:
    from quiesce.testbed.fetch import checked_name, fetch

    status = 0
    if _QEMU in args.names:
        from quiesce.testbed.side_qemu import fetch_qemu

        print(f"{_QEMU:<16} {fetch_qemu(say=_say)}")
    for name in [checked_name(name) for name in args.names if name != _QEMU]:
        try:
            image = fetch(name, mirror=args.mirror, headers=not args.no_headers, update=args.update, say=_say)
        except Skipped as reason:
            common.clear_progress()
            print(f"quiesce: {name} could not be fetched: {reason}", file=sys.stderr)
            status = FINDINGS
            continue
        common.clear_progress()
        print(f"{image.name:<16} {image.release:<26} {image.package}")
    return status


def _add(args: argparse.Namespace) -> int:
    from quiesce.testbed.added import add

    image = add(args.path, name=args.name, modules=args.modules, headers=args.headers, kernel_set=args.kernel)
    print(f"{image.name:<16} {image.release:<26} {len(image.needed)} modules")
    return 0


def _build(args: argparse.Namespace) -> int:
    from quiesce.testbed.instrumented import build

    image = build(tree=args.tree, mirror=args.mirror, jobs=args.jobs, say=_say)
    common.clear_progress()
    print(f"{image.name:<16} {image.release:<26} {image.package or args.tree}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from quiesce.testbed import store
    from quiesce.testbed.added import summary
    from quiesce.testbed.images import installed

    rows = [summary(image) | {"kernel_set": _set_of(image)} for image in installed()]
    if args.check:
        for row in rows:
            record = store.manifest(row["name"])
            row["damaged"] = store.damaged(record) if record else []
    if args.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        _print_rows(rows)
    return FINDINGS if any(row.get("damaged") for row in rows) else 0


def _set_of(image: KernelImage) -> str:
    """Return the model's kernel set, or a question mark for a kernel it has none for ('add --kernel' names one)."""
    try:
        return image.kernel_set
    except (BadInput, Skipped):
        return "?"


def _print_rows(rows: list[dict[str, object]]) -> None:
    if not rows:
        print("no kernels in the store; 'quiesce kernel fetch debian:6.12' brings one")
        return
    print(f"{'name':<16} {'release':<26} {'version':<18} {'size':>7}  {'headers':<7} {'switches':<8} kernel set")
    for row in rows:
        size = f"{int(str(row['bytes'])) / 1e6:.0f} MB"
        words = ["yes" if row[key] else "no" for key in ("headers", "switches")]
        print(
            f"{row['name']:<16} {row['release']:<26} {row['version']:<18} {size:>7}  {words[0]:<7} {words[1]:<8} "
            f"{_short(str(row['kernel_set']))}"
        )
        damaged = row.get("damaged")
        if isinstance(damaged, list) and damaged:
            print(f"  damaged: {' '.join(damaged[:5])}{' ...' if len(damaged) > 5 else ''}")


def _short(kernel_set: str) -> str:
    """Return a kernel set for people; the whole of it is in the JSON."""
    base, *edits = kernel_set.split()
    return kernel_set if len(edits) <= 4 else f"{base} and {len(edits) // 2} changes"


def _remove(args: argparse.Namespace) -> int:
    from quiesce.testbed import store
    from quiesce.testbed.images import find_image

    image = find_image(args.name)
    store.remove(image.name)
    print(f"{image.name:<16} removed")
    return 0
