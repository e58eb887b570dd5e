"""Class codes in one or two words (PCI Code and ID Assignment Specification, section 1)."""

from __future__ import annotations

_CLASSES = {
    0x0101: "IDE",
    0x0104: "RAID",
    0x0106: "SATA",
    0x0107: "SAS",
    0x0108: "NVMe",
    0x0200: "Ethernet",
    0x0207: "InfiniBand",
    0x0280: "network",
    0x0300: "VGA",
    0x0302: "3D",
    0x0380: "display",
    0x0400: "video capture",
    0x0401: "audio",
    0x0403: "HD audio",
    0x0500: "RAM",
    0x0580: "memory controller",
    0x0600: "host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0607: "CardBus bridge",
    0x0680: "bridge",
    0x0700: "serial port",
    0x0701: "parallel port",
    0x0780: "communication",
    0x0800: "PIC",
    0x0801: "DMA controller",
    0x0803: "RTC",
    0x0805: "SD host",
    0x0806: "IOMMU",
    0x0807: "event collector",
    0x0880: "system peripheral",
    0x0C00: "FireWire",
    0x0C03: "USB",
    0x0C04: "Fibre Channel",
    0x0C05: "SMBus",
    0x0C07: "IPMI",
    0x1000: "encryption",
    0x1080: "encryption",
    0x1101: "performance counters",
    0x1180: "signal processing",
    0x1200: "accelerator",
    0x1300: "instrumentation",
}
_BASES = (
    *("old device", "storage", "network", "display", "multimedia", "memory", "bridge", "communication"),
    *("system peripheral", "input", "docking station", "processor", "serial bus", "wireless", "I2O", "satellite"),
    *("encryption", "signal processing", "accelerator", "instrumentation"),
)
_USB = {0x00: "USB (UHCI)", 0x10: "USB (OHCI)", 0x20: "USB (EHCI)", 0x30: "USB (xHCI)", 0x40: "USB4"}


def class_words(code: int, interface_known: bool = True) -> str:
    """Return what a 24-bit class code means, ``class ...`` for one that is not listed; the last byte, the programming
    interface, may be unknown.
    """
    if interface_known and code >> 8 == 0x0C03 and code & 0xFF in _USB:
        return _USB[code & 0xFF]
    base = code >> 16
    return _CLASSES.get(code >> 8) or (_BASES[base] if base < len(_BASES) else f"class {code >> 8:04x}")
