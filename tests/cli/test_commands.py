"""Every command: what it prints, its exit status, and the JSON that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quiesce import __version__
from quiesce.cases.library import shipped
from quiesce.cli import COMMANDS, FINDINGS, main
from quiesce.rules.registry import RULES

FLAT = "flat-root-bus--612--intel"
RECORD = [
    "format",
    "case",
    "kernel",
    "with",
    "without",
    "verdict",
    "rule",
    "steps",
    "states",
    "transitions",
    "seconds",
    "first_seconds",
    "bound",
    "rules",
    "missing",
    "observation",
]
STEP = {"event", "choices", "answer", "enabled", "crashed", "messages", "findings", "changes"}


def out_of(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """Run a command and return what it prints."""
    assert main(list(words)) == status
    out, err = capsys.readouterr()
    assert err == ""
    return out


def json_of(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    return json.loads(out_of(capsys, *words, "--format", "json", status=status))


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys, "--help")
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: quiesce {name}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert out_of(capsys, "--version") == f"quiesce {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom quiesce.cli import main\nmain(['--help'])\n"
        "print([n for n in sys.modules if n.startswith('quiesce.') and not n.startswith('quiesce.cli')], "
        "[n for n in ('argparse', 'json', 'multiprocessing', 'concurrent.futures') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["run", "teach-correct"], 0),
        (["run", "teach-double-free"], 1),
        (["run", "nothere"], 2),
        (["run", "teach-correct", "--depth", "-1"], 2),
        (["cases"], 0),
        ([""], 2),
    ],
)
def test_the_status_of_the_process_tells_clean_findings_and_bad_input(words: list[str], status: int) -> None:
    done = subprocess.run([sys.executable, "-m", "quiesce", *words], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert (done.stderr == "") == (status < 2)


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m quiesce changes | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_run_prints_the_verdict_the_life_and_the_observation(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out_of(capsys, "run", "teach-double-free", status=FINDINGS).splitlines()
    assert lines[0].startswith("# teach-double-free  v6.12  VIOLATED  irq/free-without-request  2 events (shortest)")
    assert any(line.startswith("verdict   irq/free-without-request: ") for line in lines)
    assert lines[-1].startswith("Observation teach-double-free Sometimes ")


def test_run_on_a_clean_case_says_never(capsys: pytest.CaptureFixture[str]) -> None:
    lines = out_of(capsys, "run", "teach-correct").splitlines()
    assert lines[0].startswith("# teach-correct  v6.12  holds")
    assert lines[-1].startswith("Observation teach-correct Never 0 ")


def test_the_observation_of_a_violated_case_is_never_never(capsys: pytest.CaptureFixture[str]) -> None:
    """In ``late-coherent-free`` the last step of the life leads to a state that is known from another."""
    for record in json_of(capsys, "replay", "late-coherent-free", "vfio-decode-off", "teach-correct", "--jobs", "1"):
        violated = record["verdict"] == "violated"
        assert (record["observation"].split()[2] != "Never") == violated, record["case"]
        assert record["observation"].split()[1] == record["case"]


def test_run_edits_the_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["intx-restore-wrong", "--kernel", "v6.12", "--with", "d555ed45a5a1"]
    record = json_of(capsys, "run", *words)
    assert (record["kernel"], record["with"], record["without"]) == ("v6.12", ["d555ed45a5a1"], [])
    assert record["verdict"] == "holds"
    assert "trace" not in record


def test_the_record_of_a_run_has_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    record = json_of(capsys, "run", "teach-double-free", status=FINDINGS)
    assert list(record) == [*RECORD, "trace"]
    assert record["rules"] == {record["rule"]: record["steps"]}
    assert len(record["trace"]) == record["steps"]
    assert all(set(step) == STEP for step in record["trace"])
    assert record["trace"][-1]["findings"][0]["rule"] == record["rule"]
    assert list(json_of(capsys, "run", "teach-correct")) == RECORD


def test_a_bound_that_ends_the_search_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert json_of(capsys, "run", "teach-correct", "--depth", "1")["bound"] == "depth 1"


def test_run_all_prints_a_trace_for_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    rules = json_of(capsys, "run", "teach-leaky-msi", status=FINDINGS)["rules"]
    text = out_of(capsys, "run", "teach-leaky-msi", "--all", status=FINDINGS)
    assert len(rules) > 1
    assert all(f"\nverdict   {rule}: " in text for rule in rules)


def test_matrix_has_a_line_for_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = shipped()["teach-msi-off-first"].judge
    lines = out_of(capsys, "matrix", "teach-msi-off-first", "--jobs", "1").splitlines()
    assert [line.split()[0] for line in lines[2:]] == [row.kernel for row in rows]
    records = json_of(capsys, "matrix", "teach-msi-off-first", "--jobs", "2")
    assert [record["label"] for record in records] == [row.label for row in rows]
    assert all(list(record) == [*RECORD, "label"] for record in records)


def test_replay_prints_a_row_and_an_observation_for_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["teach-double-free", "teach-correct"]
    lines = out_of(capsys, "replay", *names, "--jobs", "2").splitlines()
    assert [line.split()[0] for line in lines[:2]] == names
    assert [line.split()[1] for line in lines[3:]] == names


def test_replay_judge_runs_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = shipped()["teach-double-free"].judge
    text = out_of(capsys, "replay", "teach-double-free", "--judge", "--jobs", "1")
    assert text.count("teach-double-free ") == 2 * len(rows)


def test_show_follows_the_shortest_life_with_every_write(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys, "show", "intx-restore-wrong")
    assert "  1  bind managed-toggle 0000:00:04.0  -> 0" in text
    assert "pci/0000:00:04.0.driver" in text
    steps = json_of(capsys, "show", "intx-restore-wrong")
    assert [step["event"].split()[0] for step in steps] == ["bind", "unbind"]


def test_explore_finds_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explore", FLAT, "--driver", "double-free-irq", "--device", "00:04.0", "--depth", "2", "--kernel", "v6.12"]
    only = ["--event", "bind *", "--event", "unbind *"]
    record = json_of(capsys, *words, *only, status=FINDINGS)
    assert record["rule"] == "irq/free-without-request"
    assert list(record) == RECORD
    assert "VIOLATED" in out_of(capsys, *words, *only, "--first", "--all", status=FINDINGS)
    assert json_of(capsys, *words, *only, "--never", "msi/*")["verdict"] == "holds"


def test_a_search_goes_on_from_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explore", FLAT, "--driver", "correct", "--device", "00:04.0", "--event", "*bind *", "--event", "suspend"]
    words += ["--event", "resume", "--depth", "4"]
    whole = json_of(capsys, *words)
    saved = ["--checkpoint", str(tmp_path / "saved")]
    part = json_of(capsys, *words, *saved, "--states", "3")
    rest = json_of(capsys, *words, *saved)
    assert part["bound"] == "3 states"
    assert (rest["states"], rest["transitions"], rest["bound"]) == (
        whole["states"],
        whole["transitions"],
        whole["bound"],
    )


def test_residue_tells_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["residue", FLAT, "--driver", "ahci", "--device", "00:1f.2", "--other", "vfio-pci", "--depth", "1"]
    text = out_of(capsys, *words, "--kernel", "v6.11-rc7", status=FINDINGS)
    assert text.startswith("residue of ahci on 0000:00:1f.2, v6.11-rc7: bind 0\n")
    assert ".is_managed " in text
    left = json_of(capsys, *words, "--kernel", "v6.11-rc7", status=FINDINGS)["left"]
    assert {"object", "field", "fresh", "left"} == set(left[0])


def test_cases_lists_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split()[0] for line in out_of(capsys, "cases").splitlines()] == list(shipped())
    assert out_of(capsys, "cases", "teach-correct") == Path(shipped()["teach-correct"].path).read_text()


def test_rules_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split()[0] for line in out_of(capsys, "rules").splitlines()] == [rule.id for rule in RULES]
    assert out_of(capsys, "rules", "irq/nobody-cared").startswith("# irq/nobody-cared\n")


def test_changes_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    records = json_of(capsys, "changes", "--subsystem", "devres")
    assert records
    assert all("devres" in record["subsystem"].lower() for record in records)
    assert "fc8c818e7569" in out_of(capsys, "changes")
    assert "v6.11-rc1" in out_of(capsys, "kernels")
    with_fix, without = (out_of(capsys, "kernels", name) for name in ("v6.11", "v6.11 - fc8c818e7569"))
    assert "fc8c818e7569" in with_fix
    assert "fc8c818e7569" not in without
