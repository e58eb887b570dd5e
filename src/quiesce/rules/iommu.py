"""Rules on IOMMU groups, domains and tables."""

from __future__ import annotations

from collections.abc import Iterable

from quiesce.kernel import dma_checks, intel_iommu, iommu_checks
from quiesce.kernel.kernel import Kernel
from quiesce.rules.rule import Invariant, Rule

RULES = (
    Rule(
        "group/isolation",
        "Two functions that the IOMMU cannot tell apart are in different groups.",
        "User space is handed one of them and reaches the memory of the other's driver.",
        "v3.6 final and, for ids behind which no function answers, v3.18 to today.",
        ("amd-alias-self", "amd-alias-groups", "104a1c13ac66"),
        example="phantom-alias-today",
    ),
    Rule(
        "group/kept-empty",
        "A group stays although no device is in it any more, because something keeps it for ever.",
        "Its number and memory are not given back; harmless once, not for every plug of a card.",
        "v3.8 to v3.16 for ids behind which no function answers.",
        ("amd-alias-groups", "amd-alias-dev-data-group"),
        "alias-without-device --with amd-alias-dev-data-group",
    ),
    Rule(
        "iommu/alias-without-device",
        "Forming groups follows the pci_dev of an alias behind which there is no device.",
        "The machine does not boot.",
        "v3.6-rc1 to v3.6-rc7.",
        ("9dcd61303af8", "amd-alias-self", "amd-alias-groups"),
        "alias-without-device",
    ),
    Rule(
        "iommu/unmap-without-domain",
        "A mapping is taken back after the device has been detached from its domain.",
        "The kernel stops with BUG_ON(!domain).",
        "VT-d up to v5.7.",
        ("458b7c8e0dde", "6fc7020cf298", "c588072bba6b"),
        "unmap-after-unplug",
    ),
    Rule(
        "iommu/unmap-in-foreign-domain",
        "A mapping is taken back while the device is in a domain that is not for DMA mappings.",
        "The kernel dereferences the IOMMU that such a domain does not have.",
        "VT-d up to v5.10.",
        ("c588072bba6b",),
        "teach-late-unmap",
    ),
    Rule(
        "iommu/unmap-without-group",
        "A mapping is taken back after the device has left its group.",
        "The kernel follows the null pointer `dev->iommu_group`.",
        "AMD v5.5 to v6.14, VT-d v6.12 to v6.14.",
        ("be62dbf554c5", "b5c58b2fdc42", "280e5a301005"),
        example="late-coherent-free --kernel v6.12",
    ),
    Rule(
        "iommu/map-without-group",
        "A mapping is made after the device has left its group.",
        "The kernel follows the null pointer `dev->iommu_group`.",
        "AMD v5.5 to v6.14, VT-d v6.12 to v6.14.",
        ("be62dbf554c5", "b5c58b2fdc42", "280e5a301005"),
    ),
    Rule(
        "iommu/reattached-without-driver",
        "A device that no driver has is put into a domain again.",
        "It may write to memory although nobody drives it.",
        "Kernels that detached at unbind: AMD up to v3.13, VT-d up to v5.2.",
        ("amd-no-detach-at-unbind", "e7f9fa5498d9", "fa954e683178"),
        example="reattached-by-unmap",
    ),
    Rule(
        "dma/unmap-not-mapped",
        "Something is unmapped that is not mapped.",
        "The address may belong to another buffer by now, which loses its mapping.",
        example="teach-late-unmap",
    ),
    Rule(
        "iommu/device-without-data",
        "A device that an IOMMU covers has no IOMMU data; it cannot map anything.",
        "Its driver's probe fails at the first DMA mapping.",
        "v5.3-rc1 to v5.3-rc3, for a device that was removed and comes back.",
        ("b7297783c2bb", "458b7c8e0dde"),
        "replug-without-iommu",
    ),
    Rule(
        "iommu/unbound-live",
        "The driver of an IOMMU is unbound while the IOMMU translates for others.",
        "Everybody's DMA is stopped or runs without protection.",
        example="iommu-msi-lost --with amd-iommu-pci-driver",
    ),
    Rule(
        "iommu/emptied-while-owned",
        "The last device leaves a group that user space still owns.",
        "Domains and ownership point to nothing.",
    ),
    Rule(
        "iommu/owner-underflow",
        "The use of a group is given back more often than it was taken.",
        "User space can claim a group whose devices kernel drivers use.",
    ),
    Rule(
        "iommu/stale-iotlb",
        "The IOTLB still translates an address that was unmapped and flushed.",
        "The device reaches memory that belongs to somebody else by now.",
    ),
    Rule(
        "iommu/dangling-domain",
        "The hardware's entry for a device leads to a domain that was freed.",
        "The device walks page tables in freed memory.",
    ),
    Rule(
        "iommu/live-entry-of-absent",
        "The IOMMU lets DMA pass under an id that no device uses any more.",
        "Whatever is plugged in next, or pretends to be it, reaches the old memory.",
        "AMD v4.1 to v4.4.",
        ("amd-no-detach-at-unbind", "amd-detach-at-remove"),
        example="replug-without-iommu",
    ),
    Rule(
        "memory/dangling-device",
        "The IOMMU driver keeps a pointer to the structure of a device that is gone.",
        "The next use of it reads freed memory.",
        "v5.3-rc1 to v5.3-rc3, and the fix that was proposed first.",
        ("b7297783c2bb", "vtd-repopulate-at-replug"),
        "replug-without-iommu",
    ),
    Rule(
        "memory/dma-after-unmap",
        "A device can write, right now, to memory that its driver has taken back.",
        "It overwrites whatever lies there by then.",
    ),
    Rule(
        "memory/free-wrong-pages",
        "A coherent buffer is freed through dma-direct, which computes the pages from an I/O virtual address.",
        "Pages of somebody else are freed.",
        "VT-d v5.8 to v6.11, both from v6.15 on, after the device was removed.",
        ("6fc7020cf298", "280e5a301005"),
        "late-coherent-free",
    ),
)


def _isolation(k: Kernel) -> Iterable[str]:
    return (f"{one} and {other}: {why}" for one, other, why in iommu_checks.isolation_breaches(k))


def _late_writes(k: Kernel) -> Iterable[str]:
    """The next kernel unmapped nothing; what devices write to there is ``memory/dma-into-next-kernel``."""
    if k.system.phase == "second":
        return ()
    return (why for _, why in dma_checks.writes_after_unmap(k))


INVARIANTS = (
    Invariant("group/isolation", _isolation),
    Invariant("group/kept-empty", iommu_checks.groups_kept_empty),
    Invariant("memory/dangling-device", intel_iommu.dangling_devices),
    Invariant("memory/dma-after-unmap", _late_writes),
    Invariant("iommu/stale-iotlb", dma_checks.stale_iotlb),
    Invariant("iommu/dangling-domain", iommu_checks.dangling_domains),
    Invariant("iommu/live-entry-of-absent", iommu_checks.live_entries_of_absent),
)
