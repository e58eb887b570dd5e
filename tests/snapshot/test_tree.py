import os
from pathlib import Path

import pytest

from quiesce.snapshot.tree import FolderTree, MemoryTree, last_of_link, resolve


def linked(**links: str) -> MemoryTree:
    tree = MemoryTree("t")
    tree.add("sys/a/file", b"x")
    for name, target in links.items():
        tree.add(f"sys/{name}", link=target)
    return tree


@pytest.mark.parametrize(
    ("target", "path", "expected"),
    [
        ("a", "sys/l/file", "sys/a/file"),
        ("../sys/a", "sys/l/file", "sys/a/file"),
        ("../../etc", "sys/l", None),
        ("l", "sys/l", None),
        ("/a", "sys/l/file", "a/file"),
        ("./a/../a", "sys/l/file", "sys/a/file"),
    ],
)
def test_links_lead_within_the_tree_or_nowhere(target: str, path: str, expected: str | None) -> None:
    assert resolve(linked(l=target), path) == expected


def test_absolute_links_begin_where_the_copy_does() -> None:
    tree = MemoryTree("t")
    tree.add("copy/sys/l", link="/sys/a")
    assert resolve(tree, "copy/sys/l/file") == "copy/sys/a/file"


def test_names_that_lead_out_are_left_out() -> None:
    tree = MemoryTree("t")
    for name in ("../x", "a/../../x", "/", ".", "a/" * 100 + "x"):
        tree.add(name, b"x")
    assert (tree.files, tree.entries("")) == ({}, [])


def test_absolute_names_are_taken_as_relative() -> None:
    tree = MemoryTree("t")
    tree.add("/etc/x", b"x")
    assert tree.read("etc/x") == b"x"


def test_a_folder_and_an_archive_look_the_same(tmp_path: Path) -> None:
    memory = linked(l="a")
    (tmp_path / "sys" / "a").mkdir(parents=True)
    (tmp_path / "sys" / "a" / "file").write_bytes(b"x")
    (tmp_path / "sys" / "l").symlink_to("a")
    for tree in (memory, FolderTree(tmp_path)):
        assert tree.entries("sys") == ["a", "l"]
        assert (tree.link("sys/l"), tree.link("sys/a")) == ("a", None)
        assert last_of_link(tree, "sys/l") == "a"
        assert (tree.read("sys/a/file"), tree.read("sys/a"), tree.read("sys/none")) == (b"x", None, None)
        assert (tree.is_folder("sys/a"), tree.is_folder("sys/l"), tree.is_folder("sys/a/file")) == (True, False, False)
        assert tree.entries("sys/none") == []


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"0123456789")
    tree = FolderTree(tmp_path)
    assert (tree.read("fifo"), tree.read("file", 4)) == (None, b"0123")
    assert tree.read("a\0b") is None


def test_the_number_of_entries_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.tree.MOST_ENTRIES", 3)
    for number in range(9):
        (tmp_path / str(number)).touch()
    assert len(FolderTree(tmp_path).entries("")) == 3
