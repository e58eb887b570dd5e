"""quiesce plan on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plan.machines import INTEL
from quiesce.cli import main


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small"
    path.write_text(INTEL)
    return str(path)


def test_options_may_stand_anywhere(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["01:00.0", "--to", "vfio-pci", small, "--kernel", "v6.12"],
        [small, "--kernel", "v6.12", "0000:01:00.0"],
    ):
        assert main(["plan", *words, "--held", "01:00.0=nvme", "--seconds", "20"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("plan 01:00.0 -> vfio-pci: possible")


def test_a_refusal_is_status_1_with_its_reason_last(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "00:01.0", small, "--kernel", "v6.12"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("plan 00:01.0 -> vfio-pci: refused: it is a bridge")
    assert "steps" not in out


def test_json_has_all_of_it(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "02:00.0", small, "--kernel", "v6.12", "--no-search", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["format"] == 1
    assert list(record) == [
        *("format", "device", "to", "kernel", "iommu", "what", "verdict", "refusals", "alternatives", "missing"),
        *("interrupts", "resets", "power", "persist", "guest", "back_warnings", "checks", "search", "notes"),
    ]
    (group,) = record["alternatives"]
    assert [item["bdf"] for item in group["members"]] == ["0000:00:02.0", "0000:02:00.0", "0000:02:00.1"]
    assert {"command", "what"} == set(group["steps"][0])
    assert record["search"]["ran"] is False


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["01:00.0", "02:00.0"],
        ["01:ff.0"],
        ["01:00.0", "--held", "nvme"],
        ["01:00.0", "--held", "x=nvme"],
        ["01:00.0", "--kernel", "v9.9"],
        ["01:00.0", "--to", "uio"],
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], small: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["plan", *words, small])
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
