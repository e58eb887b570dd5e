"""The output in docs/plan.md is real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quiesce.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plan.md"
BLOCKS = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.startswith("$")], ids=lambda block: block[:40])
def test_example(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = next(block for block in BLOCKS if block.startswith("machine"))
    Path("desktop.txt").write_text(text)
    Path("plain.txt").write_text("".join(line for line in text.splitlines(True) if "reserved" not in line))
    command, _, wanted = block.partition("\n")
    main([*command.split()[2:], "--seconds", "60"])
    found = capsys.readouterr().out
    assert _uncounted(found).endswith(_uncounted(wanted.removeprefix("...\n")))


def _uncounted(text: str) -> str:
    """Searches are pinned elsewhere; here their size may change with the model."""
    return re.sub(r"\d+ states", "N states", text)
