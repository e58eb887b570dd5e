"""A small IOMMU driver in the place of the real ones, for tests of the core alone: every generation of it, with a log.

It gives a device's entry, and those of its aliases, to the domain the device is attached to.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import quiesce.kernel
from quiesce.kernel import changes, device_group, iommu, pci_group
from quiesce.kernel.iommu_group import IommuDomain, IommuGroup
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.snapshot.bdf import Bdf


class ToyIommu:
    """Set ``wants`` (address -> domain type) and ``refuses`` (addresses whose attach fails) before use."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.wants: dict[str, str] = {}
        self.refuses: set[str] = set()
        self.touches_domain_at_release = False
        self.attached: dict[str, IommuDomain] = {}

    def init(self, k: Kernel) -> None:
        for unit in hardware.units(k.machine):
            unit.enabled = True

    def probe_device(self, k: Kernel, dev: PciDev) -> int:
        return 0 if hardware.unit_of(k.machine, dev.hw) is not None else -errno.ENODEV

    def add_device(self, k: Kernel, dev: PciDev) -> int:
        return self.probe_device(k, dev) or iommu.iommu_group_get_for_dev(k, dev)

    def device_group(self, k: Kernel, dev: PciDev) -> IommuGroup:
        search = device_group.pci_device_group if k.has(changes.CENTRAL_GROUP_LOOKUP) else device_group.intel_old_group
        return search(k, dev)

    def def_domain_type(self, k: Kernel, dev: PciDev) -> str | None:
        return self.wants.get(dev.bdf)

    def attach_dev(self, k: Kernel, domain: IommuDomain, dev: PciDev) -> int:
        if dev.bdf in self.refuses:
            return -errno.EBUSY
        self.log.append(f"attach {dev.bdf} {domain.type}")
        self._leave(dev)
        domain.devices.append(dev)
        self.attached[dev.path] = domain
        for rid in self._ids(k, dev):
            self._point(k, rid, domain)
        return 0

    def _point(self, k: Kernel, rid: Bdf, domain: IommuDomain) -> None:
        passes = domain.type == "identity"
        if k.machine.iommu == "amd":
            dte = hardware.amd_dte(k.world, rid)
            dte.valid, dte.domain, dte.translated = True, domain.number, not passes
        else:
            context = hardware.vtd_context(k.world, rid)
            context.present, context.domain, context.passthrough = domain.type != "blocked", domain.number, passes

    def detach_dev(self, k: Kernel, domain: IommuDomain, dev: PciDev) -> None:
        self.log.append(f"detach {dev.bdf}")
        self._leave(dev)
        for rid in self._ids(k, dev):
            entry = hardware.amd_dte(k.world, rid) if k.machine.iommu == "amd" else hardware.vtd_context(k.world, rid)
            entry.delete()

    def release_device(self, k: Kernel, dev: PciDev) -> None:
        self.log.append(f"release {dev.bdf}")
        held = self.attached.get(dev.path)
        if held is not None and self.touches_domain_at_release:
            held.devices.remove(dev)
            del self.attached[dev.path]
        if held is not None:
            self.detach_dev(k, held, dev)

    def remove_device(self, k: Kernel, dev: PciDev) -> None:
        self.release_device(k, dev)
        iommu.iommu_group_remove_device(k, dev)

    def probe_finalize(self, k: Kernel, dev: PciDev) -> None:
        self.log.append(f"finalize {dev.bdf}")

    def bus_notifier(self, k: Kernel, action: str, dev: PciDev) -> None:
        """The generations of this driver need none."""

    def _ids(self, k: Kernel, dev: PciDev) -> Iterator[Bdf]:
        return (rid for _, rid in pci_group.pci_for_each_dma_alias(k, dev))

    def _leave(self, dev: PciDev) -> None:
        held = self.attached.pop(dev.path, None)
        if held is not None and held.exists and dev in held.devices:
            held.devices.remove(dev)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyIommu:
    """Put one toy in the place of both drivers."""
    driver: Any = ToyIommu()
    for name in ("amd_iommu", "intel_iommu"):
        module: Any = ModuleType(f"quiesce.kernel.{name}")
        for item in dir(driver):
            if not item.startswith("_"):
                setattr(module, item, getattr(driver, item))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(quiesce.kernel, name, module, raising=False)
    found: ToyIommu = driver
    return found
