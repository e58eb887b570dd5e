"""Who may use a group's DMA: kernel drivers through the default domain, or one owner for user space (v5.19+), and
attaching whole groups to domains (drivers/iommu/iommu.c).
"""

from __future__ import annotations

import errno
from typing import Any

from quiesce.kernel import changes
from quiesce.kernel.base_core import EPROBE_DEFER
from quiesce.kernel.iommu_group import (
    BLOCKED,
    IDENTITY,
    IommuDomain,
    IommuGroup,
    attach_device,
    iommu_domain_alloc,
    iommu_ops,
)
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev

_AT = "WARNING: at drivers/iommu/iommu.c"


# -- kernel drivers ----------------------------------------------------------------------------------------------


def iommu_device_use_default_domain(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/iommu.c, v5.19+. Kept: -EBUSY while somebody owns the group or it is in another domain; v6.15+:
    -EPROBE_DEFER until the group has its default domain.

    Left out: PASIDs in use.
    """
    group: IommuGroup | None = dev.iommu_group
    if group is None:
        return 0
    if k.has(changes.WAIT_FOR_DEFAULT_DOMAIN) and group.default_domain is None:
        return -EPROBE_DEFER
    if group.owner_cnt and (group.owner is not None or not _in_default_domain(group)):
        return -errno.EBUSY
    group.owner_cnt += 1
    return 0


def _in_default_domain(group: IommuGroup) -> bool:
    """Whether the group is in its default domain, or in an identity domain that stands for it."""
    domain, default = group.domain, group.default_domain
    if domain is default:
        return True
    return domain is not None and default is not None and domain.type == default.type == IDENTITY


def iommu_device_unuse_default_domain(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/iommu.c, v5.19+. Kept: the count, and the warning when it was 0."""
    group: IommuGroup | None = dev.iommu_group
    if group is None:
        return
    if group.owner_cnt:
        group.owner_cnt -= 1
    else:
        _underflow(k, group, "iommu_device_unuse_default_domain")


def _underflow(k: Kernel, group: IommuGroup, function: str) -> None:
    why = f"{function} on group {group.number}, which nobody uses"
    k.warn(f"{_AT} {function}", "iommu/owner-underflow", why, function)


# -- user space --------------------------------------------------------------------------------------------------


def iommu_group_claim_dma_owner(k: Kernel, group: IommuGroup, owner: Any) -> int:
    """drivers/iommu/iommu.c, v5.19+. Kept: -EPERM while any driver uses the group, -EBUSY in a foreign domain; then
    nothing can do DMA: in the first version the group is detached, later it gets a blocking domain.
    """
    if group.owner_cnt:
        return -errno.EPERM
    return _take_ownership(k, group, owner)


def iommu_device_claim_dma_owner(k: Kernel, dev: PciDev, owner: Any) -> int:
    """drivers/iommu/iommu.c, v6.2+, for iommufd. Kept: the same owner may claim several devices of a group."""
    group: IommuGroup | None = dev.iommu_group
    if group is None:
        return -errno.ENODEV
    if group.owner_cnt:
        if group.owner != owner:
            return -errno.EPERM
        group.owner_cnt += 1
        return 0
    return _take_ownership(k, group, owner)


def _take_ownership(k: Kernel, group: IommuGroup, owner: Any) -> int:
    if not group.devices:
        return -errno.ENODEV
    if group.domain is not None and group.domain is not group.default_domain:
        return -errno.EBUSY
    error = _block(k, group)
    if error:
        return error
    group.owner, group.owner_cnt = owner, 1
    return 0


def _block(k: Kernel, group: IommuGroup) -> int:
    if not k.has(changes.CLAIM_ATTACHES_DOMAIN):
        _detach_all(k, group)
        return 0
    error = _alloc_blocking_domain(k, group)
    return error or _set_domain(k, group, group.blocking_domain)


def _alloc_blocking_domain(k: Kernel, group: IommuGroup) -> int:
    """Left out: drivers without a blocking type give an empty domain in its place, to the same effect."""
    if group.blocking_domain is None:
        group.blocking_domain = iommu_domain_alloc(k, BLOCKED)
    return 0 if group.blocking_domain is not None else -errno.ENOMEM


def iommu_group_release_dma_owner(k: Kernel, group: IommuGroup) -> None:
    """drivers/iommu/iommu.c, v5.19+. Kept: back to the default domain; the warning when nobody owned the group."""
    if not group.owner_cnt or group.owner is None:
        _underflow(k, group, "iommu_group_release_dma_owner")
        return
    group.owner, group.owner_cnt = None, 0
    _set_core_domain(k, group)


def iommu_device_release_dma_owner(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/iommu.c, v6.2+. Kept: the group is released with the last of its owner's devices."""
    group: IommuGroup | None = dev.iommu_group
    if group is None:
        return
    if group.owner_cnt > 1:
        group.owner_cnt -= 1
    else:
        iommu_group_release_dma_owner(k, group)


def iommu_group_dma_owner_claimed(k: Kernel, group: IommuGroup) -> bool:
    """drivers/iommu/iommu.c. Whether anybody, a driver or an owner, uses the group."""
    return group.owner_cnt > 0


# -- domains for whole groups ------------------------------------------------------------------------------------


def iommu_attach_group(k: Kernel, domain: IommuDomain, group: IommuGroup) -> int:
    """drivers/iommu/iommu.c. Kept: only from the default or blocking domain (v4.2+ in a group with a default domain,
    v5.19+ in all); v5.19+ a failure in the middle puts all devices back, before, those that were attached stay so.
    """
    held = group.domain
    if held is not None and held not in (group.default_domain, group.blocking_domain) and _guards(k, group):
        return -errno.EBUSY
    for dev in group.devices:
        error = attach_device(k, domain, dev)
        if error:
            if k.has(changes.CLAIM_ATTACHES_DOMAIN):
                _restore(k, group)
            return error
    if k.has(changes.CORE_DEFAULT_DOMAINS):
        group.domain = domain
    return 0


def _guards(k: Kernel, group: IommuGroup) -> bool:
    return group.default_domain is not None or k.has(changes.DMA_OWNERSHIP)


def _restore(k: Kernel, group: IommuGroup) -> None:
    if group.domain is not None:
        for dev in group.devices:
            attach_device(k, group.domain, dev)


def iommu_detach_group(k: Kernel, domain: IommuDomain, group: IommuGroup) -> None:
    """drivers/iommu/iommu.c. Kept: up to v4.1 each device is detached; then the default domain takes the place if there
    is one; v5.19+ the blocking domain while the group is owned.
    """
    if k.has(changes.DMA_OWNERSHIP):
        _set_core_domain(k, group)
    elif group.default_domain is None:
        _detach_all(k, group, domain)
    elif group.domain is not group.default_domain:
        _set_domain(k, group, group.default_domain)


def _set_core_domain(k: Kernel, group: IommuGroup) -> None:
    """``__iommu_group_set_core_domain``: blocked while owned, else the default domain."""
    if group.owner is not None and not k.has(changes.CLAIM_ATTACHES_DOMAIN):
        _detach_all(k, group)
        return
    if _set_domain(k, group, group.default_domain if group.owner is None else group.blocking_domain):
        k.warn(f"{_AT} __iommu_group_set_core_domain")


def _set_domain(k: Kernel, group: IommuGroup, domain: IommuDomain | None) -> int:
    """``__iommu_group_set_domain``. Kept: no domain means detached."""
    if group.domain is domain:
        return 0
    if domain is None:
        _detach_all(k, group)
        return 0
    for dev in group.devices:
        error = attach_device(k, domain, dev)
        if error:
            return error
    group.domain = domain
    return 0


def _detach_all(k: Kernel, group: IommuGroup, domain: IommuDomain | None = None) -> None:
    """Detach every device of a group from ``domain``, by default the one it is in."""
    held = domain or group.domain
    if held is not None:
        for dev in group.devices:
            iommu_ops(k).detach_dev(k, held, dev)
    group.domain = None


# -- reset -------------------------------------------------------------------------------------------------------


def pci_dev_reset_iommu_prepare(k: Kernel, dev: PciDev) -> int:
    """drivers/iommu/iommu.c, v7.0+. Kept: nothing is translated for a device while it is reset.

    Left out: PASIDs; domains that others want to attach meanwhile.
    """
    group: IommuGroup | None = dev.iommu_group
    if group is None:
        return 0
    error = _alloc_blocking_domain(k, group)
    if error or group.blocking_domain is None:
        return error
    return attach_device(k, group.blocking_domain, dev)


def pci_dev_reset_iommu_done(k: Kernel, dev: PciDev) -> None:
    """drivers/iommu/iommu.c, v7.0+. Kept: the device is back in the domain of its group."""
    group: IommuGroup | None = dev.iommu_group
    if group is not None and group.domain is not None:
        attach_device(k, group.domain, dev)
