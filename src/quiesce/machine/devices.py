"""What devices do by themselves: interrupt, do DMA, change their register layout, fall silent when they are reset.

A Behaviour has no state: what lasts is in the Function's fields. ``behaviour_of`` chooses it by class code and ids.
"""

from __future__ import annotations

from quiesce.machine import pci_regs as r
from quiesce.machine.function import Function


class Behaviour:
    """A device with interrupts of every kind its config space has, and with DMA."""

    name = "device"
    level = True
    """An INTx condition stays until the driver services the device."""
    does_dma = True

    def can_interrupt(self, fn: Function) -> bool:
        """Whether the device can raise an interrupt condition now: it runs, may, and is awake."""
        return fn.engine == "running" and fn.irq_enabled and self.awake(fn)

    def can_dma(self, fn: Function) -> bool:
        """Whether the device can write memory now: it runs, has somewhere to write to, and is bus master."""
        return self.does_dma and fn.engine == "running" and fn.bus_master and self.awake(fn)

    def awake(self, fn: Function) -> bool:
        """Whether the device is there, powered and in D0."""
        return fn.alive and fn.power_state == r.D0

    def on_reset(self, fn: Function) -> None:
        """What a reset does to the device itself, besides its registers."""
        fn.quiet()


class Silent(Behaviour):
    """A function that neither interrupts nor does DMA by itself: host bridge, ISA bridge."""

    name = "silent"
    does_dma = False

    def can_interrupt(self, fn: Function) -> bool:
        """Never."""
        return False


class Bridge(Behaviour):
    """A PCI-to-PCI bridge or port: interrupts for hot-plug, PME and errors, by its own MSI or pin."""

    name = "bridge"
    does_dma = False


class Ahci(Behaviour):
    """An AHCI controller; the interrupt enable is GHC.IE, the condition is IS."""

    name = "ahci"


class Nvme(Behaviour):
    """An NVMe controller; the interrupt enable is INTMC, the condition is a completion queue that is not empty."""

    name = "nvme"


class Ethernet(Behaviour):
    """A network controller; the interrupt enable is IMS, the condition is ICR."""

    name = "ethernet"


class Usb(Behaviour):
    """An OHCI, UHCI or EHCI controller; the interrupt enable is HcInterruptEnable, USBINTR."""

    name = "usb"


class Xhci(Usb):
    """An xHCI controller; the interrupt enable is USBCMD.INTE and IMAN.IE."""

    name = "xhci"


class Gpu(Behaviour):
    """A display controller like Intel's; its interrupt registers are outside config space and survive nothing."""

    name = "gpu"


class Smbus(Behaviour):
    """An SMBus host: a pin, no messages, no DMA."""

    name = "smbus"
    does_dma = False


class AmdIommu(Behaviour):
    """The PCI function of an AMD IOMMU: signals its event log by MSI; writes logs without being a DMA target."""

    name = "amd-iommu"
    does_dma = False


class Virtio(Behaviour):
    """A modern virtio device: registers in capabilities, ISR read clears the condition."""

    name = "virtio"
    transitional = False

    def device_config_offset(self, fn: Function) -> int:
        """Offset of the device specific registers; in a capability of its own, so always 0."""
        return 0


class VirtioTransitional(Virtio):
    """A virtio device with the legacy register block in its first BAR.

    Two 16-bit vector registers appear in it while MSI-X is enabled, and what follows moves by four bytes.
    """

    name = "virtio-transitional"
    transitional = True

    def device_config_offset(self, fn: Function) -> int:
        """Offset of the device specific registers: 24 while MSI-X is enabled in the hardware, else 20."""
        return 24 if fn.msix_enabled else 20


_BY_CLASS: dict[int, Behaviour] = {
    r.PCI_CLASS_STORAGE_SATA: Ahci(),
    r.PCI_CLASS_STORAGE_EXPRESS: Nvme(),
    r.PCI_CLASS_NETWORK_ETHERNET: Ethernet(),
    r.PCI_CLASS_SERIAL_USB: Usb(),
    r.PCI_CLASS_SERIAL_SMBUS: Smbus(),
    r.PCI_CLASS_BRIDGE_HOST: Silent(),
    r.PCI_CLASS_BRIDGE_ISA: Silent(),
    r.PCI_CLASS_SYSTEM_IOMMU: AmdIommu(),
}

_XHCI_CLASS = r.PCI_CLASS_SERIAL_USB << 8 | 0x30
_VIRTIO_LEGACY_IDS = range(0x1000, 0x1040)
_VIRTIO_IDS = range(0x1040, 0x1080)


def behaviour_of(vendor: int, device: int, class_code: int, header_type: int) -> Behaviour:
    """Choose the behaviour of a function by its ids, its class code (three bytes) and its header type."""
    if header_type == r.PCI_HEADER_TYPE_BRIDGE:
        return Bridge()
    if vendor == r.PCI_VENDOR_ID_REDHAT_QUMRANET and device in _VIRTIO_LEGACY_IDS:
        return VirtioTransitional()
    if vendor == r.PCI_VENDOR_ID_REDHAT_QUMRANET and device in _VIRTIO_IDS:
        return Virtio()
    if class_code == _XHCI_CLASS:
        return Xhci()
    if class_code >> 16 == r.PCI_BASE_CLASS_DISPLAY:
        return Gpu()
    return _BY_CLASS.get(class_code >> 8, Behaviour())
