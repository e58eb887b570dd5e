"""Which QEMU device stands for a function: by its ids where QEMU has the very device, else the nearest one.

A recipe names the device and how its properties follow from the function's shape. Everything here is a table; the
tree is put together in ``topology``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r
from quiesce.testbed.shape import Shape

Version = tuple[int, int]
OLDEST: Version = (7, 0)


@dataclass(frozen=True, slots=True)
class QemuDevice:
    """One ``-device`` of QEMU."""

    id: str
    driver: str
    bus: str
    addr: str
    """``DEVICE.FUNCTION`` in hex, as QEMU wants it; empty for what has no place on a bus."""
    properties: tuple[tuple[str, str], ...] = ()
    hotpluggable: bool = False
    """Whether QEMU can unplug it and plug it in again while the guest runs."""

    def argument(self) -> str:
        """The value of ``-device``."""
        return ",".join((self.driver, *(f"{name}={value}" for name, value in self._all())))

    def qmp(self) -> dict[str, str | int | bool]:
        """The arguments of QMP's ``device_add``, in the types that newer QEMUs insist on."""
        return {"driver": self.driver, **{name: _typed(name, value) for name, value in self._all()}}

    def _all(self) -> tuple[tuple[str, str], ...]:
        own = (("id", self.id), ("bus", self.bus), ("addr", self.addr))
        return (*((name, value) for name, value in own if value), *self.properties)


_SWITCHES = ("multifunction", "ats", "disable-acs", "shpc", "x-disable-pcie", "x-pcie-flr-init", "x-pcie-pm-init")
"""Properties that are true or false; other on and off are words, because there is auto as well."""


def _typed(name: str, value: str) -> str | int | bool:
    if name in _SWITCHES:
        return value == "on"
    return int(value) if value.isdecimal() else value


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function goes: what its properties may need to know."""

    id: str
    number: int
    """Unique in the machine, from 1: chassis, slot and network numbers."""
    root: bool
    """It is on a root bus, where PCI Express devices are root complex integrated."""


Options = Callable[[Shape, Place], dict[str, str]]


def _plain(shape: Shape, place: Place) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a function is built."""

    driver: str
    options: Options = _plain
    backend: Callable[[Shape, Place], tuple[str, ...]] = field(default=lambda shape, place: ())
    """Further QEMU arguments that must come before the device."""
    needs: Version = OLDEST
    migrates: bool = True
    """False where QEMU refuses to save a machine with it."""
    keeps_state: bool = True
    """False where a restored machine has it blank, configuration space included."""
    leads_on: bool = False
    """It is a bridge."""


def _port(shape: Shape, place: Place) -> dict[str, str]:
    number = str(place.number)
    found = {"chassis": number, "slot": number, "port": number}
    if shape.acs is None and shape.express == r.PCI_EXP_TYPE_ROOT_PORT:
        found["disable-acs"] = "on"
    return found


def _conventional_bridge(shape: Shape, place: Place) -> dict[str, str]:
    # The hot-plug controller brings a BAR, MSI and a driver with it; only machines that show it get it.
    quiet = {} if shape.shpc else {"shpc": "off", "msi": "off"}
    return {"chassis_nr": str(place.number), **quiet}


def _express_bridge(shape: Shape, place: Place) -> dict[str, str]:
    return {} if shape.msi else {"msi": "off"}


def _network(shape: Shape, place: Place) -> dict[str, str]:
    return {"netdev": f"n{place.number}", "romfile": ""}


def _hub(shape: Shape, place: Place) -> tuple[str, ...]:
    """A hub of its own: the link is up, and nothing leaves the guest."""
    return ("-netdev", f"hubport,id=n{place.number},hubid={place.number}")


def _disk(shape: Shape, place: Place) -> tuple[str, ...]:
    return ("-blockdev", f"driver=null-co,node-name=b{place.number},size=1048576,read-zeroes=on")


def _nvme(shape: Shape, place: Place) -> dict[str, str]:
    found = {"serial": f"q{place.number}"}
    if shape.msix:
        found["msix_qsize"] = str(shape.msix)
    if not shape.sriov:
        return {**found, "drive": f"b{place.number}"}
    # One more interrupt and two more queue pairs for the physical function than its virtual ones take. It is part of
    # a subsystem, which goes without a disk.
    total = shape.sriov
    flexible = {"sriov_max_vfs": total, "sriov_vq_flexible": 2 * total, "sriov_vi_flexible": total}
    sizes = {**flexible, "max_ioqpairs": 2 * total + 2, "msix_qsize": max(shape.msix, 2 * total + 1)}
    return {**found, "subsys": f"s{place.number}", **{name: str(value) for name, value in sizes.items()}}


def _nvme_backend(shape: Shape, place: Place) -> tuple[str, ...]:
    return ("-device", f"nvme-subsys,id=s{place.number}") if shape.sriov else _disk(shape, place)


def _virtio(shape: Shape, place: Place) -> dict[str, str]:
    modern = shape.device >= 0x1040
    found = {"disable-legacy": "on" if modern else "off", "vectors": str(shape.msix), "romfile": ""}
    if shape.ats:
        found["ats"] = "on"
    if place.root or shape.express is not None:
        flags = {} if place.root else {"x-pcie-flr-init": shape.flr, "x-pcie-pm-init": shape.pm}
        return {**found, **{name: "off" for name, there in flags.items() if not there}}
    return {**found, "x-disable-pcie": "on"}


def _virtio_net(shape: Shape, place: Place) -> dict[str, str]:
    return {**_virtio(shape, place), "netdev": f"n{place.number}"}


def _virtio_disk(shape: Shape, place: Place) -> dict[str, str]:
    return {**_virtio(shape, place), "drive": f"b{place.number}"}


def _entropy(shape: Shape, place: Place) -> tuple[str, ...]:
    return ("-object", f"rng-builtin,id=r{place.number}")


def _virtio_entropy(shape: Shape, place: Place) -> dict[str, str]:
    return {**_virtio(shape, place), "rng": f"r{place.number}"}


def _message_interrupts(shape: Shape, place: Place) -> dict[str, str]:
    return {"msi": "on" if shape.msi else "off"}


def _nec(shape: Shape, place: Place) -> dict[str, str]:
    return {"msi": "on" if shape.msi else "off", "msix": "on" if shape.msix else "off"}


def _one_mib(shape: Shape, place: Place) -> dict[str, str]:
    return {"vgamem_mb": "1", "romfile": ""}


ROOT_PORT = Recipe("pcie-root-port", _port, leads_on=True)
UPSTREAM = Recipe("x3130-upstream", leads_on=True)
DOWNSTREAM = Recipe("xio3130-downstream", _port, leads_on=True)
EXPRESS_TO_PCI = Recipe("pcie-pci-bridge", _express_bridge, leads_on=True)
PCI_BRIDGE = Recipe("pci-bridge", _conventional_bridge, leads_on=True)
DMI_BRIDGE = Recipe("i82801b11-bridge", leads_on=True)
EXPANDER = Recipe("pxb-pcie")
EXPANDER_IDS = (0x1B36, 0x000B)
EDU = Recipe("edu", keeps_state=False)
SILENT = Recipe("pci-testdev", keeps_state=False)
E1000 = Recipe("e1000", _network, _hub)
E1000E = Recipe("e1000e", _network, _hub)
IGB = Recipe("igb", _network, _hub, needs=(8, 0))
NVME = Recipe("nvme", _nvme, _nvme_backend, migrates=False)
AHCI = Recipe("ich9-ahci")
XHCI = Recipe("qemu-xhci")
HDA = Recipe("ich9-intel-hda", _message_interrupts)
VIRTIO_NET = Recipe("virtio-net-pci", _virtio_net, _hub)
VIRTIO_BLK = Recipe("virtio-blk-pci", _virtio_disk, _disk)
VIRTIO_RNG = Recipe("virtio-rng-pci", _virtio_entropy, _entropy)

BY_ID: Mapping[tuple[int, int], Recipe] = {
    (0x1B36, 0x000C): ROOT_PORT,
    (0x8086, 0x3420): Recipe("ioh3420", _port, leads_on=True),
    (0x1B36, 0x0001): PCI_BRIDGE,
    (0x1B36, 0x000E): EXPRESS_TO_PCI,
    (0x8086, 0x244E): DMI_BRIDGE,
    (0x8086, 0x2448): DMI_BRIDGE,
    (0x8086, 0x10D3): E1000E,
    (0x8086, 0x100E): E1000,
    (0x8086, 0x100F): Recipe("e1000-82545em", _network, _hub),
    (0x8086, 0x10C9): IGB,
    (0x10EC, 0x8139): Recipe("rtl8139", _network, _hub),
    (0x8086, 0x2922): AHCI,
    (0x8086, 0x293E): HDA,
    (0x8086, 0x2668): Recipe("intel-hda", _message_interrupts),
    (0x8086, 0x293A): Recipe("ich9-usb-ehci1"),
    (0x8086, 0x293C): Recipe("ich9-usb-ehci2"),
    (0x8086, 0x2934): Recipe("ich9-usb-uhci1"),
    (0x8086, 0x2935): Recipe("ich9-usb-uhci2"),
    (0x8086, 0x2936): Recipe("ich9-usb-uhci3"),
    (0x8086, 0x2937): Recipe("ich9-usb-uhci4"),
    (0x8086, 0x2938): Recipe("ich9-usb-uhci5"),
    (0x8086, 0x2939): Recipe("ich9-usb-uhci6"),
    (0x1B36, 0x000D): XHCI,
    (0x1033, 0x0194): Recipe("nec-usb-xhci", _nec),
    (0x1B36, 0x0010): NVME,
    (0x1234, 0x11E8): EDU,
    (0x1234, 0x1111): Recipe("VGA", _one_mib),
    (0x1B36, 0x0005): SILENT,
    (0x1AF4, 0x1000): VIRTIO_NET,
    (0x1AF4, 0x1041): VIRTIO_NET,
    (0x1AF4, 0x1001): VIRTIO_BLK,
    (0x1AF4, 0x1042): VIRTIO_BLK,
    (0x1AF4, 0x1005): VIRTIO_RNG,
    (0x1AF4, 0x1044): VIRTIO_RNG,
}

_BRIDGES = {
    r.PCI_EXP_TYPE_ROOT_PORT: ROOT_PORT,
    r.PCI_EXP_TYPE_UPSTREAM: UPSTREAM,
    r.PCI_EXP_TYPE_DOWNSTREAM: DOWNSTREAM,
    r.PCI_EXP_TYPE_PCI_BRIDGE: EXPRESS_TO_PCI,
    None: PCI_BRIDGE,
}


def recipe_for(shape: Shape) -> Recipe | None:
    """Return how to build a function; None when QEMU has nothing that comes near (a bridge from PCI to PCI Express)."""
    if shape.bridge:
        exact = BY_ID.get(shape.ids)
        return exact if exact is not None and exact.leads_on else _BRIDGES.get(shape.express)
    return BY_ID.get(shape.ids) or _nearest(shape)


def is_exact(shape: Shape, recipe: Recipe) -> bool:
    """Whether QEMU has the very device. The two switches are Texas Instruments' there, whatever a machine has."""
    switch = recipe in (UPSTREAM, DOWNSTREAM) and shape.ids in _SWITCH_IDS
    return switch or (BY_ID.get(shape.ids) is recipe)


_SWITCH_IDS = ((0x104C, 0x8232), (0x104C, 0x8233), (0x1B36, 0x0232), (0x1B36, 0x0233))


def _nearest(shape: Shape) -> Recipe:
    sub_class = shape.class_code >> 8
    if shape.sriov:
        return NVME if sub_class == r.PCI_CLASS_STORAGE_EXPRESS else IGB
    if sub_class == r.PCI_CLASS_STORAGE_SATA:
        return AHCI
    if sub_class == r.PCI_CLASS_STORAGE_EXPRESS:
        return NVME
    if sub_class == r.PCI_CLASS_NETWORK_ETHERNET:
        return E1000E if shape.express is not None else E1000
    if shape.class_code == 0x0C0330:
        return XHCI
    return _stand_in(shape)


def _stand_in(shape: Shape) -> Recipe:
    """``edu`` raises interrupts on request, so it stands for most. Two cases in which it would change the groups or
    the interrupt lines get another: Intel's integrated functions in one slot count as isolated, silent functions
    share no line.
    """
    integrated = shape.express == r.PCI_EXP_TYPE_RC_END and shape.vendor == r.PCI_VENDOR_ID_INTEL
    if integrated and shape.multifunction:
        return E1000E
    return EDU if shape.pin or shape.msi or shape.msix else SILENT
