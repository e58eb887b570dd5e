"""``python -m quiesce.cases --promote [CASE...]`` writes the expected table beside each shipped case."""

from __future__ import annotations

import argparse

from quiesce.cases.expected import expected_path, expected_text
from quiesce.cases.library import find_case, shipped


def main() -> None:
    """Write the tables, or say which differ."""
    parser = argparse.ArgumentParser(prog="python -m quiesce.cases", description=__doc__)
    parser.add_argument("case", nargs="*")
    parser.add_argument("--promote", action="store_true", help="write what the cases give now")
    args = parser.parse_args()
    for name in args.case or list(shipped()):
        case = find_case(name)
        text, path = expected_text(case), expected_path(case)
        same = path.is_file() and path.read_text() == text
        print(f"{name:<28} {'as expected' if same else 'promoted' if args.promote else 'DIFFERS'}")
        if args.promote and not same:
            path.write_text(text)


if __name__ == "__main__":
    main()
