from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from quiesce.cases.scenario import find_machine, shipped_machines
from quiesce.cli import BAD_INPUT, main
from quiesce.report.decoder_agreement import lspci_version
from quiesce.snapshot.read import read_machine

MACHINE = "root-ports-acs--612--amd"
SRIOV = "sriov-igb-ari--612--intel"


def out_of(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main(["show-machine", *words]) == status
    return capsys.readouterr().out


def test_every_shipped_machine_is_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert out_of(capsys, "--shipped").split() == shipped_machines()
    for name in shipped_machines():
        text = out_of(capsys, name)
        assert f"\niommu: {name.rpartition('--')[2]}\n" in text
        assert len([line for line in text.splitlines() if line.startswith("0000:")]) == len(
            find_machine(name).functions
        )


def test_a_line_for_each_function(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out_of(capsys, SRIOV).splitlines()
    port = next(line for line in lines if line.startswith("0000:00:05.0"))
    assert "1b36:000c  [0604]" in port
    assert "bus 02-05" in port
    virtual = next(line for line in lines if line.startswith("0000:01:10.2"))
    assert "8086:10ca" in virtual
    assert "(virtual function of 0000:01:00.0)" in virtual


def test_the_units_and_what_they_cover(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys, MACHINE)
    assert "unit 0xfed80000 at 0000:00:01.0: 0000:00:00.0, " in text


def test_groups_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "group" not in out_of(capsys, MACHINE)
    assert "group 0" in out_of(capsys, MACHINE, "--as-recorded")


def test_one_device_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys, MACHINE, "--device", "00:04.0", "-v")
    assert [line.split()[0] for line in text.splitlines() if line.startswith("0000:")] == ["0000:00:04.0"]
    assert "Access Control Services  (PCIe 6.0, 7.7.11)" in text
    words = [line.split() for line in text.splitlines()]
    assert [*["ACS", "Source", "Validation"], "+"] in words


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out_of(capsys, SRIOV, "--format", "json", "-v"))
    assert found["iommu"]["kind"] == "intel"
    port = next(item for item in found["functions"] if item["address"] == "0000:00:05.0")
    assert (port["kind"], port["buses"]) == ("root port", [2, 5])
    assert {"Type 1 header", "PCI Express"} <= {part["name"] for part in port["capabilities"]}
    assert "recorded_groups" not in found


def test_lspci_reads_back_what_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "dump.txt").write_text(out_of(capsys, MACHINE, "--format", "lspci"))
    written = {item.bdf: item.config for item in read_machine(tmp_path / "dump.txt").functions}
    assert written == {item.bdf: item.config for item in find_machine(MACHINE).functions}


@pytest.mark.skipif(lspci_version() is None, reason="no lspci is installed")
def test_lspci_writes_the_same_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = out_of(capsys, SRIOV, "--format", "lspci")
    (tmp_path / "dump.txt").write_text(text)
    command = ["lspci", "-D", "-n", "-xxxx", "-F", str(tmp_path / "dump.txt")]
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def bytes_of(dump: str) -> list[str]:
        return [line for line in dump.splitlines() if line and not line.startswith("0000:")]

    assert bytes_of(again) == bytes_of(text)


@pytest.mark.parametrize("device", ["what", "0000:77:00.0"])
def test_a_wrong_device_is_one_line(capsys: pytest.CaptureFixture[str], device: str) -> None:
    assert main(["show-machine", MACHINE, "--device", device]) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("quiesce: command line: --device")
    assert error.count("\n") == 1
