"""quiesce draw: text, files, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drawn_machines import SERVER
from quiesce.cli import main


@pytest.fixture
def server(tmp_path: Path) -> str:
    path = tmp_path / "server.txt"
    path.write_text(SERVER)
    return str(path)


def test_it_draws_text_without_colours_into_a_pipe(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", server]) == 0
    drawn = capsys.readouterr().out
    assert "0000:04:00.0" in drawn
    assert "\033" not in drawn
    assert main(["draw", server, "--ascii"]) == 0
    assert capsys.readouterr().out.isascii()


def test_a_terminal_that_knows_ascii_only_gets_ascii(server: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "quiesce.cli", "draw", server]
    drawn = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert b"`- 0000:00:1f.2" in drawn


@pytest.mark.parametrize("name", ["a.svg", "a.HTML"])
def test_it_writes_a_file_and_says_nothing(
    name: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", server, "-o", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == ""
    assert "04:00.0" in (tmp_path / name).read_text()


@pytest.mark.parametrize("name", ["a.png", "a", "no/such/folder/a.svg"])
def test_what_cannot_be_written_is_bad_input(
    name: str, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["draw", server, "-o", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "expected" in error


def test_the_kernel_and_its_parameters_count(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", server, "--parameter", "pcie_acs_override=downstream"]) == 0
    assert "override" in capsys.readouterr().out
    assert main(["draw", server, "--iommu", "none"]) == 0
    assert "without a group" in capsys.readouterr().out
