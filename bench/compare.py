"""quiesce and its peers on one lifecycle, as whole commands: from nothing to the printed shortest life."""

from __future__ import annotations

import re
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import process
from process import Ran

PEERS = Path(__file__).parent / "peers"
CASE = "managed-outlives-driver"
BROKEN, FIX = "v6.11-rc7", "fc8c818e7569"
SHORTEST = 6
"""Events in the shortest life that goes wrong."""
EXAMPLES = 1_000
"""Lives that hypothesis tries where there is nothing to find."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run of one peer said, and what it cost."""

    found: bool
    steps: int
    ran: Ran
    states: int = 0
    note: str = ""
    """Why there is no answer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool with a way to ask it: ``ask(fixed, round, folder)``."""

    name: str
    ask: Callable[[bool, int, Path], Answer]
    missing: str
    """Why it cannot be asked here; empty when it can."""
    proves: str
    """What its answer on the fixed kernel is worth."""


def quiesce_command() -> list[str]:
    """Return the command that runs quiesce with this interpreter."""
    return [sys.executable, "-m", "quiesce"]


def ask_quiesce(fixed: bool, number: int, folder: Path) -> Answer:
    """Search the shipped case on the whole model."""
    command = [*quiesce_command(), "run", CASE, "--kernel", BROKEN, "--format", "json"]
    ran = process.run([*command, *(["--with", FIX] if fixed else ["--first"])], folder)
    record = ran.record()
    if not record:
        return Answer(False, 0, ran, note=ran.complaint())
    note = "" if record["verdict"] in ("violated", "holds") else f"verdict: {record['verdict']}"
    return Answer(record["rule"] is not None, record["steps"] or 0, ran, record["states"], note)


def ask_spin(fixed: bool, number: int, folder: Path) -> Answer:
    """Translate, compile, search breadth-first, and print the trail if there is one."""
    model = folder / "lifecycle.pml"
    shutil.copy(PEERS / model.name, model)
    define = [f"-DFIXED={int(fixed)}"]
    ran = process.run_all(
        [
            ["spin", *define, "-a", model.name],
            ["gcc", "-O0", "-DSAFETY", "-DBFS", "-o", "pan", "pan.c"],
            ["./pan", "-w16"],
            *([] if fixed else [["spin", *define, "-t", model.name]]),
        ],
        folder,
    )
    if "errors:" not in ran.output:
        return Answer(False, 0, ran, note=ran.complaint())
    states = re.search(r"(\d+) states, stored", ran.output)
    found = re.search(r"errors: [1-9]", ran.output) is not None
    return Answer(found, ran.output.count("EVENT "), ran, int(states[1]) if states else 0)


def ask_hypothesis(fixed: bool, number: int, folder: Path) -> Answer:
    """Search with another seed in every round, and shrink."""
    script = str(PEERS / "lifecycle_hypothesis.py")
    wanted = ["--fixed", "--examples", str(EXAMPLES)] if fixed else []
    ran = process.run([sys.executable, script, "--seed", str(number), *wanted], folder)
    record = ran.record()
    if not record:
        return Answer(False, 0, ran, note=ran.complaint())
    return Answer(record["found"], record["steps"], ran, record["lives"])


def peers() -> list[Peer]:
    """Return quiesce and its peers."""
    lacks = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    return [
        Peer("quiesce", ask_quiesce, _module_missing("quiesce"), "within the case's depth, on the whole model"),
        Peer("spin", ask_spin, f"{' and '.join(lacks)} not found" if lacks else "", "for the small model, any depth"),
        Peer("hypothesis", ask_hypothesis, _module_missing("hypothesis"), f"nothing; {EXAMPLES} random lives"),
    ]


def _module_missing(name: str) -> str:
    return "" if find_spec(name) else f"no module {name} in {Path(sys.executable).name}"


def compare(rounds: int, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Ask every peer ``rounds`` times in turn, so that a slow moment of the machine meets all; return the medians.

    The first time does not count: it fills caches.
    """
    able = []
    for peer in peers():
        if peer.missing:
            say(f"{peer.name}: left out, {peer.missing}")
        else:
            able.append(peer)
    result: dict[str, Any] = {}
    for question, fixed in (("to the first violation", False), ("fixed, to the end", True)):
        answers: dict[str, list[Answer]] = {peer.name: [] for peer in able}
        for number in range(rounds + 1):
            for peer in able:
                place = folder / f"{peer.name}-{int(fixed)}-{number}"
                place.mkdir()
                answer = peer.ask(fixed, number, place)
                if number > 0:
                    answers[peer.name].append(answer)
        rows = [summary(peer, answers[peer.name], fixed) for peer in able]
        result[question] = rows
        for line in table(question, rows):
            say(line)
    return result


def summary(peer: Peer, answers: Sequence[Answer], fixed: bool) -> dict[str, Any]:
    """Return the medians of one peer, and whether its answers were right."""
    seconds = [answer.ran.seconds for answer in answers]
    steps = [answer.steps for answer in answers]
    right = [not answer.note and answer.found is not fixed for answer in answers]
    return {
        "peer": peer.name,
        "seconds": round(statistics.median(seconds), 4),
        "fastest": round(min(seconds), 4),
        "slowest": round(max(seconds), 4),
        "peak_kib": round(statistics.median(answer.ran.peak_kib for answer in answers)),
        "states": round(statistics.median(answer.states for answer in answers)),
        "steps": round(statistics.median(steps)),
        "shortest": sum(count == SHORTEST for count in steps),
        "right": sum(right),
        "rounds": len(answers),
        "note": next((answer.note for answer in answers if answer.note), ""),
        "proves": peer.proves,
    }


def table(question: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table with the ratio to quiesce."""
    ours = next((row["seconds"] for row in rows if row["peer"] == "quiesce" and row["right"]), None)
    head = f"{'peer':<12}{'median s':>10}{'fastest':>9}{'slowest':>9}{'ratio':>8}{'MiB':>7}{'states':>8}{'events':>8}"
    lines = ["", question, f"{head}  right"]
    for row in rows:
        ratio = f"{row['seconds'] / ours:.2f}" if ours else "-"
        lines.append(
            f"{row['peer']:<12}{row['seconds']:>10.3f}{row['fastest']:>9.3f}{row['slowest']:>9.3f}{ratio:>8}"
            f"{row['peak_kib'] / 1024:>7.0f}{row['states']:>8}{row['steps']:>8}  {row['right']}/{row['rounds']}"
            + (f"  {row['note']}" if row["note"] else "")
        )
    return lines
