"""Fuzzes one format with atheris, which is guided by coverage; ``run.py`` starts this as a process of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["quiesce"]):
    from fuzz_formats import formats
from fuzz_guard import Guard
from fuzz_seeds import sealed


def main(name: str, seconds: float, runs: int, save: str, report: Path, folder: Path) -> None:
    """Fuzz until the time or the number of runs is over; the counts are written to ``report`` all the while."""
    chosen = formats()[name]
    guard = Guard(chosen.target, name, Path(save) if save else None)
    for number, seed in enumerate(chosen.seeds()):
        (folder / f"seed{number}").write_bytes(seed)
    ends = time.monotonic() + seconds

    def one(data: bytes) -> None:
        guard.run(sealed(data) if chosen.table and len(data) % 4 else data)
        over = guard.tally.runs >= runs > 0 or time.monotonic() > ends
        if over or guard.tally.runs % 500 == 0 or guard.tally.crashes:
            _write(report, guard)

    limits = [f"-max_total_time={max(int(seconds), 1)}", *([f"-runs={runs}"] if runs else [])]
    options = ["-timeout=60", "-rss_limit_mb=0", "-max_len=20000", "-verbosity=0", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *limits, *options, str(folder)], one)
    atheris.Fuzz()


def _write(report: Path, guard: Guard) -> None:
    tally = guard.tally
    crashes = [[item.what, item.where, item.count, item.file] for item in tally.crashes.values()]
    report.write_text(json.dumps([tally.runs, tally.refused, tally.slowest, crashes]))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]), Path(sys.argv[6]))
