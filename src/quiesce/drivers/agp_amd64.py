"""AGP on AMD K8 (drivers/char/agp/amd64-agp.c): a driver that looks at every device there is."""

from __future__ import annotations

from errno import ENODEV, ENOMEM

from quiesce.kernel import changes
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import pci_regs as r


class AgpAmd64(PciDriver):
    """Kept: with ``try_unsupported`` (the default) it is offered every device, and says -ENODEV to each without an AGP
    capability; since v6.16 it asks for the capability before it lets the core offer it anything.

    Left out: AGP itself, the table of known bridges, that it needs an AMD northbridge in the machine.
    """

    name = "agp-amd64"
    ids = (DeviceId(),)
    has_pm_ops = False

    def matches(self, k: Kernel, dev: PciDev) -> bool:
        """Whether the id table as it is by now lets the core offer the device."""
        return not k.has(changes.AGP_CHECKS_CAPABILITY) or self._capability(dev) != 0

    def _capability(self, dev: PciDev) -> int:
        return dev.hw.find_capability(r.PCI_CAP_ID_AGP)

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``agp_amd64_probe``."""
        if not self._capability(dev):
            return -ENODEV
        return 0 if k.alloc("agp_bridge_data") else -ENOMEM
