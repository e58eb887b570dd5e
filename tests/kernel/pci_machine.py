"""A small machine with config space written by hand, and kernels on it, for the tests of the PCI core."""

from __future__ import annotations

from collections.abc import Iterable

from quiesce.kernel import pci_reset
from quiesce.kernel.changes import kernel
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import Finding, Kernel, Message
from quiesce.kernel.objects import PCI_D0, PciDev, System
from quiesce.machine import pci_regs as r
from quiesce.machine.build import build_machine
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.world import Recording, World

HOST = "0000:00:00.0"
PORT = "0000:00:01.0"
AHCI = "0000:00:1f.2"
SMBUS = "0000:00:1f.3"
NIC = "0000:01:00.0"

_ENDPOINT, _PORT = r.PCI_EXP_TYPE_ENDPOINT, r.PCI_EXP_TYPE_ROOT_PORT


class _Image:
    """Config space being written; capabilities follow each other from 0x40."""

    def __init__(self, vendor: int, device: int, class_code: int, header: int = 0) -> None:
        self.data = bytearray(4096)
        self.end, self.link = 0x40, r.PCI_CAPABILITY_LIST
        self.extended = 0
        self.put(r.PCI_VENDOR_ID, 2, vendor)
        self.put(r.PCI_DEVICE_ID, 2, device)
        self.put(r.PCI_CLASS_REVISION, 4, class_code << 8)
        self.put(r.PCI_HEADER_TYPE, 1, header)

    def put(self, offset: int, size: int, value: int) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")

    def capability(self, cap_id: int, size: int, **_: int) -> int:
        at = self.end
        self.data[self.link], self.link = at, at + 1
        self.data[at] = cap_id
        self.data[r.PCI_STATUS] |= r.PCI_STATUS_CAP_LIST
        self.end += -(-size // 4) * 4
        return at

    def pm(self, no_soft_reset: bool) -> None:
        at = self.capability(r.PCI_CAP_ID_PM, 8)
        self.put(at + r.PCI_PM_CTRL, 2, r.PCI_PM_CTRL_NO_SOFT_RESET if no_soft_reset else 0)

    def msi(self) -> None:
        at = self.capability(r.PCI_CAP_ID_MSI, 24)
        self.put(at + r.PCI_MSI_FLAGS, 2, r.PCI_MSI_FLAGS_64BIT)

    def msix(self, vectors: int) -> None:
        at = self.capability(r.PCI_CAP_ID_MSIX, 12)
        self.put(at + r.PCI_MSIX_FLAGS, 2, vectors - 1)

    def express(self, kind: int, flr: bool) -> None:
        at = self.capability(r.PCI_CAP_ID_EXP, 0x3C)
        self.put(at + r.PCI_EXP_FLAGS, 2, kind << 4 | 2)
        self.put(at + r.PCI_EXP_DEVCAP, 4, r.PCI_EXP_DEVCAP_FLR if flr else 0)

    def sriov(self, total: int, offset: int, stride: int) -> None:
        at = self.extended_capability(r.PCI_EXT_CAP_ID_SRIOV)
        for register, value in (
            (r.PCI_SRIOV_INITIAL_VF, total),
            (r.PCI_SRIOV_TOTAL_VF, total),
            (r.PCI_SRIOV_VF_OFFSET, offset),
            (r.PCI_SRIOV_VF_STRIDE, stride),
            (r.PCI_SRIOV_VF_DID, 0x1520),
        ):
            self.put(at + register, 2, value)

    def extended_capability(self, cap_id: int) -> int:
        at = 0x100 + 0x40 * self.extended
        self.extended += 1
        if at > 0x100:
            self.put(at - 0x40 + 2, 2, at << 4 | 1)
        self.put(at, 4, cap_id | 1 << 16)
        return at


def endpoint(
    vendor: int,
    device: int,
    class_code: int,
    *,
    pin: int = 1,
    bars: tuple[int, ...] = (0xFE000000,),
    no_soft_reset: bool = True,
    pm: bool = True,
    msi: bool = True,
    msix: int = 0,
    express: bool = False,
    flr: bool = False,
    sriov: int = 0,
    ats: bool = False,
) -> bytes:
    image = _Image(vendor, device, class_code)
    image.put(r.PCI_INTERRUPT_PIN, 1, pin)
    image.put(r.PCI_COMMAND, 2, r.PCI_COMMAND_MEMORY if bars else 0)
    for number, value in enumerate(bars):
        image.put(r.PCI_BASE_ADDRESS_0 + 4 * number, 4, value)
    if pm:
        image.pm(no_soft_reset)
    if msi:
        image.msi()
    if msix:
        image.msix(msix)
    if express:
        image.express(_ENDPOINT, flr)
    if sriov:
        image.sriov(sriov, 8, 1)
    if ats:
        image.extended_capability(r.PCI_EXT_CAP_ID_ATS)
    return bytes(image.data)


def port(secondary: int, subordinate: int | None = None, kind: int = _PORT) -> bytes:
    image = _Image(0x8086, 0x1901, 0x060400, r.PCI_HEADER_TYPE_BRIDGE)
    image.put(r.PCI_SECONDARY_BUS, 1, secondary)
    image.put(r.PCI_SUBORDINATE_BUS, 1, subordinate or secondary)
    image.put(r.PCI_INTERRUPT_PIN, 1, 1)
    image.pm(True)
    image.msi()
    image.express(kind, False)
    return bytes(image.data)


def description(**more: bytes) -> MachineDescription:
    """A PC with a host bridge, a SATA controller and an SMBus on one line, and a network card behind a root port."""
    functions = {
        HOST: endpoint(0x8086, 0x1237, 0x060000, pin=0, bars=(), pm=False, msi=False),
        PORT: port(1),
        AHCI: endpoint(0x8086, 0x2922, 0x010601, pin=1, bars=(0xF000 | 1, 0xFE000000), msix=0),
        SMBUS: endpoint(0x8086, 0x2930, 0x0C0500, pin=1, bars=(0x0400 | 1,), msi=False, pm=False),
        NIC: endpoint(
            0x8086, 0x10C9, 0x020000, bars=(0xFD000000,), no_soft_reset=False, msix=3, express=True, flr=True, sriov=2
        ),
    }
    functions |= {bdf.replace("_", ":"): image for bdf, image in more.items()}
    items = [FunctionDescription(Bdf.parse(bdf), image) for bdf, image in functions.items()]
    return MachineDescription("by hand", tuple(sorted(items, key=lambda item: item.bdf)))


def make_kernel(
    version: str,
    *drivers: PciDriver,
    with_: Iterable[str] = (),
    without: Iterable[str] = (),
    machine: MachineDescription | None = None,
    iommu: str | None = None,
) -> Kernel:
    """A kernel with drivers, on a machine that nobody has enumerated yet."""
    world = World()
    built = build_machine(world, machine or description(), iommu)
    k = Kernel(world, built, kernel(version).edited(with_, without), {driver.name: driver for driver in drivers})
    for driver in drivers:
        k.irq_handlers.update(driver.handlers())
    return k


def found(k: Kernel) -> list[str]:
    """The rules broken since the event began."""
    return [item.rule for item in k.outputs if isinstance(item, Finding)]


def printed(k: Kernel) -> list[str]:
    """The lines printed since the event began."""
    return [item.text for item in k.outputs if isinstance(item, Message)]


def kinds(dev: PciDev) -> list[str]:
    """The devres list, oldest first."""
    return [node.kind for node in dev.devres]


def believe(k: Kernel, *addresses: str) -> tuple[PciDev, ...]:
    """Make device structures as enumeration would, without enumerating: registered, in D0, nothing enabled."""
    made = []
    for bdf in addresses or [str(fn.bdf) for fn in k.machine.functions.values() if fn.present]:
        hw = k.machine.functions[bdf]
        dev = PciDev.new(
            k.world, f"pci/{bdf}", bdf=bdf, pin=hw.pin, registered=True, match_driver=True, current_state=PCI_D0
        )
        k.system.devices.append(dev)
        made.append(dev)
    System.get(k.world, "system").phase = "running"
    for dev in made:
        dev.reset_methods_found = tuple(name for name in pci_reset.METHODS if pci_reset.can_reset(k, dev, name))
    return tuple(made)


def device(k: Kernel, bdf: str) -> PciDev:
    """The device structure at an address."""
    return next(dev for dev in k.system.devices if dev.bdf == bdf)


def fail(k: Kernel, number: int) -> None:
    """Let the ``number``-th thing from now on that can fail do so, and nothing else."""
    k.system.faults_left = 1
    k.world.recording = Recording(forced=(0,) * number + (1,))
