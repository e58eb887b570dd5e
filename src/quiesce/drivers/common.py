"""What the driver models share: touching the device, DMA buffers, vectors, and operations as events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quiesce.kernel import changes, devres, dma, irq, msi, pci, pci_access, pci_devres
from quiesce.kernel.driver import Operation
from quiesce.kernel.kernel import IRQ_HANDLED, IRQ_NONE, Crash, Kernel
from quiesce.kernel.objects import Devres, IrqAction, PciDev
from quiesce.machine import pci_regs as r

DMAM = "dmam_release"
REGS = "regs"
"""Key of drvdata that says the driver's register mapping exists."""
READY = "ready"
"""Key of drvdata that says user space can reach the device: its network interface, file or the like is registered."""
VECTORS = "vectors"
"""Key of drvdata with the interrupt numbers that the driver has handlers on."""


# -- the device's registers ------------------------------------------------------------------------------------


def answers(dev: PciDev) -> bool:
    """Whether memory reads reach the device: it is there, awake, and decodes; otherwise they give all ones.

    A virtual function decodes when its physical function lets it.
    """
    hw = dev.hw
    if hw.physfn is not None:
        return hw.reachable and bool(hw.physfn.config.get("SRIOV_CTRL") & r.PCI_SRIOV_CTRL_MSE)
    return hw.reachable and hw.power_state == r.D0 and bool(hw.command & (r.PCI_COMMAND_MEMORY | r.PCI_COMMAND_IO))


def start_device(k: Kernel, dev: PciDev) -> bool:
    """Let the device run and interrupt, the last step of a bring-up; False when the device does not answer."""
    if not answers(dev):
        return False
    dev.hw.engine = "running"
    dev.hw.irq_enabled = True
    return True


def stop_device(k: Kernel, dev: PciDev) -> None:
    """Stop the device and acknowledge what it had to say; the writes are lost on one that does not answer."""
    mask_device(k, dev)
    if answers(dev):
        dev.hw.engine = "off"
        dev.hw.dma_target = ()


def mask_device(k: Kernel, dev: PciDev) -> None:
    """Clear the device's own interrupt enable and what is pending in it."""
    if answers(dev):
        dev.hw.irq_enabled = False
        dev.hw.irq_status = False


def missing(dev: PciDev, name: str) -> bool:
    """Whether the driver is not bound to the device any more, or its registers are not mapped."""
    return dev.driver != name or not dev.drvdata.get(REGS)


def fault(k: Kernel, dev: PciDev, what: str, function: str) -> Crash:
    """Return the oops of a handler or thread that runs while the driver's data for the device does not exist."""
    stage = "before the driver is ready" if dev.driver is not None else "after the driver has let go of the device"
    return k.crash(
        "device/unmapped-access",
        "BUG: unable to handle page fault for address",
        f"{what} touches the registers of {dev.bdf} {stage}",
        function,
    )


def service(k: Kernel, dev: PciDev, name: str, function: str) -> str:
    """Do what nearly every handler does: read the status, claim and clear what is there. All ones is not for us."""
    if missing(dev, name):
        raise fault(k, dev, "the interrupt handler", function)
    if not answers(dev) or not dev.hw.irq_status:
        return IRQ_NONE
    dev.hw.irq_status = False
    return IRQ_HANDLED


def service_config(dev: PciDev) -> str:
    """Claim an interrupt by a status in config space, which answers without decoding; all ones is not for us."""
    if not dev.hw.reachable or not dev.hw.irq_status:
        return IRQ_NONE
    dev.hw.irq_status = False
    return IRQ_HANDLED


# -- DMA -------------------------------------------------------------------------------------------------------


def give_to_device(dev: PciDev, mapping: dma.DmaMapping) -> None:
    """Tell the device to write to a buffer."""
    if answers(dev):
        dev.hw.dma_target = (*dev.hw.dma_target, mapping.iova)


def alloc_ring(k: Kernel, dev: PciDev, tag: str) -> bool:
    """Allocate a coherent buffer, keep it in drvdata under ``tag`` and give it to the device."""
    mapping = dma.dma_alloc_coherent(k, dev, tag)
    if mapping is None:
        return False
    dev.drvdata[tag] = mapping
    give_to_device(dev, mapping)
    return True


def free_ring(k: Kernel, dev: PciDev, tag: str) -> None:
    """Give back what ``alloc_ring`` took, if it did."""
    mapping = dev.drvdata.get(tag)
    if mapping is not None:
        del dev.drvdata[tag]
        dma.dma_free_coherent(k, dev, mapping)


def dmam_alloc_coherent(k: Kernel, dev: PciDev, tag: str) -> bool:
    """kernel/dma/mapping.c. Kept: a managed coherent buffer, freed with the other managed resources, and therefore
    after the bus has dropped the device's use of its DMA domain. The device is told to write to it.
    """
    if not k.alloc(f"devres {DMAM}"):
        return False
    mapping = dma.dma_alloc_coherent(k, dev, tag)
    if mapping is None:
        return False
    devres.devres_add(k, dev, devres.devres_alloc(k, dev, DMAM, mapping=mapping))
    give_to_device(dev, mapping)
    return True


def _dmam_release(k: Kernel, dev: PciDev, node: Devres) -> None:
    dma.dma_free_coherent(k, dev, node.data["mapping"])


devres.RELEASE[DMAM] = _dmam_release


# -- registers and vectors -------------------------------------------------------------------------------------


def memory_bar(dev: PciDev, preferred: int = 0) -> tuple[int, ...]:
    """Return the BAR with the registers: the preferred one, else the first there is, else none."""
    bars = [number for number, _ in pci_access.pci_bars(dev)]
    return (preferred,) if preferred in bars else tuple(bars[:1])


def managed_intx(k: Kernel, dev: PciDev, enable: bool) -> None:
    """Set INTx as a managed driver does. Kept: by the hybrid ``pci_intx``, since v6.14 by ``pcim_intx``, which every
    managed caller was converted to; its failure is ignored.
    """
    if k.has(changes.PCI_INTX_UNMANAGED):
        pci_devres.pcim_intx(k, dev, enable)
    else:
        pci.pci_intx(k, dev, enable)


def request_vectors(k: Kernel, dev: PciDev, handler: str, names: Sequence[str]) -> int:
    """Request the first vectors, one handler each, or the one line all share; on failure, free what was requested."""
    shared = not (dev.msi_enabled or dev.msix_enabled)
    for number, label in enumerate(names if dev.msix_enabled else names[:1]):
        line = msi.pci_irq_vector(k, dev, number)
        error = irq.request_irq(k, line, IrqAction(label, handler, dev, shared))
        if error:
            free_vectors(k, dev)
            return error
        dev.drvdata[VECTORS] = (*vectors(dev), line)
    return 0


def free_vectors(k: Kernel, dev: PciDev) -> None:
    """Free what ``request_vectors`` took."""
    for line in reversed(vectors(dev)):
        irq.free_irq(k, line, dev)
    dev.drvdata[VECTORS] = ()


def vectors(dev: PciDev) -> tuple[int, ...]:
    """Return the interrupt numbers the driver has handlers on."""
    return dev.drvdata.get(VECTORS) or ()


# -- operations ------------------------------------------------------------------------------------------------


def operation(
    name: str,
    ready: Callable[[Kernel, PciDev], bool],
    run: Callable[[Kernel, PciDev], int | None],
    meaning: str,
) -> Operation:
    """Make an operation of a function that returns what user space gets back, or None."""
    return Operation(name, ready, run, meaning)


def reachable(dev: PciDev, name: str) -> bool:
    """Whether the driver ``name`` offers the device to user space now."""
    return dev.driver == name and bool(dev.drvdata.get(READY))
