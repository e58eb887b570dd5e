"""What `quiesce groups` leaves out on its way, so that small questions stay fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quiesce.snapshot.lspci import write
from quiesce.snapshot.read import read_text

HEAVY = ("quiesce.world", "quiesce.kernel.kernel", "quiesce.explore", "quiesce.cases", "quiesce.machine.function")
READERS = ("quiesce.snapshot.lspci_blocks", "quiesce.snapshot.dmesg", "quiesce.snapshot.dmar", "json", "csv")
SHOW = "import sys; from quiesce.cli import main; main(sys.argv[1:]); print('\\n'.join(sorted(sys.modules)))"


def modules(*words: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", SHOW, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


@pytest.fixture
def dump(tmp_path: Path) -> str:
    path = tmp_path / "dump.txt"
    path.write_text(write(read_text("00:00.0 host-bridge\n00:1d.0 root-port bus=01\n01:00.0 nvme\n", "m").functions))
    return str(path)


def test_groups_of_a_dump_need_neither_the_model_nor_other_readers(dump: str) -> None:
    loaded = modules("groups", dump, "--kernel", "v6.12")
    assert "quiesce.groups.predict" in loaded
    assert not loaded & {*HEAVY, *READERS}


def test_a_kernel_before_the_central_search_takes_the_model(dump: str) -> None:
    assert set(HEAVY[:2]) <= modules("groups", dump, "--kernel", "v3.12")


def test_help_needs_nothing() -> None:
    assert not {name for name in modules("--help") if name.startswith("quiesce.") and name != "quiesce.cli"}
