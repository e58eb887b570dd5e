"""Kernels before v3.17, whose IOMMU drivers each had a search of their own: the whole model is booted.

That takes a world and complete configuration space, so there is no partial knowledge and there are no reasons.
"""

from __future__ import annotations

from quiesce.groups.machine import LightMachine
from quiesce.kernel.kernelset import KernelSet
from quiesce.snapshot.description import MachineDescription

Groups = tuple[tuple[str, ...], ...]


def is_complete(m: LightMachine) -> bool:
    """Whether the snapshot leaves nothing open that groups depend on."""
    return not m.unplaced and not any(fn.open for fn in m.functions.values())


def old_groups(description: MachineDescription, kernel: KernelSet, iommu: str) -> Groups:
    """Boot the running model and return the groups, virtual functions that the snapshot shows among them."""
    from quiesce.kernel import boot, iov
    from quiesce.kernel import iommu as core
    from quiesce.kernel.kernel import Kernel
    from quiesce.machine.build import build_machine
    from quiesce.world import World

    world = World()
    k = Kernel(world, build_machine(world, description, iommu), kernel)
    boot.boot(k)
    shown = {str(item.bdf) for item in description.functions}
    for fn in tuple(k.machine.functions.values()):
        count = sum(str(virtual.bdf) in shown for virtual in fn.virtfns)
        dev = k.dev_at(fn.bdf)
        if count and dev is not None:
            iov.pci_enable_sriov(k, dev, count)
    return tuple(sorted(tuple(sorted(group)) for group in core.groups(k)))
