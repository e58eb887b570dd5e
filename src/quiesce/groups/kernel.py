"""A kernel that does nothing but enumerate devices and form groups, on a light machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quiesce.groups.coverage import meets_iommu
from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel import changes
from quiesce.kernel.amd_alias import get_alias
from quiesce.kernel.kernelset import Change, KernelSet
from quiesce.kernel.parameters import Parameters
from quiesce.kernel.pci_acs_enable import pci_acs_init, pci_enable_acs
from quiesce.kernel.pci_group import Found, find_group, pci_fixup_dma_alias
from quiesce.snapshot.bdf import Bdf


class LightDevice:
    """What the kernel keeps of a function: a ``DeviceView``."""

    __slots__ = ("acs_enabled_quirk", "bdf", "dma_alias_mask", "found", "hw", "iommu_group", "physfn")

    disconnected = False
    error_state = "normal"

    def __init__(self, hw: LightFunction) -> None:
        self.hw = hw
        self.bdf = hw.path
        self.physfn: LightDevice | None = None
        self.dma_alias_mask: set[int] = set()
        self.acs_enabled_quirk = False
        self.iommu_group: list[LightDevice] | None = None
        self.found: Found | None = None
        """How its group was found."""

    @property
    def is_virtfn(self) -> bool:
        """Whether it is a virtual function."""
        return self.hw.physfn is not None


@dataclass
class LightKernel:
    """One kernel on a light machine: a ``KernelView``."""

    machine: LightMachine
    changes: KernelSet
    parameters: Parameters = field(default_factory=Parameters)
    devices: dict[Bdf, LightDevice] = field(default_factory=dict)
    buses: dict[tuple[int, ...], list[LightDevice]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    decided_coverage: dict[Bdf, bool] = field(default_factory=dict)
    enabled: set[LightFunction] = field(default_factory=set)
    """Functions whose turn to have ACS enabled has come; one that is still open gets it when it is decided."""

    def __post_init__(self) -> None:
        self._in_effect = self.changes.in_effect

    def has(self, change: Change) -> bool:
        """Whether this kernel contains the change."""
        return change in self._in_effect

    def printk(self, level: str, text: str) -> None:
        """Print a line."""
        self.messages.append(text)

    def warn(self, text: str, rule: str | None = None, why: str = "", function: str = "") -> None:
        """Print a WARN splat."""
        self.messages.append(text)

    def dev_at(self, bdf: Bdf) -> Any:
        """Return the device at an address, or None."""
        return self.devices.get(bdf)

    def devs_on_bus(self, bdf: Bdf) -> Iterable[Any]:
        """Return the devices on the bus of an address, as the bus list has them."""
        return self.buses.get(bdf[:2], ())

    # -- boot ------------------------------------------------------------------------------------------------

    def enumerate(self, functions: Sequence[LightFunction]) -> None:
        """Find devices: alias quirks, ACS (before v7.0), the bus list."""
        for fn in functions:
            dev = LightDevice(fn)
            self.devices[fn.bdf] = dev
            self.buses.setdefault(fn.bdf[:2], []).append(dev)
        for fn in functions:
            if fn.physfn is not None:
                self.devices[fn.bdf].physfn = self.devices.get(fn.physfn.bdf)
            if fn.ids_settled:
                pci_fixup_dma_alias(self, self.devices[fn.bdf])
            if not self.has(changes.ACS_IN_DMA_CONFIGURE):
                self.enable(fn)

    def enable(self, fn: LightFunction) -> None:
        """Let a function have its ACS enabled, now or as soon as it is decided what it is."""
        self.enabled.add(fn)
        if fn.chosen is not None or not fn.open:
            self.enable_now(fn)

    def enable_now(self, fn: LightFunction) -> None:
        """drivers/pci/probe.c and pci-driver.c: ACS at enumeration, or from ``pci_dma_configure`` (v7.0+)."""
        dev = self.devices[fn.bdf]
        if self.has(changes.ACS_IN_DMA_CONFIGURE):
            pci_enable_acs(self, dev)
        else:
            pci_acs_init(self, dev)

    def form_groups(self, order: Iterable[LightFunction]) -> None:
        """Probe devices for the IOMMU in the given order; those that none covers stay without a group."""
        for fn in order:
            self.probe(self.devices[fn.bdf])

    def covered(self, fn: LightFunction) -> bool:
        """Whether an IOMMU covers the function; where that is open, a run may have decided it."""
        return self.decided_coverage.get(fn.bdf, meets_iommu(self, self.machine, fn))

    def probe(self, dev: LightDevice) -> None:
        """drivers/iommu/iommu.c ``__iommu_probe_device``. Kept: v7.0+ with v6.15's order, ACS is enabled just before;
        aliases of the AMD tables; the search for a group.
        """
        if dev.iommu_group is not None or not self.covered(dev.hw):
            return
        if self.has(changes.ACS_IN_DMA_CONFIGURE) and self.has(changes.IOMMU_PROBE_IN_CORE):
            self.enable(dev.hw)
        if self.machine.iommu == "amd":
            get_alias(self, dev)
        dev.found = find_group(self, dev)
        group: list[LightDevice] = dev.found.group if dev.found.group is not None else []
        group.append(dev)
        dev.iommu_group = group
