"""A kernel and its devices, as far as groups depend on them: the running model's, or the light ones of
``quiesce.groups``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from quiesce.kernel.kernelset import Change
from quiesce.kernel.parameters import Parameters
from quiesce.machine.view import SiliconView
from quiesce.snapshot.bdf import Bdf


class DeviceView(Protocol):
    """What the kernel keeps of a function (``struct pci_dev``)."""

    acs_enabled_quirk: Any
    iommu_group: Any

    @property
    def bdf(self) -> str:
        """Its address as the kernel prints it."""

    @property
    def hw(self) -> SiliconView:
        """The silicon."""

    @property
    def is_virtfn(self) -> bool:
        """Whether it is a virtual function."""

    @property
    def physfn(self) -> Any:
        """The device of its physical function."""

    @property
    def dma_alias_mask(self) -> Any:
        """The devfns of its bus that it sends under besides its own: a set."""

    @property
    def disconnected(self) -> bool:
        """Hotplug has marked it as gone."""

    @property
    def error_state(self) -> str:
        """What error recovery thinks of it."""


class KernelView(Protocol):
    """A kernel that forms groups."""

    @property
    def machine(self) -> Any:
        """The machine: ``iommu``, ``ivrs``, ``functions``."""

    @property
    def parameters(self) -> Parameters:
        """What its command line says about isolation."""

    def has(self, change: Change) -> bool:
        """Whether this kernel contains the change."""

    def printk(self, level: str, text: str) -> None:
        """Print a line."""

    def warn(self, text: str, rule: str | None = None, why: str = "", function: str = "") -> None:
        """Print a WARN splat."""

    def dev_at(self, bdf: Bdf) -> Any:
        """Return the device at an address, or None."""

    def devs_on_bus(self, bdf: Bdf) -> Iterable[Any]:
        """Return the devices on the bus of an address, as the bus list has them."""
