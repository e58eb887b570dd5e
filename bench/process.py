"""Runs whole commands and measures them from outside: wall time, peak memory, exit status, output."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAILED = 127


def environment(cache: Path) -> dict[str, str]:
    """Return the environment of the children: bytecode is cached, as it is where a tool is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(cache)}


CACHE = tempfile.TemporaryDirectory(prefix="quiesce-bench-")
ENVIRONMENT = environment(Path(CACHE.name))


@dataclass(frozen=True, slots=True)
class Ran:
    """One command that was run to its end."""

    status: int
    seconds: float
    peak_kib: int
    """Largest resident set. A child cannot show less than the harness itself has, about 15 MiB."""
    output: str
    errors: str
    processor: float = 0.0
    """Seconds of processor time, the system's for it included."""

    def record(self) -> dict[str, Any]:
        """Return its JSON output; an empty record when it printed none."""
        try:
            found = json.loads(self.output)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def complaint(self) -> str:
        """Return the last line it wrote to standard error, to tell in one line why it failed."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self.status}"


def run(command: Sequence[str], folder: Path | None = None) -> Ran:
    """Run a command in ``folder``."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        try:
            child = subprocess.Popen(
                command, cwd=folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )
        except OSError as error:
            return Ran(FAILED, 0.0, 0, "", str(error))
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        processor = usage.ru_utime + usage.ru_stime
        return Ran(child.returncode, seconds, usage.ru_maxrss, _text(output), _text(errors), processor)


def run_all(commands: Sequence[Sequence[str]], folder: Path | None = None) -> Ran:
    """Run commands one after the other as if they were one; the last one that ran gives status and output."""
    seconds, peak, ran = 0.0, 0, Ran(0, 0.0, 0, "", "")
    outputs = []
    for command in commands:
        ran = run(command, folder)
        seconds += ran.seconds
        peak = max(peak, ran.peak_kib)
        outputs.append(ran.output)
        if ran.status != 0:
            break
    return Ran(ran.status, seconds, peak, "".join(outputs), ran.errors)


def _text(file: Any) -> str:
    file.seek(0)
    return bytes(file.read()).decode(errors="replace")
