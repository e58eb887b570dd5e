"""The driver that the AMD IOMMU's own function never got (proposed instead of leaving the function without one)."""

from __future__ import annotations

from errno import ENODEV

from quiesce.kernel import amd_iommu, changes
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev


class AmdIommu(PciDriver):
    """Kept: with the proposal the function is bound, so no other driver can probe it; what sysfs can do to any bound
    device, it can do to the IOMMU now. Without the proposal the driver does not exist.
    """

    name = "amd-iommu"
    builtin = True
    ids = (DeviceId(base_class=0x08, sub_class=0x06),)
    has_pm_ops = False

    def matches(self, k: Kernel, dev: PciDev) -> bool:
        """Whether the driver exists in this kernel."""
        return k.has(changes.AMD_IOMMU_PCI_DRIVER)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """Adopt the function; the IOMMU has been set up long before."""
        return 0 if self.matches(k, dev) else -ENODEV

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """Nothing else holds the hardware then: its interrupt goes and translation is switched off."""
        amd_iommu.teardown(k, dev)
