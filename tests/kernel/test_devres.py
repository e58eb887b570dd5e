from __future__ import annotations

from errno import ENOENT, ENOMEM

import pytest
from toykernel import SMALL, Toy, choosing, device, make_kernel, rules, texts

from quiesce.kernel import boot as kernel_boot
from quiesce.kernel import devres
from quiesce.kernel.irq import irq_has_action
from quiesce.kernel.objects import Devres, IrqAction


@pytest.fixture
def k():
    kernel = make_kernel("v6.12", SMALL, Toy())
    kernel_boot.boot(kernel)
    kernel.start_event()
    return kernel


@pytest.fixture
def dev(k):
    return device(k, "00:02.0")


@pytest.fixture
def released(monkeypatch):
    """Kinds ``a``, ``b`` and ``c`` note their release; ``maker`` makes a new ``a``; ``undoer`` unmakes it again."""
    log = []
    for kind in ("a", "b", "c"):
        monkeypatch.setitem(devres.RELEASE, kind, lambda k, dev, node: log.append((node.kind, dev.driver)))

    def make(k, dev, node):
        log.append(("maker", dev.driver))
        devres.devm_add_action(k, dev, "a")

    def make_and_unmake(k, dev, node):
        devres.devm_add_action(k, dev, "a")
        devres.devres_destroy(k, dev, "a")

    monkeypatch.setitem(devres.RELEASE, "maker", make)
    monkeypatch.setitem(devres.RELEASE, "undoer", make_and_unmake)
    return log


def kinds(dev):
    return [node.kind for node in dev.devres]


def test_nodes_are_released_from_the_newest_to_the_oldest(k, dev, released):
    for kind in ("a", "b", "c"):
        assert devres.devm_add_action(k, dev, kind) == 0
    assert devres.devres_release_all(k, dev) == 3
    assert [kind for kind, _ in released] == ["c", "b", "a"]
    assert kinds(dev) == []
    assert not any(Devres.get(k.world, f"devres/{dev.bdf}/{number}").exists for number in range(3))


def test_nothing_to_release_is_no_work(k, dev):
    assert devres.devres_release_all(k, dev) == 0


def test_a_release_function_finds_the_list_moved_away(k, dev, monkeypatch):
    seen = []
    monkeypatch.setitem(devres.RELEASE, "looker", lambda k, dev, node: seen.append(kinds(dev)))
    devres.devm_add_action(k, dev, "looker")
    devres.devm_add_action(k, dev, "looker")
    devres.devres_release_all(k, dev)
    assert seen == [[], []]


def test_a_node_made_by_a_release_function_survives_and_is_found(k, dev, released):
    devres.devm_add_action(k, dev, "b")
    devres.devm_add_action(k, dev, "maker")
    devres.devres_release_all(k, dev)
    assert kinds(dev) == ["a"]
    assert [kind for kind, _ in released] == ["maker", "b"]
    assert rules(k) == ["devres/created-during-detach"]
    assert "maker" in k.outputs[-1].why
    assert dev.bdf in k.outputs[-1].why


def test_a_node_that_does_not_outlive_the_release_is_no_finding(k, dev, released):
    devres.devm_add_action(k, dev, "undoer")
    devres.devres_release_all(k, dev)
    assert kinds(dev) == []
    assert rules(k) == []


def test_a_node_made_by_remove_is_released_with_the_others(k, dev, released):
    driver = k.drivers["toy"]
    driver.on_remove = lambda k, dev: devres.devm_add_action(k, dev, "a")
    from quiesce.kernel import base_dd

    k.system.loaded.add("toy")
    assert base_dd.device_driver_attach(k, "toy", dev) == 0
    base_dd.device_release_driver(k, dev)
    assert released == [("a", "toy")]
    assert rules(k) == []


def test_find_gives_the_newest_of_a_kind_or_the_one_that_matches(k, dev, released):
    devres.devm_add_action(k, dev, "a", number=1)
    devres.devm_add_action(k, dev, "a", number=2)
    devres.devm_add_action(k, dev, "b", number=3)
    assert devres.devres_find(k, dev, "a").data["number"] == 2
    assert devres.devres_find(k, dev, "a", number=1).data["number"] == 1
    assert devres.devres_find(k, dev, "a", number=9) is None
    assert devres.devres_find(k, dev, "c") is None


def test_destroy_frees_and_release_also_releases(k, dev, released):
    devres.devm_add_action(k, dev, "a")
    devres.devm_add_action(k, dev, "a")
    assert devres.devres_destroy(k, dev, "a") == 0
    assert released == []
    assert devres.devres_release(k, dev, "a") == 0
    assert [kind for kind, _ in released] == ["a"]
    assert devres.devres_destroy(k, dev, "a") == -ENOENT
    assert devres.devres_release(k, dev, "a") == -ENOENT


def test_remove_hands_the_node_over(k, dev, released):
    devres.devm_add_action(k, dev, "a", number=7)
    node = devres.devres_remove(k, dev, "a")
    assert kinds(dev) == []
    assert node.data["number"] == 7
    devres.devres_free(node)
    assert not node.exists


def test_an_action_without_memory_is_not_registered(k, dev, released):
    with choosing(k, 1):
        assert devres.devm_add_action(k, dev, "a") == -ENOMEM
    assert kinds(dev) == []
    assert released == []


def test_or_reset_runs_the_action_at_once_when_memory_is_short(k, dev, released):
    with choosing(k, 1):
        assert devres.devm_add_action_or_reset(k, dev, "a") == -ENOMEM
    assert kinds(dev) == []
    assert [kind for kind, _ in released] == ["a"]
    assert devres.devm_add_action_or_reset(k, dev, "a") == 0
    assert kinds(dev) == ["a"]
    assert len(released) == 1


def test_managed_memory_goes_with_the_driver(k, dev):
    node = devres.devm_kmalloc(k, dev, "private data")
    assert node.exists
    devres.devres_release_all(k, dev)
    assert not node.exists
    with choosing(k, 1):
        assert devres.devm_kmalloc(k, dev, "private data") is None


def test_memory_under_a_spinlock_is_found(k, dev):
    with k.spinlock("lock"):
        devres.devm_kmalloc(k, dev, "private data")
    assert rules(k) == ["context/sleep-in-atomic"]


def test_a_managed_interrupt_is_freed_with_the_driver(k, dev):
    from quiesce.kernel import pci

    pci.pci_enable_device(k, dev)
    action = IrqAction("toy", "toy.interrupt", dev, shared=True)
    assert devres.devm_request_irq(k, dev, dev.irq, action) == 0
    assert irq_has_action(k, dev.irq)
    devres.devres_release_all(k, dev)
    assert not irq_has_action(k, dev.irq)
    assert texts(k) == []


def test_a_managed_interrupt_can_be_freed_early(k, dev):
    from quiesce.kernel import pci

    pci.pci_enable_device(k, dev)
    devres.devm_request_irq(k, dev, dev.irq, IrqAction("toy", "toy.interrupt", dev, shared=True))
    devres.devm_free_irq(k, dev, dev.irq, dev)
    assert not irq_has_action(k, dev.irq)
    assert kinds(dev) == []
    assert texts(k) == []
    devres.devm_free_irq(k, dev, dev.irq, dev)
    assert texts(k, "WARN")[0].startswith("WARNING: kernel/irq/devres.c")


def test_a_managed_interrupt_that_cannot_be_had_leaves_no_node(k, dev):
    action = IrqAction("toy", "toy.interrupt", dev, shared=True)
    assert devres.devm_request_irq(k, dev, 999, action) < 0
    with choosing(k, 1):
        assert devres.devm_request_irq(k, dev, dev.irq, action) == -ENOMEM
    assert kinds(dev) == []
