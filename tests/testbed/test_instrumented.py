from __future__ import annotations

import os
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest

from fake_kernel import bzimage, module
from quiesce.snapshot.errors import BadInput
from quiesce.testbed import instrumented, store
from quiesce.testbed.errors import Skipped
from quiesce.testbed.images import find_image

DATA = resources.files("quiesce.testbed") / "instrumented"
PATCH = """--- a/drivers/pci/toy.c
+++ b/drivers/pci/toy.c
@@ -1,6 +1,7 @@
 first
 second
 third
+switch
 fourth
 fifth
 sixth
"""
BEFORE = "first\nsecond\nthird\nfourth\nfifth\nsixth\n"
AFTER = BEFORE.replace("third\n", "third\nswitch\n")
MAKE = """#!/bin/sh
[ "$1" = -C ] && cd "$2"
echo "make $*" >>"{log}"
case $* in
*tinyconfig*) : >.config ;;
*bzImage*) echo "  CC      a.o"; {build} ;;
*install-extmod-build*)
    for last; do :; done
    mkdir -p "${{last##* }}/include/config"
    printf 'CONFIG_PCI=y\\nCONFIG_DEBUG_INFO_BTF_MODULES=y\\n' >"${{last##* }}/include/config/auto.conf" ;;
esac
"""


def test_the_patch_is_marked_and_says_nothing_of_the_machine_it_was_made_on() -> None:
    patch = (DATA / "bug-switches.patch").read_text()
    heads = re.findall(r"^(?:---|\+\+\+) (.*)$", patch, re.MULTILINE)
    assert heads
    assert all(re.fullmatch(r"(/dev/null|[ab]/[a-z0-9_./A-Z-]+)", head) for head in heads)
    assert "SPDX-License-Identifier: GPL-2.0-only" in (DATA / "README").read_text()
    assert "QUIESCE_UNMAP_BUG" in patch


def test_every_setting_is_given_once() -> None:
    names = [line.partition("=")[0] for line in instrumented.wanted_settings()]
    assert len(names) == len(set(names))
    assert {"CONFIG_PROVE_LOCKING", "CONFIG_DMA_API_DEBUG", "CONFIG_IOMMUFD", "CONFIG_FAIL_PAGE_ALLOC"} <= set(names)


def test_missing_tools_are_named_as_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("flex", "pahole") else f"/usr/bin/{name}")
    monkeypatch.setattr(instrumented, "HEADER_FILES", {})
    with pytest.raises(Skipped, match="install: dwarves flex"):
        instrumented.require_tools()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return play(tmp_path, monkeypatch, "cp ready/bzImage arch/x86/boot/")


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> Path:
    """A tree whose make is a script, with a small patch and two settings."""
    for tool in ("patch", "gcc", "strip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here")
    tools, tree, data = (store.made(tmp_path / name) for name in ("tools", "tree", "data/instrumented"))
    (tools / "make").write_text(MAKE.format(log=tmp_path / "log", build=build))
    for folder in ("drivers/pci", "scripts/kconfig", "arch/x86/boot", "ready"):
        (tree / folder).mkdir(parents=True)
    merge = tree / "scripts/kconfig/merge_config.sh"
    merge.write_text('#!/bin/sh\ncat "$3" >>.config\n')
    for program in (tools / "make", merge):
        program.chmod(0o755)
    (tree / "drivers/pci/toy.c").write_text(BEFORE)
    (tree / "modules.builtin").write_text("kernel/acpiphp.ko\n")
    (tree / "ready/bzImage").write_bytes(bzimage("6.12.107-quiesce"))
    (data / "bug-switches.patch").write_text(PATCH)
    (data / "kernel.config").write_text("CONFIG_PCI=y\nCONFIG_KERNEL_ZSTD=n\n")
    monkeypatch.setattr(resources, "files", lambda _: data.parent)
    monkeypatch.setattr(instrumented, "TOOLS", {})
    monkeypatch.setattr(instrumented, "HEADER_FILES", {})
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("QUIESCE_CACHE", str(tmp_path / "cache"))
    return tree


def calls(tree: Path) -> list[str]:
    return [line.split()[-1] for line in (tree.parent / "log").read_text().splitlines()]


def test_a_source_tree_is_patched_configured_built_and_stored(tree: Path) -> None:
    said: list[str] = []
    image = instrumented.build(tree=tree, say=said.append)
    assert find_image("instrumented") == image
    assert image.release == "6.12.107-quiesce"
    assert image.builtin("acpiphp")
    assert image.headers is not None
    assert (image.headers / "include/config/auto.conf").read_text() == "CONFIG_PCI=y\n"
    assert (tree / "drivers/pci/toy.c").read_text() == AFTER
    assert "tinyconfig" in calls(tree)
    assert any("CC      a.o" in line for line in said)


def test_a_tree_that_is_patched_and_configured_is_left_so(tree: Path) -> None:
    instrumented.build(tree=tree)
    (tree.parent / "log").write_text("")
    instrumented.build(tree=tree)
    assert "tinyconfig" not in calls(tree)
    assert (tree / "drivers/pci/toy.c").read_text() == AFTER


def test_a_tree_that_the_switches_do_not_fit_is_refused(tree: Path) -> None:
    (tree / "drivers/pci/toy.c").write_text("another\n")
    with pytest.raises(Skipped, match="do not fit"):
        instrumented.build(tree=tree)
    assert (tree / "drivers/pci/toy.c").read_text() == "another\n"


def test_a_failed_build_is_told_by_its_first_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = play(tmp_path, monkeypatch, "echo 'a.c:1: error: this'; echo 'make: *** that'; exit 2")
    with pytest.raises(Skipped, match=r"failed: a\.c:1: error: this"):
        instrumented.build(tree=tree)
    assert list(store.kernels_dir().iterdir()) == []


def test_a_build_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = play(tmp_path, monkeypatch, "sleep 1000")
    monkeypatch.setattr(instrumented, "BUILD_SECONDS", 0)
    with pytest.raises(Skipped, match="took longer"):
        instrumented.build(tree=tree)


def test_a_setting_that_the_tree_does_not_take_is_named(tree: Path) -> None:
    (tree / "scripts/kconfig/merge_config.sh").write_text("#!/bin/sh\necho CONFIG_KERNEL_ZSTD=y >.config\n")
    with pytest.raises(Skipped, match="CONFIG_PCI=y"):
        instrumented.build(tree=tree)


def test_what_is_no_source_tree_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a Linux source tree"):
        instrumented.build(tree=tmp_path / "tools")


def test_modules_are_stored_without_debugging_data(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "vfio.ko").write_bytes(module())
    strip = tree.parent / "tools/strip"
    strip.write_text('#!/bin/sh\ncp "$4" "$3"\n')
    strip.chmod(0o755)
    assert [file.name for file in instrumented.build(tree=tree).modules(["vfio"])] == ["vfio.ko"]
