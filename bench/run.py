"""The benchmarks of quiesce; README.md beside it says what is measured. Never run as tests.

python bench/run.py [peers] [cases] [growth] [micro] [groups] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from cases import measure_cases, measure_growth
from compare import compare
from groups import measure_groups
from micro import measure_micro

PARTS = ("peers", "cases", "growth", "micro", "groups")
FORMAT = 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure quiesce, alone and beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs (median; default 5)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one search of growth (default 60)")
    parser.add_argument("--depth", type=int, default=12, help="deepest search of growth (default 12)")
    parser.add_argument("--devices", type=int, default=4, help="most devices of growth (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}")
    record = measure(args)
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the wanted parts."""
    parts = args.parts or PARTS
    record: dict[str, Any] = {"format": FORMAT, "host": host(), "rounds": args.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "peers" in parts:
            record["peers"] = compare(args.rounds, folder)
        if "cases" in parts:
            record["cases"] = measure_cases(args.rounds, folder)
        if "growth" in parts:
            record["growth"] = measure_growth(args.limit, args.depth, args.devices, folder)
        if "micro" in parts:
            record["micro"] = measure_micro()
        if "groups" in parts:
            record["groups"] = measure_groups(args.rounds, folder)
    return record


def host() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
