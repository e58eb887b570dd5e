"""What groups depend on in a function's silicon.

Two kinds of objects are such views: ``Function``, which lives in a world, and the light functions of
``quiesce.groups``, which are only what a snapshot tells. So one algorithm serves both.
"""

from __future__ import annotations

from typing import Protocol

from quiesce.snapshot.bdf import Bdf


class ConfigView(Protocol):
    """Configuration space."""

    def static(self, offset: int, size: int) -> int:
        """Return what the snapshot has at an offset."""

    def get(self, name: str) -> int:
        """Return what a register holds now, 0 when there is none of that name."""


class SiliconView(Protocol):
    """One function of the machine."""

    @property
    def bdf(self) -> Bdf:
        """Its address."""

    @property
    def vendor(self) -> int:
        """Vendor id; of a virtual function, its physical function's."""

    @property
    def device(self) -> int:
        """Device id."""

    @property
    def class_code(self) -> int:
        """Base class, sub-class and programming interface."""

    @property
    def pcie_type(self) -> int | None:
        """PCI_EXP_TYPE_*, or None for conventional PCI."""

    @property
    def is_pcie(self) -> bool:
        """Whether it has a PCI Express capability."""

    @property
    def is_bridge(self) -> bool:
        """Whether it has a bus below."""

    @property
    def is_virtfn(self) -> bool:
        """Whether it is a virtual function."""

    @property
    def multifunction(self) -> bool:
        """The header's multifunction bit."""

    @property
    def config(self) -> ConfigView:
        """Its configuration space."""

    @property
    def upstream(self) -> SiliconView | None:
        """The bridge above; None on a root bus."""

    def find_ext_capability(self, cap_id: int) -> int:
        """Return the offset of an extended capability, or 0."""

    def read_config(self, offset: int, size: int) -> int:
        """Read configuration space as it is now."""

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write configuration space."""
