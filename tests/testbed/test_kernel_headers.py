from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from quiesce.testbed.apt import LOADER
from quiesce.testbed.errors import Skipped
from quiesce.testbed.images import find_image
from quiesce.testbed.kernel_headers import COMPILER, from_packages, wrap_tools, write_compiler

MODULE = """
#include <linux/module.h>
#include <linux/pci.h>
static int __init start(void) { return pci_dev_present(NULL); }
module_init(start);
MODULE_LICENSE("GPL");
"""


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_the_compiler_leaves_out_what_an_older_gcc_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_compiler(tmp_path)
    (tmp_path / "tools").mkdir()
    program(tmp_path / "tools/gcc", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    words = ["-O2", "-fmin-function-alignment=16", '-DX="a b"', "", "-c", "x.c"]
    done = subprocess.run([tmp_path / COMPILER, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-2] == ["-O2", '-DX="a b"', "", "-c", "x.c"]


def test_a_tool_runs_through_its_own_loader_wherever_the_folder_lies(tmp_path: Path) -> None:
    tools = tmp_path / "made/kbuild/scripts/mod"
    tools.mkdir(parents=True)
    program(tools / "modpost", "\x7fELF")
    program(tools / "script.pl", "#!/usr/bin/perl\n")
    (tmp_path / "made/lib").mkdir()
    program(tmp_path / "made/lib" / LOADER, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    wrap_tools(tmp_path / "made/kbuild", tmp_path / "made/lib")
    assert sorted(path.name for path in tools.iterdir()) == ["modpost", "modpost.elf", "script.pl"]
    (tmp_path / "made").rename(tmp_path / "moved")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/scripts").symlink_to("../moved/kbuild/scripts")
    done = subprocess.run(
        ["scripts/mod/modpost", "a b"], cwd=tmp_path / "build", capture_output=True, text=True, check=True
    )
    option, libraries, tool, word = done.stdout.splitlines()
    assert (option, tool, word) == ("--library-path", "scripts/mod/modpost.elf", "a b")
    assert (tmp_path / "build" / libraries / LOADER).is_file()


def test_other_packages_than_expected_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "usr/src").mkdir(parents=True)
    with pytest.raises(Skipped, match="not laid out as expected"):
        from_packages(tmp_path, "6.1", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["5.10", "6.1", "6.12", "newest", "instrumented"])
def test_a_module_builds_for_a_fetched_kernel(name: str, tmp_path: Path) -> None:
    try:
        image = find_image(name)
    except Skipped as reason:
        pytest.skip(str(reason))
    if image.headers is None or shutil.which("make") is None or shutil.which("gcc") is None:
        pytest.skip("no headers, make or gcc")
    (tmp_path / "try.c").write_text(MODULE)
    (tmp_path / "Makefile").write_text("obj-m := try.o\n")
    words = ["make", "-C", str(image.headers), f"M={tmp_path}", "modules"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"vermagic={image.release} ".encode() in (tmp_path / "try.ko").read_bytes()
