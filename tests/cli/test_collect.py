from pathlib import Path

import pytest

from quiesce.cli import BAD_INPUT, main
from quiesce.snapshot.collect import Collection, collect
from quiesce.snapshot.read import read_machine
from snapshot.trees import machine_tree


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_tree(*, redact: bool) -> Collection:
        return collect(machine_tree(), redact=redact)

    monkeypatch.setattr("quiesce.snapshot.collect.collect", of_tree)


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz", "folder"])
def test_it_makes_what_can_be_read_again(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", str(tmp_path / name)]) == 0
    out = capsys.readouterr().out
    assert "2 functions, 2 IOMMU groups, ACPI tables: none" in out
    assert "redacted: " in out
    assert len(read_machine(tmp_path / name).functions) == 2


def test_without_redaction_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--no-redact", str(tmp_path / "m.tar.gz")]) == 0
    assert "nothing was redacted" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.tar.gz").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("m.tar.gz", "link", "none/m.tar.gz"):
        assert main(["collect", str(tmp_path / name)]) == BAD_INPUT
        assert capsys.readouterr().err.startswith("quiesce: ")
    assert (tmp_path / "m.tar.gz").read_text() == "mine"
