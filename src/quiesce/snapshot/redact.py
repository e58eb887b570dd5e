"""Takes out of a copy of a machine what names its owner or the single piece of hardware.

Bytes of config space that hold serial numbers, and in texts everything that could: what is kept of a command line is
chosen by name, because nobody can know what else people put there.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from quiesce.snapshot import pci_regs as r

REDACTED = "REDACTED"
_KEPT = re.compile(
    r"(?:pci|pcie_\w+|pcie_acs_override|iommu(?:\.\w+)?|\w+_iommu(?:_\w+)?|intremap|arm[-_]smmu\S*|ivrs_\w+|vfio\S*|"
    r"kvm\S*|acpi\S*|apic|nox2apic|noapic|irqpoll|irqfixup|swiotlb|mem|memmap|memhp_\w+|hugepages|default_hugepagesz|"
    r"hugepagesz|crashkernel|elfcorehdr|vmd\S*|thunderbolt\S*|xen\S*|nvme\S*|xhci\S*|video|vga|console|earlyprintk|"
    r"loglevel|mitigations|isolcpus|nohz\w*|rcu\w*|module_blacklist|modprobe\.blacklist|initcall_blacklist|rd\.driver\S*|"
    r"reboot|idle|i915\S*|xe\.\S*|amdgpu\S*|nouveau\S*|nvidia\S*|pnp\w*|pstore\S*|threadirqs|msi|no_console_suspend|efi\w*|"
    r"dyndbg|numa\w*|maxcpus|nr_cpus|possible_cpus|resource_alignment|realloc)"
)
_PLAIN = re.compile(r"[0-9]{1,4}|on|off|yes|no|[yYnN]|auto|true|false")
_IMAGE = re.compile(r"vmlinu[xz]-[\w.+~-]+")
_PATTERNS = (
    ("MAC addresses", re.compile(r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b")),
    ("MAC addresses", re.compile(r"\b(?:enx|wlx|wwx)[0-9a-fA-F]{12}\b")),
    ("UUIDs", re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")),
    ("user and host names", re.compile(r"\b[\w.+-]{1,64}@(?!pci:|[0-9a-fA-F]{2,8}:)[\w-][\w.-]{0,200}")),
)
_MAYBE_IP = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:[0-9a-fA-F:]{1,35}(?:[0-9.]{7,15})?|[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?![\w:])"
)
_ADDRESS_IN_KERNEL = re.compile(r"\b0x[0-9a-f]{8,16}\b")


class Redactor:
    """Redacts and counts what it took out."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def _count(self, what: str, number: int = 1) -> None:
        if number:
            self.counts[what] = self.counts.get(what, 0) + number

    def config(self, data: bytes) -> bytes:
        """Zero the serial number (PCIe 6.0 section 7.9.3) and what was last read of the vital product data."""
        config = bytearray(data)
        for at in _capabilities(data):
            if data[at] == r.PCI_CAP_ID_VPD and any(data[at + 4 : at + 8]):
                config[at + 4 : at + 8] = bytes(len(config[at + 4 : at + 8]))
                self._count("words of vital product data")
        for at in _extended(data):
            if data[at : at + 2] == r.PCI_EXT_CAP_ID_DSN.to_bytes(2, "little"):
                config[at + 4 : at + 12] = bytes(len(config[at + 4 : at + 12]))
                self._count("serial numbers of devices")
        return bytes(config)

    def text(self, text: str) -> str:
        """Replace addresses, names and ids anywhere in a text."""
        for what, pattern in _PATTERNS:
            text, number = pattern.subn(REDACTED, text)
            self._count(what, number)
        return _MAYBE_IP.sub(self._address, text)

    def _address(self, match: re.Match[str]) -> str:
        """Replace what is an IP address indeed: addresses of PCI functions look a little like some."""
        try:
            ip_address(match[0])
        except ValueError:
            return match[0]
        self._count("IP addresses")
        return REDACTED

    def command_line(self, text: str) -> str:
        """Keep the values of those parameters that say something about devices, and only the names of others."""
        kernel, dashes, rest = f" {text.strip()} ".partition(" -- ")
        self._count("arguments of the first process", len(rest.split()))
        return " ".join(self._parameter(word) for word in kernel.split()) + (" --" if dashes else "") + "\n"

    def _parameter(self, word: str) -> str:
        name, equals, value = word.partition("=")
        if name == "BOOT_IMAGE":
            image = _IMAGE.search(value)
            return f"BOOT_IMAGE={image[0] if image else REDACTED}"
        if not equals:
            kept = re.fullmatch(r"[\w.-]{1,40}", word) is not None
        else:
            kept = _KEPT.fullmatch(name) is not None or _PLAIN.fullmatch(value) is not None
        if kept:
            return self.text(word)
        self._count("values of kernel parameters")
        return f"{name}={REDACTED}" if equals and re.fullmatch(r"[\w.-]{1,64}", name) else REDACTED

    def version(self, text: str) -> str:
        """Keep the release: who built the kernel, where and when, says nothing about devices."""
        words = text.split()
        self._count("user and host names")
        return " ".join(words[:3]) + "\n"

    def modules(self, text: str) -> str:
        """Hide where in memory the kernel keeps its modules."""
        return _ADDRESS_IN_KERNEL.sub("0x0", self.text(text))


def _capabilities(config: bytes) -> list[int]:
    """Return where the capabilities are."""
    found: list[int] = []
    if len(config) < r.PCI_CFG_SPACE_SIZE or not config[r.PCI_STATUS] & r.PCI_STATUS_CAP_LIST:
        return found
    cardbus = config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK == r.PCI_HEADER_TYPE_CARDBUS
    at = config[r.PCI_CB_CAPABILITY_LIST if cardbus else r.PCI_CAPABILITY_LIST] & 0xFC
    while at >= r.PCI_STD_HEADER_SIZEOF and at not in found:
        found.append(at)
        at = config[at + r.PCI_CAP_LIST_NEXT] & 0xFC
    return found


def _extended(config: bytes) -> list[int]:
    """Return where the extended capabilities are."""
    found: list[int] = []
    at = r.PCI_CFG_SPACE_SIZE
    while r.PCI_CFG_SPACE_SIZE <= at <= len(config) - 4 and at not in found:
        header = int.from_bytes(config[at : at + 4], "little")
        if header in (0, 0xFFFFFFFF):
            break
        found.append(at)
        at = header >> 20 & 0xFFC
    return found
