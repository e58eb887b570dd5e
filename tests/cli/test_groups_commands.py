"""why, cut and what-if on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quiesce.cli import main

TEXT = """
00:00.0 host-bridge
00:1c.0 root-port bus=01 no-acs
00:1c.1 root-port bus=02 no-acs
00:1d.0 root-port bus=03 acs
01:00.0 nvme
02:00.0 e1000e
iommu intel
"""


@pytest.fixture
def machine(tmp_path: Path) -> str:
    path = tmp_path / "machine.txt"
    path.write_text(TEXT)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    assert main(list(words)) == status
    out = capsys.readouterr()
    return out.out, out.err


@pytest.mark.parametrize("first", [True, False])
def test_why_takes_functions_and_sources_in_any_order(
    capsys: pytest.CaptureFixture[str], machine: str, first: bool
) -> None:
    functions = ["01:00.0", "0000:02:00.0"]
    words = [*functions, machine] if first else [machine, *functions]
    out, _ = run(capsys, "why", *words, "--kernel", "v6.12")
    assert out.startswith("# 01:00.0 and 02:00.0: one group")
    assert "ACSCap: no capability" in out


def test_why_as_json(capsys: pytest.CaptureFixture[str], machine: str) -> None:
    out, _ = run(capsys, "why", "01:00.0", machine, "--format", "json")
    found = json.loads(out)
    assert found["verdict"] == "shared"
    assert {step["kind"] for step in found["answers"][0]["steps"]} >= {"covered", "climbs", "joins", "founds"}


@pytest.mark.parametrize("words", [[], ["01:00.0", "02:00.0", "00:1c.0"]])
def test_why_needs_one_or_two(capsys: pytest.CaptureFixture[str], machine: str, words: list[str]) -> None:
    _, err = run(capsys, "why", machine, *words, status=2)
    assert "one to 2 functions" in err
    assert err.count("\n") == 1


def test_cut(capsys: pytest.CaptureFixture[str], machine: str) -> None:
    out, _ = run(capsys, "cut", "01:00.0", machine, "--kernel", "v6.12")
    assert "put the card into the slot of 00:1d.0" in out
    assert "it only makes the kernel believe" in out
    data = json.loads(run(capsys, "cut", "01:00.0", machine, "--format", "json")[0])
    assert data["unwanted"] == ["0000:02:00.0"]


def test_what_if(capsys: pytest.CaptureFixture[str], machine: str) -> None:
    out, _ = run(capsys, "what-if", machine, "--move", "01:00.0=00:1d.0")
    assert "moved      01:00.0    is 03:00.0 now" in out
    assert "splits" in out
    data = json.loads(run(capsys, "what-if", machine, "--acs", "00:1c.0=SV,RR,CR,UF", "--format", "json")[0])
    assert [item["kind"] for item in data["differences"]] == ["splits"]


def test_what_if_with_an_override(capsys: pytest.CaptureFixture[str], machine: str) -> None:
    out, _ = run(capsys, "what-if", machine, "--parameter", "pcie_acs_override=downstream")
    assert "splits" in out


@pytest.mark.parametrize(
    "words",
    [
        ["--move", "01:00.0"],
        ["--move", "01:00.0=02:00.0"],
        ["--remove", "xx"],
        ["--acs", "00:1c.0=XX"],
        ["--acs", "09:00.0=none"],
        ["--kernel", "v1.0"],
    ],
)
def test_bad_changes_are_one_line(capsys: pytest.CaptureFixture[str], machine: str, words: list[str]) -> None:
    _, err = run(capsys, "what-if", machine, *words, status=2)
    assert err.startswith("quiesce: ")
    assert err.count("\n") == 1
