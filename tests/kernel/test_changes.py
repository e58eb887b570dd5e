"""Kernel sets: what a tag contains, how sets are edited, and that no entry is dead."""

from __future__ import annotations

import ast
import csv
import pickle
from pathlib import Path

import pytest

import quiesce
from quiesce.kernel import changes
from quiesce.kernel.kernelset import KernelSet, UnknownKernel, every, find, kernel, releases, version_key
from quiesce.kernel.unmodelled import unmodelled

FACTS = Path(__file__).parents[2].parent / "shared" / "facts" / "changes.csv"
CONSTANTS = {name: value for name, value in vars(changes).items() if isinstance(value, changes.Change)}


@pytest.mark.parametrize(
    ("tag", "present", "absent"),
    [
        ("v3.5", changes.SHUTDOWN_DISABLES_MSI, changes.IOMMU_GROUP_OBJECTS),
        ("v3.6-rc7", changes.IOMMU_GROUP_OBJECTS, changes.AMD_ALIAS_SELF),
        ("v3.6", changes.AMD_ALIAS_SELF, changes.AMD_ALIAS_GROUPS),
        ("v4.3-rc1", changes.PCIBIOS_ALLOC_IRQ, changes.AMD_IOMMU_UNBINDABLE),
        ("v4.3", changes.AMD_IOMMU_UNBINDABLE, changes.NO_LEGACY_IRQ_WHILE_MSI),
        ("v4.4", changes.NO_LEGACY_IRQ_WHILE_MSI, changes.REVERT_PCIBIOS_ALLOC_IRQ),
        ("v4.5", changes.REVERT_PCIBIOS_ALLOC_IRQ, changes.PCIBIOS_ALLOC_IRQ),
        ("v4.11", changes.SHUTDOWN_DISABLES_MSI, changes.SHUTDOWN_KEEPS_MSI),
        ("v4.12", changes.SHUTDOWN_KEEPS_MSI, changes.SHUTDOWN_DISABLES_MSI),
        ("v5.3-rc1", changes.VTD_DROPS_NOTIFIER, changes.VTD_DETACH_AT_REMOVE),
        ("v6.11-rc1", changes.PCIM_INTX, changes.PCI_INTX_RECORDS_IF_CHANGED),
        ("v6.11-rc7", changes.PCI_INTX_RECORDS_IF_CHANGED, changes.IS_MANAGED_CLEARED),
        ("v6.11", changes.IS_MANAGED_CLEARED, changes.PCI_INTX_NEVER_MANAGED),
        ("v6.15", changes.AMD_IOMMU_UNBINDABLE, changes.AMD_IOMMU_BINDABLE),
        ("v6.16", changes.AMD_IOMMU_BINDABLE, changes.AMD_IOMMU_UNBINDABLE),
    ],
)
def test_a_tag_is_the_set_of_what_came_before_it(tag: str, present: changes.Change, absent: changes.Change) -> None:
    assert present in kernel(tag)
    assert absent not in kernel(tag)


def test_a_proposal_is_in_no_tag() -> None:
    proposals = [change for change in every() if change.since is None]
    assert proposals
    assert not any(change in kernel("v7.3") for change in proposals)


def test_adding_what_a_revert_took_away_takes_the_revert_away() -> None:
    edited = kernel("v4.5").edited(with_=["991de2e59090"])
    assert changes.PCIBIOS_ALLOC_IRQ in edited
    assert changes.REVERT_PCIBIOS_ALLOC_IRQ not in edited
    assert changes.PCIBIOS_ALLOC_IRQ not in kernel("v4.3").edited(with_=["6c777e8799a9"])
    assert changes.PCIBIOS_ALLOC_IRQ in kernel("v4.5").edited(without=["6c777e8799a9"])


def test_a_change_that_comes_back_from_another_process_is_the_same_one() -> None:
    kept = pickle.loads(pickle.dumps(kernel("v6.12")))
    assert kept == kernel("v6.12")
    assert changes.CONFIG_ACS_PARAMETER in kept
    assert changes.ACS_IN_DMA_CONFIGURE not in kept
    assert pickle.loads(pickle.dumps(unmodelled()[0])) is unmodelled()[0]


def test_a_set_is_named_so_that_it_can_be_read_back() -> None:
    edited = kernel("6.11").edited(with_=["dfa2f4d5f9e5aaaa"], without=["fc8c818"])
    assert edited.name == "v6.11 + dfa2f4d5f9e5 - fc8c818e7569"
    assert isinstance(edited, KernelSet)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kernel("v9.9"), "lies outside v3.5"),
        (lambda: kernel("v2.6.32"), "lies outside"),
        (lambda: kernel("banana"), "expected a mainline tag"),
        (lambda: find("0123456"), "unknown change"),
        (lambda: find("fc8c"), "unknown change"),
        (lambda: find(unmodelled()[0].id), "known but not modelled"),
    ],
)
def test_what_is_not_known_is_refused(call, says: str) -> None:
    with pytest.raises(UnknownKernel, match=says):
        call()


def test_releases_come_in_order_and_hold_every_merged_change() -> None:
    keys = [version_key(tag) for tag, _ in releases()]
    assert keys == sorted(keys)
    assert sum(len(added) for _, added in releases()) == sum(change.since is not None for change in every())


def test_every_named_entry_is_asked_for_or_undoes_one() -> None:
    source = Path(quiesce.__file__).parent
    asked = {
        node.attr
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "changes"
    }
    by_table = {change.id for change in CONSTANTS.values() if change.id in _table_ids()}
    dead = [n for n, c in CONSTANTS.items() if n not in asked and not c.undoes and c.id not in by_table]
    assert dead == []


def _table_ids() -> set[str]:
    from quiesce.kernel.acs_table import ACS_QUIRKS

    return {quirk.change for quirk in ACS_QUIRKS}


def test_no_change_is_both_modelled_and_not() -> None:
    ids = [change.id for change in (*every(), *unmodelled())]
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(not FACTS.exists(), reason=f"{FACTS} is not here")
def test_every_commit_of_the_fact_sheet_is_known() -> None:
    known = {change.id for change in (*every(), *unmodelled())}
    with FACTS.open() as stream:
        commits = [row["commit"] for row in csv.DictReader(stream)]
    assert [commit for commit in commits if not commit.startswith("(") and commit not in known] == []
