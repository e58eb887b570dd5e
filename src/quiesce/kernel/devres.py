"""Managed device resources (drivers/base/devres.c)."""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOENT, ENOMEM
from typing import Any

from quiesce.kernel import irq as genirq
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import Devres, IrqAction, PciDev, address_of

Release = Callable[[Kernel, PciDev, Devres], None]

RELEASE: dict[str, Release] = {}
"""What releases a node, by its kind. Modules enter their kinds when they are imported; nothing changes it later."""

IRQ = "devm_irq_release"
MEMORY = "devm_kmalloc_release"


def devres_alloc(k: Kernel, dev: PciDev, kind: str, **data: Any) -> Devres:
    """drivers/base/devres.c. Kept: a node of a kind with its data, on no list yet; ``dev`` only gives it its number.

    Left out: the allocation failing; callers ask ``k.alloc`` first, because they know the allocation flags.
    """
    node = Devres.fresh(k.world, f"devres/{address_of(dev)}", kind=kind)
    for name, value in data.items():
        node.data[name] = value
    return node


def devres_free(node: Devres) -> None:
    """drivers/base/devres.c. Kept: the memory of a node that is on no list."""
    node.delete()


def devres_add(k: Kernel, dev: PciDev, node: Devres) -> None:
    """drivers/base/devres.c. Kept: the newest node is last."""
    dev.devres.append(node)


def devres_find(k: Kernel, dev: PciDev, kind: str, **match: Any) -> Devres | None:
    """drivers/base/devres.c. Kept: the newest node of the kind, with these data if any are given."""
    for node in reversed(dev.devres.as_tuple()):
        if node.kind == kind and all(node.data.get(name) == value for name, value in match.items()):
            return node
    return None


def devres_remove(k: Kernel, dev: PciDev, kind: str, **match: Any) -> Devres | None:
    """drivers/base/devres.c. Kept: takes the node off the list; it is the caller's now."""
    node = devres_find(k, dev, kind, **match)
    if node is not None:
        dev.devres.remove(node)
    return node


def devres_destroy(k: Kernel, dev: PciDev, kind: str, **match: Any) -> int:
    """drivers/base/devres.c. Kept: removed and freed without being released."""
    node = devres_remove(k, dev, kind, **match)
    if node is None:
        return -ENOENT
    devres_free(node)
    return 0


def devres_release(k: Kernel, dev: PciDev, kind: str, **match: Any) -> int:
    """drivers/base/devres.c. Kept: removed, released and freed."""
    node = devres_remove(k, dev, kind, **match)
    if node is None:
        return -ENOENT
    RELEASE[kind](k, dev, node)
    devres_free(node)
    return 0


def devres_release_all(k: Kernel, dev: PciDev) -> int:
    """drivers/base/devres.c. Kept: the list is moved away first, then released from the newest node to the oldest; a
    node that a release function creates lands on the device's own list and stays there.

    Left out: groups.
    """
    todo = dev.devres.as_tuple()
    if not todo:
        return 0
    dev.devres.clear()
    makers: list[tuple[Devres, str]] = []
    for node in reversed(todo):
        before = dev.devres.as_tuple()
        RELEASE[node.kind](k, dev, node)
        makers += [(new, node.kind) for new in dev.devres if new not in before]
        devres_free(node)
    for survivor, maker in makers:
        if survivor in dev.devres:
            _report_survivor(k, dev, survivor, maker)
    return len(todo)


def _report_survivor(k: Kernel, dev: PciDev, node: Devres, maker: str) -> None:
    k.find(
        "devres/created-during-detach",
        f"releasing {maker} of {dev.bdf} created {node.kind} after the list had been taken away; "
        "nobody releases it, and the next driver finds it",
        "devres_release_all",
    )


# -- actions and managed helpers -----------------------------------------------------------------------------


def devm_add_action(k: Kernel, dev: PciDev, kind: str, **data: Any) -> int:
    """drivers/base/devres.c. Kept: ``RELEASE[kind]`` runs when the driver is detached; -ENOMEM."""
    if not k.alloc(f"devres {kind}"):
        return -ENOMEM
    devres_add(k, dev, devres_alloc(k, dev, kind, **data))
    return 0


def devm_add_action_or_reset(k: Kernel, dev: PciDev, kind: str, **data: Any) -> int:
    """include/linux/device/devres.h. Kept: the action runs at once when it cannot be registered."""
    error = devm_add_action(k, dev, kind, **data)
    if error:
        node = devres_alloc(k, dev, kind, **data)
        RELEASE[kind](k, dev, node)
        devres_free(node)
    return error


def devm_kmalloc(k: Kernel, dev: PciDev, what: str) -> Devres | None:
    """drivers/base/devres.c. Kept: memory that goes when the driver is detached; None when there is none."""
    if not k.alloc(what):
        return None
    node = devres_alloc(k, dev, MEMORY, what=what)
    devres_add(k, dev, node)
    return node


def devm_request_irq(k: Kernel, dev: PciDev, irq: int, action: IrqAction) -> int:
    """kernel/irq/devres.c. Kept: the node is allocated before and added after the request."""
    if not k.alloc(f"devres {IRQ}"):
        return -ENOMEM
    error = genirq.request_irq(k, irq, action)
    if error:
        return error
    devres_add(k, dev, devres_alloc(k, dev, IRQ, irq=irq, dev_id=action.dev_id))
    return 0


def devm_free_irq(k: Kernel, dev: PciDev, irq: int, dev_id: Any) -> None:
    """kernel/irq/devres.c. Kept: the node goes first, with a warning if there is none, then the handler."""
    if devres_destroy(k, dev, IRQ, irq=irq, dev_id=dev_id) != 0:
        k.warn(f"WARNING: kernel/irq/devres.c: devm_free_irq: irq {irq} of {dev.bdf} is not managed")
    genirq.free_irq(k, irq, dev_id)


def _devm_irq_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    genirq.free_irq(k, node.data["irq"], node.data["dev_id"])


def _devm_kmalloc_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    """The memory goes with the node."""


RELEASE.update({IRQ: _devm_irq_release, MEMORY: _devm_kmalloc_release})
