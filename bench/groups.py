"""Reading a machine and forming its groups: beside ``lspci``, and on machines of up to 100,000 functions.

The machines are made here: root ports with switches and multifunction devices below them, by segments.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from process import run
from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.lspci import write
from quiesce.snapshot.read import read_text

KERNEL = "v6.12"
SIZES = (1_000, 10_000, 100_000)
WHOLE_COMMANDS = 500
"""Functions of the machine that whole commands read."""
_PARTS = """
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
01:00.0 switch-up bus=02
02:00.0 switch-down bus=03
03:00.0 nvme
iommu intel
"""


def measure_groups(rounds: int, folder: Path) -> dict[str, Any]:
    """Measure both and print tables."""
    return {"lspci": _beside_lspci(rounds, folder), "sizes": _by_size(rounds)}


# -- beside lspci -------------------------------------------------------------------------------------------------


def _beside_lspci(rounds: int, folder: Path) -> list[dict[str, Any]]:
    dump = folder / "machine.txt"
    dump.write_text(write(machine(WHOLE_COMMANDS).functions), encoding="ascii")
    tool = str(Path(sys.executable).with_name("quiesce"))
    commands = {
        "quiesce": [tool, "groups", str(dump), "--kernel", KERNEL, "--iommu", "intel"],
        "lspci": ["lspci", "-F", str(dump), "-vvv"],
    }
    if shutil.which("lspci") is None:
        print("groups: no lspci here, left out")
        del commands["lspci"]
    ran: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            result = run(command)
            if result.status:
                print(f"groups: {name} failed: {result.complaint()}")
            elif number:
                ran[name].append((result.processor, result.seconds))
    return _commands_table(ran)


def _commands_table(ran: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    print(f"\n{WHOLE_COMMANDS} functions of 4 KiB, whole commands   processor s    wall s   ratio (processor)")
    first = statistics.median(seconds for seconds, _ in ran["quiesce"]) if ran["quiesce"] else 0.0
    rows = []
    for name, found in ran.items():
        if found:
            processor, wall = (statistics.median(column) for column in zip(*found, strict=True))
            ratio = processor / first if first else 0.0
            rows.append({"tool": name, "processor": processor, "wall": wall, "ratio": ratio})
            print(f"{name:<44} {processor:>12.3f} {wall:>9.3f} {ratio:>8.2f}")
    return rows


# -- by size ------------------------------------------------------------------------------------------------------


def _by_size(rounds: int) -> list[dict[str, Any]]:
    print("\n functions   text MB    read s  us each    groups s  us each   groups")
    rows = []
    for count in SIZES:
        made = machine(count)
        text = write(FunctionDescription(item.bdf, item.config[:256]) for item in made.functions)
        again = 1 if count == max(SIZES) else rounds
        reading = min(_seconds(lambda text=text: read_text(text, "synthetic")) for _ in range(again))
        grouping = min(_seconds(lambda made=made: predict(made, kernel(KERNEL))) for _ in range(again))
        groups = len(predict(made, kernel(KERNEL)).groups)
        size, each = len(text) / 1e6, 1e6 / count
        rows.append({"functions": count, "bytes": len(text), "reading": reading, "grouping": grouping})
        print(
            f"{count:>10} {size:>9.1f} {reading:>9.3f} {reading * each:>8.1f} {grouping:>11.3f} {grouping * each:>8.1f}"
            f" {groups:>8}"
        )
    return rows


def _seconds(work: Any) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


# -- machines -----------------------------------------------------------------------------------------------------


def machine(count: int) -> MachineDescription:
    """Return a machine of so many functions, each with 4 KiB of configuration space."""
    parts = {str(item.bdf): item.config for item in read_text(_PARTS, "parts").functions}
    functions: list[FunctionDescription] = []
    segment = 0
    while len(functions) < count:
        functions += _segment(parts, segment)
        segment += 1
    return MachineDescription("synthetic", tuple(functions[:count]), iommu_hint="intel")


def _segment(parts: dict[str, bytes], segment: int) -> Iterator[FunctionDescription]:
    """Yield a host bridge and 24 root ports, each with a switch of eight ports and an eight-function device at each."""
    yield FunctionDescription(Bdf(segment, 0, 0, 0), _whole(parts["0000:00:00.0"]))
    for number in range(24):
        bus = 1 + 10 * number
        yield _bridge(Bdf(segment, 0, number + 1, 0), parts["0000:00:01.0"], bus, bus + 9)
        yield _bridge(Bdf(segment, bus, 0, 0), parts["0000:01:00.0"], bus + 1, bus + 9)
        for port in range(8):
            below = bus + 2 + port
            yield _bridge(Bdf(segment, bus + 1, port, 0), parts["0000:02:00.0"], below, below)
            for function in range(8):
                device = bytearray(_whole(parts["0000:03:00.0"]))
                device[0x0E] |= 0x80
                yield FunctionDescription(Bdf(segment, below, 0, function), bytes(device))


def _bridge(bdf: Bdf, config: bytes, first: int, last: int) -> FunctionDescription:
    image = bytearray(_whole(config))
    image[0x18:0x1B] = bytes((bdf.bus, first, last))
    return FunctionDescription(bdf, bytes(image))


def _whole(config: bytes) -> bytes:
    return config.ljust(4096, b"\0")
