"""What a kernel version allows and does when a device is handed to user space, as facts about ids and registers."""

from __future__ import annotations

from typing import Protocol

from quiesce.kernel import changes
from quiesce.kernel.handover_table import HANDOVER_QUIRKS
from quiesce.kernel.kernelset import KernelSet
from quiesce.machine import pci_regs as r
from quiesce.machine.quirk_tables import Quirk

VFIO_DRIVERS = (
    "vfio-pci",
    "hisi-acc-vfio-pci",
    "ism-vfio-pci",
    "mlx5-vfio-pci",
    "nvgrace-gpu-vfio-pci",
    "pds-vfio-pci",
    "qat-vfio-pci",
    "virtio-vfio-pci",
    "xe-vfio-pci",
)
"""Drivers that hand their devices to user space through VFIO; all of them manage DMA themselves."""
FIRST_READ = "v5.10"
"""Before this release the quirk tables were not read."""


class Ids(Protocol):
    """What quirks are looked up by."""

    @property
    def vendor(self) -> int:
        """Vendor id."""

    @property
    def device(self) -> int:
        """Device id."""

    @property
    def class_code(self) -> int:
        """Base class, sub-class and programming interface."""


def quirk_of(k: KernelSet, ids: Ids, *kinds: str) -> Quirk | None:
    """Return the first entry of some kinds that this kernel has for a device."""
    for quirk in HANDOVER_QUIRKS:
        if quirk.kind in kinds and quirk.covers(ids.vendor, ids.device) and changes.find(quirk.change) in k:
            return quirk
    return None


def no_pm_reset(k: KernelSet, ids: Ids, on_root_bus: bool) -> Quirk | None:
    """``quirk_no_pm_reset``: only off the root bus; of AMD only VGA controllers."""
    found = None if on_root_bus else quirk_of(k, ids, "no_pm_reset", "no_pm_reset_vga")
    vga = ids.class_code >> 8 == r.PCI_CLASS_DISPLAY_VGA
    return None if found is not None and found.kind == "no_pm_reset_vga" and not vga else found


def no_flr(k: KernelSet, ids: Ids, revision: int) -> Quirk | None:
    """``quirk_no_flr``; one entry is for the first revision only."""
    found = quirk_of(k, ids, "no_flr", "no_flr_rev1")
    return None if found is not None and found.kind == "no_flr_rev1" and revision != 1 else found


def reset_order(k: KernelSet) -> tuple[str, ...]:
    """Return the names of all reset methods in the order in which the kernel tries them (``pci_reset_fn_methods``).

    ACPI _RST came with the sysfs attribute (v5.15), the bus reset through a closed CXL port later.
    """
    acpi = ("acpi",) if changes.RESET_METHOD_SYSFS in k else ()
    cxl = ("cxl_bus",) if changes.RESET_CXL_BUS in k else ()
    return ("device_specific", *acpi, "flr", "af_flr", "pm", "bus", *cxl)


def blocks_group(k: KernelSet, driver: str, is_bridge: bool) -> bool:
    """Whether a group of which a member is bound to this driver is refused to user space.

    v5.19+ every driver blocks that has not set ``driver_managed_dma``: the VFIO drivers, pci-stub and the port driver
    have. Before, VFIO tolerates pci-stub, its own, and bridges (up to v4.3 those of the port driver only).
    """
    name = driver.replace("_", "-")
    if name in VFIO_DRIVERS or name == "pci-stub":
        return False
    if changes.VFIO_NO_VIABILITY_CHECK in k or changes.VFIO_TOLERATES_BRIDGES not in k:
        return name != "pcieport"
    return not is_bridge


def reserved_memory_refuses(k: KernelSet, iommu: str, class_code: int) -> str:
    """Return what a kernel answers to a device with memory that firmware wants mapped one to one; "" when it allows it.

    drivers/iommu/intel/iommu.c ``device_is_rmrr_locked`` (v3.17 to v6.5), drivers/iommu/iommu.c ``require_direct``
    (v6.6+, every IOMMU driver). Graphics and USB are excepted on VT-d, because firmware is done with them after boot.
    """
    if iommu == "intel" and rmrr_is_relaxable(class_code):
        return ""
    if changes.IOMMU_REQUIRE_DIRECT in k:
        return "EINVAL, 'Firmware has requested this device have a 1:1 IOMMU mapping'"
    if iommu == "intel" and changes.VTD_RMRR_LOCKED in k:
        return "EPERM, 'Device is ineligible for IOMMU domain attach due to platform RMRR requirement'"
    return ""


def rmrr_is_relaxable(class_code: int) -> bool:
    """drivers/iommu/intel/iommu.c ``device_rmrr_is_relaxable``: USB and graphics."""
    return class_code >> 8 == r.PCI_CLASS_SERIAL_USB or class_code >> 16 == r.PCI_BASE_CLASS_DISPLAY
