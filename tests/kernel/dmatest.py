"""Kernels with an IOMMU and one toy driver that maps a buffer and a ring, for the tests of the IOMMU drivers and the
DMA API.
"""

from __future__ import annotations

from collections.abc import Iterable

from toykernel import E1000E, Toy, device, make_kernel

from quiesce.kernel import base_core, dma, iommu, pci_sysfs
from quiesce.kernel import boot as kernel_boot
from quiesce.kernel.dma import DmaMapping
from quiesce.kernel.kernel import Finding, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import iommu as hardware
from quiesce.machine import pci_regs as r

ALONE = """
machine alone
00:00.0 host-bridge
00:01.0 root-port bus=01 hotplug acs
01:00.0 e1000e
"""
"""The network card has a group of its own."""

SHARED = ALONE.replace("acs", "")
"""Without isolation at the port the group, and its domain, outlive the card."""

NIC = "01:00.0"
VENDORS = ("intel", "amd")


def start(
    version: str,
    vendor: str,
    machine: str = ALONE,
    changed: Iterable[str] = (),
    *,
    passthrough: bool = False,
    lazy: bool = False,
) -> Kernel:
    """A booted kernel with the driver ``toy`` bound to the card; ``iommu=pt`` and flush queues on request."""
    toy = Toy("toy", ids=E1000E)
    k = make_kernel(version, f"{machine}\niommu {vendor}\n" if vendor else machine, toy, changed=changed)
    core = iommu.iommu_core(k)
    core.default_type, core.strict = iommu.IDENTITY if passthrough else iommu.DMA, not lazy
    kernel_boot.boot(k, ["toy"])
    k.start_event()
    return k


def mapped(k: Kernel, tag: str = "buffer", dev: PciDev | None = None) -> DmaMapping:
    """A streaming mapping that is expected to work."""
    mapping = dma.dma_map_single(k, dev or device(k, NIC), tag)
    assert mapping is not None
    return mapping


def allocated(k: Kernel, tag: str = "ring") -> DmaMapping:
    """A coherent buffer that is expected to be had."""
    mapping = dma.dma_alloc_coherent(k, device(k, NIC), tag)
    assert mapping is not None
    return mapping


def hold(k: Kernel) -> PciDev:
    """An open file keeps the card's structure."""
    dev = device(k, NIC)
    base_core.get_device(k, dev, "file")
    return dev


def let_go(k: Kernel, dev: PciDev) -> None:
    """The file is closed."""
    base_core.put_device(k, dev, "file")


def unbind(k: Kernel) -> None:
    assert pci_sysfs.unbind_store(k, "toy", device(k, NIC)) == 0


def unplug(k: Kernel) -> None:
    pci_sysfs.remove_store(k, device(k, NIC))


def replug(k: Kernel) -> PciDev:
    """The card is found again; returns its new structure."""
    pci_sysfs.rescan_store(k)
    return next(dev for dev in k.system.devices if dev.bdf == f"0000:{NIC}")


def broken(k: Kernel) -> list[str]:
    """The rules broken since the event began, each once."""
    return sorted({item.rule for item in k.outputs if isinstance(item, Finding)})


def lets_send(k: Kernel, bdf: str = NIC) -> None:
    """Make a function and the bridges above it bus masters."""
    fn = k.machine.function(bdf)
    while fn is not None:
        fn.config.set("COMMAND", fn.command | r.PCI_COMMAND_MASTER)
        fn = fn.upstream


def write(k: Kernel, iova: int, bdf: str = NIC) -> str:
    """What becomes of a write of a function that may send."""
    lets_send(k, bdf)
    return hardware.dma_access(k.machine, k.machine.function(bdf), iova)
