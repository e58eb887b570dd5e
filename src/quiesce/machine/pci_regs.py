"""Offsets and bits of PCI configuration space, under the kernel's own names (uapi/linux/pci_regs.h)."""

from quiesce.snapshot.pci_regs import *  # noqa: F403
