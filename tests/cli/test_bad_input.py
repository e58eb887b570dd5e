"""Whatever is wrong with the input: one line on stderr that begins with ``quiesce:``, no traceback, status 2."""

from __future__ import annotations

import gzip
import shlex
from pathlib import Path

import pytest

from quiesce.cli import BAD_INPUT, main

FLAT = "flat-root-bus--612--intel"
HEAD = "case x\nmachine m\n  00:00.0 host-bridge\n  00:04.0 conventional\nkernel v6.12\ndrivers correct\n"

ARGUMENTS = [
    "frob",
    "run",
    "run nothere",
    "run ''",
    "run teach-correct --kernel v9.9",
    "run teach-correct --kernel ''",
    "run teach-correct --kernel 'v6.1 +'",
    "run teach-correct --with zzz",
    "run teach-correct --without zzz",
    "run teach-correct --depth -1",
    "run teach-correct --depth x",
    "run teach-correct --depth 1_0",
    "run teach-correct --depth 70000",
    "run teach-correct --windows -1",
    "run teach-correct --faults -1",
    "run teach-correct --format xml",
    "run teach-correct --nonsense",
    "matrix nothere",
    "matrix teach-correct --jobs 0",
    "matrix teach-correct --jobs -1",
    "replay nothere",
    "replay teach-correct --jobs 0",
    "show nothere",
    "show teach-correct",
    "cases nothere",
    "cases ''",
    "rules nothere",
    "rules ''",
    "changes --subsystem nothere",
    "kernels v1.0",
    "kernels 'v6.12 + x'",
    "kernels ''",
    "machine nothere",
    "machine ''",
    "explore nothere --driver correct",
    f"explore {FLAT}",
    f"explore {FLAT} --driver nope",
    f"explore {FLAT} --driver correct",
    f"explore {FLAT} --driver correct --device 00:19.0",
    f"explore {FLAT} --driver correct --device zz",
    f"explore {FLAT} --driver ahci --event nonsense",
    f"explore {FLAT} --driver ahci --event 'bind *' --event nonsense",
    f"explore {FLAT} --driver ahci --never nope/nope",
    f"explore {FLAT} --driver ahci --depth -1",
    f"explore {FLAT} --driver ahci --states 0",
    f"explore {FLAT} --driver ahci --states -5",
    f"explore {FLAT} --driver ahci --seconds -1",
    f"explore {FLAT} --driver ahci --seconds nan",
    f"explore {FLAT} --driver ahci --jobs -2",
    f"explore {FLAT} --driver ahci --depth 1 --checkpoint /no/such/folder/file",
    f"residue {FLAT} --driver nope --device 00:1f.2",
    f"residue {FLAT} --driver nvme --device 00:1f.2",
    f"residue {FLAT} --driver ahci --device 00:19.0",
    f"residue {FLAT} --driver ahci --device 00:1f.2 --other nope",
    f"residue {FLAT} --driver ahci --device 00:1f.2 --kernel v1",
    f"residue {FLAT} --device 00:1f.2",
]

PAGES = {
    "empty": "",
    "no-case": "machine m\n",
    "bogus-key": "case x\nbogus y\n",
    "kind": "case x\nmachine m\n  00:00.0 nonsense\nkernel v6.12\ndrivers correct\n",
    "driver": HEAD.replace("correct", "nope"),
    "device": HEAD + "devices 00:09.0\n",
    "no-device": HEAD,
    "depth": HEAD + "devices 00:04.0\ndepth 99999\n",
    "long-number": HEAD + "devices 00:04.0\ndepth " + "9" * 5000 + "\n",
    "digits": HEAD + "devices 00:04.0\ndepth ٣\n",
    "step": HEAD + "devices 00:04.0\nsteps\n  1 frob it\n",
    "setup": HEAD + "devices 00:04.0\nsetup\n  boot\n  frob\n",
    "impossible-setup": HEAD + "devices 00:04.0\nsetup\n  boot\n  boot\n",
    "event": HEAD + "devices 00:04.0\nevents\n  bind *\n  bnid *\n",
    "rule": HEAD + "devices 00:04.0\nnever\n  irq/nobody-care\n",
    "wish": HEAD + "devices 00:04.0\nsometimes\n  evnt bind *\n",
    "machine-file": "case x\nmachine machine-file.txt\nkernel v6.12\ndrivers correct\n",
    "machine-itself": "case x\nmachine machine-itself.case\nkernel v6.12\ndrivers correct\n",
}


def check(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Run a command that must fail, and return its one line."""
    try:
        status = main(words)
    except SystemExit as end:
        status = int(str(end.code))
    out, err = capsys.readouterr()
    assert status == BAD_INPUT
    assert out == ""
    assert err.startswith("quiesce: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("line", ARGUMENTS)
def test_bad_arguments_get_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(capsys, shlex.split(line))


@pytest.mark.parametrize("name", PAGES)
def test_a_malformed_case_gets_one_line_that_names_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{name}.case"
    path.write_text(PAGES[name])
    for command in ("run", "show", "matrix"):
        assert name in check(capsys, [command, str(path)])


def strange_files(folder: Path) -> list[Path]:
    """Make inputs that are none."""
    (folder / "empty").touch()
    (folder / "binary").write_bytes(bytes(range(256)) * 20)
    (folder / "json").write_text('{"a": 1}')
    (folder / "broken-json").write_text('{"devices": ')
    (folder / "zip").write_bytes(gzip.compress(b"no checkpoint"))
    (folder / "folder").mkdir()
    return sorted(folder.iterdir())


def test_strange_files_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in strange_files(tmp_path):
        for line in ("run {}", "machine {}", "explore {} --driver ahci", "residue {} --driver ahci --device 00:1f.2"):
            check(capsys, line.format(path).split())
        words = f"explore {FLAT} --driver ahci --depth 1 --checkpoint {path}".split()
        assert path.name in check(capsys, words)


def test_a_checkpoint_of_another_search_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"explore {FLAT} --driver ahci --depth 1 --checkpoint {tmp_path}/saved".split()
    assert main(words) == 0
    capsys.readouterr()
    assert "the same machine" in check(capsys, [*words, "--kernel", "v4.1"])


@pytest.mark.parametrize("record", ["[]", "{}", '{"format": 1}', '{"format": 99}', '{"format": 1, "events": 3}'])
def test_a_checkpoint_with_something_else_in_it_gets_one_line(
    record: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "saved"
    path.write_bytes(gzip.compress(record.encode()))
    check(capsys, f"explore {FLAT} --driver ahci --depth 1 --checkpoint {path}".split())
