"""Why a device cannot be handed over at all, and what has to be accepted or done where it can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quiesce.groups.machine import LightFunction, LightMachine
from quiesce.groups.predict import Prediction
from quiesce.kernel import changes
from quiesce.kernel.handover import quirk_of, reserved_memory_refuses
from quiesce.kernel.kernelset import KernelSet
from quiesce.machine import pci_regs as r
from quiesce.machine.requester import volume_manager
from quiesce.plan import facts
from quiesce.plan.model import BIND, NO, RELEASE, UNKNOWN, Interrupts, Member, Power, Reason, Resets

NOIOMMU = (
    "vfio's noiommu mode (enable_unsafe_noiommu_mode=1, v4.5+) would work without one, but then the device and whoever "
    "drives it can read and write all memory, and the kernel is tainted"
)

_LOOK_AT = {
    r.PCI_BASE_CLASS_DISPLAY: (
        "is graphics: whether firmware used it (1 in its boot_vga file in sysfs), and that no console or framebuffer "
        "sits on its memory (efifb, simpledrm, vesafb in /proc/iomem)"
    ),
    0x01: "is storage: that nothing on it is mounted, swap or part of an array (lsblk -o NAME,MOUNTPOINT)",
    0x02: "is a network card: that you do not reach this machine through it",
    r.PCI_CLASS_SERIAL_USB: "is a USB controller: that keyboard, console and boot stick do not hang on it (lsusb -t)",
}
"""By base class, or by class and sub-class."""


def of_device(m: LightMachine, k: KernelSet, fn: LightFunction, found: Prediction) -> Iterator[Reason]:
    """Yield the reasons that hold whatever the group is."""
    yield from _kind(m, fn)
    if facts.unreachable(fn):
        text = "it answered with all ones when the snapshot was taken: no power, or gone from the bus"
        yield Reason("unreachable", text, (fn.path,))
    if changes.IOMMU_GROUP_OBJECTS not in k:
        yield Reason("no-vfio", "this kernel has no VFIO (it came with v3.6)")
    if found.iommu is None or not (found.groups or found.undecided):
        yield Reason(
            "no-iommu",
            f"no IOMMU is at work: look at the firmware (VT-d, AMD-Vi) and intel_iommu=on. {NOIOMMU}",
        )
    elif fn.path in found.ungrouped:
        yield Reason("no-group", f"no IOMMU covers it: it is in no group. {NOIOMMU}", (fn.path,))
    quirk = quirk_of(k, fn, "denied")
    if quirk is not None:
        text = f"vfio-pci refuses it: {quirk.subject} ({quirk.change}); its parameter disable_denylist=1 lifts that"
        yield Reason("denylist", text, (fn.path,))


def _kind(m: LightMachine, fn: LightFunction) -> Iterator[Reason]:
    kind = facts.class_code(fn)
    units = () if m.ivrs is None else tuple(str(unit.bdf) for unit in m.ivrs.units)
    if facts.header_type(fn) != r.PCI_HEADER_TYPE_NORMAL:
        yield Reason("bridge", "it is a bridge: vfio-pci takes none; hand over what is below it", (fn.path,))
    elif kind == r.PCI_CLASS_BRIDGE_HOST:
        yield Reason("host-bridge", "it is a host bridge: the host cannot do without it", (fn.path,))
    elif kind == r.PCI_CLASS_BRIDGE_ISA:
        yield Reason("isa-bridge", "it is the bridge to the host's own legacy devices", (fn.path,))
    elif kind == r.PCI_CLASS_SYSTEM_IOMMU or fn.path in units:
        yield Reason("iommu-function", "it is the IOMMU itself", (fn.path,))
    manager = volume_manager(m, fn)
    if manager is not None:
        text = f"it hides behind the volume manager {manager.bdf}, under whose id all its DMA goes: hand over that one"
        yield Reason("behind-volume-manager", text, (str(manager.bdf),))


def of_virtual(power: Power, fn: LightFunction) -> Iterator[Reason]:
    """Yield what virtual functions forbid."""
    if power.enabled_vfs:
        text = (
            f"{power.enabled_vfs} virtual functions are on, and vfio-pci takes no such device (EBUSY): hand over "
            "virtual functions, or write 0 to sriov_numvfs first"
        )
        yield Reason("virtual-functions-on", text, (fn.path,))


def of_group(m: LightMachine, k: KernelSet, members: Sequence[Member]) -> Iterator[Reason]:
    """Yield what one member of the group forbids for all."""
    for item in members:
        answer = reserved_memory_refuses(k, m.iommu or "", m.functions[item.bdf].class_code) if item.reserved else ""
        if answer:
            text = (
                f"firmware wants memory {ranges(item)} mapped one to one for {item.bdf} "
                f"({'RMRR' if m.iommu == 'intel' else 'IVMD'}); this kernel refuses to give its group away: {answer}"
            )
            yield Reason("reserved-memory", text, (item.bdf,))


def ranges(item: Member) -> str:
    """Return the reserved memory of a member in words."""
    return ", ".join(f"{first:#x}-{last:#x}" for first, last in item.reserved)


def conditions(
    m: LightMachine, members: Sequence[Member], irq: Interrupts, reset: Resets, power: Power
) -> Iterator[Reason]:
    """Yield what has to be done or accepted."""
    moved = tuple(item.bdf for item in members if item.action == BIND)
    if len(moved) > 1:
        yield Reason("group-members", f"{len(moved)} functions of the group move together", moved)
    freed = tuple(item.bdf for item in members if item.action == RELEASE)
    if freed:
        yield Reason("host-functions", "functions of the host itself lose their drivers", freed)
    unsure = tuple(item.bdf for item in members if item.blocks == UNKNOWN)
    if unsure:
        yield Reason("owner-unknown", "the source does not say which drivers hold them; lspci -k does", unsure)
    for item in members:
        if item.reserved:
            text = (
                f"firmware uses memory {ranges(item)} through it: what is left of that faults while user space has it"
            )
            yield Reason("reserved-memory", text, (item.bdf,))
    yield from _interrupt_conditions(irq)
    if reset.works == NO:
        yield Reason("no-reset", "nothing resets this function: its state survives from one user to the next")
    if power.physical:
        text = f"it lives as long as virtual functions are on at {power.physical}: that one must keep its driver"
        yield Reason("physical-function", text, (power.physical,))


def _interrupt_conditions(irq: Interrupts) -> Iterator[Reason]:
    shared = irq.shared_wire + irq.shared_number
    if irq.disable == NO and not irq.hidden and irq.pin and shared:
        text = (
            f"INTx cannot be masked at the device ({irq.disable_why}), so vfio-pci wants its line alone, but others "
            "are on it: free them of their drivers, or use a guest that needs MSI only"
        )
        yield Reason("intx-not-alone", text, shared)
    if irq.remapping == NO:
        text = (
            f"interrupts are not remapped ({irq.remapping_why}): VFIO refuses unless "
            "vfio_iommu_type1.allow_unsafe_interrupts=1, and then a guest can forge interrupts of the host"
        )
        yield Reason("unsafe-interrupts", text)


def checks(reset: Resets, irq: Interrupts, members: Sequence[Member], m: LightMachine) -> Iterator[str]:
    """Yield what no listing tells."""
    if irq.remapping == UNKNOWN:
        yield f"interrupt remapping: {irq.remapping_why}; dmesg says 'Interrupt remapping' or 'Enabled IRQ remapping'"
    for item in members:
        kind = m.functions[item.bdf].class_code
        text = _LOOK_AT.get(kind >> 16) or _LOOK_AT.get(kind >> 8)
        if item.action == BIND and text:
            yield f"{item.bdf} {text}"
    if reset.works == UNKNOWN:
        yield "reset: cat /sys/bus/pci/devices/.../reset_method (v5.15+); empty means that its state survives"
    if irq.disable == UNKNOWN:
        yield f"DisINTx: {irq.disable_why}"
