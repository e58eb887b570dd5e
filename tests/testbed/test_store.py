from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from quiesce.snapshot.errors import BadInput
from quiesce.testbed import store
from quiesce.testbed.errors import Skipped


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(name: str, version: str, text: str = "bytes") -> None:
    with store.locked(name), store.scratch(store.kernels_dir(), name) as work:
        made = store.made(work / "kernel")
        (made / "bzImage").write_text(text)
        (store.made(made / "headers/build") / "Makefile").write_text("all:\n")
        (made / "headers/link").symlink_to("build")
        store.publish(name, version, made, {"release": version})


def visible() -> list[str]:
    return sorted(path.name for path in store.kernels_dir().iterdir())


def test_the_folder_is_the_setting_or_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("QUIESCE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_dir() == tmp_path / "xdg/quiesce"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store.cache_dir() == tmp_path / "home/.cache/quiesce"


def test_a_folder_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "file"))
    with pytest.raises(Skipped, match="cannot be made"):
        store.cache_dir()


def test_what_was_published_is_found_with_its_checksums() -> None:
    put("debian:6.1", "6.1.9-1")
    record = store.manifest("debian:6.1")
    assert record is not None
    assert record["folder"] == "debian-6.1-6.1.9-1"
    assert set(record["files"]) == {"bzImage", "headers"}
    assert record["files"]["bzImage"] == store.sha256(store.kernels_dir() / record["folder"] / "bzImage")
    assert store.damaged(record) == []
    assert store.manifests() == [record]
    assert store.manifest("debian:5.10") is None


@pytest.mark.parametrize(("file", "part"), [("bzImage", "bzImage"), ("headers/build/Makefile", "headers")])
def test_a_changed_file_is_found(file: str, part: str) -> None:
    put("added:x", "1")
    record = store.manifest("added:x")
    assert record is not None
    (store.kernels_dir() / record["folder"] / file).write_text("changed")
    assert store.damaged(record) == [part]


def test_the_version_before_stays_once_more() -> None:
    for version in ("1", "2", "3"):
        put("debian:6.1", version)
    assert visible() == ["debian-6.1-2", "debian-6.1-3", "debian-6.1.json"]


def test_kernels_with_names_alike_do_not_sweep_each_other() -> None:
    put("added:x", "1")
    put("added:x-y", "1")
    for version in ("2", "3"):
        put("added:x", version)
    assert "added-x-y-1" in visible()


def test_the_same_version_again_takes_its_place() -> None:
    put("debian:6.1", "1", "old")
    put("debian:6.1", "1", "new")
    assert (store.kernels_dir() / "debian-6.1-1/bzImage").read_text() == "new"
    assert visible() == ["debian-6.1-1", "debian-6.1.json"]


def test_nothing_half_done_is_left() -> None:
    def interrupted() -> None:
        with store.locked("added:x"), store.scratch(store.kernels_dir(), "added:x") as work:
            (work / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert visible() == []


def test_what_a_killed_process_left_is_swept() -> None:
    (store.kernels_dir() / ".unfinished-added-x.abc").mkdir()
    with store.scratch(store.kernels_dir(), "added:x"):
        assert len(visible()) == 1
    assert visible() == []


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    store.write_atomic(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [other.name for other in tmp_path.iterdir() if other.is_file()] == ["file"]


def test_one_process_at_a_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.0)
    with store.locked("added:x"), (cache / "locks/added-x.lock").open("w") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Skipped, match="another process"):
            store.locked("added:x", said.append).__enter__()
    with store.locked("added:x"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', "\0"])
def test_a_broken_manifest_is_named(text: str) -> None:
    path = store.kernels_dir() / "added-x.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"added-x\.json"):
        store.manifest("added:x")


def test_removing_takes_folder_and_manifest() -> None:
    put("added:x", "1")
    store.remove("added:x")
    store.remove("added:x")
    assert visible() == []
