from dataclasses import replace
from pathlib import Path

import pytest

from quiesce.snapshot.collect import collect, packed
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine
from quiesce.snapshot.sysfs import read_tree
from quiesce.snapshot.tree import MemoryTree
from snapshot.trees import CARD, machine_tree


def named(found: MachineDescription) -> MachineDescription:
    return replace(found, name="", source="")


def source() -> MemoryTree:
    tree = machine_tree()
    tree.add("sys/firmware/acpi/tables/MCFG", b"table")
    tree.add("sys/firmware/acpi/tables/MSDM", b"licence key")
    tree.add("sys/class/dmi/id/product_serial", b"serial")
    tree.add("proc/modules", b"igb 1 0 - Live 0xffffffffc0123000\n")
    return tree


def test_what_was_collected_reads_as_the_same_machine(tmp_path: Path) -> None:
    tree = source()
    found = collect(tree, redact=False)
    (tmp_path / "m.tar.gz").write_bytes(packed(found.tree))
    again = read_machine(tmp_path / "m.tar.gz")
    assert named(again) == named(read_tree(tree, ""))
    assert (found.functions, found.groups, found.tables, found.redacted) == (2, 2, ["MCFG"], None)


def test_redaction_leaves_all_that_counts(tmp_path: Path) -> None:
    found = collect(source())
    (tmp_path / "m.tar.gz").write_bytes(packed(found.tree))
    again, before = read_machine(tmp_path / "m.tar.gz"), read_tree(source(), "")
    assert again.functions == before.functions
    assert (again.recorded_groups, again.kernel, again.iommu_hint) == (
        before.recorded_groups,
        before.kernel,
        before.iommu_hint,
    )
    assert again.cmdline == "BOOT_IMAGE=vmlinuz-6.1.0 root=REDACTED ro intel_iommu=on"


@pytest.mark.parametrize("redact", [True, False])
def test_what_is_not_on_the_list_is_not_taken(redact: bool) -> None:
    found = collect(source(), redact=redact)
    taken = b"".join(found.tree.files.values())
    for secret in (b"secret", b"licence key", b"serial"):
        assert secret not in taken
    assert not any("dmi" in path for path in found.tree.files)


def test_a_redacted_copy_names_nobody() -> None:
    found = collect(source())
    taken = b"".join(found.tree.files.values())
    for secret in (b"someone", b"somewhere", b"01234567-89ab", b"ffffffffc0123000"):
        assert secret not in taken
    assert found.redacted


def test_the_same_machine_gives_the_same_bytes() -> None:
    assert packed(collect(source()).tree) == packed(collect(source()).tree)


def test_what_cannot_be_read_is_listed() -> None:
    tree = source()
    tree.add("sys/firmware/acpi/tables/DMAR", b"")
    config = next(path for path in tree.files if path.endswith(f"{CARD}/config"))
    tree.files[config] = b""
    found = collect(tree)
    assert {"the ACPI table DMAR", f"{CARD}: its config space"} <= set(found.unreadable)
    tree.files[config] = bytes(64)
    assert collect(tree).short == 1


def test_a_machine_without_pci() -> None:
    with pytest.raises(BadInput, match="PCI functions in"):
        collect(MemoryTree("t"))
