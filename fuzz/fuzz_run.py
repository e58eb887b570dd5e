"""Fuzzes the readers of all input formats: any input must give a result or BadInput, within 2 s and 500 MB.

python fuzz/run.py [--seconds N | --runs N] [--format all|NAME,...] [--engine auto|plain|atheris] [--large]

Counts the runs per format, prints every kind of crash and saves the input. Status 1 when there was a crash. Needs
nothing but quiesce; with atheris (``pip install atheris``) the inputs are guided by coverage.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from fuzz_formats import Format, formats
from fuzz_guard import Crash, Guard, Tally
from fuzz_large import large_inputs
from fuzz_mutate import Mutator

_HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the command."""
    known = formats()
    args = _arguments(known)
    names = list(known) if args.format == "all" else args.format.split(",")
    share, runs = args.seconds / len(names), -(-args.runs // len(names))
    crashed = False
    work = partial(_one, engine=args.engine, seconds=share, runs=runs, seed=args.seed, large=args.large, save=args.save)
    total = Tally()
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        for name, tally, took in pool.map(work, names):
            crashed |= bool(tally.crashes)
            total.add(tally)
            print(_line(name, tally, took), flush=True)
            for crash in tally.crashes.values():
                print(f"    CRASH {crash}", flush=True)
    print(_line("all", total, 0))
    return int(crashed)


def _arguments(known: dict[str, Format]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz the readers of all input formats.")
    parser.add_argument("--seconds", type=float, default=60, help="for all formats together (default 60)")
    parser.add_argument("--runs", type=int, default=0, help="at most so many for all formats together")
    parser.add_argument("--format", default="all", help=f"all, or some of {','.join(known)}")
    parser.add_argument("--engine", choices=("auto", "plain", "atheris"), default="auto")
    parser.add_argument("--large", action="store_true", help="read inputs of 10 MB instead of mutated ones")
    parser.add_argument("--seed", type=int, default=1, help="for the plain mutator (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="formats at a time (default 1)")
    parser.add_argument("--save", type=Path, default=_HERE / "crashes", help="where inputs that crash are put")
    args = parser.parse_args()
    unknown = {item for item in args.format.split(",") if item != "all"} - set(known)
    if unknown:
        parser.error(f"unknown format {min(unknown)!r}; there are {', '.join(known)}")
    if args.engine == "auto":
        args.engine = "atheris" if importlib.util.find_spec("atheris") else "plain"
    return args


def _line(name: str, tally: Tally, took: float) -> str:
    rate = f"{tally.runs / took:8.0f}/s" if took else " " * 10
    return (
        f"{name:12} {tally.runs:9} runs {rate}  {tally.refused:9} refused  slowest {tally.slowest:5.2f} s  "
        f"{len(tally.crashes)} crashes"
    )


def _one(
    name: str, engine: str, seconds: float, runs: int, seed: int, large: bool, save: Path | None
) -> tuple[str, Tally, float]:
    chosen = formats()[name]
    started = time.perf_counter()
    if large:
        tally = run_large(chosen, save)
    elif engine == "atheris":
        tally = _run_atheris(name, seconds, runs, save)
    else:
        tally = run_plain(chosen, seconds, runs, seed, save)
    return name, tally, time.perf_counter() - started


def run_plain(chosen: Format, seconds: float, runs: int, seed: int, save: Path | None) -> Tally:
    """Run the plain mutator until the time or the number of runs is over."""
    guard = Guard(chosen.target, chosen.name, save)
    mutator = Mutator(chosen.seeds(), chosen.binary, chosen.table, Random(seed))
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not guard.tally.runs >= runs > 0:
        guard.run(mutator.next())
    return guard.tally


def run_large(chosen: Format, save: Path | None) -> Tally:
    """Read inputs of 10 MB, each in a process of its own so that its memory can be told."""
    total = Tally()
    context = multiprocessing.get_context("fork")
    for what, data in large_inputs(chosen):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_read_large, args=(chosen, data, save, theirs), daemon=False)
        child.start()
        theirs.close()
        try:
            tally = ours.recv()
        except EOFError:
            tally = Tally(1, crashes={("died", what): Crash("died", what, data[:1000])})
        child.join()
        for crash in tally.crashes.values():
            crash.where = f"{crash.where}; {what}"
        total.add(tally)
    return total


def _read_large(chosen: Format, data: bytes, save: Path | None, pipe: Connection) -> None:
    guard = Guard(chosen.target, chosen.name, save)
    guard.run(data)
    for crash in guard.tally.crashes.values():
        crash.input = crash.input[:1000]
    pipe.send(guard.tally)


def _run_atheris(name: str, seconds: float, runs: int, save: Path | None) -> Tally:
    with tempfile.TemporaryDirectory() as folder:
        report, seeds = Path(folder, "report.json"), Path(folder, "seeds")
        seeds.mkdir()
        command = [sys.executable, str(_HERE / "fuzz_atheris.py"), name, str(seconds), str(runs), str(save or "")]
        process = subprocess.run([*command, str(report), str(seeds)], capture_output=True, text=True, check=False)
        if not report.is_file():
            return Tally(crashes={("atheris", name): Crash("atheris did not start", process.stderr[-500:], b"")})
        count, refused, slowest, crashes = json.loads(report.read_text())
        kinds = {(what, where): Crash(what, where, b"", times, file) for what, where, times, file in crashes}
        return Tally(count, refused, slowest, kinds)
