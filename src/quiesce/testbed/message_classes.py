"""The table of complaints: which words of a kernel, in any version, stand for which class."""

from __future__ import annotations

import re

_TABLE: tuple[tuple[str, str], ...] = (
    # -- interrupts
    ("nobody-cared", r"nobody cared"),
    ("line-disabled", r"Disabling IRQ #"),
    ("bogus-irq-return", r"bogus return value"),
    ("unbalanced-irq", r"Unbalanced (enable|IRQ)|enable_irq before setup"),
    ("free-irq-twice", r"Trying to free already-free IRQ"),
    ("free-irq-in-interrupt", r"Trying to free IRQ \d+ from IRQ context"),
    ("free-irq-unmanaged", r"devm_free_irq: irq"),
    ("irq-flags-mismatch", r"Flags mismatch irq"),
    ("irq-freed-with-handler", r"removing non-empty directory 'irq"),
    ("no-irq-handler", r"No irq handler for|unexpected IRQ trap"),
    ("no-gsi", r"no GSI|failed to register GSI|can't (derive routing for|find IRQ for) PCI INT"),
    ("msi-and-msix", r"can't enable MSI(-X)? \(MSI"),
    # -- binding
    ("resources-before-probing", r"Resources present before probing"),
    ("probe-failed", r"probe (of \S+|with driver \S+) failed with error"),
    ("probe-returned-positive", r"Driver probe function unexpectedly returned"),
    ("driver-registered-twice", r"is already registered, aborting"),
    ("disabled-twice", r"disabling already-disabled device"),
    ("bar-busy", r"can't reserve"),
    ("bridge-not-enabled", r"Error enabling bridge"),
    ("sriov-left", r"driver left SR-IOV enabled after remove"),
    ("sriov-refused", r"cannot configure SR-IOV|VFs already enabled|doesn't support SR-?IOV|VFs requested; only"),
    # -- memory and structures
    ("refcount", r"refcount_t: "),
    ("no-release", r"does not have a release\(\) function"),
    ("bad-page", r"BUG: Bad (page|rss)"),
    ("use-after-free", r"KASAN: .*use-after-free"),
    ("memory-leak", r"kmemleak: \d+ new suspected"),
    # -- context
    ("sleeping-in-atomic", r"sleeping function called from invalid context|BUG: scheduling while atomic"),
    (
        "lockdep",
        r"possible (circular locking|recursive locking|irq lock inversion|\w+ unsafe)|inconsistent lock state|"
        r"suspicious RCU usage|lock held when returning|bad unlock balance|-safe -> .*-unsafe lock order|"
        r"Invalid wait context|DEBUG_LOCKS_WARN_ON",
    ),
    ("hung-task", r"blocked for more than \d+ seconds|task blocked on"),
    ("soft-lockup", r"soft lockup"),
    ("hard-lockup", r"hard LOCKUP"),
    ("rcu-stall", r"rcu.*(detected stalls|self-detected stall)"),
    ("panic", r"Kernel panic"),
    # -- DMA and its isolation
    ("dma-api", r"DMA-API: (?!preallocated|debugging (enabled|disabled)|\d+ entries)"),
    ("warn:iommu", r"DMA unmap of an address that is not mapped"),
    ("remap-fault", r"\[INTR-REMAP\]|INVALID_DEVICE_REQUEST|INTR-REMAP:"),
    (
        "iommu-fault",
        r"\[DMA (Read|Write)|DMAR: .*fault reason|IO_PAGE_FAULT|ILLEGAL_DEV_TABLE_ENTRY|DEV_TAB_HARDWARE_ERROR|"
        r"PAGE_TAB_HARDWARE_ERROR",
    ),
    (
        "iommu-timeout",
        r"Completion-Wait loop timed out|QI (drain|HEAD)|Queued invalidation .*error|Invalidation .* Error",
    ),
    (
        "group-type-refused",
        r"Cannot change default domain|Device is still bound to driver|not assigned to default domain",
    ),
    ("group-type-refused", r"Device cannot be in \w+ domain|Device needs domain type"),
    ("default-domain-other", r"using default|Failed to allocate default IOMMU domain"),
    ("no-vtd-for-device", r"Device was ineligible for IOMMU domain attach|is ineligible for IOMMU"),
    # -- VFIO
    ("device-request", r"Relaying device request to user"),
    ("device-request-unheard", r"No device request channel registered"),
    ("unbind-interrupted", r"Device is currently in use, task"),
    ("vfio-live-group", r"Device added to live group"),
    ("vfio-pf-refused", r"Cannot bind to PF with SR-IOV enabled"),
    ("vfio-token", r"VF token required to access device|[Ii]ncorrect VF token"),
    # -- errors, resets, power, hot-plug
    ("aer-no-callback", r"no error_detected callback|no AER-aware driver"),
    ("aer-reset-failed", r"subordinate device reset failed"),
    ("aer-recovered", r"device recovery successful"),
    ("aer-not-recovered", r"device recovery failed"),
    ("dpc", r"DPC: containment event"),
    ("reset-no-answer", r"not ready \d+ms after .*; giving up"),
    ("reset-method-refused", r"Invalid reset method|Unsupported reset method"),
    ("resets-disabled", r"All device reset methods disabled by user"),
    ("reset-iommu", r"failed to stop IOMMU for a PCI reset"),
    ("unlocked-reset", r"unlocked secondary bus reset"),
    ("device-inaccessible", r"device inaccessible|Refused to change power state|can't change power state"),
    ("pm-failed", r"PM: failed to \w+( \w+)?: error"),
)

CLASSES: tuple[tuple[str, re.Pattern[str]], ...] = tuple((kind, re.compile(text)) for kind, text in _TABLE)
"""Class and what to look for, in the order in which they are tried."""

DEBUG_ONLY = frozenset({"sleeping-in-atomic", "lockdep", "dma-api", "use-after-free", "memory-leak"})
"""Complaints that only kernels with debugging make."""
SAID_ONCE = frozenset({"disabled-twice", "unlocked-reset", "dma-api", "lockdep"})
"""Complaints, besides warnings with a stack trace, that a kernel makes once per boot."""

UNDEFINED = frozenset({"memory/use-after-free", "irq/handler-on-freed-data", "memory/free-wrong-pages"})
"""Rules after whose breach a kernel without the debugging for it may do anything, at any time."""

_AREAS: tuple[tuple[str, str], ...] = (
    ("drivers/pci/msi", "msi"),
    ("kernel/irq/msi", "msi"),
    ("kernel/irq/", "irq"),
    ("kernel/dma/", "dma"),
    ("drivers/iommu/", "iommu"),
    ("drivers/vfio/", "vfio"),
    ("drivers/base/", "core"),
    ("drivers/pci/", "pci"),
    ("fs/proc/", "irq"),
    ("fs/sysfs/", "sysfs"),
    ("lib/refcount", "refcount"),
    ("kernel/locking/", "lockdep"),
)


def area_of(file: str) -> str:
    """Return the part of the kernel that a source file belongs to, the same in versions that moved or split it."""
    return next((area for start, area in _AREAS if file.startswith(start)), "other")
