"""apt itself is played by small scripts; what is tested is what we ask of it and what we make of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from quiesce.snapshot.errors import BadInput
from quiesce.testbed import apt
from quiesce.testbed.errors import Skipped

TARGETS = (
    "Debian|http://mirror.invalid/debian/\nDebian-Security|http://mirror.invalid/security/\nOther|http://x.invalid/"
)
GET = """#!/bin/sh
echo "apt-get $*" >>"{log}"
case $* in
*indextargets*) printf '%s\\n' '{targets}' ;;
*" download "*linux-gone*) echo 'Reading...'; echo 'E: Unable to locate package linux-gone' >&2; exit 100 ;;
*--download-only*) for word; do case $word in Dir::Cache::archives=*) touch "${{word#*=}}/a.deb" ;; esac; done ;;
*" -q download "*) touch one.deb two.deb ;;
*" -q update") {update} ;;
esac
"""
CACHE = """#!/bin/sh
echo "apt-cache $*" >>"{log}"
case $* in
*search*) for v in 9 10 10-rt; do echo "linux-image-6.12.$v-amd64 - x"; done ;;
*show*gone*) echo 'E: No packages found' >&2; exit 100 ;;
*show*) for last; do :; done; printf 'Package: %s\\nVersion: 6.12.10-1\\nSize: 1000\\nSHA256: 0\\n' "$last" ;;
esac
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return play(tmp_path, monkeypatch)


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: str = TARGETS, update: str = ":") -> Path:
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    log.write_text("")
    for name, text in (("apt-get", GET), ("apt-cache", CACHE)):
        (tools / name).write_text(text.format(log=log, targets=targets, update=update))
        (tools / name).chmod(0o755)
    keyring = tmp_path / "keys.gpg"
    keyring.write_text("")
    monkeypatch.setattr(apt, "KEYRINGS", (keyring,))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUIESCE_DEBIAN_MIRROR", raising=False)
    return log


def sources(suite: apt.Suite) -> str:
    return (suite.folder / "sources.list").read_text()


def test_the_mirror_is_the_one_this_machine_uses(log: Path, tmp_path: Path) -> None:
    suite = apt.Suite("trixie")
    suite.update()
    assert sources(suite) == f"deb [signed-by={tmp_path}/keys.gpg] http://mirror.invalid/debian/ trixie main\n"
    secure = apt.Suite("bookworm", security=True)
    secure.update()
    assert "http://mirror.invalid/security/ bookworm-security main" in sources(secure)


def test_a_mirror_can_be_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIESCE_DEBIAN_MIRROR", "http://first.invalid/")
    suite = apt.Suite("sid", security=True)
    suite.update()
    assert " http://first.invalid/ sid main\n" in sources(suite)
    suite = apt.Suite("sid", "http://second.invalid/")
    suite.update()
    assert " http://second.invalid/ sid main\n" in sources(suite)
    assert "indextargets" not in log.read_text()


@pytest.mark.parametrize("address", ["nonsense", "http://a b", "http://a\ndeb http://b x main", "http:"])
def test_a_mirror_that_is_no_address_is_refused(log: Path, address: str) -> None:
    with pytest.raises(BadInput, match="the address of a Debian mirror"):
        apt.Suite("sid", address).update()


def test_nothing_of_this_machines_apt_is_written(log: Path, tmp_path: Path) -> None:
    suite = apt.Suite("sid")
    suite.download(["a"], tmp_path / "out")
    options = log.read_text()
    own = tmp_path / "cache/apt/sid"
    for name in ("Dir::Etc::SourceList", "Dir::State", "Dir::State::Lists", "Dir::State::status", "Dir::Cache"):
        assert f"-o {name}={own}" in options
    assert "-o Dir::Etc::SourceParts=/dev/null" in options


def test_a_machine_without_a_debian_mirror_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, targets="Other|http://x.invalid/")
    with pytest.raises(Skipped, match="--mirror or QUIESCE_DEBIAN_MIRROR"):
        apt.Suite("sid").update()


def test_offline_is_skipped_with_apts_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, update="echo 'W: noise'; echo 'E: Failed to fetch it' >&2; exit 100")
    with pytest.raises(Skipped, match=r"^apt-get: E: Failed to fetch it$"):
        apt.Suite("sid").newest("x")


def test_missing_keys_are_named(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "KEYRINGS", ())
    with pytest.raises(Skipped, match="debian-archive-keyring"):
        apt.Suite("sid").update()


def test_missing_apt_is_named(log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="apt-get is not here"):
        apt.Suite("sid").update()


def test_the_newest_package_is_found_by_number(log: Path) -> None:
    found = apt.Suite("trixie").newest(r"linux-image-6\.12\.[0-9]+-amd64")
    assert found == apt.Package("linux-image-6.12.10-amd64", "6.12.10-1", 1000)


def test_a_package_that_is_gone(log: Path, tmp_path: Path) -> None:
    suite = apt.Suite("trixie")
    assert suite.find("linux-gone") is None
    with pytest.raises(Skipped, match="trixie has no package linux-gone"):
        suite.newest("linux-gone")
    with pytest.raises(Skipped, match="Unable to locate package linux-gone"):
        suite.download(["linux-gone"], tmp_path / "out")


def test_downloads_lie_in_the_folder(log: Path, tmp_path: Path) -> None:
    suite = apt.Suite("trixie")
    assert [path.name for path in suite.download(["one", "two"], tmp_path / "out")] == ["one.deb", "two.deb"]
    assert [path.name for path in suite.download_with_dependencies("a", tmp_path / "all")] == ["a.deb"]
    assert log.read_text().count(" update\n") == 1


def test_libraries_are_collected_flat(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for place, name in (("lib", apt.LOADER), ("usr/lib", "libelf.so.1"), ("usr/lib", "notes.txt")):
        (root / place / "x86_64-linux-gnu").mkdir(parents=True, exist_ok=True)
        (root / place / "x86_64-linux-gnu" / name).write_text("")
    apt.collect_libraries(root, tmp_path / "flat")
    assert sorted(path.name for path in (tmp_path / "flat").iterdir()) == [apt.LOADER, "libelf.so.1"]
    with pytest.raises(Skipped, match="brought no"):
        apt.collect_libraries(root / "lib", tmp_path / "empty")


@pytest.mark.parametrize(
    ("older", "newer"), [("6.12.94+deb13", "6.12.107+deb13"), ("6.1.0-9", "6.1.0-56"), ("7.2", "7.10")]
)
def test_natural_order(older: str, newer: str) -> None:
    assert apt.natural(older) < apt.natural(newer)
