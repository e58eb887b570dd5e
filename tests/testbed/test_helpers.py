from __future__ import annotations

from pathlib import Path

import pytest

from quiesce.testbed import helpers
from quiesce.testbed.errors import Skipped


def test_every_source_belongs_to_a_program() -> None:
    named = {source for sources in helpers.PROGRAMS.values() for source in sources}
    assert named == {path.name for path in helpers.SOURCES.glob("*.c")}


def test_without_a_compiler_the_reason_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(helpers.platform, "machine", lambda: "x86_64")
    helpers._compiler.cache_clear()
    with pytest.raises(Skipped, match="install gcc"):
        helpers.program.__wrapped__("poke")
    helpers._compiler.cache_clear()


def test_a_busybox_that_needs_libraries_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busybox").write_bytes(Path("/bin/sh").resolve().read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="install busybox-static"):
        helpers.busybox.__wrapped__()


@pytest.mark.slow
def test_programs_are_compiled_once_without_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path))
    monkeypatch.setattr(helpers, "_FLAGS", (*helpers._FLAGS, "-Wextra", "-Werror"))
    for name in helpers.PROGRAMS:
        try:
            first = helpers.program.__wrapped__(name)
        except Skipped as reason:
            if "does not compile" in str(reason):
                raise
            pytest.skip(str(reason))
        assert helpers._is_static(first)
    made = sorted((tmp_path / "programs").iterdir())
    assert len(made) == len(helpers.PROGRAMS)
    helpers.program.__wrapped__("poke")
    assert sorted((tmp_path / "programs").iterdir()) == made
