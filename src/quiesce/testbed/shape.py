"""What of a PCI function decides how it is built in QEMU, and in what two builds of one function can differ."""

from __future__ import annotations

from dataclasses import dataclass, fields

from quiesce.machine import topology
from quiesce.machine.build import padded
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.description import FunctionDescription


@dataclass(frozen=True, slots=True)
class Shape:
    """The ids and capabilities of a function, as configuration space shows them."""

    vendor: int
    device: int
    class_code: int
    header: int
    express: int | None
    """PCI_EXP_TYPE_*, None without the PCI Express capability."""
    multifunction: bool
    pin: int
    msi: int
    """MSI vectors, 0 without the capability."""
    msix: int
    """Size of the MSI-X table, 0 without the capability."""
    pm: bool
    flr: bool
    acs: int | None
    """ACS capability bits, None without the capability."""
    slot: bool
    ari: bool
    """The ARI capability, or in a port the ability to forward ARI."""
    ats: bool
    sriov: int
    """Virtual functions it can have."""
    shpc: bool

    @property
    def ids(self) -> tuple[int, int]:
        """Vendor and device."""
        return self.vendor, self.device

    @property
    def bridge(self) -> bool:
        """Whether it leads to another bus."""
        return self.header == r.PCI_HEADER_TYPE_BRIDGE


def shape_of(function: FunctionDescription) -> Shape:
    """Read a function's shape out of its configuration space."""
    config = padded(function.config)
    caps, extended = topology.capability_list(config), topology.extended_capability_list(config)
    express = caps.get(r.PCI_CAP_ID_EXP)
    flags = _word(config, express + r.PCI_EXP_FLAGS) if express else 0
    kind = (flags & r.PCI_EXP_FLAGS_TYPE) >> 4 if express else None
    header = config[r.PCI_HEADER_TYPE]
    pin = config[r.PCI_INTERRUPT_PIN]
    vendor, device = _ids(function, config)
    return Shape(
        vendor=vendor,
        device=device,
        class_code=int.from_bytes(config[r.PCI_CLASS_REVISION + 1 : r.PCI_CLASS_REVISION + 4], "little"),
        header=header & r.PCI_HEADER_TYPE_MASK,
        express=kind,
        multifunction=bool(header & r.PCI_HEADER_TYPE_MFD),
        pin=pin if pin <= 4 else 0,
        msi=_msi(config, caps.get(r.PCI_CAP_ID_MSI)),
        msix=_msix(config, caps.get(r.PCI_CAP_ID_MSIX)),
        pm=r.PCI_CAP_ID_PM in caps,
        flr=bool(express and _long(config, express + r.PCI_EXP_DEVCAP) & r.PCI_EXP_DEVCAP_FLR),
        acs=_acs(config, extended.get(r.PCI_EXT_CAP_ID_ACS)),
        slot=bool(flags & r.PCI_EXP_FLAGS_SLOT),
        ari=_ari(config, express, extended),
        ats=r.PCI_EXT_CAP_ID_ATS in extended,
        sriov=_sriov(config, extended.get(r.PCI_EXT_CAP_ID_SRIOV)),
        shpc=r.PCI_CAP_ID_SHPC in caps,
    )


def differences(wanted: Shape, found: Shape) -> list[str]:
    """Say in what ``found`` is not as ``wanted``, one short sentence each."""
    said = []
    for field in fields(Shape):
        want, have = getattr(wanted, field.name), getattr(found, field.name)
        if want != have and field.name not in ("vendor", "device"):
            said.append(f"{field.name} {_text(field.name, have)} instead of {_text(field.name, want)}")
    if wanted.ids != found.ids:
        said.insert(0, "id {:04x}:{:04x} instead of {:04x}:{:04x}".format(*found.ids, *wanted.ids))
    return said


def _text(name: str, value: object) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "none"
    if name == "class_code":
        return f"{value:06x}"
    if name == "pin":
        return " ABCD"[int(str(value))].strip() or "none"
    return f"{value:#x}" if name == "acs" else str(value)


def _word(config: bytes, at: int) -> int:
    return int.from_bytes(config[at : at + 2], "little")


def _long(config: bytes, at: int) -> int:
    return int.from_bytes(config[at : at + 4], "little")


def _ids(function: FunctionDescription, config: bytes) -> tuple[int, int]:
    vendor, device = _word(config, r.PCI_VENDOR_ID), _word(config, r.PCI_DEVICE_ID)
    attributes = function.attributes
    return int(attributes.get("vendor", "0"), 16) or vendor, int(attributes.get("device", "0"), 16) or device


def _msi(config: bytes, at: int | None) -> int:
    return 1 << ((_word(config, at + r.PCI_MSI_FLAGS) & r.PCI_MSI_FLAGS_QMASK) >> 1) if at else 0


def _msix(config: bytes, at: int | None) -> int:
    return (_word(config, at + r.PCI_MSIX_FLAGS) & r.PCI_MSIX_FLAGS_QSIZE) + 1 if at else 0


def _acs(config: bytes, at: int | None) -> int | None:
    return _word(config, at + r.PCI_ACS_CAP) & 0x7F if at else None


def _ari(config: bytes, express: int | None, extended: dict[int, int]) -> bool:
    port = express and _long(config, express + r.PCI_EXP_DEVCAP2) & r.PCI_EXP_DEVCAP2_ARI
    return r.PCI_EXT_CAP_ID_ARI in extended or bool(port)


def _sriov(config: bytes, at: int | None) -> int:
    return _word(config, at + r.PCI_SRIOV_TOTAL_VF) if at else 0
