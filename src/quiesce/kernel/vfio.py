"""VFIO groups: who may use an IOMMU group from user space, and what happens when the kernel wants it back
(drivers/vfio/vfio.c, later vfio_main.c, group.c and container.c).

A device is opened here in one step: group, container and device file. The container is attached to the group with its
first open device and leaves with the last.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from quiesce.kernel import changes, iommu
from quiesce.kernel.base_core import dev_printk, get_device, put_device
from quiesce.kernel.iommu_group import IommuDomain, IommuGroup
from quiesce.kernel.kernel import Blocked, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import pci_regs as r
from quiesce.world import Field, State, StateList, StateSet

DRIVER = "vfio-pci"
"""Name of the driver whose devices are VFIO devices."""


class VfioGroup(State):
    """``struct vfio_group``; path ``vfio-group/N`` with the number of the IOMMU group."""

    devices: StateList[PciDev] = StateList()
    """Registered devices: those bound to vfio-pci."""
    unbound: StateSet[PciDev] = StateSet()
    """Devices that are being unbound (v4.0 to v5.18)."""
    users: Field[int] = Field(0)
    """Open devices (``container_users``). The group is live while there are any."""
    domain: Field[IommuDomain | None] = Field(None)
    """The container's IOMMU domain while the group is attached to it."""


def vfio_group_of(k: Kernel, dev: PciDev) -> VfioGroup | None:
    """Return the VFIO group of a device's IOMMU group; None when the device is in no IOMMU group."""
    group = dev.iommu_group
    return None if group is None else VfioGroup.get(k.world, f"vfio-{group.path}")


# -- registration --------------------------------------------------------------------------------------------


def vfio_add_group_dev(k: Kernel, dev: PciDev) -> int:
    """drivers/vfio/vfio.c, later ``vfio_register_group_dev``. Kept: -EINVAL for a device without IOMMU group, -EBUSY
    for one that is known already; references on the device and on its IOMMU group.

    Left out: no-IOMMU mode.
    """
    group = vfio_group_of(k, dev)
    if group is None:
        return -EINVAL
    if dev in group.devices:
        return -EBUSY
    group.devices.append(dev)
    iommu.iommu_group_ref_get(dev.iommu_group, group)
    get_device(k, dev, DRIVER)
    return 0


def vfio_del_group_dev(k: Kernel, dev: PciDev) -> None:
    """drivers/vfio/vfio.c, later ``vfio_unregister_group_dev``; the caller has waited for the user. Kept: from v4.0 to
    v5.18 the device is remembered until it is unbound, because meanwhile it has a driver and is in no list.
    """
    group = vfio_group_of(k, dev)
    if group is None:
        return
    if k.has(changes.VFIO_UNBOUND_LIST):
        group.unbound.add(dev)
    if dev in group.devices:
        group.devices.remove(dev)
        if not group.devices:
            iommu.iommu_group_put(k, dev.iommu_group, group)
        put_device(k, dev, DRIVER)


def wait_for_user(k: Kernel, dev: PciDev) -> None:
    """The part of removal that every user of the device must have left. Kept: nothing is done while it waits.

    The wait takes no effect: the event that waits can take place after the user has closed the device, or the user
    closes inside the window, with the locks of whoever removes the device held.
    """
    from quiesce.kernel import vfio_pci  # the device part registers here, and is asked for its user here

    if not vfio_pci.in_use(k, dev):
        return
    if k.has(changes.VFIO_REQUEST_OP):
        vfio_pci.vfio_pci_request(k, dev)
    if vfio_pci.in_use(k, dev):
        k.window(f"vfio {dev.bdf}: removal waits for the user")
    if vfio_pci.in_use(k, dev):
        raise Blocked(f"waits until the user of {dev.bdf} closes it, holding {_held(k)}")


def _held(k: Kernel) -> str:
    return ", ".join(k.mutexes) or "nothing"


# -- use -----------------------------------------------------------------------------------------------------


def vfio_group_set_container(k: Kernel, dev: PciDev) -> int:
    """drivers/vfio/vfio.c. Kept: one more user of the group, or why not:

    * up to v5.18 -EINVAL when the group is not viable, that is, when a foreign driver holds one of its devices;
    * v5.19+: the first user claims DMA ownership of the group; -EPERM while a driver of the kernel uses it.

    The first user attaches the container's domain. Left out: several containers, character devices per device (v6.6+).
    """
    group = vfio_group_of(k, dev)
    if group is None:
        return -EINVAL
    if not k.has(changes.VFIO_NO_VIABILITY_CHECK) and not vfio_group_viable(k, group, dev.iommu_group):
        return -EINVAL
    if group.users == 0:
        error = _attach(k, group, dev.iommu_group)
        if error:
            return error
    group.users += 1
    return 0


def vfio_group_unset_container(k: Kernel, dev: PciDev) -> None:
    """drivers/vfio/vfio.c. Kept: the last user takes the container's domain away and gives ownership back."""
    group = vfio_group_of(k, dev)
    if group is None:
        return
    group.users -= 1
    if group.users == 0:
        _detach(k, group, dev.iommu_group)


def vfio_group_viable(k: Kernel, group: VfioGroup, iommu_group: IommuGroup) -> bool:
    """drivers/vfio/vfio.c, up to v5.18. Kept: every device of the IOMMU group must be harmless."""
    return all(vfio_dev_viable(k, group, dev) for dev in iommu_group.devices)


def vfio_dev_viable(k: Kernel, group: VfioGroup, dev: PciDev) -> bool:
    """drivers/vfio/vfio.c, up to v5.18. Kept: no driver, a tolerated one, a VFIO device, or one on its way out
    (v4.0+).
    """
    if dev.driver is None or vfio_dev_whitelisted(k, dev):
        return True
    return dev in group.devices or (k.has(changes.VFIO_UNBOUND_LIST) and dev in group.unbound)


def vfio_dev_whitelisted(k: Kernel, dev: PciDev) -> bool:
    """drivers/vfio/vfio.c, up to v5.18. Kept: pci-stub; up to v4.3 the port driver by name, later any bridge.

    Left out: v3.6 to v3.8 did not tolerate the port driver.
    """
    if dev.driver == "pci-stub":
        return True
    if k.has(changes.VFIO_TOLERATES_BRIDGES):
        return dev.hw.header_type != r.PCI_HEADER_TYPE_NORMAL
    return dev.driver == "pcieport"


# -- the notifier --------------------------------------------------------------------------------------------


def group_notifier(k: Kernel, action: str, dev: PciDev) -> None:
    """drivers/vfio/vfio.c, ``vfio_iommu_group_notifier``, up to v5.18. Kept: a foreign driver that was bound to a
    device of a live group is a BUG, because nothing can undo it; a device that joins a live group is warned of; a
    device that is unbound now is forgotten.
    """
    if k.has(changes.VFIO_NO_GROUP_NOTIFIER) or k.has(changes.IOMMU_NO_GROUP_NOTIFIER):
        return
    group = vfio_group_of(k, dev)
    if group is None:
        return
    if action == "BOUND_DRIVER":
        _verify(k, group, dev)
    elif action == "ADD_DEVICE" and group.users:
        dev_printk(k, "WARN", dev, f"Device added to live group {_number(dev)}!")
    elif action == "UNBOUND_DRIVER":
        group.unbound.discard(dev)


def _verify(k: Kernel, group: VfioGroup, dev: PciDev) -> None:
    """``vfio_group_nb_verify``."""
    if group.users and not vfio_dev_viable(k, group, dev):
        raise k.crash(
            "vfio/foreign-bind",
            "kernel BUG at drivers/vfio/vfio.c! BUG_ON(vfio_group_nb_verify)",
            f"{dev.driver} was bound to {dev.bdf} while user space uses its IOMMU group {_number(dev)}",
            "vfio_iommu_group_notifier",
        )


def _number(dev: PciDev) -> str:
    return str(dev.iommu_group.path).rpartition("/")[2]


# -- the container -------------------------------------------------------------------------------------------


def _attach(k: Kernel, group: VfioGroup, iommu_group: IommuGroup) -> int:
    """drivers/vfio/container.c. Kept: ownership first (v5.19+), then the domain; both or none."""
    from quiesce.kernel import vfio_type1  # the back end, which knows the groups

    owns = k.has(changes.VFIO_CLAIMS_OWNERSHIP)
    error = iommu.iommu_group_claim_dma_owner(k, iommu_group, group) if owns else 0
    if error:
        return error
    error = vfio_type1.attach_group(k, group, iommu_group)
    if error and owns:
        iommu.iommu_group_release_dma_owner(k, iommu_group)
    return error


def _detach(k: Kernel, group: VfioGroup, iommu_group: IommuGroup) -> None:
    from quiesce.kernel import vfio_type1  # see _attach

    vfio_type1.detach_group(k, group, iommu_group)
    if k.has(changes.VFIO_CLAIMS_OWNERSHIP):
        iommu.iommu_group_release_dma_owner(k, iommu_group)
