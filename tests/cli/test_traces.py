"""A contract: the text that ``quiesce run`` prints, given to ``quiesce run`` again, finds the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quiesce.cases.case import parse_case
from quiesce.cases.library import BUGS, shipped
from quiesce.cli import FINDINGS, main

FLAT = "flat-root-bus--612--intel"


def found(capsys: pytest.CaptureFixture[str], words: list[str]) -> Any:
    assert main(["run", *words, "--format", "json"]) == FINDINGS
    return json.loads(capsys.readouterr().out)


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == FINDINGS
    return capsys.readouterr().out


def check(capsys: pytest.CaptureFixture[str], path: Path, text: str, rule: str) -> None:
    """Run a printed trace: it breaks the rule in its last step, with the same words, and prints itself again."""
    path.write_text(text)
    record = found(capsys, [str(path)])
    steps = parse_case(text).steps
    assert (record["rule"], record["steps"], record["bound"]) == (rule, len(steps), "steps")
    again = printed(capsys, ["run", str(path)])
    assert again.splitlines()[1:-1] == text.splitlines()[1:-1]


@pytest.mark.parametrize("name", [name for name in shipped() if name != "teach-correct"])
def test_the_trace_of_a_case_reproduces_what_it_shows(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, ["run", name])
    rule = next(line for line in text.splitlines() if line.startswith("verdict")).split()[1].rstrip(":")
    assert f"  VIOLATED  {rule}  " in text.splitlines()[0]
    check(capsys, tmp_path / "trace.case", text, rule)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_the_trace_of_every_broken_rule_reproduces_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several traces in one output: each begins with its ``case`` line."""
    text = printed(capsys, ["run", name, "--all"])
    pieces = ["case " + piece for piece in text.split("\ncase ")[1:]]
    assert len(pieces) == len(found(capsys, [name])["rules"])
    for number, piece in enumerate(pieces):
        body = piece.partition("\nObservation")[0]
        path = tmp_path / f"{number}.case"
        path.write_text(body)
        verdict = next(line for line in body.splitlines() if line.startswith("verdict"))
        assert found(capsys, [str(path)])["rule"] == verdict.split()[1].rstrip(":")


@pytest.mark.parametrize(
    ("bounds", "choice"),
    [
        (["--windows", "1", "--driver", "irq-before-ready", "--device", "00:04.0"], "at irq-before-ready"),
        (["--faults", "1", "--driver", "ahci", "--device", "00:1f.2"], " fails = True"),
    ],
)
def test_choices_in_windows_and_failures_are_part_of_the_trace(
    bounds: list[str], choice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explore", FLAT, *bounds, "--kernel", "v6.11-rc1", "--depth", "3"]
    main([*words, "--all"])
    text = capsys.readouterr().out
    traces = ["case " + piece.partition("\nObservation")[0] for piece in text.split("\ncase ")[1:]]
    chosen = [trace for trace in traces if choice in trace]
    for number, trace in enumerate(chosen):
        path = tmp_path / f"{number}.case"
        path.write_text(trace)
        verdict = next(line for line in trace.splitlines() if line.startswith("verdict"))
        assert found(capsys, [str(path)])["rule"] == verdict.split()[1].rstrip(":")


def test_a_window_is_printed_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, ["run", "teach-irq-before-ready"])
    assert "     choose at " in text
    assert "| window " in text
    check(capsys, tmp_path / "trace.case", text, "device/unmapped-access")


def test_a_trace_on_a_kernel_without_the_fault_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.case"
    path.write_text(printed(capsys, ["run", "intx-restore-wrong"]))
    assert main(["run", str(path), "--kernel", "v6.14"]) == 0
    assert "Observation intx-restore-wrong Never" in capsys.readouterr().out
