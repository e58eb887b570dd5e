"""quiesce draw: the topology with groups, IOMMUs and ACS, as text or as one offline page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quiesce.cli.machines import add_prediction_arguments, conditions, read_from
from quiesce.snapshot.errors import BadInput

if TYPE_CHECKING:
    from quiesce.report.picture_facts import Picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_prediction_arguments(parser)
    parser.add_argument("-o", dest="output", metavar="FILE", help="write a picture: FILE.svg or FILE.html")
    parser.add_argument("--ascii", action="store_true", help="draw text with ASCII only")
    parser.add_argument("--all", action="store_true", help="show every function by itself, however many are alike")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    form = Path(args.output).suffix.lower() if args.output is not None else ""
    if args.output is not None and form not in (".svg", ".html"):
        raise BadInput("command line", "-o", "a file name that ends in .svg or .html")
    picture = _picture(args)
    if args.output is None:
        _print(picture, args)
    else:
        _write(args.output, _drawn(picture, form, not args.all))
    return 0


def _picture(args: argparse.Namespace) -> Picture:
    from quiesce.report.picture_facts import gather

    description = read_from(args)
    return gather(description, conditions(args, description))


def _print(picture: Picture, args: argparse.Namespace) -> None:
    from quiesce.report.picture_text import text

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    drawn = text(picture, ascii_only=args.ascii, colour=colour, collapse=not args.all)
    encoding = sys.stdout.encoding or "ascii"
    try:
        "├─└│".encode(encoding)
    except UnicodeEncodeError:
        drawn = text(picture, ascii_only=True, colour=colour, collapse=not args.all)
    print(drawn.encode(encoding, "replace").decode(encoding))


def _drawn(picture: Picture, form: str, collapse: bool) -> str:
    if form == ".svg":
        from quiesce.report.picture_svg import svg

        return svg(picture, collapse)
    from quiesce.report.picture_html import page

    return page(picture, collapse)


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(name, "", f"a file that can be written ({error.strerror})") from None
