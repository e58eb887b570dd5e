"""``quiesce confirm`` without any kernel: what is wrong, what is skipped, and what was recorded."""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from pathlib import Path

import pytest

from quiesce.cases.case import Case
from quiesce.cases.library import shipped
from quiesce.cases.scenario import find_machine
from quiesce.cli import main
from quiesce.explore.model import Step
from quiesce.testbed import recording
from quiesce.testbed.model_side import ModelSide, Told

HINT = "the kernel debian:6.12 is not in the store; fetch it with 'quiesce kernel fetch debian:6.12'"
BDF = "0000:00:05.0"
MACHINE = "machine small\n00:00.0 host-bridge\n00:05.0 ahci\niommu intel"
LIFE = (f"bind ahci {BDF}", f"unbind {BDF}")


@pytest.fixture(autouse=True)
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))


def run(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str, str]:
    try:
        status = main(["confirm", *shlex.split(line)])
    except SystemExit as end:
        status = int(str(end.code))
    return status, *capsys.readouterr()


def recorded(path: Path, kernel: str, shown_on: str) -> Path:
    """Store what a kernel that is a model on another kernel set shows."""
    machine = find_machine(MACHINE)
    case = Case("small", machine=MACHINE, kernel=shown_on, drivers=("ahci",), devices=(BDF,))
    side = ModelSide.of(case)
    told = [Told("", side.start())]
    for event in LIFE:
        answer = side.play(Step(event))
        assert answer is not None
        told.append(Told(answer.answer or "0", answer.seen, answer.ended))
    data = {
        "name": "small",
        "devices": {str(item.bdf): {"config": item.config.hex()} for item in machine.functions},
        "acpi": {"DMAR": base64.b64encode(machine.dmar or b"").decode()},
    }
    shown = recording.Shown(LIFE, tuple(told))
    stored = recording.Recording(
        case="small",
        kernel="debian:6.12",
        release="6.12.0",
        package="",
        kernel_set=kernel,
        iommu="intel",
        qemu="",
        drivers=("ahci",),
        devices=(BDF,),
        machine=data,
        lives=[shown],
    )
    recording.write(stored, path)
    return path


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "CASE..., --all, --random N or --recorded FILE..."),
        ("--kernel 6.12", "CASE..., --all, --random N or --recorded FILE..."),
        ("teach-correct", "quiesce kernel fetch"),
        ("--groups 2", "quiesce kernel fetch"),
        ("nothere --kernel 6.12", "nothere"),
        ("teach-correct nothere --kernel 6.12", "nothere"),
        ("'' --kernel 6.12", "iommu-msi-lost"),
        ("teach-correct --kernel nope", "'nope'"),
        ("teach-correct teach-leaky-msi --kernel 6.12 --kernel nope", "'nope'"),
        ("--groups 2 --kernel nope", "'nope'"),
        ("--random 20 --kernel nope", "'nope'"),
        ("teach-correct --kernel 6.12 --switch zzz", "'zzz'"),
        ("teach-correct --kernel instrumented --switch msi-off --switch zzz", "'zzz'"),
        ("teach-correct --kernel 6.12 --iommu arm", "arm"),
        ("teach-correct --kernel 6.12 --jobs 0", "'0'"),
        ("--random 0", "'0'"),
        ("--random x", "'x'"),
        ("--groups 0", "'0'"),
        ("--random 1 --seed -1", "--seed"),
        ("--recorded", "--recorded"),
        ("--recorded /no/such/file", "/no/such/file"),
        ("teach-correct --kernel 6.12 --write /no/such/folder/page.md", "/no/such/folder/page.md"),
        ("teach-correct --kernel 6.12 --write /", "a file in a folder"),
        ("teach-correct --kernel 6.12 --format xml", "xml"),
    ],
)
def test_bad_input_is_one_line_and_status_2(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, line)
    assert (status, out) == (2, "")
    assert err.startswith("quiesce: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        gzip.compress(b"[]"),
        gzip.compress(b'{"format": 1}'),
        gzip.compress(b'{"format": 2, "lives": []}'),
        b"\x1f\x8b\x08 cut",
    ],
    ids=["empty", "plain", "list", "no-lives", "another-format", "cut"],
)
def test_so_is_a_file_that_is_no_recording(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json.gz"
    path.write_bytes(content)
    status, out, err = run(capsys, f"--recorded {recorded(tmp_path / 'a.json.gz', 'v6.12', 'v6.12')} {path}")
    assert (status, out) == (2, "")
    assert err.startswith(f"quiesce: {path}: expected a recording of a confirmation")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "change", [{"machine": None}, {"machine": {}}, {"lives": [{"events": ["rescan"], "told": []}]}]
)
def test_and_one_with_something_missing_in_it(
    change: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "a.json.gz", "v6.12", "v6.12")
    path.write_bytes(gzip.compress(json.dumps(json.loads(gzip.decompress(path.read_bytes())) | change).encode()))
    status, out, err = run(capsys, f"--recorded {path}")
    assert (status, out, err.count("\n")) == (2, "", 1)


# -- what is not there -----------------------------------------------------------------------------------------


def test_a_kernel_that_is_not_there_is_skipped_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "teach-correct --kernel 6.12")
    assert (status, err) == (0, "")
    assert out == f"teach-correct              6.12           same   skipped: {HINT}\n"


def test_all_cases_on_all_iommus_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--all --kernel 6.12 --iommu intel --iommu amd --jobs 1")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(shipped()) * 2
    assert all(line.endswith(HINT) for line in out.splitlines())


def test_random_lives_and_groups_are_skipped_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--random 1 --kernel 6.12 --jobs 1")
    assert (status, out.count("skipped: the kernel debian:6.12 is not in the store")) == (0, 2)
    status, out, _ = run(capsys, "--groups 1 --kernel 6.12 --jobs 1")
    assert (status, out.count("skipped: the kernel debian:6.12 is not in the store")) == (0, 2)
    assert out.endswith("groups: 0 of 0 machines as predicted\n")


def test_json_and_the_page_say_what_was_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    status, out, _ = run(capsys, f"teach-correct --kernel 6.12 --format json --write {page}")
    assert status == 0
    record = json.loads(out)
    assert record["table"] == []
    assert record["confirmations"][0]["skipped"] == HINT
    assert f"| teach-correct | {HINT} | 1 |" in page.read_text()


# -- what was recorded -----------------------------------------------------------------------------------------


def test_a_recording_that_the_model_predicts_is_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, f"--recorded {recorded(tmp_path / 'a.json.gz', 'v6.12', 'v6.12')}")
    assert (status, err) == (0, "")
    first, *rest = out.splitlines()
    assert first.startswith("small                      debian:6.12    intel  1 lives: ")
    assert ", 0 differ, " in first
    assert rest[-1].split()[-1] == "100.00%"


def test_one_that_it_does_not_is_status_1_and_the_difference_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path / "a.json.gz", "v6.11-rc7", "v6.11")
    status, out, _ = run(capsys, f"--recorded {path}")
    assert status == 1
    assert f"  step 2 unbind {BDF}: {BDF} is_managed: model 1, kernel 0" in out.splitlines()
    monkeypatch.setattr("quiesce.report.agreement.details", lambda one, every: [f"every {every}"])
    assert "every True" in run(capsys, f"--recorded {path} --every")[1]


def test_a_listed_difference_is_no_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from quiesce.testbed.known import Known

    path = recorded(tmp_path / "a.json.gz", "v6.11-rc7", "v6.11")
    listed = Known("6.12.*", "intel", "unbind_*", "*", "is_managed", "for once")
    monkeypatch.setattr("quiesce.testbed.known.known_differences", lambda: (listed,))
    status, out, _ = run(capsys, f"--recorded {path}")
    assert status == 0
    assert "[listed: for once]" in out


def test_a_share_may_be_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "a.json.gz", "v6.11-rc7", "v6.11")
    assert run(capsys, f"--recorded {path} --at-least 90")[0] == 0
    assert run(capsys, f"--recorded {path} --at-least 100")[0] == 1
    status, _, err = run(capsys, f"--recorded {path} --at-least 101")
    assert (status, "a share from 0 to 100" in err) == (2, True)
