"""Interrupts of a device that is handed over: its pin and who shares it, masking, messages, remapping.

vfio-pci masks a shared INTx at the device (COMMAND bit 10, DisINTx); where that does not work, it wants the line alone
(drivers/vfio/pci/vfio_pci_intrs.c); it tries the bit when the device is opened (drivers/pci/pci.c
``pci_intx_mask_supported``).
"""

from __future__ import annotations

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.kernel import changes
from quiesce.kernel.handover import quirk_of
from quiesce.kernel.kernelset import KernelSet
from quiesce.machine import pci_regs as r
from quiesce.machine.interrupts import swizzle
from quiesce.plan import facts
from quiesce.plan.model import NO, UNKNOWN, YES, Interrupts
from quiesce.snapshot.bdf import Bdf

_CONNECTX4 = (0x15B3, (0x1013, 0x1015))
_NO_LINE = (0, 0xFF)


def interrupts(m: LightMachine, k: KernelSet, fn: LightFunction) -> Interrupts:
    """Return what is known about the interrupts of a function."""
    pin = _pin(fn)
    wire = wire_of(fn)
    wired = tuple(bdf for bdf, other in m.functions.items() if wire and other is not fn and wire_of(other) == wire)
    number, kind = _number(fn)
    alike = tuple(
        bdf for bdf, other in m.functions.items() if kind and other is not fn and _number(other) == (number, kind)
    )
    disable, why = _disable(k, fn)
    hidden = _hidden(k, fn, pin)
    remapping, evidence = _remapping(m, k)
    return Interrupts(
        pin=pin,
        root=f"{Bdf(*wire[:3], 0).short[:-2]} INT{' ABCD'[wire[3]]}" if wire else "",
        input=_input(m, wire),
        number=number,
        number_is=kind,
        shared_wire=wired,
        shared_number=tuple(bdf for bdf in alike if bdf not in wired),
        disable=disable,
        disable_why=why,
        hidden=hidden,
        msi=_vectors_msi(fn),
        msix=_vectors_msix(fn),
        remapping=remapping,
        remapping_why=evidence,
    )


def _pin(fn: LightFunction) -> int | None:
    if fn.is_virtfn:
        return 0
    pin = facts.known(fn, r.PCI_INTERRUPT_PIN, 1)
    return pin if pin is None or pin <= 4 else 0


def _number(fn: LightFunction) -> tuple[int | None, str]:
    """Return the number of the pin's interrupt: the kernel's (of a device that uses no messages: with them it is
    another), else what firmware left in the line register.

    A listing that decodes prints the kernel's number; the readers keep it in the register's place and mark it as no
    register value.
    """
    if not _pin(fn) or _uses_messages(fn):
        return None, ""
    stated = fn.item.attributes.get("irq", "")
    if stated.isascii() and stated.isdecimal() and int(stated[:9]) > 0:
        return int(stated[:9]), "irq"
    byte = fn.item.config[r.PCI_INTERRUPT_LINE] if len(fn.item.config) > r.PCI_INTERRUPT_LINE else 0
    if byte in _NO_LINE:
        return None, ""
    return byte, "line" if fn.knows.known(r.PCI_INTERRUPT_LINE, 1) else "irq"


def _uses_messages(fn: LightFunction) -> bool:
    msi = facts.field(fn, facts.capability(fn, r.PCI_CAP_ID_MSI), r.PCI_MSI_FLAGS, 2, r.PCI_MSI_FLAGS_ENABLE)
    msix = facts.field(fn, facts.capability(fn, r.PCI_CAP_ID_MSIX), r.PCI_MSIX_FLAGS, 2, r.PCI_MSIX_FLAGS_ENABLE)
    return bool(msi or msix)


def wire_of(fn: LightFunction) -> tuple[int, int, int, int] | None:
    """Return segment, root bus, slot and pin where a pin ends; bridges turn pins by the slot below them."""
    pin = _pin(fn)
    if not pin or facts.unreachable(fn):
        return None
    here = fn
    for bridge in facts.bridges(fn):
        pin = swizzle(pin, 0 if facts.extended(here, r.PCI_EXT_CAP_ID_ARI) else here.bdf.device)
        here = bridge
    return (*here.bdf.slot, pin)


def _input(m: LightMachine, wire: tuple[int, int, int, int] | None) -> int | None:
    if wire is None:
        return None
    segment, bus, device, pin = wire
    for route in m.description.routing:
        if (route.segment, route.bus, route.device, route.pin) == (segment, bus, device, pin):
            return route.gsi
    return None


def _hidden(k: KernelSet, fn: LightFunction, pin: int | None) -> str:
    if pin == 0:
        return "the device has no interrupt pin"
    quirk = quirk_of(k, fn, "no_intx")
    return "" if quirk is None else f"{quirk.subject} ({quirk.change})"


def _disable(k: KernelSet, fn: LightFunction) -> tuple[str, str]:
    if fn.is_virtfn or _pin(fn) == 0:
        return NO, "no INTx"
    quirk = quirk_of(k, fn, "broken_intx")
    if quirk is not None:
        return NO, f"{quirk.subject} ({quirk.change})"
    if fn.vendor == _CONNECTX4[0] and fn.device in _CONNECTX4[1]:
        return UNKNOWN, "ConnectX-4: the kernel asks the firmware version in its memory"
    if "no-intx-disable" in fn.item.attributes:
        return NO, "the description says that COMMAND bit 10 is not there"
    if facts.known_bits(fn, r.PCI_COMMAND, 2, r.PCI_COMMAND_INTX_DISABLE):
        return YES, "COMMAND bit 10 is set in the snapshot"
    if fn.knows.express:
        return YES, "PCI Express requires COMMAND bit 10; vfio-pci tries it when the device is opened"
    return UNKNOWN, "conventional PCI: vfio-pci tries COMMAND bit 10 when the device is opened"


def _vectors_msi(fn: LightFunction) -> int | None:
    at = facts.capability(fn, r.PCI_CAP_ID_MSI)
    size = facts.field(fn, at, r.PCI_MSI_FLAGS, 2, r.PCI_MSI_FLAGS_QMASK)
    return size if size is None or not at else 1 << (size >> 1)


def _vectors_msix(fn: LightFunction) -> int | None:
    at = facts.capability(fn, r.PCI_CAP_ID_MSIX)
    size = facts.field(fn, at, r.PCI_MSIX_FLAGS, 2, r.PCI_MSIX_FLAGS_QSIZE)
    return size if size is None or not at else size + 1


def _remapping(m: LightMachine, k: KernelSet) -> tuple[str, str]:
    """Whether guests can be kept from sending other devices' messages."""
    words = (m.description.cmdline or "").split()
    if "intremap=off" in words or "nointremap" in words:
        return NO, "the kernel's command line switches it off"
    if m.iommu == "intel" and m.dmar is not None:
        flag = m.dmar.interrupt_remapping
        return facts.answer(flag), f"the DMAR table {'says' if flag else 'does not say'} that the platform can"
    if m.iommu == "amd" and changes.AMD_IRQ_REMAPPING not in k:
        return NO, "this kernel's AMD driver remaps none"
    if m.iommu == "amd" and m.ivrs is not None:
        named = any(entry.kind == "ioapic" for unit in m.ivrs.units for entry in unit.entries)
        if named:
            return YES, "the IVRS table names the IO-APIC"
        return NO, "the IVRS table names no IO-APIC, so the kernel leaves it off"
    return UNKNOWN, "no firmware table is there"
