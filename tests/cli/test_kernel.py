from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_kernel import build_tree
from quiesce.cli import main
from quiesce.testbed import fetch
from quiesce.testbed.errors import Skipped


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    assert main(["kernel", *words]) == status
    out, err = capsys.readouterr()
    return out, err


def test_an_empty_store_says_how_to_fill_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list") == ("no kernels in the store; 'quiesce kernel fetch debian:6.12' brings one\n", "")
    assert run(capsys, "list", "--format", "json") == ("[]\n", "")


def test_add_list_check_remove(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree")
    out, _ = run(capsys, "add", str(tree), "--name", "mine", "--kernel", "v6.12")
    assert out.split() == ["added:mine", "6.12.9-own", "4", "modules"]
    out, _ = run(capsys, "list")
    assert "added:mine" in out
    assert out.splitlines()[1].endswith(" v6.12")
    (row,) = json.loads(run(capsys, "list", "--check", "--format", "json")[0])
    assert (row["name"], row["kernel_set"], row["switches"], row["damaged"]) == ("added:mine", "v6.12", False, [])
    (Path(row["folder"]) / "config").write_text("changed")
    assert "damaged: config" in run(capsys, "list", "--check", status=1)[0]
    run(capsys, "remove", "added:mine")
    assert run(capsys, "list")[0].startswith("no kernels")


def test_a_kernel_without_a_kernel_set_is_still_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "add", str(build_tree(tmp_path / "tree", release="6.12-own")))
    (row,) = json.loads(run(capsys, "list", "--format", "json")[0])
    assert row["release"] == "6.12-own"


def test_each_kernel_that_cannot_be_fetched_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: str, **_: object) -> None:
        raise Skipped("the network is down")

    monkeypatch.setattr(fetch, "fetch", offline)
    out, err = run(capsys, "fetch", "6.1", "debian:newest", status=1)
    assert out == ""
    assert err == (
        "quiesce: debian:6.1 could not be fetched: the network is down\n"
        "quiesce: debian:newest could not be fetched: the network is down\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        "fetch 6.2",
        "fetch 6.1 nonsense",
        "fetch instrumented",
        "add /nowhere/bzImage",
        "add /",
        "remove nonsense",
        "build --tree /nowhere",
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], words: str) -> None:
    if words.startswith("build"):
        pytest.importorskip("quiesce.testbed.instrumented")
    out, err = run(capsys, *words.split(), status=2)
    assert out == ""
    assert err.startswith("quiesce: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", ["", "frob", "fetch", "add", "list --format xml", "build --jobs 0"])
def test_bad_arguments_end_with_status_2(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["kernel", *words.split()])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("quiesce: kernel")


def test_removing_what_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "remove", "6.1", status=1)
    assert err == (
        "quiesce: the kernel debian:6.1 is not in the store; fetch it with 'quiesce kernel fetch debian:6.1'\n"
    )
