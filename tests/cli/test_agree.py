"""quiesce agree: tables of agreement over a folder of data."""

from __future__ import annotations

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from quiesce.cli import main

RECORDING = files("quiesce.cases") / "machines" / "root-ports-acs--612--intel.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with as_file(RECORDING) as path:
        shutil.copy(path, tmp_path / "root-ports-acs--612--intel.json")
    return tmp_path


def test_a_recording_that_agrees(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", str(folder), "--only", "groups", "--all"]) == 0
    text = capsys.readouterr().out
    assert "equal" in text.splitlines()[0]
    assert text.splitlines()[-1].split() == ["recording", "1", "0", "0", "0", "0"]


def test_a_recording_that_does_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = folder.iterdir()
    data = json.loads(path.read_text())
    members = [bdf for group in data["groups"].values() for bdf in group["devices"]]
    first = next(iter(data["groups"].values()))
    first["devices"] = members
    data["groups"] = {"0": first}
    path.write_text(json.dumps(data))
    assert main(["agree", str(folder), "--only", "groups"]) == 1
    assert "ruled out: 0000:00:00.0" in capsys.readouterr().out


def test_truth_beside_a_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = "machine small\n00:00.0 host-bridge\n00:01.0 root-port bus=01\n01:00.0 nvme\niommu intel\n"
    (tmp_path / "small.txt").write_text(machine)
    groups = [["0000:00:00.0"], ["0000:00:01.0", "0000:01:00.0"]]
    truth = {"id": "small", "kernel": "6.12.1", "platform": "intel", "groups": groups, "topology": "small.txt"}
    (tmp_path / "small.truth.json").write_text(json.dumps(truth))
    assert main(["agree", str(tmp_path), "--only", "groups", "--all"]) == 0
    assert "v6.12    equal" in capsys.readouterr().out


def test_what_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agree", "/nowhere/at/all"]) == 2
    assert "a folder" in capsys.readouterr().err
