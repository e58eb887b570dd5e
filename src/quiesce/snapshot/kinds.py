"""The kinds of function that the text description knows, with what each has unless the line says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from quiesce.snapshot import pci_regs as r


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of function: its ids and default options."""

    class_code: int
    vendor: int
    device: int
    express: int | None = None
    """PCI_EXP_TYPE_*, None for conventional PCI."""
    bridge: bool = False
    options: dict[str, int] = field(default_factory=dict)
    """``pin``, ``msi``, ``msix``, ``flr``, ``slot``, ``virtio``... and their values."""
    meaning: str = ""
    memory: tuple[int, ...] = (0,)
    """Numbers of the BARs that are memory."""
    io: tuple[int, ...] = ()
    """Numbers of the BARs that are I/O ports."""


def _port(express: int | None, device: int, meaning: str, **options: int) -> Kind:
    return Kind(0x060400, 0x1B36, device, express, True, options, meaning, ())


_PORT_OPTIONS = {"pin": 1, "pm": 1, "no-soft-reset": 1}
_END = r.PCI_EXP_TYPE_ENDPOINT

KINDS: dict[str, Kind] = {
    "host-bridge": Kind(0x060000, 0x8086, 0x29C0, meaning="host bridge, conventional, no interrupt", memory=()),
    "isa-bridge": Kind(0x060100, 0x8086, 0x2918, meaning="LPC bridge, conventional, no interrupt", memory=()),
    "smbus": Kind(0x0C0500, 0x8086, 0x2930, options={"pin": 1}, meaning="SMBus host, INTx only", memory=(), io=(4,)),
    "root-port": _port(r.PCI_EXP_TYPE_ROOT_PORT, 0x000C, "PCIe root port", msi=1, slot=1, **_PORT_OPTIONS),
    "switch-up": _port(r.PCI_EXP_TYPE_UPSTREAM, 0x0232, "upstream port of a PCIe switch", msi=1, **_PORT_OPTIONS),
    "switch-down": _port(
        r.PCI_EXP_TYPE_DOWNSTREAM, 0x0233, "downstream port of a switch", msi=1, slot=1, **_PORT_OPTIONS
    ),
    "pcie-to-pci": _port(r.PCI_EXP_TYPE_PCI_BRIDGE, 0x000E, "PCIe to PCI bridge", msi=1),
    "pci-to-pcie": _port(r.PCI_EXP_TYPE_PCIE_BRIDGE, 0x0234, "PCI to PCIe bridge", msi=1),
    "pci-bridge": _port(None, 0x0001, "conventional PCI bridge"),
    "dmi-bridge": Kind(0x060401, 0x8086, 0x244E, None, True, {}, "Intel's conventional bridge on the root bus", ()),
    "expander": Kind(0x060000, 0x1B36, 0x000B, meaning="stands on bus 0 for a further root bus", memory=()),
    "ahci": Kind(
        0x010601,
        0x8086,
        0x2922,
        options={"pin": 1, "msi": 1, "pm": 1},
        meaning="AHCI controller",
        memory=(5,),
        io=(4,),
    ),
    "nvme": Kind(0x010802, 0x1B36, 0x0010, _END, options={"pin": 1, "msix": 65, "pm": 1, "flr": 1}, meaning="NVMe SSD"),
    "e1000": Kind(0x020000, 0x8086, 0x100E, options={"pin": 1}, meaning="conventional network card, INTx only"),
    "e1000e": Kind(0x020000, 0x8086, 0x10D3, _END, options={"pin": 1, "msi": 1, "msix": 5, "pm": 1}, meaning="network"),
    "igb": Kind(
        0x020000, 0x8086, 0x10C9, _END, options={"pin": 1, "msi": 1, "msix": 10, "pm": 1, "flr": 1}, meaning="network"
    ),
    "virtio-net": Kind(
        0x020000,
        0x1AF4,
        0x1041,
        _END,
        options={"pin": 1, "msix": 4, "pm": 1, "flr": 1},
        meaning="virtio 1.0 network",
        memory=(1, 4),
    ),
    "virtio-net-transitional": Kind(
        0x020000,
        0x1AF4,
        0x1000,
        options={"pin": 1, "msix": 4},
        meaning="virtio network with the legacy registers too",
        memory=(1,),
        io=(0,),
    ),
    "virtio-blk": Kind(
        0x010000,
        0x1AF4,
        0x1042,
        _END,
        options={"pin": 1, "msix": 2, "pm": 1, "flr": 1},
        meaning="virtio 1.0 disk",
        memory=(1, 4),
    ),
    "xhci": Kind(0x0C0330, 0x1B36, 0x000D, _END, options={"pin": 1, "msi": 1, "msix": 16, "pm": 1}, meaning="USB host"),
    "ehci": Kind(0x0C0320, 0x8086, 0x293A, options={"pin": 4}, meaning="USB 2 host, INTx only"),
    "uhci": Kind(0x0C0300, 0x8086, 0x2934, options={"pin": 1}, meaning="USB 1 host, INTx only", memory=(), io=(4,)),
    "gpu": Kind(
        0x030000,
        0x8086,
        0x1912,
        r.PCI_EXP_TYPE_RC_END,
        options={"pin": 1, "msi": 1, "pm": 1, "flr": 1},
        meaning="integrated graphics",
    ),
    "display": Kind(0x030000, 0x1002, 0x9505, _END, options={"pin": 1, "msi": 1, "pm": 1}, meaning="graphics card"),
    "audio": Kind(0x040300, 0x8086, 0x293E, options={"pin": 1, "msi": 1, "pm": 1}, meaning="HD audio"),
    "iommu-function": Kind(
        0x080600,
        0x1022,
        0x1419,
        options={"iommu": 1, "msi": 1, "pin": 1},
        meaning="the AMD IOMMU's own PCI function",
        memory=(),
    ),
    "edu": Kind(0x00FF00, 0x1234, 0x11E8, options={"pin": 1, "msi": 1}, meaning="QEMU's device for teaching"),
    "endpoint": Kind(0xFF0000, 0x1234, 0x11E9, _END, options={"pin": 1}, meaning="any PCIe endpoint"),
    "conventional": Kind(0xFF0000, 0x1234, 0x11E8, options={"pin": 1}, meaning="any conventional PCI device"),
    "integrated": Kind(
        0xFF0000, 0x1234, 0x11EA, r.PCI_EXP_TYPE_RC_END, options={"pin": 1}, meaning="any root complex endpoint"
    ),
}
