"""Models of real drivers, small but faithful in what they take, give back, and forget."""

from __future__ import annotations

from collections.abc import Iterable

from quiesce.drivers.agp_amd64 import AgpAmd64
from quiesce.drivers.ahci import Ahci
from quiesce.drivers.amd_iommu import AmdIommu
from quiesce.drivers.e1000e import E1000e, Igb, Igbvf
from quiesce.drivers.i2c_i801 import I2cI801
from quiesce.drivers.i915 import I915
from quiesce.drivers.legacy_intx import LegacyIntx, ManagedIntx, ManagedToggle
from quiesce.drivers.msi_and_line import MsiAndLine
from quiesce.drivers.nvme import Nvme
from quiesce.drivers.pci_stub import PciStub
from quiesce.drivers.pciback import PciBack
from quiesce.drivers.pcieport import PciePort
from quiesce.drivers.scripted import driver_class, shipped
from quiesce.drivers.snd_hda_intel import SndHdaIntel
from quiesce.drivers.teaching import TEACHING
from quiesce.drivers.uio_pci_generic import UioPciGeneric
from quiesce.drivers.usb import EhciPci, UhciHcd, XhciHcd
from quiesce.drivers.vfio_pci import VfioPci
from quiesce.drivers.virtio_pci import VirtioPci
from quiesce.kernel.driver import PciDriver

_CLASSES: tuple[type[PciDriver], ...] = (
    PciePort,
    Ahci,
    Nvme,
    Igb,
    Igbvf,
    E1000e,
    VirtioPci,
    I915,
    SndHdaIntel,
    XhciHcd,
    EhciPci,
    UhciHcd,
    I2cI801,
    AmdIommu,
    AgpAmd64,
    PciBack,
    PciStub,
    UioPciGeneric,
    VfioPci,
    LegacyIntx,
    ManagedIntx,
    ManagedToggle,
    MsiAndLine,
    *TEACHING,
)


class UnknownDriver(ValueError):
    """A name that no driver model has."""


def all_drivers() -> dict[str, PciDriver]:
    """Return every driver model by name: those written in Python, then the shipped scripts with names of their own."""
    known: dict[str, PciDriver] = {cls.name: cls() for cls in _CLASSES}
    for name, script in shipped().items():
        if name not in known:
            known[name] = driver_class(script)()
    return known


def models(names: Iterable[str]) -> dict[str, PciDriver]:
    """Return the driver models of these names, in their order; raises UnknownDriver."""
    known = all_drivers()
    chosen: dict[str, PciDriver] = {}
    for name in names:
        if name not in known:
            raise UnknownDriver(f"no driver model {name!r}; there are {', '.join(known)}")
        chosen[name] = known[name]
    return chosen
