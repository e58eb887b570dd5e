"""What the kernel believes: the structures that the parts of the kernel share.

Field names are the kernel's own. Fields that only one part uses (VFIO's device, an IOMMU driver's private data)
are declared beside that part. Hardware truth lives in ``quiesce.machine`` and is never stored here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from quiesce.machine.function import Function
from quiesce.world import Field, State, StateDict, StateList, StateSet

PCI_D0, PCI_D1, PCI_D2, PCI_D3HOT, PCI_D3COLD, PCI_UNKNOWN = range(6)
"""enum of ``pci_power_t`` values, include/linux/pci.h."""


class IrqAction(NamedTuple):
    """One handler on a line (``struct irqaction``, include/linux/interrupt.h)."""

    name: str
    """The name in /proc/interrupts."""
    handler: str
    """Key of the handler among ``Kernel.irq_handlers``."""
    dev_id: Any
    """The State object handed to the handler (usually a PciDev); identifies the action when it is freed."""
    shared: bool = False
    no_suspend: bool = False
    no_autoen: bool = False


class IrqDesc(State):
    """One interrupt number (``struct irq_desc``); path ``irq/N``. include/linux/irqdesc.h."""

    allocated: Field[bool] = Field(False)
    chip: Field[str] = Field("")
    """``ioapic`` or ``msi``; empty when the number has no chip (``no_irq_chip``)."""
    gsi: Field[int] = Field(-1)
    """IO-APIC input behind it, or -1."""
    gsi_users: Field[int] = Field(0)
    """References on the input taken by ``acpi_register_gsi``."""
    level: Field[bool] = Field(False)
    actions: StateList[IrqAction] = StateList()
    depth: Field[int] = Field(1)
    masked: Field[bool] = Field(True)
    pending: Field[bool] = Field(False)
    spurious_disabled: Field[bool] = Field(False)
    suspended: Field[bool] = Field(False)
    in_progress: Field[bool] = Field(False)
    disable_unlazy: Field[bool] = Field(False)
    msi_desc: Field[MsiDesc | None] = Field(None)


class MsiDesc(State):
    """One MSI or MSI-X vector (``struct msi_desc``); path ``msi_desc/BDF/N``. include/linux/msi.h."""

    mortal = True
    dev: Field[PciDev | None] = Field(None)
    is_msix: Field[bool] = Field(False)
    index: Field[int] = Field(0)
    irq: Field[int] = Field(0)
    default_irq: Field[int] = Field(0)
    """``msi_attrib.default_irq``: what ``dev->irq`` was before MSI."""
    masked: Field[bool] = Field(False)
    """The mask bit of an MSI-X entry as it was written last."""
    msi_mask: Field[int] = Field(0)
    """The mask bits of MSI as they were written last."""
    nvec_used: Field[int] = Field(1)
    """How many interrupt numbers, from ``irq`` on, one MSI descriptor stands for."""


class Devres(State):
    """One node on a device's devres list; path ``devres/BDF/N``. drivers/base/devres.c."""

    mortal = True
    kind: Field[str] = Field("")
    """Name of the release function or action."""
    data: StateDict[str, Any] = StateDict()


class PciDev(State):
    """``struct pci_dev`` with its ``struct device``; path ``pci/BDF``, ``pci/BDF~2`` for a later instance while an
    earlier one is still referenced. include/linux/pci.h, include/linux/device.h.
    """

    mortal = True

    # -- struct device ---------------------------------------------------------------------------------------
    bdf: Field[str] = Field("")
    registered: Field[bool] = Field(False)
    """Between device_add and device_del."""
    dead: Field[bool] = Field(False)
    refs: StateSet[Any] = StateSet()
    """Who holds a reference besides the device hierarchy itself (open files, groups...); the structure goes with
    the last of them."""
    driver: Field[str | None] = Field(None)
    """``dev.driver``: name of the bound driver."""
    drvdata: StateDict[str, Any] = StateDict()
    """What the bound driver keeps (``dev_set_drvdata``); emptied at unbind."""
    devres: StateList[Devres] = StateList()
    driver_override: Field[str | None] = Field(None)
    deferred: Field[bool] = Field(False)
    """On the deferred probe list."""
    dma_ops: Field[str | None] = Field(None)
    """``dev->dma_ops``: None for dma-direct, ``intel``, ``amd``, ``iommu`` (dma-iommu)."""
    dma_iommu: Field[bool] = Field(False)
    """The ``dev->dma_iommu`` bit (v6.12+)."""
    iommu_group: Field[Any] = Field(None)
    iommu_priv: Field[Any] = Field(None)
    """``dev->archdata.iommu``, later ``dev->iommu->priv``: the IOMMU driver's data for the device."""
    iommu_attached: Field[bool] = Field(False)
    """``dev->iommu`` set up by the IOMMU core (v5.8+ probe_device)."""
    is_prepared: Field[bool] = Field(False)
    """``power.is_prepared``: between dpm_prepare and dpm_complete."""

    # -- struct pci_dev --------------------------------------------------------------------------------------
    pci_driver: Field[str | None] = Field(None)
    """``pci_dev->driver``."""
    match_driver: Field[bool] = Field(False)
    is_added: Field[bool] = Field(False)
    enable_cnt: Field[int] = Field(0)
    is_busmaster: Field[bool] = Field(False)
    irq: Field[int] = Field(0)
    pin: Field[int] = Field(0)
    irq_managed: Field[bool] = Field(False)
    irq_before_probe: Field[int] = Field(0)
    """What the probe path replaced in ``irq`` while MSI was on; only the proposal msi-without-driver keeps it."""
    msi_enabled: Field[bool] = Field(False)
    msix_enabled: Field[bool] = Field(False)
    no_msi: Field[bool] = Field(False)
    slot_off: Field[bool] = Field(False)
    """Of a port: the operator has switched its slot off (``ctrl->state``)."""
    msi_descs: StateList[MsiDesc] = StateList()
    msi_data: Field[bool] = Field(False)
    """``dev->msi.data`` is set (v5.17+, a devres node)."""
    is_managed: Field[bool] = Field(False)
    is_msi_managed: Field[bool] = Field(False)
    pinned: Field[bool] = Field(False)
    """``pcim_pin_device`` was called (v6.11+; before, the mark is in the devres node)."""
    reset_methods: Field[tuple[str, ...] | None] = Field(None)
    """The reset methods that user space chose, in its order; None for the default."""
    reset_methods_found: Field[tuple[str, ...]] = Field(())
    """The methods it seemed to have when it was found (v4.17+)."""
    current_state: Field[int] = Field(PCI_UNKNOWN)
    state_saved: Field[bool] = Field(False)
    saved_config: Field[tuple[tuple[str, int], ...]] = Field(())
    """Register names and values as pci_save_state keeps them."""
    error_state: Field[str] = Field("normal")
    """``normal``, ``frozen`` or ``perm_failure``."""
    disconnected: Field[bool] = Field(False)
    regions: StateDict[int, str] = StateDict()
    """Requested BARs and the name under which (pci_request_region)."""
    broken_intx_masking: Field[bool] = Field(False)
    dma_alias_mask: StateSet[int] = StateSet()
    """devfn numbers the device may use besides its own."""
    acs_enabled_quirk: Field[bool] = Field(False)
    """``PCI_DEV_FLAGS_ACS_ENABLED_QUIRK``: isolation without a standard ACS capability has been switched on."""
    num_vfs: Field[int] = Field(0)
    is_virtfn: Field[bool] = Field(False)
    physfn: Field[PciDev | None] = Field(None)
    drivers_autoprobe: Field[bool] = Field(True)
    """``sriov->drivers_autoprobe`` of a physical function: its virtual functions may be probed."""

    @property
    def hw(self) -> Function:
        """The function in the slot this structure was made for; it may be another or none by now."""
        bdf = self.bdf
        known: Function | None = self.__dict__.get(bdf)
        if known is None:
            known = self.__dict__[bdf] = Function.get(self.world, f"hw/{bdf}")
        return known


class BusSlot(State):
    """Which device is on the bus lists at an address; path ``bus/BDF``.

    The lists are kept address by address, so that what happens to one device does not depend on which others are there.
    """

    dev: Field[PciDev | None] = Field(None)

    @classmethod
    def of(cls, dev: PciDev) -> BusSlot:
        """Return the slot that a structure was made for, whether or not it still lives."""
        return cls.get(dev.world, f"bus/{address_of(dev)}")


def address_of(dev: PciDev) -> str:
    """Return the address in the path of a device, living or not."""
    return dev.path.removeprefix("pci/").partition("~")[0]


class DeviceList:
    """The devices on the PCI bus lists in the order of their addresses, virtual functions last on their bus."""

    def __init__(self, slots: tuple[BusSlot, ...]) -> None:
        self._slots = slots

    def __iter__(self) -> Iterator[PciDev]:
        return iter(self.as_tuple())

    def __len__(self) -> int:
        return len(self.as_tuple())

    def __getitem__(self, index: int) -> PciDev:
        return self.as_tuple()[index]

    def __contains__(self, dev: PciDev) -> bool:
        return BusSlot.of(dev).dev is dev

    def append(self, dev: PciDev) -> None:
        """Put a device where its address belongs."""
        BusSlot.of(dev).dev = dev

    def remove(self, dev: PciDev) -> None:
        """Take a device off the lists."""
        BusSlot.of(dev).dev = None

    def clear(self) -> None:
        """Take all devices off."""
        for slot in self._slots:
            slot.dev = None

    def as_tuple(self) -> tuple[PciDev, ...]:
        """Return the devices."""
        return tuple(dev for slot in self._slots if (dev := slot.dev) is not None)


class System(State):
    """State of the machine as a whole; path ``system``."""

    slots: tuple[BusSlot, ...] = ()
    """Every place on the bus lists, in their order; it follows from the machine and never changes."""
    below: dict[Function | None, tuple[BusSlot, ...]] = {}  # noqa: RUF012 - set by lay_out, never changed
    """The places on each bus, by the bridge above; those on root buses under None."""

    phase: Field[str] = Field("off")
    """``off`` (before boot), ``running``, ``suspended``, ``shutdown`` (device_shutdown has run),
    ``crashed`` (a panic jumps to the crash kernel), ``second`` (the kexec kernel runs), ``dead`` (oops or panic)."""
    kexec_in_progress: Field[bool] = Field(False)
    defer_all_probes: Field[bool] = Field(False)
    loaded: StateSet[str] = StateSet()
    """Registered drivers."""
    dynids: StateSet[tuple[str, int, int]] = StateSet()
    """Ids added through ``new_id``: driver, vendor, device."""
    deferred_probes: StateList[PciDev] = StateList()
    """The deferred probe list, oldest first; ``PciDev.deferred`` says the same of one device."""
    deferred_work: Field[bool] = Field(False)
    """The deferred probe worker is queued (``deferred_probe_work``)."""
    windows_left: Field[int] = Field(0)
    """How many more times another task or an interrupt may run inside a running operation."""
    faults_left: Field[int] = Field(0)
    """How many more allocations may fail."""

    @property
    def devices(self) -> DeviceList:
        """The devices on the PCI bus lists."""
        return DeviceList(self.slots)

    def lay_out(self, functions: Iterable[Function]) -> None:
        """Fix the order of the bus lists: by address, the virtual functions behind the last function of their bus."""
        ordered = sorted(functions, key=lambda fn: fn.bdf)
        last = {fn.upstream: fn for fn in ordered if not fn.is_virtfn}
        places: list[Function] = []
        for fn in ordered:
            if not fn.is_virtfn:
                places.append(fn)
                if last[fn.upstream] is fn:
                    places += [virtual for virtual in ordered if virtual.is_virtfn and virtual.upstream is fn.upstream]
        slots = {fn: BusSlot.get(self.world, f"bus/{fn.bdf}") for fn in places}
        self.slots = tuple(slots.values())
        self.below = {bridge: tuple(slot for fn, slot in slots.items() if fn.upstream is bridge) for bridge in last}
