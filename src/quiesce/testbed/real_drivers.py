"""Which driver of a real kernel plays the part of which driver model, and the modules it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quiesce.drivers.script_text import Script
from quiesce.testbed.scripted import script_for
from quiesce.testbed.steps import CannotDo

SCRIPT_MODULE = "qscript"


@dataclass(frozen=True, slots=True)
class RealDriver:
    """A driver of a real kernel."""

    name: str
    """As sysfs names it."""
    modules: tuple[str, ...] = ()
    """Modules to load, without what modules.dep adds; empty for a driver that is always built in."""
    script: Script | None = None
    """The script of a driver that is given to the scripted module."""
    networking: bool = False
    """Binding it makes a network interface, which is brought up as udev and a network manager would."""
    ready: str = ""
    """A shell test that holds, in a device's folder, once what the driver does after its probe is done."""
    config_only: bool = False
    """It never touches the device's memory when it is bound."""


_STOCK = {
    "ahci": RealDriver("ahci", ("ahci",)),
    "nvme": RealDriver("nvme", ("nvme",), ready="grep -qx live nvme/*/state"),
    "e1000e": RealDriver("e1000e", ("e1000e",), networking=True),
    "igb": RealDriver("igb", ("igb",), networking=True),
    "igbvf": RealDriver("igbvf", ("igbvf",), networking=True),
    "virtio-pci": RealDriver("virtio-pci", ("virtio_pci", "virtio_net")),
    "xhci_hcd": RealDriver("xhci_hcd", ("xhci_pci",)),
    "ehci-pci": RealDriver("ehci-pci", ("ehci_pci",)),
    "uhci_hcd": RealDriver("uhci_hcd", ("uhci_hcd",)),
    "snd_hda_intel": RealDriver("snd_hda_intel", ("snd_hda_intel",)),
    "i2c_i801": RealDriver("i801_smbus", ("i2c_i801",)),
    "pci-stub": RealDriver("pci-stub", ("pci_stub",), config_only=True),
    "uio_pci_generic": RealDriver("uio_pci_generic", ("uio_pci_generic",), config_only=True),
    "vfio-pci": RealDriver("vfio-pci", ("vfio_pci", "vfio_iommu_type1"), config_only=True),
    "pcieport": RealDriver("pcieport"),
}


def real_driver(model: str) -> RealDriver:
    """Return who plays a driver model; raises CannotDo when nobody can."""
    if model in _STOCK:
        return _STOCK[model]
    script = script_for(model)
    if script is not None:
        return RealDriver(model, (SCRIPT_MODULE,), script)
    raise CannotDo(f"no driver of a real kernel plays {model}")


def playable(models: Iterable[str]) -> tuple[str, ...]:
    """Return the driver models that a real kernel has a driver for; raises CannotDo when it has none of them."""
    wanted = tuple(models)
    found = tuple(model for model in wanted if model in _STOCK or script_for(model))
    if wanted and not found:
        raise CannotDo(f"no driver of a real kernel plays {' or '.join(wanted)}")
    return found


def modules_of(models: Iterable[str]) -> tuple[str, ...]:
    """Return the modules that a set of driver models needs, each once, in order; raises CannotDo."""
    return tuple(dict.fromkeys(module for model in models for module in real_driver(model).modules))


def model_name(real: str) -> str:
    """Return the model's name for a driver of the real kernel."""
    return next((model for model, driver in _STOCK.items() if driver.name == real), real)
