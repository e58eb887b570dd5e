"""How fast quiesce searches: every shipped case by itself, then growth with depth and with devices."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import process
from compare import quiesce_command
from process import Ran

KERNEL = "v6.11"
DRIVERS = ("ahci", "vfio-pci")
TARGET = 50_000
"""Transitions a second that one core should reach."""
ENOUGH_STATES = 1_000
"""With fewer, memory for each state is mostly the recordings of runs, which are paid once."""


def shipped_cases() -> list[str]:
    """Return the names of the cases that come with quiesce."""
    found = find_spec("quiesce")
    folders = found.submodule_search_locations if found else None
    return sorted(path.stem for folder in folders or [] for path in Path(folder).glob("cases/library/*.case"))


def measure_cases(rounds: int, folder: Path, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Search every shipped case to its bound, and once more to the first violation."""
    say("")
    say(f"every shipped case; the aim is {TARGET} transitions a second")
    say(
        f"{'case':<28}{'states':>9}{'transitions':>13}{'search s':>10}{'trans/s':>10}"
        f"{'first s':>9}{'whole s':>9}{'MiB':>7}{'B/state':>9}"
    )
    rows = []
    for name in shipped_cases():
        row = measure_case(name, rounds, folder)
        rows.append(row)
        say(case_line(row))
    return rows


def measure_case(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the medians of one case."""
    command = [*quiesce_command(), "run", name, "--format", "json"]
    empty = process.run([*command, "--depth", "0"], folder)
    runs = [process.run(command, folder) for _ in range(rounds)]
    if not runs[0].record():
        return {"case": name, "note": runs[0].complaint()}
    firsts = [process.run([*command, "--first"], folder) for _ in range(rounds)]
    first_records = [ran.record() for ran in firsts]
    found = [record["first_seconds"] for record in first_records if record.get("first_seconds") is not None]
    row = search_row(runs, empty)
    return {
        "case": name,
        **row,
        "verdict": runs[0].record()["verdict"],
        "first_seconds": round(statistics.median(found), 4) if found else None,
        "first_whole_seconds": round(statistics.median(ran.seconds for ran in firsts), 4) if found else None,
    }


def search_row(runs: Sequence[Ran], empty: Ran) -> dict[str, Any]:
    """Return what runs of the same search cost; ``empty`` is the same command without a search."""
    records = [ran.record() for ran in runs]
    seconds = statistics.median(record["seconds"] for record in records)
    peak = statistics.median(ran.peak_kib for ran in runs)
    states, transitions = records[0]["states"], records[0]["transitions"]
    grown = max(0.0, peak - empty.peak_kib) * 1024 if empty.record() else None
    return {
        "states": states,
        "transitions": transitions,
        "bound": records[0]["bound"],
        "seconds": round(seconds, 4),
        "whole_seconds": round(statistics.median(ran.seconds for ran in runs), 4),
        "transitions_per_second": round(transitions / seconds) if seconds else None,
        "peak_kib": round(peak),
        "bytes_per_state": round(grown / states) if grown is not None and states >= ENOUGH_STATES else None,
        "deterministic": len({(record["states"], record["transitions"]) for record in records}) == 1,
    }


def case_line(row: dict[str, Any]) -> str:
    """Return the line of one case in the table."""
    if "note" in row:
        return f"{row['case']:<28}{row['note']}"
    first = "-" if row["first_seconds"] is None else f"{row['first_seconds']:.3f}"
    return (
        f"{row['case']:<28}{row['states']:>9}{row['transitions']:>13}{row['seconds']:>10.3f}"
        f"{_text(row['transitions_per_second']):>10}{first:>9}{row['whole_seconds']:>9.3f}"
        f"{row['peak_kib'] / 1024:>7.0f}{_text(row['bytes_per_state']):>9}"
        + ("" if row["deterministic"] else "  counts differ between runs")
    )


def _text(value: int | None) -> str:
    return "-" if value is None else str(value)


def machine_of(devices: int) -> str:
    """Return a machine with ``devices`` SATA functions on the root bus."""
    lines = [f"machine sata-{devices}", "00:00.0 host-bridge"]
    lines += [f"00:{number:02x}.0 ahci" for number in range(1, devices + 1)]
    return "\n".join([*lines, "iommu intel", ""])


def measure_growth(
    limit: float, depths: int, devices: int, folder: Path, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Grow depth on one device, then devices at a fixed depth, until a search takes longer than ``limit`` seconds."""
    deep = _grow([(1, depth) for depth in range(1, depths + 1)], limit, folder)
    wide = _grow([(count, 5) for count in range(1, devices + 1)], limit, folder)
    for title, rows in (("growth with depth", deep), ("growth with devices", wide)):
        say("")
        say(f"{title}: {' and '.join(DRIVERS)} on {KERNEL}")
        say(f"{'devices':>8}{'depth':>7}{'states':>10}{'transitions':>13}{'search s':>10}{'trans/s':>10}{'B/state':>9}")
        for row in rows:
            say(growth_line(row))
    return {"depth": deep, "devices": wide}


def _grow(sizes: Sequence[tuple[int, int]], limit: float, folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for devices, depth in sizes:
        ran = explore(devices, depth, limit, folder)
        if not ran.record():
            rows.append({"devices": devices, "depth": depth, "note": ran.complaint()})
            break
        rows.append({"devices": devices, "depth": depth, **search_row([ran], explore(devices, 0, limit, folder))})
        if ran.record()["bound"] == "exhausted" or ran.seconds > limit:
            break
    return rows


def explore(devices: int, depth: int, limit: float, folder: Path) -> Ran:
    """Search every life on a machine with some SATA functions."""
    machine = folder / f"sata-{devices}.txt"
    machine.write_text(machine_of(devices))
    drivers = [word for name in DRIVERS for word in ("--driver", name)]
    bounds = ["--depth", str(depth), "--seconds", f"{limit:g}"]
    command = [*quiesce_command(), "explore", machine.name, *drivers, "--kernel", KERNEL, *bounds, "--format", "json"]
    return process.run(command, folder)


def growth_line(row: dict[str, Any]) -> str:
    """Return one line of the growth tables."""
    if "note" in row:
        return f"{row['devices']:>8}{row['depth']:>7}  {row['note']}"
    return (
        f"{row['devices']:>8}{row['depth']:>7}{row['states']:>10}{row['transitions']:>13}{row['seconds']:>10.3f}"
        f"{_text(row['transitions_per_second']):>10}{_text(row['bytes_per_state']):>9}  {row['bound']}"
    )
